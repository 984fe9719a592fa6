// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
)

// spoil changes what is on the disk of a peer for a whole blob, unseen by its store. With
// isList the store tells the chunk list of what is there now.
func (m *member) spoil(d blobs.Digest, isList bool, change func([]byte)) {
	m.w.t.Helper()
	name := hex.EncodeToString(d[:])
	isDone := false
	err := filepath.WalkDir(m.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() != name {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if sum := blobs.DigestOf(raw); sum != d { // its chunk list
			if isList {
				return os.Remove(path)
			}
			return nil
		}
		change(raw)
		isDone = true
		return os.WriteFile(path, raw, 0o600)
	})
	if err != nil || !isDone {
		m.w.t.Fatalf("spoil: %v, found %v", err, isDone)
	}
}

func flip(at int) func([]byte) { return func(b []byte) { b[at] ^= 1 } }

// TestCorruptSeeder has two seeders, one with a bit flipped in every chunk: what it sends
// is not taken, it is dropped for the blob, and the other brings everything.
func TestCorruptSeeder(t *testing.T) {
	w := newWorld(t, many(3, quick())...)
	bad, good, m := w.peers[0], w.peers[1], w.peers[2]
	w.holdersAre(bad, good)
	blob := content(1, 6*chunk)
	bad.put(blob)
	good.put(blob)
	if _, _, err := bad.store.ChunkList(blobs.DigestOf(blob)); err != nil { // it is written now
		t.Fatal(err)
	}
	bad.spoil(blobs.DigestOf(blob), false, func(b []byte) {
		for i := range 6 {
			b[i*chunk+i] ^= 1
		}
	})
	if err := m.fetch(blobOf(blob)); err != nil {
		t.Fatal(err)
	}
	m.has(blob)
	if got := m.counts(bad); got.Got != 0 || got.Bad < 1 || got.Lied != 1 {
		t.Errorf("of the corrupt seeder: %+v, want nothing got, bad chunks, one blob it was dropped for", got)
	}
	if got := m.counts(good); got.Got != int64(len(blob)) || got.Bad != 0 || got.Lied != 0 {
		t.Errorf("of the good seeder: %+v, want all of %d bytes", got, len(blob))
	}
}

// TestOnlyCorrupt has one bit flipped in each of 200 blobs at the only peer that has them:
// none is taken, and the error says that nobody has it.
func TestOnlyCorrupt(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	bad, m := w.peers[0], w.peers[1]
	w.holdersAre(bad)
	var g errgroup.Group
	g.SetLimit(64)
	for i := range 200 {
		blob := content(uint64(i), 1000+i)
		d := bad.put(blob)
		if _, _, err := bad.store.ChunkList(d); err != nil {
			t.Fatal(err)
		}
		bad.spoil(d, false, flip(i))
		g.Go(func() error {
			if err := m.fetch(blobOf(blob)); !errors.Is(err, shoal.ErrNotFound) {
				return fmt.Errorf("blob %d: Fetch = %w, want ErrNotFound", i, err)
			}
			if info, err := m.store.Stat(d); err == nil && info.Have > 0 {
				return fmt.Errorf("blob %d: %d bytes of it are in the store", i, info.Have)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := m.counts(bad); got.Lied != 200 || got.Got != 0 || got.Bad != 200 {
		t.Errorf("%+v, want 200 blobs it was dropped for, none got", got)
	}
}

// TestListLie lets two peers offer the chunk list of something else. Who knows the list
// joins neither; who does not takes theirs, for they are more, and finds out by the whole.
func TestListLie(t *testing.T) {
	for name, isBound := range map[string]bool{"bound": true, "not bound": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, many(4, quick())...)
			honest, m := w.peers[2], w.peers[3]
			liars := w.peers[:2]
			w.holdersAre(w.peers[:3]...)
			blob := content(1, 3*chunk)
			what := blobOf(blob)
			honest.put(blob)
			for _, l := range liars {
				l.put(blob)
				l.spoil(what.Digest, true, flip(2*chunk))
				l.restart() // else the store still knows the list
			}
			lied := 0
			if !isBound {
				what.List, what.Size, lied = blobs.Digest{}, 0, 1
			}
			if err := m.fetch(what); err != nil {
				t.Fatal(err)
			}
			m.has(blob)
			for _, l := range liars {
				if got := m.counts(l); got.Lied != lied {
					t.Errorf("%+v, want dropped for %d blobs", got, lied)
				}
			}
			if got := m.counts(honest); got.Lied != 0 {
				t.Errorf("the honest one counts as a liar: %+v", got)
			}
		})
	}
}

// TestListOfRecordIsFalse has the caller bind a list that is not the blob's, and peers that
// offer just that.
func TestListOfRecordIsFalse(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	liar, m := w.peers[0], w.peers[1]
	w.holdersAre(liar)
	blob := content(1, 2*chunk)
	what := blobOf(blob)
	liar.put(blob)
	liar.spoil(what.Digest, true, flip(7))
	liar.restart()
	_, hashes, err := liar.store.ChunkList(what.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if what.List = listHash(hashes); what == blobOf(blob) {
		t.Fatal("the list is still the true one")
	}
	if err := m.fetch(what); !errors.Is(err, blobs.ErrMismatch) {
		t.Errorf("Fetch = %v, want ErrMismatch", err)
	}
	if _, err := m.store.Stat(what.Digest); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Stat = %v, want that nothing of it is here", err)
	}
}

// restart ends a peer's exchange and store and opens them again, as a new life would.
func (m *member) restart() {
	m.w.t.Helper()
	m.stop()
	m.start()
}

// TestResume kills a peer half-way, and resumes from what is on its disk: no chunk is sent
// again but those that were on their way.
func TestResume(t *testing.T) {
	slow := quick()
	slow.UpRate = 8e6
	w := newWorld(t, slow, quick())
	seeder, m := w.peers[0], w.peers[1]
	w.holdersAre(seeder)
	blob := content(1, 12*chunk+99)
	what := blobOf(blob)
	seeder.put(blob)
	done := make(chan error, 1)
	go func() { done <- m.fetch(what) }()
	until(t, "a part is there", func() bool {
		p, ok := m.x.Progress(what.Digest)
		return ok && p.Done >= 4*chunk
	})
	m.stop()
	if err := <-done; !errors.Is(err, ErrStopped) {
		t.Fatalf("Fetch of a peer that stops = %v, want ErrStopped", err)
	}
	m.start()
	if err := m.fetch(what); err != nil {
		t.Fatal(err)
	}
	m.has(blob)
	again := seeder.sentBytes() - int64(len(blob))
	t.Logf("%.2f chunks were sent again", float64(again)/chunk)
	if again < 0 || again > int64(m.cfg.Streams*chunk) {
		t.Errorf("%d bytes were sent again, want one chunk a stream at most", again)
	}
}

// TestCancel shows that a download goes on while one of two callers is left, and stops some
// time after the last, while what is here is served.
func TestCancel(t *testing.T) {
	slow, m1 := quick(), quick()
	slow.UpRate = 2e6
	m1.Linger = 100 * time.Millisecond
	w := newWorld(t, slow, m1)
	seeder, m := w.peers[0], w.peers[1]
	w.holdersAre(seeder)
	blob := content(1, 40*chunk)
	what := blobOf(blob)
	seeder.put(blob)
	first, end := context.WithCancel(t.Context())
	second, endAll := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- m.x.Fetch(first, what) }()
	go func() { done <- m.x.Fetch(second, what) }()
	doneBytes := func() int64 { p, _ := m.x.Progress(what.Digest); return p.Done }
	until(t, "something came", func() bool { return doneBytes() >= chunk })
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Fetch = %v, want Canceled", err)
	}
	now := doneBytes()
	until(t, "more came for the second caller", func() bool { return doneBytes() >= now+chunk })
	endAll()
	<-done
	until(t, "nobody is asked for more", func() bool { return seeder.isIdle(what.Digest) })
	if got := doneBytes(); got == 0 || got >= int64(len(blob)) {
		t.Errorf("%d bytes are here, want a part", got)
	}
	if info, err := m.store.Stat(what.Digest); err != nil || info.Complete || info.Have == 0 {
		t.Errorf("Stat = %+v, %v, want a part", info, err)
	}
}

// isIdle reports whether nothing moves for a blob, nor is spoken of.
func (m *member) isIdle(d blobs.Digest) bool {
	isIdle := true
	_ = m.x.with(d, false, func(t *task) error {
		isIdle = t.connected() == 0
		return nil
	})
	return isIdle
}

// TestNowhere asks for what nobody has.
func TestNowhere(t *testing.T) {
	w := newWorld(t, many(4, quick())...)
	w.peers[3].stop()
	_ = w.peers[3].host.Close()
	began := time.Now()
	err := w.peers[0].fetch(Blob{Digest: blobs.DigestOf([]byte("nothing"))})
	if !errors.Is(err, shoal.ErrNotFound) || !strings.Contains(err.Error(), "none of the 3 peers asked has it (1 did not answer)") {
		t.Errorf("Fetch = %v, want ErrNotFound, 3 asked and 1 silent", err)
	}
	if took := time.Since(began); took >= w.peers[0].cfg.ProbeTimeout {
		t.Errorf("it took %v, want that nobody waits for a peer that refuses", took)
	}
}

// TestNoSpace lets the store refuse the blob: Fetch says so, and the peer goes on.
func TestNoSpace(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	a, b := w.peers[0], w.peers[1]
	w.holdersAre(a)
	b.limit = 3 * chunk
	b.restart()
	large, small := content(1, 4*chunk), content(2, chunk)
	a.put(large)
	a.put(small)
	if err := b.fetch(blobOf(large)); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Fetch = %v, want ErrNoSpace", err)
	}
	if err := b.fetch(blobOf(small)); err != nil {
		t.Errorf("Fetch of what fits = %v", err)
	}
}

// TestBadBlob asks for what is none.
func TestBadBlob(t *testing.T) {
	w := newWorld(t, quick())
	m := w.peers[0]
	blob := content(1, 100)
	d := m.put(blob)
	for name, b := range map[string]Blob{
		"negative":      {Digest: blobs.DigestOf([]byte("x")), Size: -1},
		"too large":     {Digest: blobs.DigestOf([]byte("x")), Size: m.cfg.MaxBlob + 1},
		"another size":  {Digest: d, Size: 99},
		"no such store": {},
	} {
		err := m.fetch(b)
		if name == "no such store" {
			if !errors.Is(err, shoal.ErrNotFound) {
				t.Errorf("%s: Fetch = %v, want ErrNotFound", name, err)
			}
			continue
		}
		if _, is := errors.AsType[*shoal.InvalidError](err); !is {
			t.Errorf("%s: Fetch = %v, want an InvalidError", name, err)
		}
	}
	if err := m.fetch(Blob{Digest: blobs.DigestOf(nil)}); err != nil {
		t.Errorf("Fetch of the empty blob = %v", err)
	}
	if info, err := m.store.Stat(blobs.DigestOf(nil)); err != nil || !info.Complete {
		t.Errorf("Stat of the empty blob = %+v, %v", info, err)
	}
}
