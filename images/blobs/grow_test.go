// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

func mustGrow(t *testing.T, s *Store, b []byte) Digest {
	t.Helper()
	d := DigestOf(b)
	if have, err := s.Grow(d, int64(len(b))); err != nil || have.Count() != 0 || have.Len() != len(chunkList(b)) {
		t.Fatalf("Grow = %v, %v, want that nothing is here", have, err)
	}
	return d
}

// TestGrow: what comes without a list is read while it comes, and has its list once whole.
func TestGrow(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 3*swarm.ChunkBytes+9)
	d := mustGrow(t, s, b)
	if _, _, err := s.ChunkList(d); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("ChunkList of what grows = %v, want ErrNotFound", err)
	}
	r, err := s.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n, i := range []int{2, 0, 3, 1} {
		done, err := s.WriteChunk(d, i, chunk(b, i))
		if err != nil || done != (n == 3) {
			t.Fatalf("WriteChunk(%d) = %t, %v", i, done, err)
		}
		got := make([]byte, len(chunk(b, i)))
		if _, err := r.ReadAt(got, int64(i)*swarm.ChunkBytes); err != nil {
			t.Fatal(err)
		}
		equal(t, "a chunk while it grows", got, chunk(b, i))
	}
	info, err := s.Stat(d)
	if err != nil || !info.Complete || info.Grows {
		t.Errorf("Stat = %+v, %v, want it complete", info, err)
	}
	if size, list, err := s.ChunkList(d); err != nil || size != int64(len(b)) || !slices.Equal(list, chunkList(b)) {
		t.Errorf("ChunkList = %d, %v, %v, want that of what came", size, list, err)
	}
	if _, err := os.Stat(s.listPath(d)); err != nil {
		t.Errorf("the list was not kept: %v", err)
	}
	if have, err := s.Grow(d, int64(len(b))); err != nil || !have.Full() {
		t.Errorf("Grow of what is complete = %v, %v", have, err)
	}
}

// TestGrowFalse: one bit wrong, and all of it goes, for nobody knows which chunk it is in.
func TestGrowFalse(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 2*swarm.ChunkBytes)
	d := mustGrow(t, s, b)
	bad := slices.Clone(chunk(b, 0))
	bad[7] ^= 1
	if _, err := s.WriteChunk(d, 0, bad); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteChunk(d, 1, chunk(b, 1)); !errors.Is(err, ErrMismatch) {
		t.Errorf("the last chunk = %v, want ErrMismatch", err)
	}
	if _, err := s.Stat(d); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Stat = %v, want that nothing is left", err)
	}
	if u, err := s.Usage(); err != nil || u.Bytes != 0 {
		t.Errorf("Usage = %+v, %v, want that it takes no room", u, err)
	}
	d = mustGrow(t, s, b)
	for i := range 2 {
		if _, err := s.WriteChunk(d, i, chunk(b, i)); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "the second try", contents(t, s, d), b)
}

// TestGrowAdopts: a list that comes later counts from then on, unless it does not fit.
func TestGrowAdopts(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 3*swarm.ChunkBytes)
	d := mustGrow(t, s, b)
	if _, err := s.WriteChunk(d, 1, chunk(b, 1)); err != nil {
		t.Fatal(err)
	}
	other := chunkList(b)
	other[1] = d
	if _, err := s.Begin(d, int64(len(b)), other); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Begin with a list that does not fit = %v, want ErrConflict", err)
	}
	if info, err := s.Stat(d); err != nil || !info.Grows || info.Have != swarm.ChunkBytes {
		t.Errorf("Stat = %+v, %v, want it as it was", info, err)
	}
	have, err := s.Begin(d, int64(len(b)), chunkList(b))
	if err != nil || have.Count() != 1 || !have.Has(1) {
		t.Fatalf("Begin = %v, %v, want that chunk 1 is here", have, err)
	}
	if _, err := s.WriteChunk(d, 0, make([]byte, swarm.ChunkBytes)); !errors.Is(err, ErrMismatch) {
		t.Errorf("a false chunk = %v, want ErrMismatch", err)
	}
	if have, err := s.Grow(d, int64(len(b))); err != nil || have.Count() != 1 {
		t.Errorf("Grow of what has a list = %v, %v", have, err)
	}
	if info, err := s.Stat(d); err != nil || info.Grows {
		t.Errorf("Stat = %+v, %v, want that it goes by the list", info, err)
	}
}

func TestGrowRefuses(t *testing.T) {
	s, _ := newStore(t, Config{Limit: 2 * swarm.ChunkBytes})
	b := content(1, swarm.ChunkBytes+1)
	d := mustGrow(t, s, b)
	for _, size := range []int64{-1, 0, maxChunks*swarm.ChunkBytes + 1} {
		if _, err := s.Grow(DigestOf(nil), size); err == nil {
			t.Errorf("Grow of %d bytes is taken", size)
		} else if _, is := errors.AsType[*shoal.InvalidError](err); !is {
			t.Errorf("Grow of %d bytes = %v, want an InvalidError", size, err)
		}
	}
	if _, err := s.Grow(d, int64(len(b))-1); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Grow with another size = %v, want ErrConflict", err)
	}
	if _, err := s.Grow(DigestOf([]byte("a")), swarm.ChunkBytes); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Grow beyond the limit = %v, want ErrNoSpace", err)
	}
	for i, n := range map[int]int{-1: 1, 2: 1, 0: 1, 1: 2} {
		if _, err := s.WriteChunk(d, i, make([]byte, n)); err == nil {
			t.Errorf("chunk %d of %d bytes is taken", i, n)
		}
	}
}

// TestGrowEnds: nothing of what grew is left for the next life; what was given its list is.
func TestGrowEnds(t *testing.T) {
	dir, cfg := t.TempDir(), Config{Expire: time.Hour}
	s, err := Open(dir, cfg, &handClock{})
	if err != nil {
		t.Fatal(err)
	}
	gone, kept := content(1, 2*swarm.ChunkBytes), content(2, 2*swarm.ChunkBytes)
	for _, b := range [][]byte{gone, kept} {
		if _, err := s.WriteChunk(mustGrow(t, s, b), 0, chunk(b, 0)); err != nil {
			t.Fatal(err)
		}
	}
	mustBegin(t, s, kept)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, cfg, &handClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Stat(DigestOf(gone)); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Stat of what grew = %v, want ErrNotFound", err)
	}
	if info, err := again.Stat(DigestOf(kept)); err != nil || info.Have != swarm.ChunkBytes || info.Grows {
		t.Errorf("Stat of what was given a list = %+v, %v", info, err)
	}
	if u, err := again.Usage(); err != nil || u.Blobs != 1 || u.Bytes != int64(len(kept)) {
		t.Errorf("Usage = %+v, %v, want one blob", u, err)
	}
	for _, sub := range []string{partDir, listDir} {
		files, err := filepath.Glob(filepath.Join(dir, sub, DigestOf(gone).hex()+"*"))
		if err != nil || len(files) > 0 {
			t.Errorf("%v, %v is left", files, err)
		}
	}
}

// TestGrowRace has many write one chunk, each with content of its own, while lists are
// offered: the list says what is in the file.
func TestGrowRace(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 2*swarm.ChunkBytes)
	d := mustGrow(t, s, b)
	var g sync.WaitGroup
	for i := range 8 {
		g.Go(func() {
			own := content(uint64(100+i), swarm.ChunkBytes)
			if _, err := s.WriteChunk(d, 0, own); err != nil && !errors.Is(err, ErrMismatch) {
				t.Errorf("WriteChunk = %v", err)
			}
		})
		g.Go(func() {
			own := content(uint64(100+i), swarm.ChunkBytes)
			if _, err := s.Begin(d, int64(len(b)), []Digest{DigestOf(own), DigestOf(own)}); err != nil && !errors.Is(err, shoal.ErrConflict) {
				t.Errorf("Begin = %v", err)
			}
		})
	}
	g.Wait()
	have, _, err := s.Chunks(d)
	if err != nil || !have.Has(0) {
		t.Fatalf("Chunks = %v, %v, want that one of them is here", have, err)
	}
	r, err := s.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, swarm.ChunkBytes)
	if _, err := r.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[d].part.list[0] != DigestOf(got) {
		t.Error("what is in the file is not what the list says")
	}
}

// TestGrowCrash ends a life at every step: what was whole is there, and of what was not
// nothing that is false.
func TestGrowCrash(t *testing.T) {
	b := content(1, swarm.ChunkBytes+17)
	for _, isLost := range []bool{false, true} {
		for cut, ended := 0, false; !ended; cut++ {
			if cut > 200 {
				t.Fatal("a life has more than 200 steps")
			}
			disk := newCutDisk(cut)
			if isLost {
				disk.rough = rand.New(rand.NewPCG(uint64(cut), 1))
			}
			dir, cfg, done := t.TempDir(), Config{Expire: time.Hour}, false
			s, err := open(dir, cfg, &handClock{}, disk)
			if err == nil {
				_, err = s.Grow(DigestOf(b), int64(len(b)))
			}
			for i := 0; i < 2 && err == nil; i++ {
				done, err = s.WriteChunk(DigestOf(b), i, chunk(b, i))
			}
			if s != nil {
				_ = s.Close() // a dead world cannot
			}
			if ended = err == nil; !ended && !errors.Is(err, errCut) {
				t.Fatalf("life = %v, want the cut", err)
			}
			again, err := open(dir, cfg, &handClock{}, newCutDisk(-1))
			if err != nil {
				t.Fatal(err)
			}
			info, err := again.Stat(DigestOf(b))
			switch {
			case done && !info.Complete:
				t.Errorf("cut at %d: Stat = %+v, %v, want what was told to be whole", cut, info, err)
			case info.Complete:
				equal(t, "what grew", contents(t, again, DigestOf(b)), b)
			case info.Grows:
				t.Errorf("cut at %d: something grows in the next life", cut)
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
