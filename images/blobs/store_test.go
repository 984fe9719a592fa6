// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

func TestWriteChunkRefuses(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, swarm.ChunkBytes+10)
	d := mustBegin(t, s, b)
	flipped := bytes.Clone(chunk(b, 1))
	flipped[3] ^= 1
	var invalid *shoal.InvalidError
	for _, c := range []struct {
		name  string
		d     Digest
		i     int
		chunk []byte
		is    func(error) bool
	}{
		{"a flipped bit", d, 1, flipped, func(err error) bool { return errors.Is(err, ErrMismatch) }},
		{"another chunk", d, 0, content(2, swarm.ChunkBytes), func(err error) bool { return errors.Is(err, ErrMismatch) }},
		{"too short", d, 0, b[:10], func(err error) bool { return errors.As(err, &invalid) }},
		{"beyond the end", d, 2, nil, func(err error) bool { return errors.As(err, &invalid) }},
		{"before the start", d, -1, nil, func(err error) bool { return errors.As(err, &invalid) }},
		{"never begun", DigestOf(nil), 0, nil, func(err error) bool { return errors.Is(err, shoal.ErrNotFound) }},
	} {
		if _, err := s.WriteChunk(c.d, c.i, c.chunk); !c.is(err) {
			t.Errorf("%s: WriteChunk = %v", c.name, err)
		}
	}
	if info, err := s.Stat(d); err != nil || info.Have != 0 {
		t.Errorf("Stat = %+v, %v, want nothing of it", info, err)
	}
}

func TestBeginRefuses(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 2*swarm.ChunkBytes)
	d, list := mustBegin(t, s, b), chunkList(b)
	other := []Digest{list[1], list[0]}
	if _, err := s.Begin(d, int64(len(b)), other); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Begin with another list = %v, want ErrConflict", err)
	}
	if _, err := s.Begin(d, int64(len(b))-1, list); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Begin with another size = %v, want ErrConflict", err)
	}
	var invalid *shoal.InvalidError
	for _, size := range []int64{-1, int64(len(b)) + 1, swarm.ChunkBytes, (maxChunks + 1) * swarm.ChunkBytes} {
		if _, err := s.Begin(d, size, list); !errors.As(err, &invalid) {
			t.Errorf("Begin of %d bytes in 2 chunks = %v, want an InvalidError", size, err)
		}
	}
	if _, err := s.Begin(d, 0, nil); err == nil {
		t.Error("Begin takes a blob for the empty one")
	}
	if _, err := s.Begin(DigestOf(nil), 0, nil); err != nil {
		t.Errorf("Begin of the empty blob = %v", err)
	}
	equal(t, "the empty blob", contents(t, s, DigestOf(nil)), nil)
}

// TestFalseList: every chunk is what the list says and the whole is not what it should be.
func TestFalseList(t *testing.T) {
	s, _ := newStore(t, Config{})
	b, d := content(1, 2*swarm.ChunkBytes), DigestOf([]byte("another"))
	if _, err := s.Begin(d, int64(len(b)), chunkList(b)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, r.Stream(0, -1))
		read <- err
	}()
	if _, err := s.WriteChunk(d, 0, chunk(b, 0)); err != nil {
		t.Fatal(err)
	}
	if done, err := s.WriteChunk(d, 1, chunk(b, 1)); done || !errors.Is(err, ErrMismatch) {
		t.Errorf("WriteChunk = %t, %v, want ErrMismatch", done, err)
	}
	// The reader may have been as fast as the last chunk, which it was allowed to see.
	if err := <-read; err != nil && !errors.Is(err, ErrMismatch) {
		t.Errorf("the reader got %v, want ErrMismatch", err)
	}
	if _, err := s.Stat(d); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Stat = %v, want ErrNotFound", err)
	}
	if u, err := s.Usage(); err != nil || u.Bytes != 0 {
		t.Errorf("Usage = %+v, %v, want nothing taken", u, err)
	}
}

// TestReadArriving streams a blob while its chunks come backwards from several writers.
func TestReadArriving(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 8*swarm.ChunkBytes+99)
	d := mustBegin(t, s, b)
	var all sync.WaitGroup
	for range 4 {
		r, err := s.Read(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer r.Close()
			got, err := io.ReadAll(r.Stream(5, int64(len(b))))
			if err != nil {
				t.Errorf("read = %v", err)
			}
			equal(t, "streamed", got, b[5:])
		})
	}
	var done sync.Map
	for w := range 3 {
		all.Go(func() {
			for i := 8; i >= 0; i-- {
				isDone, err := s.WriteChunk(d, (i+w)%9, chunk(b, (i+w)%9))
				if err != nil {
					t.Errorf("WriteChunk = %v", err)
				}
				done.Store(isDone, true)
			}
		})
	}
	all.Wait()
	if _, ok := done.Load(true); !ok {
		t.Error("no WriteChunk said that the blob is done")
	}
	equal(t, "in the end", contents(t, s, d), b)
	if size, list, err := s.ChunkList(d); err != nil || size != int64(len(b)) || !slices.Equal(list, chunkList(b)) {
		t.Errorf("ChunkList = %d, %d chunks, %v", size, len(list), err)
	}
}

func TestReadEnds(t *testing.T) {
	s, _ := newStore(t, Config{})
	d := mustBegin(t, s, content(1, 100))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Read(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := r.ReadAt(make([]byte, 10), 0)
		read <- err
	}()
	cancel()
	if err := <-read; !errors.Is(err, context.Canceled) {
		t.Errorf("ReadAt = %v, want the context's error", err)
	}
	if err := s.Remove(d); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Remove of what is read = %v, want ErrConflict", err)
	}
	if err := errors.Join(r.Close(), r.Close(), s.Remove(d)); err != nil {
		t.Errorf("Close and Remove = %v", err)
	}
	if _, err := s.Read(t.Context(), d); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Read of what was removed = %v, want ErrNotFound", err)
	}
}

func TestUploadResume(t *testing.T) {
	s, clock := newStore(t, Config{})
	b := content(1, 2*swarm.ChunkBytes+5)
	up, err := s.Upload()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write(b[:1500000]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(up.ID()); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Resume of an open upload = %v, want ErrConflict", err)
	}
	// A partial blob of the same digest is fed by the upload.
	d := mustBegin(t, s, b)
	r, err := s.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(up.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir, s.cfg, clock)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	up, err = again.Resume(up.ID())
	if err != nil || up.Size() != 1500000 {
		t.Fatalf("Resume = %v, with %d bytes", err, up.Size())
	}
	if _, err := up.Write(b[1500000:]); err != nil {
		t.Fatal(err)
	}
	if err := up.Commit(d); err != nil {
		t.Fatal(err)
	}
	equal(t, "committed", contents(t, again, d), b)
	if _, list, err := again.ChunkList(d); err != nil || !slices.Equal(list, chunkList(b)) {
		t.Errorf("ChunkList = %d chunks, %v", len(list), err)
	}
	if err := os.Remove(again.listPath(d)); err != nil {
		t.Fatal(err)
	}
	if _, list, err := again.ChunkList(d); err != nil || !slices.Equal(list, chunkList(b)) {
		t.Errorf("ChunkList after the list was lost = %d chunks, %v", len(list), err)
	}
	if u, err := again.Usage(); err != nil || u.Bytes != int64(len(b)) || u.Blobs != 1 {
		t.Errorf("Usage = %+v, %v, want %d bytes in one blob", u, err, len(b))
	}
}

func TestUploadMismatch(t *testing.T) {
	s, _ := newStore(t, Config{})
	up, err := s.Upload()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := up.Commit(DigestOf([]byte("abd"))); !errors.Is(err, ErrMismatch) {
		t.Errorf("Commit = %v, want ErrMismatch", err)
	}
	if _, err := s.Resume(up.ID()); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Resume = %v, want ErrNotFound", err)
	}
}

func TestNoSpace(t *testing.T) {
	s, _ := newStore(t, Config{Limit: 3000})
	mustPut(t, s, content(1, 2000))
	b := content(2, 1001)
	if _, err := s.Begin(DigestOf(b), 1001, chunkList(b)); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Begin = %v, want ErrNoSpace", err)
	}
	if _, err := s.Put(b); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Put = %v, want ErrNoSpace", err)
	}
	mustPut(t, s, content(3, 1000))
	if u, err := s.Usage(); err != nil || u.Bytes != 3000 || u.Limit != 3000 {
		t.Errorf("Usage = %+v, %v, want all of 3000 taken", u, err)
	}
	_, err := s.Collect(Keep{}, 1)
	if !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Collect that may lose nothing = %v, want ErrNoSpace", err)
	}
	tight, _ := newStore(t, Config{Reserve: 1 << 60})
	if _, err := tight.Begin(DigestOf(b), 1001, chunkList(b)); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Begin into the reserve = %v, want ErrNoSpace", err)
	}
	if _, err := tight.Put(b); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Put into the reserve = %v, want ErrNoSpace", err)
	}
	shared, _ := newStore(t, Config{Reserve: 1 << 60, ReserveShare: 1e-9})
	mustPut(t, shared, b)
	small, _ := newStore(t, Config{Share: 1e-12})
	if _, err := small.Put(b); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Put beyond the share = %v, want ErrNoSpace", err)
	}
}

// TestDiskFull has a disk that takes half of what is written and no more.
func TestDiskFull(t *testing.T) {
	disk := newCutDisk(-1)
	s, err := open(t.TempDir(), Config{Expire: time.Hour}, &handClock{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := content(1, swarm.ChunkBytes+1000)
	d := mustBegin(t, s, b)
	up, err := s.Upload()
	if err != nil {
		t.Fatal(err)
	}
	disk.full = true
	if _, err := s.WriteChunk(d, 0, chunk(b, 0)); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("WriteChunk = %v, want ErrNoSpace", err)
	}
	n, err := up.Write(b)
	if n != len(b)/2 || !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Write = %d, %v, want half and ErrNoSpace", n, err)
	}
	if _, err := s.Put(nil); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Put = %v, want ErrNoSpace", err)
	}
	disk.full = false
	if _, err := up.Write(b[n:]); err != nil {
		t.Fatal(err)
	}
	if err := up.Commit(d); err != nil {
		t.Errorf("Commit once there is room = %v", err)
	}
	equal(t, "the blob", contents(t, s, d), b)
}

func TestCollectOrder(t *testing.T) {
	s, clock := newStore(t, Config{Limit: 10000})
	var blob [6]Digest
	for i := range blob {
		blob[i] = mustPut(t, s, content(uint64(i), 1000))
		clock.add(time.Second)
	}
	index, needed := mustPut(t, s, []byte("manifest of 0 and 1")), mustPut(t, s, []byte("manifest of 2"))
	if err := errors.Join(s.SetRefs(index, blob[:2]), s.SetRefs(needed, blob[2:3])); err != nil {
		t.Fatal(err)
	}
	release, err := s.Lease(blob[3])
	if err != nil {
		t.Fatal(err)
	}
	contents(t, s, blob[0]) // used last
	keep := Keep{Needed: []Digest{needed}, MayLose: func(d Digest) bool { return d != blob[4] }}
	planned, err := s.Plan(keep, 10000)
	if !errors.Is(err, shoal.ErrNoSpace) || len(s.List()) != 8 {
		t.Errorf("Plan = %v and %d blobs are left, want ErrNoSpace and all 8", err, len(s.List()))
	}
	removed, err := s.Collect(keep, 10000)
	if !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Collect = %v, want ErrNoSpace", err)
	}
	if !slices.EqualFunc(planned, removed, func(a, b Info) bool { return a.Digest == b.Digest && a.Size == b.Size }) {
		t.Errorf("Plan = %v, but Collect removed %v", planned, removed)
	}
	var got []Digest
	for _, i := range removed {
		got = append(got, i.Digest)
	}
	if want := []Digest{blob[1], blob[5], blob[0], index}; !slices.Equal(got, want) {
		t.Errorf("removed %v, want %v", got, want)
	}
	release()
	release()
	if removed, err := s.Collect(keep, 7000); err != nil || len(removed) != 1 || removed[0].Digest != blob[3] {
		t.Errorf("Collect = %v, %v, want the one whose lease ended", removed, err)
	}
	if removed, err := s.Collect(keep, 7000); err != nil || len(removed) != 0 {
		t.Errorf("Collect = %v, %v, want nothing: there is room", removed, err)
	}
}

// TestCollectRace: a blob that comes into use while the caller is asked stays.
func TestCollectRace(t *testing.T) {
	s, _ := newStore(t, Config{Limit: 100})
	d := mustPut(t, s, content(1, 100))
	keep := Keep{MayLose: func(Digest) bool {
		_, err := s.Lease(d)
		return err == nil
	}}
	if removed, err := s.Collect(keep, 1); len(removed) != 0 || !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("Collect = %v, %v, want nothing and ErrNoSpace", removed, err)
	}
	equal(t, "the blob in use", contents(t, s, d), content(1, 100))
}

func TestExpire(t *testing.T) {
	s, clock := newStore(t, Config{})
	up, err := s.Upload()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write(content(1, 100)); err != nil {
		t.Fatal(err)
	}
	orphan, layer := mustPut(t, s, content(2, 100)), mustPut(t, s, content(3, 100))
	manifest := mustPut(t, s, []byte("manifest"))
	if err := s.SetRefs(manifest, []Digest{layer}); err != nil {
		t.Fatal(err)
	}
	partial := mustBegin(t, s, content(4, 100))
	yes := Keep{MayLose: func(Digest) bool { return true }}
	clock.add(time.Hour - 1)
	if removed, err := s.Collect(yes, 0); err != nil || len(removed) != 0 {
		t.Errorf("Collect before the time = %v, %v, want nothing", removed, err)
	}
	clock.add(1)
	removed, err := s.Collect(yes, 0)
	if err != nil || len(removed) != 2 || removed[0].Digest != orphan || removed[1].Digest != partial {
		t.Errorf("Collect = %v, %v, want the orphan and the partial blob", removed, err)
	}
	if _, err := up.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write to an expired upload = %v, want fs.ErrClosed", err)
	}
	if u, err := s.Usage(); err != nil || u.Bytes != 108 {
		t.Errorf("Usage = %+v, %v, want the layer and its manifest", u, err)
	}
}

// TestChanged: who waits is told of a blob that is whole now and of one that went, and of
// nothing else.
func TestChanged(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 2*swarm.ChunkBytes)
	isTold := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	ch := s.Changed()
	d := mustBegin(t, s, b)
	for i := range 2 {
		if isTold(ch) {
			t.Errorf("told before chunk %d", i)
		}
		if _, err := s.WriteChunk(d, i, chunk(b, i)); err != nil {
			t.Fatal(err)
		}
	}
	if !isTold(ch) {
		t.Error("not told that a blob is whole")
	}
	ch = s.Changed()
	if _, err := s.Put([]byte("small")); err != nil || !isTold(ch) {
		t.Errorf("Put: %v, told %v", err, isTold(ch))
	}
	ch = s.Changed()
	if err := s.Remove(d); err != nil || !isTold(ch) {
		t.Errorf("Remove: %v, told %v", err, isTold(ch))
	}
}

func TestClosed(t *testing.T) {
	s, _ := newStore(t, Config{})
	b := content(1, 10)
	d := mustBegin(t, s, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, beginErr := s.Begin(d, 10, chunkList(b))
	_, writeErr := s.WriteChunk(d, 0, b)
	_, readErr := s.Read(t.Context(), d)
	_, putErr := s.Put(b)
	_, statErr := s.Stat(d)
	for i, err := range []error{beginErr, writeErr, readErr, putErr, statErr, s.Remove(d), s.SetRefs(d, nil)} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("call %d = %v, want fs.ErrClosed", i, err)
		}
	}
}
