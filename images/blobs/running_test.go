// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

// countDisk counts the reads of partial blobs' data, and fails them while it shall.
type countDisk struct {
	osDisk
	reads  atomic.Int64
	isSick atomic.Bool
}

var errSick = errors.New("the disk cannot read")

func (c *countDisk) Open(path string, flag int) (file, error) {
	f, err := c.osDisk.Open(path, flag)
	if err != nil {
		return nil, err
	}
	return &countFile{file: f, c: c, isData: strings.HasSuffix(path, ".data")}, nil
}

func (*countDisk) SyncDir(string) error { return nil } // as Sync below

type countFile struct {
	file
	c      *countDisk
	isData bool
}

func (f *countFile) ReadAt(b []byte, off int64) (int, error) {
	if !f.isData {
		return f.file.ReadAt(b, off)
	}
	f.c.reads.Add(1)
	if f.c.isSick.Load() {
		return 0, errSick
	}
	return f.file.ReadAt(b, off)
}

func (*countFile) Sync() error { return nil } // nothing here depends on the machine's disk

func openCount(t *testing.T, dir string, disk *countDisk) *Store {
	t.Helper()
	s, err := open(dir, Config{Expire: time.Hour}, &handClock{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const runningChunks = 12

// orders are ways in which chunks come, and how many of them may be read back.
func orders() map[string]struct {
	order []int
	reads int64
} {
	inOrder := make([]int, runningChunks)
	for i := range inOrder {
		inOrder[i] = i
	}
	backwards := slices.Clone(inOrder)
	slices.Reverse(backwards)
	pairs := []int{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10}
	return map[string]struct {
		order []int
		reads int64
	}{
		"in order":  {inOrder, 0},
		"backwards": {backwards, runningChunks - 1},
		"in pairs":  {pairs, runningChunks / 2},
		"shuffled":  {rand.New(rand.NewPCG(1, 1)).Perm(runningChunks), runningChunks},
	}
}

// TestRunning: what comes in its turn is not read back, and nothing is read twice.
func TestRunning(t *testing.T) {
	b := content(1, runningChunks*swarm.ChunkBytes-5)
	for name, c := range orders() {
		t.Run(name, func(t *testing.T) {
			disk := &countDisk{}
			s := openCount(t, t.TempDir(), disk)
			defer s.Close()
			d := mustBegin(t, s, b)
			for n, i := range c.order {
				done, err := s.WriteChunk(d, i, chunk(b, i))
				if err != nil || done != (n == len(c.order)-1) {
					t.Fatalf("WriteChunk(%d) = %t, %v", i, done, err)
				}
			}
			if got := disk.reads.Load(); got > c.reads {
				t.Errorf("%d chunks were read back, want %d at most", got, c.reads)
			}
			equal(t, "the blob", contents(t, s, d), b)
		})
	}
}

// TestRunningFalse: the order of the chunks does not hide that the list is another blob's.
func TestRunningFalse(t *testing.T) {
	b, d := content(1, runningChunks*swarm.ChunkBytes), DigestOf([]byte("another"))
	for name, c := range orders() {
		s := openCount(t, t.TempDir(), &countDisk{})
		if _, err := s.Begin(d, int64(len(b)), chunkList(b)); err != nil {
			t.Fatal(err)
		}
		var err error
		for _, i := range c.order {
			_, err = s.WriteChunk(d, i, chunk(b, i))
		}
		if _, gone := s.Stat(d); !errors.Is(err, ErrMismatch) || !errors.Is(gone, shoal.ErrNotFound) {
			t.Errorf("%s: the last WriteChunk = %v, Stat = %v, want ErrMismatch and nothing left", name, err, gone)
		}
		_ = s.Close() // nothing is in it
	}
}

// TestRunningLives: an earlier life's chunks are hashed as they are in the file, so that one
// that the disk changed meanwhile is noticed.
func TestRunningLives(t *testing.T) {
	b := content(1, runningChunks*swarm.ChunkBytes)
	for _, isChanged := range []bool{false, true} {
		dir := t.TempDir()
		s := openCount(t, dir, &countDisk{})
		d := mustBegin(t, s, b)
		for i := range runningChunks / 2 {
			if _, err := s.WriteChunk(d, i, chunk(b, i)); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.Close()                       // which keeps what is here
		s = openCount(t, dir, &countDisk{}) // compares, as nothing was proven
		if isChanged {
			f, err := s.fs.Open(s.dataPath(d), 1) // for writing
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("rot"), swarm.ChunkBytes+3); err != nil {
				t.Fatal(err)
			}
			_ = f.Close() // it was written
		}
		mustBegin(t, s, b)
		var err error
		for i := runningChunks - 1; i >= runningChunks/2; i-- {
			_, err = s.WriteChunk(d, i, chunk(b, i))
		}
		if isChanged != errors.Is(err, ErrMismatch) || !isChanged && err != nil {
			t.Errorf("changed: %t: the last WriteChunk = %v", isChanged, err)
		}
		_ = s.Close() // what is in it was checked
	}
}

// TestRunningSick: a chunk that cannot be read back is no chunk that is false: Begin tries
// again, and the hash has nothing twice.
func TestRunningSick(t *testing.T) {
	b := content(1, runningChunks*swarm.ChunkBytes)
	disk := &countDisk{}
	s := openCount(t, t.TempDir(), disk)
	defer s.Close()
	d := mustBegin(t, s, b)
	disk.isSick.Store(true)
	var err error
	for i := range runningChunks {
		c := (i + 3) % runningChunks // 0 to 2 last
		_, err = s.WriteChunk(d, c, chunk(b, c))
	}
	if !errors.Is(err, errSick) {
		t.Fatalf("the last WriteChunk = %v, want that the disk cannot read", err)
	}
	disk.isSick.Store(false)
	mustBegin(t, s, b)
	equal(t, "the blob", contents(t, s, d), b)
}

// TestRunningTogether: several writers share the work and none of it is lost.
func TestRunningTogether(t *testing.T) {
	b := content(1, 3*runningChunks*swarm.ChunkBytes)
	s := openCount(t, t.TempDir(), &countDisk{})
	defer s.Close()
	d := mustBegin(t, s, b)
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := w; i < 3*runningChunks; i += 3 {
				if _, err := s.WriteChunk(d, i, chunk(b, i)); err != nil {
					t.Errorf("WriteChunk(%d) = %v", i, err)
				}
			}
		})
	}
	writers.Wait()
	equal(t, "the blob", contents(t, s, d), b)
}
