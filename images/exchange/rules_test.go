// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"bufio"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// raw is a peer that speaks the protocols by hand.
type raw struct {
	t      testing.TB
	id     shoal.PeerID
	host   host.Host
	stream network.Stream // control, to the peer that is tested
	in     *bufio.Reader
}

// newRaw makes a peer and opens a control stream to m.
func newRaw(m *member) *raw {
	t := m.w.t
	t.Helper()
	h := newHost(t)
	r := &raw{t: t, host: h, id: shoal.PeerID(h.ID().String())}
	h.Peerstore().AddAddrs(m.host.ID(), m.host.Addrs(), peerstore.PermanentAddrTTL)
	m.host.Peerstore().AddAddrs(h.ID(), h.Addrs(), peerstore.PermanentAddrTTL)
	s, err := h.NewStream(context.Background(), m.host.ID(), ControlProtocol)
	if err != nil {
		t.Fatal(err)
	}
	r.stream, r.in = s, bufio.NewReader(s)
	r.say(&shoalv1.BlobGreeting{})
	return r
}

func (r *raw) say(what any) {
	r.t.Helper()
	if err := frame.Write(r.stream, message(what), maxMessage); err != nil {
		r.t.Fatal(err)
	}
}

// next returns the next message that is not a greeting.
func (r *raw) next() (*shoalv1.BlobMessage, error) {
	_ = r.stream.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		var m shoalv1.BlobMessage
		if err := frame.Read(r.in, &m, maxMessage); err != nil {
			return nil, err
		}
		if m.GetGreeting() == nil {
			return &m, nil
		}
	}
}

// expect returns the next message that is fits.
func (r *raw) expect(what string, is func(*shoalv1.BlobMessage) bool) *shoalv1.BlobMessage {
	r.t.Helper()
	for {
		m, err := r.next()
		if err != nil {
			r.t.Fatalf("waiting for %s: %v", what, err)
		}
		if is(m) {
			return m
		}
	}
}

// TestForm sends what makes no sense: it is refused and counted, and the stream goes on.
func TestForm(t *testing.T) {
	w := newWorld(t, quick())
	m := w.peers[0]
	blob := content(1, 3*chunk)
	d := m.put(blob)
	what := blobOf(blob)
	r := newRaw(m)
	hello := &shoalv1.BlobHello{Blob: d[:], Size: what.Size, List: what.List[:], Want: true}
	r.say(hello)
	r.expect("hello", func(m *shoalv1.BlobMessage) bool { return m.GetHello().GetFull() })
	other := blobs.DigestOf([]byte("not here"))
	for i, bad := range []struct {
		what   any
		reason string
		refuse bool // the answer is a refusal
	}{
		{&shoalv1.BlobAsk{Blob: d[:], Ask: 1, Chunk: -2}, "range", true},
		{&shoalv1.BlobAsk{Blob: d[:], Ask: 2, Chunk: 3}, "range", true},
		{&shoalv1.BlobAsk{Blob: d[:], Ask: 3, Chunk: 1 << 62}, "range", true},
		{&shoalv1.BlobAsk{Blob: d[:], Ask: 4, Chunk: -1, Not: make([]byte, 100)}, "range", true},
		{&shoalv1.BlobAsk{Blob: d[:], Ask: 5, Chunk: -1, Not: []byte{0xff}}, "range", true},
		{&shoalv1.BlobAsk{Blob: other[:], Ask: 6, Chunk: 0}, "absent", true},
		{&shoalv1.BlobAsk{Blob: []byte("short"), Ask: 7, Chunk: 0}, "form", true},
		{&shoalv1.BlobHave{Blob: d[:], Chunks: []uint32{3, 1 << 31}}, "range", false},
		{&shoalv1.BlobHead{Blob: d[:], Ask: 1, Chunk: -1}, "range", false},
		{&shoalv1.BlobList{Blob: d[:], Hashes: make([]byte, 33)}, "unasked", false},
		{&shoalv1.BlobAnswer{Id: 7}, "unasked", false},
		{&shoalv1.BlobAnswer{Id: 8, Holdings: []*shoalv1.BlobHolding{{Blob: d[:], Size: 5, Have: 6}}}, "form", false},
		{&shoalv1.BlobQuestion{Id: 9, Blobs: make([][]byte, 513)}, "limit", false},
	} {
		before := m.x.Stats().Refused[bad.reason]
		r.say(bad.what)
		if bad.refuse {
			r.expect("refusal", func(m *shoalv1.BlobMessage) bool { return m.GetRefuse() != nil })
		}
		until(t, "message "+string(rune('0'+i))+" is counted as "+bad.reason, func() bool { return m.x.Stats().Refused[bad.reason] > before })
	}
	for name, q := range map[string]*shoalv1.BlobListRequest{
		"negative":   {Blob: d[:], List: what.List[:], From: -1, Count: 1},
		"none":       {Blob: d[:], List: what.List[:], From: 0, Count: 0},
		"beyond":     {Blob: d[:], List: what.List[:], From: 2, Count: 2},
		"overflow":   {Blob: d[:], List: what.List[:], From: 1<<63 - 1, Count: 1},
		"too many":   {Blob: d[:], List: what.List[:], From: 0, Count: maxListPart + 1},
		"other list": {Blob: d[:], List: d[:], From: 0, Count: 1},
	} {
		r.say(q)
		got := r.expect("list", func(m *shoalv1.BlobMessage) bool { return m.GetList() != nil })
		if len(got.GetList().GetHashes()) != 0 {
			t.Errorf("%s: got %d bytes of hashes", name, len(got.GetList().GetHashes()))
		}
	}
	before := m.x.Stats().Refused["unknown"]
	if _, err := r.stream.Write([]byte{0, 0, 0, 4, 0xfa, 0x06, 1, 'x'}); err != nil { // field 111
		t.Fatal(err)
	}
	until(t, "the unknown message is counted", func() bool { return m.x.Stats().Refused["unknown"] > before })
	r.say(&shoalv1.BlobListRequest{Blob: d[:], List: what.List[:], From: 0, Count: 3})
	got := r.expect("list", func(m *shoalv1.BlobMessage) bool { return m.GetList() != nil })
	if len(got.GetList().GetHashes()) != 96 {
		t.Errorf("after all that a list has %d bytes, want 96", len(got.GetList().GetHashes()))
	}
}

// TestHugeSize says sizes that cannot be.
func TestHugeSize(t *testing.T) {
	w := newWorld(t, quick())
	m := w.peers[0]
	blob := content(1, chunk)
	d := m.put(blob)
	list := blobOf(blob).List
	for _, size := range []int64{-1, m.cfg.MaxBlob + 1, 1<<63 - 1} {
		r := newRaw(m)
		r.say(&shoalv1.BlobHello{Blob: d[:], Size: size, List: list[:], Full: true})
		r.expect("bye", func(m *shoalv1.BlobMessage) bool { return m.GetBye() != nil })
		if got := m.x.Stats().Refused["size"]; got == 0 {
			t.Errorf("size %d is not counted as refused", size)
		}
	}
}

// TestMembersOnly keeps strangers out of both protocols, and asks none.
func TestMembersOnly(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	m, stranger := w.peers[0], w.peers[1]
	m.mu.Lock()
	m.strangers[stranger.id] = true
	m.mu.Unlock()
	blob := content(1, chunk)
	m.put(blob)
	for _, p := range []string{string(ControlProtocol), string(DataProtocol)} {
		s, err := stranger.host.NewStream(t.Context(), m.host.ID(), ControlProtocol, DataProtocol)
		if err != nil {
			continue // refused before it began
		}
		_, _ = s.Write([]byte{0, 0, 0, 0})
		_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: a stranger reads %v, want a reset", p, err)
		}
	}
	if err := stranger.fetch(blobOf(blob)); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("a stranger fetches: %v, want ErrNotFound", err)
	}
	other := content(2, chunk)
	stranger.put(other)
	w.holdersAre(stranger)
	if err := m.fetch(blobOf(other)); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("from a stranger is fetched: %v, want ErrNotFound", err)
	}
}

// TestSlowReader has a member ask for everything and read nothing: another gets the blob
// all the same.
func TestSlowReader(t *testing.T) {
	cfg := quick()
	cfg.UploadSlots, cfg.Patience = 1, 300*time.Millisecond
	w := newWorld(t, cfg, quick())
	a, b := w.peers[0], w.peers[1]
	w.holdersAre(a)
	blob := content(1, 40*chunk)
	what := blobOf(blob)
	a.put(blob)
	r := newRaw(a)
	r.host.SetStreamHandler(DataProtocol, func(network.Stream) {}) // which nobody reads
	r.say(&shoalv1.BlobHello{Blob: what.Digest[:], Size: what.Size, List: what.List[:], Want: true})
	r.expect("hello", func(m *shoalv1.BlobMessage) bool { return m.GetHello().GetFull() })
	for i := range 40 {
		r.say(&shoalv1.BlobAsk{Blob: what.Digest[:], Ask: uint64(i + 1), Chunk: int64(i)})
	}
	r.expect("a chunk begins", func(m *shoalv1.BlobMessage) bool { return m.GetHead() != nil })
	if err := b.fetch(what); err != nil {
		t.Fatal(err)
	}
	b.has(blob)
}

// TestUnasked pushes chunks that nobody asked for, and one that the blob has not.
func TestUnasked(t *testing.T) {
	w := newWorld(t, quick())
	m := w.peers[0]
	blob := content(1, 3*chunk)
	what := blobOf(blob)
	m.putPart(blob, 1)
	r := newRaw(m)
	r.say(&shoalv1.BlobHello{Blob: what.Digest[:], Size: what.Size, List: what.List[:], Full: true, Want: true})
	r.expect("hello", func(m *shoalv1.BlobMessage) bool { return m.GetHello().GetSize() == what.Size })
	s, err := r.host.NewStream(t.Context(), m.host.ID(), DataProtocol)
	if err != nil {
		t.Fatal(err)
	}
	send := func(g begin, data []byte) {
		out := appendBegin(nil, g)
		for part := range slices.Chunk(data, maxPiece) {
			out = append(appendFrame(out, framePiece, len(part)), part...)
		}
		if _, err := s.Write(out); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Write(append(appendFrame(nil, 200, 5), "later"...)); err != nil { // a kind to come
		t.Fatal(err)
	}
	send(begin{blob: what.Digest, ask: 1, chunk: 1, length: chunk}, chunkOf(blob, 1))
	send(begin{blob: what.Digest, ask: 0, chunk: 1, length: chunk}, chunkOf(blob, 1))
	send(begin{blob: blobs.DigestOf(nil), ask: 1, chunk: 1, length: 9}, []byte("whatever!"))
	until(t, "all that is counted", func() bool {
		st := m.x.Stats()
		return st.Refused["unknown"] == 1 && st.Refused["unasked"] >= 2
	})
	if info, err := m.store.Stat(what.Digest); err != nil || info.Have != chunk {
		t.Errorf("Stat = %+v, %v, want the first chunk only", info, err)
	}
	send(begin{blob: what.Digest, ask: 1, chunk: maxChunks, length: 1}, []byte("x"))
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("a stream that breaks the rules goes on")
	}
}

// TestStats counts what moved for both sides.
func TestStats(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	a, b := w.peers[0], w.peers[1]
	blob := content(1, 2*chunk+5)
	d := a.put(blob)
	if err := b.fetch(Blob{Digest: d}); err != nil {
		t.Fatal(err)
	}
	n := int64(len(blob))
	if got, want := b.counts(a), (PeerStats{Peer: a.id, Got: n}); got != want {
		t.Errorf("the receiver counts %+v, want %+v", got, want)
	}
	if got, want := a.counts(b), (PeerStats{Peer: b.id, Sent: n}); got != want {
		t.Errorf("the sender counts %+v, want %+v", got, want)
	}
	if got := b.x.Stats().Blobs; len(got) != 1 || !slices.Equal(got[0].Sources, []Source{{a.id, n}}) {
		t.Errorf("the receiver counts %+v", got)
	}
	if p, ok := b.x.Progress(d); !ok || p.Done != n || p.Total != n || p.What != "done" {
		t.Errorf("Progress = %+v, %v", p, ok)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.announced[d] != 1 {
		t.Errorf("announced %d times, want once", b.announced[d])
	}
}
