// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Asks at one peer and at all before anything is known, and the fewest when they take long.
const (
	firstWindow, leastWindow = 4, 2
	firstAsks, leastAsks     = 32, 8
)

// peer is one connected peer, as a source and as one that asks.
type peer struct {
	id    shoal.PeerID
	has   Bitmap
	count int // of has
	full  bool
	share int // which share of the chunks that only full peers have is asked of it

	// As a source.
	asks     []*ask // outstanding, ordered by number
	open     int    // of those, for Any and not yet begun
	doubts   int    // of those, that nobody waits for
	window   int
	latency  time.Duration // shortest from ask to chunk, drifting up; 0: unknown
	progress time.Duration // when something last came, or the first ask was made
	renewed  bool          // an ask was taken back to be made anew: it waits on
	stalled  bool
	fails    int           // in a row
	resume   time.Duration // it is not asked before
	got      int
	rate     float64
	counted  int // of got, when rate was last computed
	rated    time.Duration

	// As one that asks.
	queue   []wish
	given   Bitmap // what was sent or is being sent to it
	sending []upload
	served  uint64 // when its last upload began, in the order of uploads
	sent    int
}

func (s *Swarm) join(e Event) {
	if s.banned[e.Peer] {
		s.request(Request{Kind: RequestDrop, Peer: e.Peer, Why: "lied before"})
		return
	}
	if old := s.peers[e.Peer]; old != nil {
		s.remove(old)
	}
	p := &peer{id: e.Peer, has: NewBitmap(s.n), given: NewBitmap(s.n), window: min(firstWindow, s.cfg.Window), rated: s.now}
	s.peers[p.id] = p
	i, _ := s.find(p.id)
	s.order = slices.Insert(s.order, i, p)
	chunks := e.Chunks.fit(s.n)
	for c := range s.n {
		if chunks.Has(c) {
			s.addHas(p, c)
		}
	}
}

// remove forgets a peer, and with it what was asked of it and what it asked.
func (s *Swarm) remove(p *peer) {
	for len(p.asks) > 0 {
		s.endAsk(p.asks[0])
	}
	for _, u := range p.sending {
		s.request(Request{Kind: RequestStop, Peer: p.id, Ask: u.ask, Chunk: u.chunk})
	}
	s.sending -= len(p.sending)
	s.queued -= len(p.queue)
	if p.full {
		s.full--
	} else {
		s.uncount(p)
	}
	i, _ := s.find(p.id)
	s.order = slices.Delete(s.order, i, i+1)
	delete(s.peers, p.id)
	if p.full {
		s.reshare()
	}
}

// drop removes a liar and never lets it in again.
func (s *Swarm) drop(p *peer, why string) {
	if p == nil {
		return
	}
	s.lied++
	s.banned[p.id] = true
	s.remove(p)
	s.request(Request{Kind: RequestDrop, Peer: p.id, Why: why})
}

func (s *Swarm) peerHas(p *peer, c int) {
	if c < 0 || c >= s.n || p.has.Has(c) {
		return
	}
	s.addHas(p, c)
	s.askOf(p)
	for _, q := range s.order { // what only q has got less
		s.trim(q)
	}
}

// addHas counts that p has c. A full peer is counted apart: it has everything, which says
// nothing about how rare a chunk is.
func (s *Swarm) addHas(p *peer, c int) {
	p.has.Set(c)
	p.count++
	s.held.add(c)
	if !p.given.Has(c) {
		s.spread.add(c)
	}
	if p.count == s.n {
		s.uncount(p)
		p.full = true
		s.full++
		s.reshare()
	}
}

// uncount takes what p has, and was given, out of the counts.
func (s *Swarm) uncount(p *peer) {
	for c := range s.n {
		has := p.has.Has(c)
		if has {
			s.held.sub(c)
		}
		if has || p.given.Has(c) {
			s.spread.sub(c)
		}
	}
}

// reshare numbers the full peers. Everybody who sees the same full peers numbers them
// alike, so two seeders do not send the same chunk first.
func (s *Swarm) reshare() {
	s.freed = true
	i := 0
	for _, p := range s.order {
		if p.full {
			p.share = i
			i++
		}
	}
}

// advance notes that something came from p.
func (s *Swarm) advance(p *peer) {
	p.progress, s.progress = s.now, s.now
}

func (s *Swarm) tick() {
	for _, p := range s.order {
		if dt := s.now - p.rated; dt >= time.Second {
			lately := float64(p.got-p.counted) * ChunkBytes / dt.Seconds()
			p.rate += 0.3 * (lately - p.rate)
			p.counted, p.rated = p.got, s.now
		}
		if len(p.asks) == 0 || p.stalled || s.now-p.progress < s.cfg.Stall {
			continue
		}
		if s.idle(p) {
			p.progress = s.now
		} else {
			s.stall(p)
		}
	}
	if s.missing > 0 && !s.paused && s.now-max(s.progress, s.starved) >= s.cfg.Stall {
		s.starved = s.now
		s.request(Request{Kind: RequestStarved})
	}
}

// idle reports whether nothing is due from p: what it was asked for is what it gets next.
func (s *Swarm) idle(p *peer) bool {
	return !p.full && len(p.asks) == p.open && s.exclusive(p, 1) == 0
}

// stall keeps one ask at p, which nobody waits for; when it brings something, p is a
// source as before.
func (s *Swarm) stall(p *peer) {
	p.stalled = true
	for len(p.asks) > 1 {
		s.cancel(p.asks[len(p.asks)-1])
	}
	s.distrust(p.asks[0])
	s.request(Request{Kind: RequestStalled, Peer: p.id})
}
