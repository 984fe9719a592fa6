// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalnet/shoal/images/swarm"
)

// handClock is moved by the test.
type handClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *handClock) Mono() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) Wall() time.Time { return time.Unix(1_700_000_000, 0).Add(c.Mono()) }

func (c *handClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

// content returns a blob that a seed determines.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(b) // never fails
	return b
}

func chunk(b []byte, i int) []byte {
	return b[i*swarm.ChunkBytes : min(len(b), (i+1)*swarm.ChunkBytes)]
}

func chunkList(b []byte) []Digest {
	list := make([]Digest, chunksOf(int64(len(b))))
	for i := range list {
		list[i] = DigestOf(chunk(b, i))
	}
	return list
}

func newStore(t testing.TB, cfg Config) (*Store, *handClock) {
	t.Helper()
	clock := &handClock{}
	if cfg.Expire == 0 {
		cfg.Expire = time.Hour
	}
	s, err := Open(t.TempDir(), cfg, clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return s, clock
}

func mustBegin(t testing.TB, s *Store, b []byte) Digest {
	t.Helper()
	d := DigestOf(b)
	if _, err := s.Begin(d, int64(len(b)), chunkList(b)); err != nil {
		t.Fatal(err)
	}
	return d
}

func mustPut(t testing.TB, s *Store, b []byte) Digest {
	t.Helper()
	d, err := s.Put(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// contents reads a blob through a Reader.
func contents(t testing.TB, s *Store, d Digest) []byte {
	t.Helper()
	r, err := s.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r.Stream(0, -1))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var errCut = errors.New("the power is off")

// cutDisk ends the world at step cut. In a power cut all data that was not synced is lost,
// and of a record of the journal as much as the seed says.
type cutDisk struct {
	osDisk
	mu     sync.Mutex
	cut    int // steps left; negative: never
	full   bool
	isDead bool
	rough  *rand.Rand // nil: kill -9, the kernel keeps all
	dirty  map[*inode]bool
	names  map[string]*inode
	steps  int
}

type inode struct {
	path   string
	ranges [][2]int64
}

func newCutDisk(cut int) *cutDisk {
	return &cutDisk{cut: cut, dirty: map[*inode]bool{}, names: map[string]*inode{}}
}

// step tells whether the world still stands; the caller holds mu.
func (c *cutDisk) step() error {
	c.steps++
	if !c.isDead && c.cut >= 0 && c.steps > c.cut {
		c.isDead = true
		c.blackout()
	}
	if c.isDead {
		return errCut
	}
	return nil
}

// blackout writes zeros over what was never synced.
func (c *cutDisk) blackout() {
	if c.rough == nil {
		return
	}
	for ino := range c.dirty {
		f, err := os.OpenFile(ino.path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		for _, r := range ino.ranges {
			if c.rough.IntN(3) > 0 || r[1]-r[0] > recordBytes {
				_, _ = f.WriteAt(make([]byte, r[1]-r[0]), r[0]) // what fails to be lost is kept
			}
		}
		_ = f.Close()
	}
}

func (c *cutDisk) Open(path string, flag int) (file, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return nil, err
	}
	f, err := c.osDisk.Open(path, flag)
	if err != nil {
		return nil, err
	}
	ino := c.names[path]
	if ino == nil {
		ino = &inode{path: path}
		c.names[path] = ino
	}
	return &cutFile{file: f, c: c, ino: ino}, nil
}

func (c *cutDisk) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return err
	}
	if ino := c.names[from]; ino != nil {
		delete(c.names, from)
		c.names[to], ino.path = ino, to
	}
	return c.osDisk.Rename(from, to)
}

func (c *cutDisk) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return err
	}
	delete(c.dirty, c.names[path])
	delete(c.names, path)
	return c.osDisk.Remove(path)
}

func (c *cutDisk) SyncDir(string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return err
	}
	return nil // as Sync below
}

type cutFile struct {
	file
	c   *cutDisk
	ino *inode
}

// WriteAt writes half of what it is given when the world ends in it, or the disk is full.
func (f *cutFile) WriteAt(b []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	wasDead := f.c.isDead
	err := f.c.step()
	if err == nil && f.c.full {
		err = syscall.ENOSPC
	}
	if err != nil && !wasDead {
		n, _ := f.file.WriteAt(b[:len(b)/2], off)
		return n, err
	}
	if err != nil {
		return 0, err
	}
	f.ino.ranges = append(f.ino.ranges, [2]int64{off, off + int64(len(b))})
	f.c.dirty[f.ino] = true
	return f.file.WriteAt(b, off)
}

func (f *cutFile) Truncate(size int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.c.step(); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

// Sync keeps what was written: for the test's disk it need not wait for the machine's.
func (f *cutFile) Sync() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.c.step(); err != nil {
		return err
	}
	f.ino.ranges = nil
	delete(f.c.dirty, f.ino)
	return nil
}

func equal(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes with digest %s, want %d with %s", what, len(got), DigestOf(got), len(want), DigestOf(want))
	}
}
