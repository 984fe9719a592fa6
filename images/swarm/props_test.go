// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// audit is a second, naive account of what one Swarm was told and asked for.
type audit struct {
	t     failer
	cfg   Config
	have  Bitmap
	has   map[shoal.PeerID]Bitmap
	asks  map[uint64]Request // ours, outstanding
	queue map[string]Event   // theirs, waiting
	sends map[string]bool
	done  bool
}

// failer is a test or a check of rapid.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
}

func newAudit(t failer, s *Swarm) *audit {
	return &audit{
		t: t, cfg: s.cfg, have: s.Have(), done: s.Have().Full(), has: map[shoal.PeerID]Bitmap{}, asks: map[uint64]Request{},
		queue: map[string]Event{}, sends: map[string]bool{},
	}
}

func key(p shoal.PeerID, ask uint64) string { return fmt.Sprint(p, "/", ask) }

func (a *audit) forget(p shoal.PeerID) {
	delete(a.has, p)
	for id, r := range a.asks {
		if r.Peer == p {
			delete(a.asks, id)
		}
	}
	for k, e := range a.queue {
		if e.Peer == p {
			delete(a.queue, k)
			delete(a.sends, k)
		}
	}
}

// event notes what the Swarm was told.
func (a *audit) event(e Event) {
	k := key(e.Peer, e.Ask)
	_, connected := a.has[e.Peer]
	switch e.Kind {
	case EventJoin:
		a.forget(e.Peer)
		a.has[e.Peer] = e.Chunks.Clone()
	case EventLeave:
		a.forget(e.Peer)
	case EventHas:
		if connected {
			a.has[e.Peer].Set(e.Chunk)
		}
	case EventChunk, EventBad, EventFail:
		if r, ok := a.asks[e.Ask]; ok && r.Peer == e.Peer {
			delete(a.asks, e.Ask)
		}
	case EventAsk:
		if _, known := a.queue[k]; connected && !known {
			a.queue[k] = e
		}
	case EventCancel:
		if !a.sends[k] {
			delete(a.queue, k)
		}
	case EventSent, EventUnsent:
		delete(a.queue, k)
		delete(a.sends, k)
	default:
	}
}

// check holds the requests against what the Swarm was told.
func (a *audit) check(e Event, out []Request) {
	a.t.Helper()
	a.event(e)
	for _, r := range out {
		k := key(r.Peer, r.Ask)
		switch r.Kind {
		case RequestAsk:
			a.ask(r)
		case RequestCancel:
			if _, ok := a.asks[r.Ask]; !ok {
				a.t.Errorf("takes back ask %d of %s, which is over", r.Ask, r.Peer)
			}
			delete(a.asks, r.Ask)
		case RequestHave:
			if e.Kind != EventChunk || e.Chunk != r.Chunk || a.have.Has(r.Chunk) {
				a.t.Errorf("says it has %d after %v", r.Chunk, e)
			}
			a.have.Set(r.Chunk)
		case RequestSend:
			a.send(r)
		case RequestStop, RequestRefuse:
			delete(a.queue, k)
			delete(a.sends, k)
		case RequestDrop:
			a.forget(r.Peer)
		case RequestDone:
			if a.done || !a.have.Full() {
				a.t.Errorf("done again %v, full %v", a.done, a.have.Full())
			}
			a.done = true
		default:
		}
	}
	if len(a.asks) > a.cfg.Asks+len(a.has) { // one a peer may be an ask that nobody waits for
		a.t.Errorf("%d asks outstanding, limit %d", len(a.asks), a.cfg.Asks)
	}
	if len(a.sends) > slowFactor*a.cfg.Uploads {
		a.t.Errorf("%d uploads, limit %d", len(a.sends), slowFactor*a.cfg.Uploads)
	}
}

func (a *audit) ask(r Request) {
	a.t.Helper()
	has, connected := a.has[r.Peer]
	useful := has.Has(r.Chunk)
	for c := range has.Len() {
		useful = useful || r.Chunk == Any && has.Has(c) && !a.have.Has(c) && !r.Not.Has(c)
	}
	if !connected || a.have.Has(r.Chunk) || !useful {
		a.t.Errorf("asks %s for %d; connected %v, here %v, it has that %v", r.Peer, r.Chunk, connected, a.have.Has(r.Chunk), useful)
	}
	n := 0
	for _, o := range a.asks {
		if o.Peer == r.Peer {
			n++
		}
		if o.Peer == r.Peer && r.Chunk != Any && o.Chunk == r.Chunk {
			a.t.Errorf("asks %s twice for %d", r.Peer, r.Chunk)
		}
	}
	if n > a.cfg.Window { // one may be an ask that nobody waits for
		a.t.Errorf("asks %s for %d more than %d at a time", r.Peer, r.Chunk, a.cfg.Window)
	}
	a.asks[r.Ask] = r
}

func (a *audit) send(r Request) {
	a.t.Helper()
	k := key(r.Peer, r.Ask)
	e, asked := a.queue[k]
	fits := e.Chunk == r.Chunk || e.Chunk == Any && !e.Not.Has(r.Chunk)
	if !asked || a.sends[k] || !fits || !a.have.Has(r.Chunk) || a.has[r.Peer].Has(r.Chunk) {
		a.t.Errorf("sends %d to %s: asked %v (%d), sending %v, here %v, there %v", r.Chunk, r.Peer, asked, e.Chunk, a.sends[k],
			a.have.Has(r.Chunk), a.has[r.Peer].Has(r.Chunk))
	}
	a.sends[k] = true
}

// drawWorld draws a small network in which some lie, fall silent, leave or restart.
func drawWorld(t *rapid.T, tb testing.TB) *sim {
	n := rapid.IntRange(2, 7).Draw(t, "peers")
	chunks := rapid.IntRange(1, 130).Draw(t, "chunks")
	m := newSim(tb, rapid.Uint64().Draw(t, "seed"), chunks, time.Duration(rapid.IntRange(0, 200).Draw(t, "rtt"))*time.Millisecond)
	for range n {
		have := NewBitmap(chunks)
		part := rapid.SampledFrom([]int{0, 0, 0, 1, 5, 10}).Draw(t, "tenths")
		for c := range chunks {
			if m.rng.IntN(10) < part {
				have.Set(c)
			}
		}
		h := m.add(float64(rapid.IntRange(1, 100).Draw(t, "up"))*mega, float64(rapid.IntRange(1, 100).Draw(t, "down"))*mega, &have)
		h.cfg.Uploads = rapid.IntRange(1, 6).Draw(t, "uploads")
		h.cfg.Window = rapid.IntRange(1, 32).Draw(t, "window")
		h.cfg.Asks = rapid.IntRange(1, 96).Draw(t, "asks")
		m.start(h, have)
		at := time.Duration(rapid.IntRange(0, 5000).Draw(t, "at")) * time.Millisecond
		switch rapid.SampledFrom([]string{"", "", "", "", "lies", "mutes", "leaves", "restarts"}).Draw(t, "fault") {
		case "lies":
			h.liar = true
		case "mutes":
			m.after(at, func() { h.mute = true })
		case "leaves":
			m.after(at, func() { m.leave(h) })
		case "restarts":
			m.after(at, func() { m.restart(h, time.Second) })
		}
	}
	m.connectAll()
	return m
}

// TestDelivery: every peer that stays gets every chunk that an honest peer that stays
// has, whatever the others do; and each keeps its limits in every step.
func TestDelivery(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := drawWorld(rt, t)
		audits := map[*Swarm]*audit{}
		m.watch = func(h *host, e Event, out []Request) {
			if audits[h.sw] == nil {
				audits[h.sw] = newAudit(rt, h.sw)
			}
			audits[h.sw].check(e, out)
		}
		for _, h := range m.hosts {
			audits[h.sw] = newAudit(rt, h.sw)
		}
		m.run(10*time.Minute, func() bool { return rt.Failed() || m.now > 7*time.Second && m.settled() })
		for _, h := range m.hosts {
			if lacks := m.lacks(h); len(lacks) > 0 {
				rt.Fatalf("%s lacks %v after %v: %+v", h.id, lacks, m.now, h.sw.Stats())
			}
		}
	})
}

func (m *sim) settled() bool {
	return !slices.ContainsFunc(m.hosts, func(h *host) bool { return len(m.lacks(h)) > 0 })
}

// lacks returns the chunks that h should have by now and has not.
func (m *sim) lacks(h *host) []int {
	var out []int
	if h.gone {
		return nil
	}
	have := h.sw.Have()
	for c := range m.chunks {
		if have.Has(c) {
			continue
		}
		for _, o := range h.peers {
			if !o.gone && !o.liar && !o.mute && o.sw.have.Has(c) {
				out = append(out, c)
				break
			}
		}
	}
	return out
}

// TestSame: equal events give equal requests.
func TestSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := drawWorld(rt, t)
		twins := map[*Swarm]*Swarm{}
		m.watch = func(h *host, e Event, out []Request) {
			twin := twins[h.sw]
			if twin == nil {
				return // restarted
			}
			if got := twin.Step(e); fmt.Sprint(got) != fmt.Sprint(out) {
				rt.Errorf("Step(%v) = %v, and of its twin %v", e, out, got)
			}
		}
		for _, h := range m.hosts {
			twin, err := New(h.cfg, m.chunks, h.sw.Have())
			if err != nil {
				rt.Fatal(err)
			}
			twins[h.sw] = twin
		}
		m.run(20*time.Second, m.allDone)
	})
}

// TestAnything: no order of events, however foolish, breaks the counts or the limits.
func TestAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 70).Draw(rt, "chunks")
		s, err := New(Defaults(1), n, NewBitmap(n))
		if err != nil {
			rt.Fatal(err)
		}
		now := time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(rt, "events") {
			now += time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond
			chunks := NewBitmap(n)
			for c := range n {
				if rapid.IntRange(0, 2).Draw(rt, "bit") == 0 {
					chunks.Set(c)
				}
			}
			s.Step(Event{
				Kind: EventKind(rapid.IntRange(1, int(EventUnsent)).Draw(rt, "kind")), Now: now,
				Peer: shoal.PeerID(rapid.StringMatching("[a-d]").Draw(rt, "peer")),
				Ask:  uint64(rapid.IntRange(0, 12).Draw(rt, "ask")), Chunk: rapid.IntRange(-2, n+1).Draw(rt, "chunk"),
				Chunks: chunks, Not: chunks,
			})
			checkCounts(rt, s)
		}
	})
}

// checkCounts recounts what a Swarm keeps counts of.
func checkCounts(t *rapid.T, s *Swarm) {
	held, spread, bound := newTally(s.n), newTally(s.n), newTally(s.n)
	doubts := 0
	asks, sending, queued, full := 0, 0, 0, 0
	for _, p := range s.order {
		asks, sending, queued = asks+len(p.asks), sending+len(p.sending), queued+len(p.queue)
		open, doubt := 0, 0
		for _, a := range p.asks {
			if a.doubt {
				doubt++
			}
			if a.chunk == Any {
				open++
			} else if !a.doubt {
				bound.add(a.chunk)
			}
		}
		doubts += doubt
		if open != p.open || doubt != p.doubts || p.full != p.has.Full() || p.count != p.has.Count() {
			t.Errorf("%s: %d open, want %d; full %v, counts %d of %d", p.id, p.open, open, p.full, p.count, p.has.Count())
		}
		if p.full {
			full++
			continue
		}
		for c := range s.n {
			if p.has.Has(c) {
				held.add(c)
			}
			if p.has.Has(c) || p.given.Has(c) {
				spread.add(c)
			}
		}
	}
	got := fmt.Sprint(len(s.asks), s.doubts, s.sending, s.queued, s.full, s.missing, s.held, s.spread, s.bound)
	want := fmt.Sprint(asks, doubts, sending, queued, full, s.n-s.have.Count(), held, spread, bound)
	if got != want {
		t.Errorf("counts %s, want %s", got, want)
	}
}

func TestBitmap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(rt, "n")
		b := NewBitmap(n)
		want := map[int]bool{}
		for range rapid.IntRange(0, 100).Draw(rt, "sets") {
			if n > 0 {
				c := rapid.IntRange(0, n-1).Draw(rt, "c")
				b.Set(c)
				want[c] = true
			}
		}
		got, err := ParseBitmap(n, b.Bytes())
		if err != nil || got.Count() != len(want) || got.Len() != n || got.Full() != (len(want) == n) {
			rt.Fatalf("ParseBitmap(%d, %x) = %v, %v, want %d set", n, b.Bytes(), got, err, len(want))
		}
		for c := -1; c <= n; c++ {
			if got.Has(c) != want[c] {
				rt.Errorf("Has(%d) = %v", c, got.Has(c))
			}
		}
		cut := got.fit(n / 2)
		for c := range n / 2 {
			if cut.Has(c) != want[c] {
				rt.Errorf("cut to %d: Has(%d) = %v", n/2, c, cut.Has(c))
			}
		}
	})
}

func FuzzParseBitmap(f *testing.F) {
	f.Add(9, []byte{0xff, 1})
	f.Add(9, []byte{0xff, 2})
	f.Add(-1, []byte{})
	f.Fuzz(func(t *testing.T, n int, raw []byte) {
		b, err := ParseBitmap(n, raw)
		var invalid *shoal.InvalidError
		if err != nil && !errors.As(err, &invalid) {
			t.Errorf("ParseBitmap: %v, want an InvalidError", err)
		}
		if err == nil && string(b.Bytes()) != string(raw) {
			t.Errorf("ParseBitmap(%d, %x) is written as %x", n, raw, b.Bytes())
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config, *int){
		"uploads":  func(c *Config, _ *int) { c.Uploads = 0 },
		"asks":     func(c *Config, _ *int) { c.Asks = -1 },
		"window":   func(c *Config, _ *int) { c.Window = 0 },
		"patience": func(c *Config, _ *int) { c.Patience = 0 },
		"stall":    func(c *Config, _ *int) { c.Stall = -time.Second },
		"chunks":   func(_ *Config, n *int) { *n = maxChunks + 1 },
	} {
		cfg, n := Defaults(1), 5
		change(&cfg, &n)
		var invalid *shoal.InvalidError
		if _, err := New(cfg, n, Bitmap{}); !errors.As(err, &invalid) || invalid.Field != name {
			t.Errorf("New with bad %s: %v, want an InvalidError of it", name, err)
		}
	}
}
