// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
)

// TestProbe asks who has what: whole, in part, not at all, and silent.
func TestProbe(t *testing.T) {
	w := newWorld(t, many(5, quick())...)
	one, two := content(1, 2*chunk), content(2, 3*chunk+1)
	a, b, none, gone, asker := w.peers[0], w.peers[1], w.peers[2], w.peers[3], w.peers[4]
	a.put(one)
	b.put(one)
	b.putPart(two, 2)
	gone.stop()
	_ = gone.host.Close()
	digests := []blobs.Digest{blobs.DigestOf(one), blobs.DigestOf(two)}
	for i := range 2 * maxQuestion {
		digests = append(digests, blobs.DigestOf([]byte{byte(i), byte(i >> 8)}))
	}
	held, silent := asker.x.Probe(t.Context(), digests)
	whole := Held{Digest: blobs.DigestOf(one), Size: 2 * chunk, Have: 2 * chunk, Complete: true}
	part := Held{Digest: blobs.DigestOf(two), Size: 3*chunk + 1, Have: 2 * chunk}
	want := []Held{whole, part}
	slices.SortFunc(want, func(a, b Held) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	if !slices.Equal(held[a.id], []Held{whole}) || !slices.Equal(held[b.id], want) || len(held[none.id]) != 0 || len(held) != 2 {
		t.Errorf("Probe = %v", held)
	}
	if !slices.Equal(silent, []shoal.PeerID{gone.id}) {
		t.Errorf("silent are %v, want %s", silent, gone.id)
	}
}

// TestBegin reads a blob while it arrives, from a seeder that is slow.
func TestBegin(t *testing.T) {
	slow := quick()
	slow.UpRate = 8e6
	cfg := quick()
	cfg.Linger = 200 * time.Millisecond
	w := newWorld(t, slow, cfg)
	a, b := w.peers[0], w.peers[1]
	w.holdersAre(a)
	blob := content(1, 12*chunk)
	d := a.put(blob)
	if err := b.x.Begin(t.Context(), Blob{Digest: d}); err != nil {
		t.Fatal(err)
	}
	r, err := b.store.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if info, err := b.store.Stat(d); err != nil || info.Complete {
		t.Fatalf("Stat = %+v, %v, want that it just arrives", info, err)
	}
	// It goes on beyond Linger, for somebody reads it.
	if got, err := io.ReadAll(r.Stream(0, -1)); err != nil || blobs.DigestOf(got) != d {
		t.Errorf("read %d bytes, %v, want the blob", len(got), err)
	}
}

// TestGained gives a peer a blob from outside while others fetch it: they have it soon
// after, and who asked for it when it was nowhere is told.
func TestGained(t *testing.T) {
	w := newWorld(t, many(4, quick())...)
	a, others := w.peers[0], w.peers[1:]
	blob := content(1, 8*chunk+1)
	what := blobOf(blob)
	early := others[0]
	if err := early.fetch(what); !errors.Is(err, shoal.ErrNotFound) {
		t.Fatalf("Fetch of what is nowhere = %v, want ErrNotFound", err)
	}
	a.putPart(blob, 1)
	a.x.Gained(what.Digest)
	var g errgroup.Group
	for _, m := range others[1:] {
		g.Go(func() error { return m.fetch(what) })
	}
	for i := 1; i < 9; i++ {
		if _, err := a.store.WriteChunk(what.Digest, i, chunkOf(blob, i)); err != nil {
			t.Fatal(err)
		}
		a.x.Gained(what.Digest)
		time.Sleep(20 * time.Millisecond) // as a registry would send it
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, "who asked before has it", func() bool {
		info, err := early.store.Stat(what.Digest)
		return err == nil && info.Complete
	})
	for _, m := range others {
		m.has(blob)
	}
}

// TestSourceGoes takes the only seeder away half-way and brings it back: the download goes on.
func TestSourceGoes(t *testing.T) {
	slow := quick()
	slow.UpRate = 8e6
	w := newWorld(t, slow, quick())
	a, b := w.peers[0], w.peers[1]
	w.holdersAre(a)
	blob := content(1, 8*chunk)
	what := blobOf(blob)
	a.put(blob)
	done := make(chan error, 1)
	go func() { done <- b.fetch(what) }()
	until(t, "something came", func() bool { p, _ := b.x.Progress(what.Digest); return p.Done >= chunk })
	a.restart()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.has(blob)
}

// TestBothDial opens sessions from both sides at once: one stays, and blobs move both ways.
func TestBothDial(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	a, b := w.peers[0], w.peers[1]
	w.holdersAre(a, b)
	one, two := content(1, 2*chunk), content(2, 2*chunk)
	a.put(one)
	b.put(two)
	var g errgroup.Group
	g.Go(func() error { return b.fetch(blobOf(one)) })
	g.Go(func() error { return a.fetch(blobOf(two)) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(a.x.allSessions()) != 1 || len(b.x.allSessions()) != 1 {
		t.Errorf("%d and %d sessions, want one each", len(a.x.allSessions()), len(b.x.allSessions()))
	}
}

// TestConflict has two callers bind different lists.
func TestConflict(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	m := w.peers[0]
	blob := content(1, 2*chunk)
	w.peers[1].put(blob)
	w.peers[1].cfg.UpRate = 1e6
	w.peers[1].restart()
	what := blobOf(blob)
	done := make(chan error, 1)
	go func() { done <- m.fetch(what) }()
	until(t, "it is being fetched", func() bool { _, ok := m.x.Progress(what.Digest); return ok })
	other := what
	other.List = blobs.DigestOf(nil)
	if err := m.fetch(other); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Fetch by another list = %v, want ErrConflict", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCrowded has a seeder with two places for four peers that hear of nobody else: those
// that find none come again, and nobody is told that the blob is nowhere.
func TestCrowded(t *testing.T) {
	cfg := quick()
	cfg.Neighbours, cfg.NoExchange, cfg.UpRate = 1, true, 16e6
	w := newWorld(t, many(5, cfg)...)
	w.holdersAre(w.peers[0])
	blob := content(1, 4*chunk)
	w.peers[0].put(blob)
	var g errgroup.Group
	for _, m := range w.peers[1:] {
		g.Go(func() error { return m.fetch(blobOf(blob)) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := w.peers[0].x.Stats().Refused["limit"]; got == 0 {
		t.Error("nobody was without a place")
	}
}
