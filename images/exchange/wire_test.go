// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// TestFrames writes chunks in pieces, whole and broken off, with frames of kinds to come in
// between, and reads them back.
func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type sent struct {
			begin
			data    []byte
			isWhole bool
		}
		var all []sent
		var raw []byte
		strange := 0
		for range rapid.IntRange(0, 5).Draw(t, "chunks") {
			data := content(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 5000).Draw(t, "size"))
			s := sent{data: data, isWhole: rapid.Bool().Draw(t, "whole")}
			s.begin = begin{
				blob: blobs.DigestOf(data), ask: rapid.Uint64().Draw(t, "ask"),
				chunk: rapid.IntRange(0, maxChunks-1).Draw(t, "chunk"), length: len(data),
			}
			raw = appendBegin(raw, s.begin)
			pieces := slices.Collect(slices.Chunk(data, rapid.IntRange(1, 2000).Draw(t, "piece")))
			if !s.isWhole {
				pieces = pieces[:len(pieces)-1]
			}
			for _, p := range pieces {
				if rapid.Bool().Draw(t, "strange") {
					strange++
					raw = append(appendFrame(raw, byte(rapid.IntRange(4, 255).Draw(t, "kind")), 3), "new"...)
				}
				raw = append(appendFrame(raw, framePiece, len(p)), p...)
			}
			if !s.isWhole {
				raw = appendFrame(raw, frameBroken, 0)
			}
			all = append(all, s)
		}
		skipped := 0
		d := &dataReader{r: bytes.NewReader(raw), unknown: func() { skipped++ }}
		buf := make([]byte, chunk)
		for _, want := range all {
			got, err := d.begin()
			if err != nil || got != want.begin {
				t.Fatalf("begin = %+v, %v, want %+v", got, err, want.begin)
			}
			isWhole, err := d.body(got.length, buf, func(int) error { return nil })
			if err != nil || isWhole != want.isWhole || isWhole && !bytes.Equal(buf[:got.length], want.data) {
				t.Fatalf("body = %v, %v, want %v and what was sent", isWhole, err, want.isWhole)
			}
		}
		if _, err := d.begin(); !errors.Is(err, io.EOF) || skipped != strange {
			t.Fatalf("at the end %v, %d frames skipped, want EOF and %d", err, skipped, strange)
		}
	})
}

// FuzzData feeds a data stream: whatever it is, it ends, and what it gives is in bounds.
func FuzzData(f *testing.F) {
	f.Add([]byte{})
	ok := appendBegin(nil, begin{blob: blobs.DigestOf(nil), ask: 1, chunk: 2, length: 5})
	f.Add(append(appendFrame(slices.Clone(ok), framePiece, 5), "hello"...))
	f.Add(appendFrame(slices.Clone(ok), frameBroken, 0))
	f.Add(append(appendFrame(slices.Clone(ok), framePiece, 6), "larger"...))
	f.Add([]byte{9, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := &dataReader{r: bytes.NewReader(raw), unknown: func() {}}
		buf := make([]byte, chunk)
		for {
			g, err := d.begin()
			if err != nil {
				return
			}
			if g.chunk < 0 || g.chunk >= maxChunks || g.length < 1 || g.length > chunk {
				t.Fatalf("begin = %+v", g)
			}
			came := 0
			if isWhole, err := d.body(g.length, buf, func(n int) error { came += n; return nil }); err == nil && isWhole && came != g.length {
				t.Fatalf("a chunk of %d bytes came in %d", g.length, came)
			}
		}
	})
}

// FuzzControl feeds the control stream of a peer that has a blob, half a blob, and wants
// another.
func FuzzControl(f *testing.F) {
	whole, half := content(1, 3*chunk), content(2, 3*chunk)
	what := blobOf(whole)
	for _, m := range []any{
		&shoalv1.BlobHello{Blob: what.Digest[:], Size: what.Size, List: what.List[:], Want: true},
		&shoalv1.BlobHello{Blob: what.Digest[:], Grows: what.Size, Chunks: []byte{5}},
		&shoalv1.BlobHello{Blob: what.Digest[:], Grows: what.Size, Size: what.Size, List: what.List[:], Full: true},
		&shoalv1.BlobAsk{Blob: what.Digest[:], Ask: 1, Chunk: -1},
		&shoalv1.BlobHave{Blob: what.Digest[:], Chunks: []uint32{0, 7}},
		&shoalv1.BlobQuestion{Id: 1, Blobs: [][]byte{what.Digest[:]}, Watch: true},
		&shoalv1.BlobListRequest{Blob: what.Digest[:], List: what.List[:], Count: 3},
		&shoalv1.BlobPeers{Blob: what.Digest[:], Peers: []string{"x", ""}},
		&shoalv1.BlobBye{Blob: what.Digest[:]},
	} {
		var b bytes.Buffer
		if err := frame.Write(&b, message(m), maxMessage); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	w := newWorld(f, quick())
	m := w.peers[0]
	m.put(whole)
	m.putPart(half, 1)
	wanted, end := context.WithCancel(context.Background())
	f.Cleanup(end)
	go func() { _ = m.x.Fetch(wanted, blobOf(half)) }()
	go func() { _ = m.x.Fetch(wanted, Blob{Digest: blobs.DigestOf([]byte("wanted"))}) }()
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := newSession(m.x, shoal.PeerID("fuzz"), nil, false)
		r := bytes.NewReader(raw)
		for range 100 {
			var msg shoalv1.BlobMessage
			if err := frame.Read(r, &msg, maxMessage); err != nil {
				break
			}
			m.x.hear(s, &msg)
		}
		s.mu.Lock()
		weight := s.queued
		s.mu.Unlock()
		if weight > maxQueued {
			t.Errorf("%d bytes are queued", weight)
		}
		s.end()
		for _, task := range func() []*task { m.x.mu.Lock(); defer m.x.mu.Unlock(); return m.x.allTasks() }() {
			task.lost(s, false)
		}
	})
}

// TestSlots shows that who is slow gives its slot back and that all together are bounded.
func TestSlots(t *testing.T) {
	s := newSlots(1)
	var never chan struct{}
	var release []func()
	for i := range slowFactor {
		free, ok := s.take(t.Context(), never, time.Millisecond)
		if !ok {
			t.Fatalf("upload %d got no slot though those before are slow", i)
		}
		release = append(release, free)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, ok := s.take(ctx, never, time.Hour); ok {
		t.Error("more uploads than there may be at all")
	}
	stop := make(chan struct{})
	close(stop)
	if _, ok := s.take(t.Context(), stop, time.Hour); ok {
		t.Error("an upload that was taken back got a slot")
	}
	for _, free := range release {
		free()
	}
	if len(s.all) != 0 || len(s.quick) != 0 {
		t.Errorf("%d and %d slots are still taken", len(s.all), len(s.quick))
	}
	free, ok := s.take(t.Context(), never, time.Hour)
	if !ok {
		t.Fatal("no slot though all are free")
	}
	free()
}
