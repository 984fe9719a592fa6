// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const short = time.Millisecond

// TestLiar puts a peer beside the seeder that says it has everything and sends rubbish.
func TestLiar(t *testing.T) {
	m := eight(t, 1, gigabit, short, true)
	liar := m.seeder(gigabit)
	liar.liar = true
	m.connectAll()
	r := measure(m, 10*time.Minute)
	t.Log(r, "; dropped", r.dropped, "times after", liar.sent/ChunkBytes, "chunks")
	if !r.ok || r.factor > 1.2 || r.dropped != 8 {
		t.Errorf("%v, dropped %d times, want 1.2 of optimum and every downloader to drop it once", r, r.dropped)
	}
	for _, h := range m.hosts[1:9] {
		if got := h.sw.Stats().Lied; got != 1 {
			t.Errorf("%s counts %d liars, want 1", h.id, got)
		}
		out := slices.Clone(h.sw.Step(Event{Kind: EventJoin, Now: m.now, Peer: liar.id, Chunks: NewBitmap(m.chunks)}))
		if len(out) != 1 || out[0].Kind != RequestDrop {
			t.Errorf("%s lets the liar in again: %v", h.id, out)
		}
	}
}

// TestMute lets a source fall silent without going: the others' time hardly grows.
func TestMute(t *testing.T) {
	for name, c := range map[string]struct {
		who    func(*sim) *host
		factor float64 // of the optimum of the seeder that is left
		seen   bool    // before all is done
	}{
		"a downloader": {func(m *sim) *host { return m.hosts[4] }, 1.2, true},
		"a second seeder": {func(m *sim) *host {
			h := m.seeder(20 * mega)
			m.connectAll()
			return h
		}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := eight(t, 1, gigabit, short, true)
			h := c.who(m)
			m.after(3*time.Second, func() { h.mute = true })
			r := measure(m, 10*time.Minute)
			factor := r.took.Seconds() / (float64(m.chunks) * ChunkBytes / (20 * mega))
			t.Logf("%v; %.3f of one seeder's optimum; %d saw it stall", r, factor, r.stalls)
			if !r.ok || factor > c.factor || c.seen != (r.stalls > 0) {
				t.Errorf("%v, %.3f of one seeder's optimum, %d stalls, want at most %.1f, seen %v", r, factor, r.stalls, c.factor, c.seen)
			}
		})
	}
}

// TestStall shows what a peer says when its only source falls silent, and that it takes
// the next one.
func TestStall(t *testing.T) {
	m := newSim(t, 1, 64, short)
	a, b := m.seeder(20*mega), m.add(gigabit, gigabit, nil)
	m.connectAll()
	m.after(time.Second, func() { a.mute = true })
	m.run(15*time.Second, m.allDone)
	if want := []RequestKind{RequestStalled, RequestStarved}; !slices.Equal(b.events, want) {
		t.Errorf("after 14 s of silence it said %v, want %v: stalled, starved", b.events, want)
	}
	if got := b.sw.Stats(); got.Asks != 1 {
		t.Errorf("%d asks outstanding at a stalled source, want 1", got.Asks)
	}
	m.connect(m.seeder(20*mega), b)
	m.run(25*time.Second, m.allDone)
	if !m.allDone() {
		t.Errorf("it has %d of 64 chunks 10 s after a new source came", b.sw.Stats().Have)
	}
}

// TestStallEnds shows that a source that was silent for a while is used as before.
func TestStallEnds(t *testing.T) {
	m := newSim(t, 1, 256, short)
	a, b := m.seeder(20*mega), m.add(gigabit, gigabit, nil)
	m.connectAll()
	m.after(time.Second, func() { a.mute = true })
	m.after(30*time.Second, func() { a.mute = false; m.pump(a) })
	r := measure(m, 10*time.Minute)
	t.Log(r, b.events)
	if !r.ok || r.took > 44*time.Second {
		t.Errorf("done after %v, want 13.4 s and the 29 s of silence", r.took)
	}
}

// TestLeave takes a downloader away half-way, with chunks that only it had, and then the
// seeder, once everything is somewhere.
func TestLeave(t *testing.T) {
	m := eight(t, 1, 20*mega, short, true)
	m.after(6*time.Second, func() { m.leave(m.hosts[3]) })
	all := NewBitmap(m.chunks)
	m.watch = func(h *host, _ Event, out []Request) {
		for _, r := range out {
			if r.Kind != RequestHave || h == m.hosts[3] {
				continue
			}
			if all.Set(r.Chunk); all.Full() && !m.hosts[0].gone {
				m.after(0, func() { m.leave(m.hosts[0]) })
			}
		}
	}
	m.run(10*time.Minute, m.allDone)
	took, sent := m.now, m.hosts[0].sent/ChunkBytes/float64(m.chunks)
	t.Logf("done after %v; the seeder sent %.3f blobs and left", took, sent)
	if !m.allDone() || !m.hosts[0].gone || took > 17*time.Second || sent > 1.2 {
		t.Errorf("done %v after %v, seeder gone %v, sent %.3f; want done in 17 s and 1.2 blobs", m.allDone(), took, m.hosts[0].gone, sent)
	}
}

// TestResume kills a downloader half-way; it starts again two seconds later from its bitmap.
func TestResume(t *testing.T) {
	m := eight(t, 1, gigabit, short, true)
	h := m.hosts[5]
	had := 0
	m.after(7*time.Second, func() {
		had = h.sw.Stats().Have
		m.restart(h, 2*time.Second)
	})
	r := measure(m, 10*time.Minute)
	gained := h.sw.Stats().Gained
	again := float64(h.pieces)/pieces - float64(m.chunks)
	t.Logf("%v; it had %d, fetched %d, %.1f chunks' bytes came twice", r, had, gained, again)
	if !r.ok || r.factor > 1.2 || had == 0 || had+gained != m.chunks || again > float64(len(h.peers)) {
		t.Errorf("%v; had %d, fetched %d of %d, %.1f chunks twice; want no chunk again but one a stream", r, had, gained, m.chunks, again)
	}
}

// TestUpstream lets one peer fetch the blob from outside: the others have it as it
// arrives, wherever they are, and share the work of passing it on.
func TestUpstream(t *testing.T) {
	for _, c := range []struct {
		rate float64
		rtt  time.Duration
	}{
		{10 * mega, 20 * time.Millisecond},
		{10 * mega, 150 * time.Millisecond},
		{18 * mega, 20 * time.Millisecond},
		{60 * mega, 20 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%.0fMB/rtt=%v", c.rate/mega, c.rtt), func(t *testing.T) {
			m := newSim(t, 1, 256, c.rtt)
			src := m.add(20*mega, gigabit, nil)
			src.origin = true
			for i := range 8 {
				m.add(20*mega, gigabit, nil).far = time.Duration(i) * 5 * time.Millisecond
			}
			m.connectAll()
			m.feed(src, c.rate)
			r := measure(m, 10*time.Minute)
			fed := float64(m.chunks) * ChunkBytes / min(c.rate, src.up)
			t.Logf("%v; %.3f of the time that upstream, or its uplink, takes", r, r.took.Seconds()/fed)
			if !r.ok || r.took.Seconds() > 1.1*fed || r.blobs > 1.15 {
				t.Errorf("%v, want at most 1.1 of %.1f s and 1.15 blobs from who fetched", r, fed)
			}
		})
	}
}

// TestTrickle has an upstream so slow that a chunk comes every 15 s: who passes them on
// has not stalled, but more sources are asked for.
func TestTrickle(t *testing.T) {
	m := newSim(t, 1, 4, short)
	src, a, b := m.add(20*mega, gigabit, nil), m.add(20*mega, gigabit, nil), m.add(20*mega, gigabit, nil)
	m.connectAll()
	m.feed(src, ChunkBytes/15)
	m.run(70*time.Second, m.allDone)
	for _, h := range []*host{a, b} {
		want := []RequestKind{RequestStarved, RequestStarved, RequestStarved, RequestStarved}
		if !slices.Equal(h.events, want) || h.doneAt > 61*time.Second || h.doneAt == 0 {
			t.Errorf("%s done at %v, said %v, want 60 s and four times starved, never stalled", h.id, h.doneAt, h.events)
		}
	}
}

// TestAskedAnew: an ask for Any leaves out what was asked of others; when they are gone
// it is made anew, or it would wait for ever.
func TestAskedAnew(t *testing.T) {
	only := func(chunks ...int) Bitmap {
		b := NewBitmap(2)
		for _, c := range chunks {
			b.Set(c)
		}
		return b
	}
	s, err := New(Defaults(1), 2, NewBitmap(2))
	if err != nil {
		t.Fatal(err)
	}
	var last Request // ask to p
	step := func(e Event) {
		for _, r := range s.Step(e) {
			if r.Kind == RequestAsk && r.Peer == "p" {
				last = r
			}
		}
	}
	step(Event{Kind: EventJoin, Peer: "x", Chunks: only(1)})
	step(Event{Kind: EventHead, Peer: "x", Ask: 1, Chunk: 1})
	step(Event{Kind: EventJoin, Peer: "p", Chunks: only(0)})
	if last.Chunk != Any || !last.Not.Has(1) {
		t.Fatalf("asks p for %d but %v, want Any but 1, which x begins to send", last.Chunk, last.Not)
	}
	before := last.Ask
	step(Event{Kind: EventLeave, Peer: "x"})
	if last.Ask == before || last.Chunk != Any || last.Not.Has(1) {
		t.Errorf("after x left p has ask %d for %d but %v, want a new one that takes 1 too", last.Ask, last.Chunk, last.Not)
	}
}

// TestUpload is what an uploader does with asks: refuse, queue, send, stop, send again.
func TestUpload(t *testing.T) {
	have := NewBitmap(4)
	have.Set(0)
	have.Set(1)
	cfg := Defaults(1)
	cfg.Uploads = 1
	s, err := New(cfg, 4, have)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		e    Event
		want []RequestKind
		ask  uint64
	}{
		{Event{Kind: EventJoin, Peer: "a", Chunks: NewBitmap(4)}, nil, 0},
		{Event{Kind: EventAsk, Peer: "a", Ask: 1, Chunk: 3}, []RequestKind{RequestRefuse}, 1},
		{Event{Kind: EventAsk, Peer: "a", Ask: 2, Chunk: 9}, []RequestKind{RequestRefuse}, 2},
		{Event{Kind: EventAsk, Peer: "b", Ask: 1, Chunk: 0}, nil, 0}, // not connected
		{Event{Kind: EventAsk, Peer: "a", Ask: 3, Chunk: 0}, []RequestKind{RequestSend}, 3},
		{Event{Kind: EventAsk, Peer: "a", Ask: 3, Chunk: 0}, nil, 0},
		{Event{Kind: EventAsk, Peer: "a", Ask: 4, Chunk: 1}, nil, 0},
		{Event{Kind: EventAsk, Peer: "a", Ask: 5, Chunk: Any}, nil, 0},
		{Event{Kind: EventCancel, Peer: "a", Ask: 5}, nil, 0},
		{Event{Kind: EventCancel, Peer: "a", Ask: 3}, []RequestKind{RequestStop, RequestSend}, 3},
		{Event{Kind: EventUnsent, Peer: "a", Ask: 4}, nil, 0},
		{Event{Kind: EventAsk, Peer: "a", Ask: 6, Chunk: 1}, []RequestKind{RequestSend}, 6},
		{Event{Kind: EventSent, Peer: "a", Ask: 6}, nil, 0},
		{Event{Kind: EventAsk, Peer: "a", Ask: 7, Chunk: 1}, nil, 0}, // on its way
		{Event{Kind: EventTick, Now: cfg.Patience}, []RequestKind{RequestSend}, 7},
		{Event{Kind: EventLeave, Now: cfg.Patience, Peer: "a"}, []RequestKind{RequestStop}, 7},
	} {
		var got []RequestKind
		var ask uint64
		for _, r := range s.Step(c.e) {
			if len(got) == 0 {
				ask = r.Ask
			}
			got = append(got, r.Kind)
		}
		if !slices.Equal(got, c.want) || ask != c.ask {
			t.Errorf("step %d, Step(%v) = %v of ask %d, want %v of %d", i, c.e, got, ask, c.want, c.ask)
		}
	}
}

// TestPause stops a download half-way: it asks for nothing and serves what it has, and goes
// on where it was.
func TestPause(t *testing.T) {
	m := newSim(t, 1, 64, short)
	a, b := m.seeder(20*mega), m.add(gigabit, gigabit, nil)
	c := m.add(gigabit, gigabit, nil)
	m.connect(a, b)
	m.connect(b, c)
	m.run(time.Second, m.allDone)
	m.step(b, Event{Kind: EventPause})
	had := b.sw.Stats()
	m.run(30*time.Second, m.allDone)
	if got := b.sw.Stats(); had.Have == 0 || had.Have == 64 || got.Have != had.Have || got.Asks != 0 || len(b.events) != 0 {
		t.Errorf("paused with %d chunks it has %d and %d asks, and said %v; want the same, none and nothing", had.Have, got.Have, got.Asks, b.events)
	}
	if got := c.sw.Stats().Have; got != had.Have {
		t.Errorf("of a peer with %d chunks that is paused another got %d", had.Have, got)
	}
	m.step(b, Event{Kind: EventResume})
	m.run(40*time.Second, m.allDone)
	if !m.allDone() {
		t.Errorf("10 s after it went on it has %d of 64 chunks", b.sw.Stats().Have)
	}
}
