// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

const (
	mega   = 1e6 // bytes
	pieces = 8   // of a chunk on the wire
)

// host is one peer of a simulation: a Swarm, its links and what it did.
type host struct {
	id       shoal.PeerID
	sw       *Swarm
	cfg      Config
	up, down float64       // bytes a second
	far      time.Duration // it adds this to the way to any other
	origin   bool          // had the blob at the start
	liar     bool          // sends bad chunks
	mute     bool          // sends nothing any more
	gone     bool
	peers    []*host
	links    map[*host]int // by peer; a new number for each connection

	active  []*transfer
	flying  map[*host]int // bytes
	pumping bool
	downAt  time.Duration // when the downlink is free

	doneAt               time.Duration // 0: not yet
	sent                 float64       // bytes
	gotOrigin, gotOthers int           // chunks
	pieces               int           // that came, of whatever became whole or not
	sources              map[shoal.PeerID]bool
	events               []RequestKind // those that are for people
}

// transfer is one chunk on its way.
type transfer struct {
	from, to  *host
	ask       uint64
	chunk     int
	link      int
	sent, got int
	told      time.Duration // when progress was last told
}

// moment is something that happens at a time; seq orders what happens at once.
type moment struct {
	at  time.Duration
	seq int
	do  func()
}

// sim is a network with a clock. Equal seeds and calls give equal runs.
type sim struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Duration
	seq    int
	heap   []moment
	rtt    time.Duration
	stream int // bytes in flight between two peers, at most
	chunks int
	hosts  []*host
	byID   map[shoal.PeerID]*host
	watch  func(*host, Event, []Request) // sees every step
}

func newSim(t testing.TB, seed uint64, chunks int, rtt time.Duration) *sim {
	return &sim{t: t, rng: rand.New(rand.NewPCG(seed, 1)), chunks: chunks, rtt: rtt, stream: 4 << 20, byID: map[shoal.PeerID]*host{}}
}

// add adds a peer that has what have says, nil: nothing.
func (m *sim) add(up, down float64, have *Bitmap) *host {
	h := &host{
		id: shoal.PeerID(fmt.Sprintf("p%03d", len(m.hosts))), up: up, down: down, cfg: Defaults(m.rng.Uint64()),
		flying: map[*host]int{}, links: map[*host]int{}, sources: map[shoal.PeerID]bool{},
	}
	if have == nil {
		none := NewBitmap(m.chunks)
		have = &none
	}
	h.origin = have.Full()
	m.start(h, *have)
	m.hosts = append(m.hosts, h)
	m.byID[h.id] = h
	m.after(time.Duration(m.rng.Int64N(int64(tickEvery))), func() { m.tick(h) })
	return h
}

func (m *sim) seeder(up float64) *host {
	all := NewBitmap(m.chunks)
	for c := range m.chunks {
		all.Set(c)
	}
	return m.add(up, up, &all)
}

func (m *sim) start(h *host, have Bitmap) {
	sw, err := New(h.cfg, m.chunks, have)
	if err != nil {
		m.t.Fatal(err)
	}
	h.sw = sw
}

const tickEvery = 250 * time.Millisecond

func (m *sim) tick(h *host) {
	m.step(h, Event{Kind: EventTick})
	m.after(tickEvery, func() { m.tick(h) })
}

// way is how long a message travels.
func (m *sim) way(a, b *host) time.Duration { return m.rtt/2 + a.far + b.far }

// connect joins two peers.
func (m *sim) connect(a, b *host) {
	if a == b || slices.Contains(a.peers, b) {
		return
	}
	a.peers, b.peers = append(a.peers, b), append(b.peers, a)
	m.seq++
	link := m.seq
	a.links[b], b.links[a] = link, link
	haveA, haveB := a.sw.Have(), b.sw.Have()
	m.after(m.way(a, b), func() {
		if a.links[b] != link {
			return
		}
		m.step(a, Event{Kind: EventJoin, Peer: b.id, Chunks: haveB})
		m.step(b, Event{Kind: EventJoin, Peer: a.id, Chunks: haveA})
	})
}

func (m *sim) connectAll() {
	for i, a := range m.hosts {
		for _, b := range m.hosts[:i] {
			m.connect(a, b)
		}
	}
}

// disconnect parts two peers; what was on its way between them is lost.
func (m *sim) disconnect(a, b *host) {
	for _, s := range [][2]*host{{a, b}, {b, a}} {
		x, y := s[0], s[1]
		x.peers = slices.DeleteFunc(x.peers, func(h *host) bool { return h == y })
		x.active = slices.DeleteFunc(x.active, func(t *transfer) bool { return t.to == y })
		delete(x.flying, y)
		delete(x.links, y)
		m.step(x, Event{Kind: EventLeave, Peer: y.id})
	}
}

func (m *sim) leave(h *host) {
	for len(h.peers) > 0 {
		m.disconnect(h, h.peers[0])
	}
	h.gone = true
}

// restart ends a peer at once and starts it a while later with what is on its disk.
func (m *sim) restart(h *host, after time.Duration) {
	old := slices.Clone(h.peers)
	m.leave(h)
	m.after(after, func() {
		h.gone, h.pumping, h.active = false, false, nil
		m.start(h, h.sw.Have())
		for _, p := range old {
			if !p.gone {
				m.connect(h, p)
			}
		}
	})
}

// feed gives a peer the blob in order from outside the swarm, at a rate.
func (m *sim) feed(h *host, rate float64) {
	for c := range m.chunks {
		m.after(time.Duration(c+1)*pieces*wire(rate), func() { m.step(h, Event{Kind: EventChunk, Chunk: c}) })
	}
}

func (m *sim) after(d time.Duration, do func()) {
	m.seq++
	m.push(moment{at: m.now + d, seq: m.seq, do: do})
}

// run runs until done says so or the time is over.
func (m *sim) run(limit time.Duration, done func() bool) {
	for len(m.heap) > 0 && !done() {
		if m.heap[0].at > limit {
			m.now = limit
			return
		}
		x := m.pop()
		m.now = x.at
		x.do()
	}
}

func (m *sim) allDone() bool {
	return !slices.ContainsFunc(m.hosts, func(h *host) bool { return !h.gone && !h.origin && h.doneAt == 0 })
}

// step gives a peer an event and does what it wants.
func (m *sim) step(h *host, e Event) {
	if h.gone {
		return
	}
	e.Now = m.now
	out := h.sw.Step(e)
	if m.watch != nil {
		m.watch(h, e, out)
	}
	for _, r := range out {
		m.carryOut(h, r)
	}
}

func (m *sim) carryOut(h *host, r Request) {
	to := m.byID[r.Peer]
	switch r.Kind {
	case RequestAsk:
		m.tell(h, to, Event{Kind: EventAsk, Ask: r.Ask, Chunk: r.Chunk, Not: r.Not})
	case RequestCancel:
		m.tell(h, to, Event{Kind: EventCancel, Ask: r.Ask})
	case RequestRefuse:
		m.tell(h, to, Event{Kind: EventFail, Ask: r.Ask})
	case RequestHave:
		for _, p := range h.peers {
			m.tell(h, p, Event{Kind: EventHas, Chunk: r.Chunk})
		}
	case RequestSend:
		h.active = append(h.active, &transfer{from: h, to: to, ask: r.Ask, chunk: r.Chunk, link: h.links[to]})
		m.pump(h)
	case RequestStop:
		h.active = slices.DeleteFunc(h.active, func(t *transfer) bool { return t.to == to && t.ask == r.Ask })
	case RequestDrop:
		h.events = append(h.events, r.Kind)
		m.after(0, func() { m.disconnect(h, to) })
	case RequestStalled, RequestStarved:
		h.events = append(h.events, r.Kind)
	case RequestDone:
		h.doneAt = m.now
	}
}

// tell brings a message to a peer, half a round trip later, if they are connected then.
func (m *sim) tell(from, to *host, e Event) {
	e.Peer = from.id
	link := from.links[to]
	m.after(m.way(from, to), func() {
		if link != 0 && to.links[from] == link {
			m.step(to, e)
		}
	})
}

// pump sends the next piece: transfers take turns, and one whose stream is full waits.
func (m *sim) pump(h *host) {
	if h.pumping || h.mute || h.gone {
		return
	}
	for i, t := range h.active {
		if h.flying[t.to] >= m.stream {
			continue
		}
		h.active = append(slices.Delete(h.active, i, i+1), t)
		h.pumping = true
		h.flying[t.to] += ChunkBytes / pieces
		life := h.sw
		m.after(wire(h.up), func() {
			if h.sw == life {
				m.sentPiece(t)
			}
		})
		return
	}
}

func wire(rate float64) time.Duration {
	return time.Duration(ChunkBytes / pieces / rate * float64(time.Second))
}

func (m *sim) sentPiece(t *transfer) {
	h := t.from
	h.pumping = false
	h.sent += ChunkBytes / pieces
	t.sent++
	m.after(m.way(h, t.to), func() {
		t.to.downAt = max(m.now, t.to.downAt) + wire(t.to.down)
		m.after(t.to.downAt-m.now, func() { m.gotPiece(t) })
	})
	if i := slices.Index(h.active, t); i >= 0 && t.sent == pieces {
		h.active = slices.Delete(h.active, i, i+1)
		m.step(h, Event{Kind: EventSent, Peer: t.to.id, Ask: t.ask})
	}
	m.pump(h)
}

func (m *sim) gotPiece(t *transfer) {
	if t.to.links[t.from] != t.link {
		return
	}
	m.after(m.way(t.from, t.to), func() {
		t.from.flying[t.to] = max(0, t.from.flying[t.to]-ChunkBytes/pieces)
		m.pump(t.from)
	})
	t.got++
	t.to.pieces++
	e := Event{Kind: EventHead, Peer: t.from.id, Ask: t.ask, Chunk: t.chunk}
	if t.got == 1 {
		t.told = m.now
		m.step(t.to, e)
	}
	switch {
	case t.got < pieces && m.now-t.told < time.Second:
		return
	case t.got < pieces:
		e.Kind, t.told = EventMore, m.now
	case t.from.liar:
		e.Kind = EventBad
	default:
		e.Kind = EventChunk
		t.to.sources[t.from.id] = true
		if t.from.origin {
			t.to.gotOrigin++
		} else {
			t.to.gotOthers++
		}
	}
	m.step(t.to, e)
}

// push and pop keep the moments a binary heap.
func (m *sim) push(x moment) {
	m.heap = append(m.heap, x)
	i := len(m.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !sooner(&m.heap[i], &m.heap[up]) {
			break
		}
		m.heap[i], m.heap[up] = m.heap[up], m.heap[i]
		i = up
	}
}

func (m *sim) pop() moment {
	top, last := m.heap[0], len(m.heap)-1
	m.heap[0], m.heap[last] = m.heap[last], moment{}
	m.heap = m.heap[:last]
	for i := 0; ; {
		low := 2*i + 1
		if low >= last {
			break
		}
		if low+1 < last && sooner(&m.heap[low+1], &m.heap[low]) {
			low++
		}
		if !sooner(&m.heap[low], &m.heap[i]) {
			break
		}
		m.heap[i], m.heap[low] = m.heap[low], m.heap[i]
		i = low
	}
	return top
}

func sooner(a, b *moment) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }
