// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// unbound is a blob of which only digest and size are known, as a manifest says them.
func unbound(b []byte) Blob { return Blob{Digest: blobs.DigestOf(b), Size: int64(len(b))} }

// grow has a peer's store take a blob as a registry would send it, a chunk each pause.
func (m *member) grow(b []byte, from int, pause time.Duration) error {
	d := blobs.DigestOf(b)
	if _, err := m.store.Grow(d, int64(len(b))); err != nil {
		return err
	}
	for i := from; i < chunksOf(int64(len(b))); i++ {
		if _, err := m.store.WriteChunk(d, i, chunkOf(b, i)); err != nil {
			return err
		}
		m.x.Gained(d)
		time.Sleep(pause) // as a registry would send it
	}
	return nil
}

// holds returns how many bytes of a blob a peer has.
func (m *member) holds(d blobs.Digest) int64 {
	info, err := m.store.Stat(d)
	if err != nil {
		return 0
	}
	return info.Have
}

// TestGrowsAsItArrives: eight peers have chunks of what the ninth is still getting from a
// registry, and most of them from each other.
func TestGrowsAsItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, end := simulate(t, 4*time.Millisecond)
		defer end()
		for _, c := range many(9, Defaults()) {
			w.add(c)
		}
		origin, others := w.peers[0], w.peers[1:]
		w.holdersAre(origin)
		blob := content(1, 10*chunk+5)
		what := unbound(blob)
		var g errgroup.Group
		began := time.Now()
		g.Go(func() error { return origin.grow(blob, 0, 100*time.Millisecond) })
		time.Sleep(50 * time.Millisecond) // the first chunk is there
		for _, m := range others {
			g.Go(func() error { return m.fetchOn(what) })
		}
		time.Sleep(750 * time.Millisecond)
		if info, err := origin.store.Stat(what.Digest); err != nil || info.Complete {
			t.Errorf("the origin is whole too early: %+v, %v", info, err)
		}
		for i, m := range others {
			if m.holds(what.Digest) < 4*chunk {
				t.Errorf("peer %d has %d bytes before the origin has all, want 4 chunks at least", i, m.holds(what.Digest))
			}
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		for _, m := range others {
			m.has(blob)
			if _, list, err := m.store.ChunkList(what.Digest); err != nil || !slices.Equal(list, hashesOf(blob)) {
				t.Errorf("ChunkList = %d hashes, %v, want those of the blob", len(list), err)
			}
		}
		sent := float64(origin.sentBytes()) / float64(len(blob))
		t.Logf("the origin sent %.2f blobs to 8; all had it %s after it began, %s of which it came", sent, took, 11*100*time.Millisecond)
		if sent >= 3 {
			t.Errorf("the origin sent %.2f blobs, want below 3", sent)
		}
		if took > 3*time.Second {
			t.Errorf("it took %s, want hardly more than it took to come", took)
		}
	})
}

// fetchOn fetches as one does who waits for his turn to ask elsewhere: again and again.
func (m *member) fetchOn(b Blob) error {
	for range 100 {
		err := m.fetch(b)
		if !errors.Is(err, shoal.ErrNotFound) {
			return err
		}
		time.Sleep(100 * time.Millisecond) // of a second to come
	}
	return errors.New("nowhere, a hundred times")
}

// TestGrowMeetsList: one peer grows and another has the blob with its list: what the one
// lacks it takes from the other, and the list is the same in the end.
func TestGrowMeetsList(t *testing.T) {
	w := newWorld(t, many(3, quick())...)
	seeder, grower, m := w.peers[0], w.peers[1], w.peers[2]
	w.holdersAre(seeder, grower)
	blob := content(1, 6*chunk+1)
	what := unbound(blob)
	if _, err := grower.store.Grow(what.Digest, what.Size); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := grower.store.WriteChunk(what.Digest, i, chunkOf(blob, i)); err != nil {
			t.Fatal(err)
		}
	}
	seeder.put(blob)
	if err := grower.fetch(what); err != nil {
		t.Fatal(err)
	}
	grower.has(blob)
	if got := grower.counts(seeder).Got; got != 3*chunk+1 {
		t.Errorf("%d bytes came from the seeder, want what was missing", got)
	}
	if err := m.fetch(blobOf(blob)); err != nil {
		t.Fatal(err)
	}
	m.has(blob)
	for _, p := range []PeerStats{m.counts(grower), m.counts(seeder), seeder.counts(grower)} {
		if p.Bad != 0 || p.Lied != 0 {
			t.Errorf("%+v, want no liar", p)
		}
	}
}

// TestGrowLie: a peer that grows something else under the blob's name is believed until the
// end, once. Then the blob comes from an honest peer by its list, and the liar is dropped.
func TestGrowLie(t *testing.T) {
	w := newWorld(t, many(3, quick())...)
	liar, honest, m := w.peers[0], w.peers[1], w.peers[2]
	blob := content(1, 4*chunk)
	what := unbound(blob)
	false1 := slices.Clone(blob)
	false1[2*chunk] ^= 1
	if _, err := liar.store.Grow(what.Digest, what.Size); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // the fourth would show its own store what it is
		if _, err := liar.store.WriteChunk(what.Digest, i, chunkOf(false1, i)); err != nil {
			t.Fatal(err)
		}
	}
	w.holdersAre(liar)
	done := make(chan error, 1)
	go func() { done <- m.fetchOn(what) }()
	until(t, "what the liar has is there", func() bool { return m.holds(what.Digest) == 3*chunk })
	if got := m.counts(liar); got.Lied != 0 {
		t.Errorf("%+v, want that it is believed so far", got)
	}
	// The last chunk comes, and the whole is not the blob.
	if _, err := m.store.WriteChunk(what.Digest, 3, chunkOf(blob, 3)); !errors.Is(err, blobs.ErrMismatch) {
		t.Fatalf("WriteChunk = %v, want ErrMismatch", err)
	}
	m.x.Gained(what.Digest)
	until(t, "it grows no more", func() bool {
		isUngrown := false
		_ = m.x.with(what.Digest, false, func(t *task) error { isUngrown = t.isUngrown; return nil })
		return isUngrown
	})
	if got := m.counts(liar); got.Lied != 0 {
		t.Errorf("%+v, want nobody dropped on suspicion", got)
	}
	honest.put(blob)
	honest.x.Gained(what.Digest)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.has(blob)
	until(t, "the liar is dropped", func() bool { return m.counts(liar).Lied == 1 })
	if got := m.counts(honest); got.Lied != 0 || got.Got == 0 {
		t.Errorf("of the honest one: %+v, want that it brought what was false", got)
	}
}

// TestGrowDoubt: who goes by a list takes nothing false from a peer that grows, does not
// drop it, for it cannot know, and serves it.
func TestGrowDoubt(t *testing.T) {
	w := newWorld(t, many(3, quick())...)
	seeder, misled, m := w.peers[0], w.peers[1], w.peers[2]
	w.holdersAre(misled)
	blob := content(1, 6*chunk)
	what := blobOf(blob)
	if _, err := misled.store.Grow(what.Digest, what.Size); err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // with the sixth it would find out by itself
		bad := slices.Clone(chunkOf(blob, i))
		bad[i] ^= 1
		if _, err := misled.store.WriteChunk(what.Digest, i, bad); err != nil {
			t.Fatal(err)
		}
	}
	m.putPart(blob, 1) // by a list
	done := make(chan error, 1)
	go func() { done <- m.fetchOn(what) }()
	until(t, "a false chunk came", func() bool { return m.counts(misled).Bad > 0 })
	seeder.put(blob)
	seeder.x.Gained(what.Digest)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.has(blob)
	if got := m.counts(misled); got.Got != 0 || got.Bad == 0 || got.Lied != 0 {
		t.Errorf("of the one that was misled: %+v, want bad chunks, none taken, and that it is not dropped", got)
	}
	if err := misled.fetchOn(what); err != nil {
		t.Fatal(err)
	}
	misled.has(blob)
}

// TestGrowHello says what makes no sense of a blob that grows.
func TestGrowHello(t *testing.T) {
	w := newWorld(t, quick())
	m := w.peers[0]
	blob := content(1, 3*chunk)
	what := unbound(blob)
	list := blobOf(blob).List
	wanted, end := context.WithCancel(t.Context())
	defer end()
	go func() { _ = m.x.Fetch(wanted, what) }()
	until(t, "it is wanted", func() bool { return m.x.with(what.Digest, false, func(*task) error { return nil }) == nil })
	for name, c := range map[string]struct {
		h      *shoalv1.BlobHello
		reason string
	}{
		"negative":    {&shoalv1.BlobHello{Grows: -1}, "size"},
		"too large":   {&shoalv1.BlobHello{Grows: m.cfg.MaxBlob + 1}, "size"},
		"overflow":    {&shoalv1.BlobHello{Grows: 1<<63 - 1}, "size"},
		"wrong size":  {&shoalv1.BlobHello{Grows: what.Size + 1}, "size"},
		"and a size":  {&shoalv1.BlobHello{Grows: what.Size, Size: what.Size}, "form"},
		"and a list":  {&shoalv1.BlobHello{Grows: what.Size, Size: what.Size, List: list[:]}, "form"},
		"only a list": {&shoalv1.BlobHello{Grows: what.Size, List: list[:]}, "form"},
		"bitmap":      {&shoalv1.BlobHello{Grows: what.Size, Chunks: []byte{0xff}}, "range"},
	} {
		before := m.x.Stats().Refused[c.reason]
		r := newRaw(m)
		c.h.Blob = what.Digest[:]
		r.say(c.h)
		r.expect(name+": bye", func(m *shoalv1.BlobMessage) bool { return m.GetBye() != nil })
		if got := m.x.Stats().Refused[c.reason]; got != before+1 {
			t.Errorf("%s: %d counted as %s, want %d", name, got, c.reason, before+1)
		}
	}
	if info, err := m.store.Stat(what.Digest); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Stat = %+v, %v, want that nothing was begun", info, err)
	}
}

// TestGrowNeedsSize: a stranger's word for the size is not enough to take room for it.
func TestGrowNeedsSize(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	a, m := w.peers[0], w.peers[1]
	w.holdersAre(a)
	blob := content(1, 2*chunk)
	what := unbound(blob)
	if _, err := a.store.Grow(what.Digest, what.Size); err != nil {
		t.Fatal(err)
	}
	if _, err := a.store.WriteChunk(what.Digest, 0, chunkOf(blob, 0)); err != nil {
		t.Fatal(err)
	}
	if err := m.fetch(Blob{Digest: what.Digest}); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Fetch = %v, want ErrNotFound", err)
	}
	if err := m.fetch(what); !errors.Is(err, shoal.ErrNotFound) || m.holds(what.Digest) != chunk {
		t.Errorf("Fetch = %v with %d bytes here, want ErrNotFound and what there is", err, m.holds(what.Digest))
	}
	if at := m.x.FedAt(what.Digest); at == 0 {
		t.Error("FedAt = 0, want when the chunk came")
	}
}

// TestGrowBoundFalse: the list that a caller bound is not the blob's, which comes whole
// without it, the rest from outside: the whole is proof enough.
func TestGrowBoundFalse(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	a, m := w.peers[0], w.peers[1]
	w.holdersAre(a)
	blob := content(1, 3*chunk)
	what := unbound(blob)
	what.List = what.Digest
	if _, err := a.store.Grow(what.Digest, what.Size); err != nil {
		t.Fatal(err)
	}
	if _, err := a.store.WriteChunk(what.Digest, 0, chunkOf(blob, 0)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.fetchOn(what) }()
	until(t, "it grows", func() bool { return m.holds(what.Digest) == chunk })
	if err := m.grow(blob, 1, 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Fetch = %v", err)
	}
	m.has(blob)
}
