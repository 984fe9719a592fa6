// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"math/bits"
	"slices"
	"time"
)

// How many times Config.Uploads may run at most when some are slow, and how many times
// Config.Window a peer may have waiting here.
const (
	slowFactor  = 4
	queueFactor = 2
)

// holdBack is how long who was sent more than others waits for them, while chunks come
// one by one: the first to ask would get them all, and be the one uplink for the rest.
const holdBack = 100 * time.Millisecond

// common is how many have a chunk that is not rare any more.
const common = 3

// wish is one ask of a peer that waits here.
type wish struct {
	ask   uint64
	chunk int // or Any
	not   Bitmap
	at    time.Duration
}

// upload is a chunk that is being sent.
type upload struct {
	ask   uint64
	chunk int
	at    time.Duration
}

func (s *Swarm) asked(p *peer, e Event) {
	known := slices.ContainsFunc(p.queue, func(w wish) bool { return w.ask == e.Ask }) ||
		slices.ContainsFunc(p.sending, func(u upload) bool { return u.ask == e.Ask })
	switch {
	case known:
	case e.Chunk != Any && !s.have.Has(e.Chunk), len(p.queue) >= queueFactor*s.cfg.Window:
		s.request(Request{Kind: RequestRefuse, Peer: p.id, Ask: e.Ask, Chunk: e.Chunk})
	default:
		p.queue = append(p.queue, wish{ask: e.Ask, chunk: e.Chunk, not: e.Not, at: s.now})
		s.queued++
	}
}

func (s *Swarm) cancelled(p *peer, id uint64) {
	for i, w := range p.queue {
		if w.ask == id {
			s.unqueue(p, i)
			return
		}
	}
	for _, u := range p.sending {
		if u.ask == id {
			s.endSend(p, id, false)
			s.request(Request{Kind: RequestStop, Peer: p.id, Ask: id, Chunk: u.chunk})
			return
		}
	}
}

func (s *Swarm) unqueue(p *peer, i int) {
	p.queue = slices.Delete(p.queue, i, i+1)
	s.queued--
}

// endSend ends an upload. What was not sent counts as not given.
func (s *Swarm) endSend(p *peer, id uint64, sent bool) {
	i := slices.IndexFunc(p.sending, func(u upload) bool { return u.ask == id })
	if i < 0 {
		return
	}
	c := p.sending[i].chunk
	p.sending = slices.Delete(p.sending, i, i+1)
	s.sending--
	if sent {
		p.sent++
		return
	}
	if p.given.Has(c) {
		p.given.Clear(c)
		if !p.has.Has(c) && !p.full {
			s.spread.sub(c)
		}
	}
}

// serve begins uploads while there are slots and asks that may be served.
func (s *Swarm) serve() {
	for s.queued > 0 && s.slot() {
		p, i, c := s.pick()
		if p == nil {
			return
		}
		id := p.queue[i].ask
		s.unqueue(p, i)
		if !p.given.Has(c) {
			p.given.Set(c)
			if !p.has.Has(c) && !p.full {
				s.spread.add(c)
			}
		}
		p.sending = append(p.sending, upload{ask: id, chunk: c, at: s.now})
		s.sending++
		s.serving++
		p.served = s.serving
		s.request(Request{Kind: RequestSend, Peer: p.id, Ask: id, Chunk: c})
	}
}

// slot reports whether an upload may begin. A slow one takes no slot, so that peers
// behind slow links do not idle a fast one.
func (s *Swarm) slot() bool {
	if s.sending < s.cfg.Uploads {
		return true
	}
	if s.sending >= slowFactor*s.cfg.Uploads {
		return false
	}
	slow := 0
	for _, p := range s.order {
		slow += p.slow(s)
	}
	return s.sending-slow < s.cfg.Uploads
}

// slow counts the uploads to p that take long.
func (p *peer) slow(s *Swarm) int {
	n := 0
	for _, u := range p.sending {
		if s.now-u.at >= s.cfg.Patience {
			n++
		}
	}
	return n
}

// pick returns the waiting ask to serve and its chunk: that of the lowest rank; among equal
// ones the peer with the fewest uploads under way, then the one served longest ago.
func (s *Swarm) pick() (*peer, int, int) {
	var best *peer
	var at, chunk, rank int
	for _, p := range s.order {
		if len(p.queue) > 0 && p.slow(s) >= s.cfg.Uploads {
			continue // more would not be faster, and it could take all slots
		}
		openSeen := false
		for i := 0; i < len(p.queue); i++ {
			w := &p.queue[i]
			if w.chunk == Any && openSeen {
				continue
			}
			openSeen = openSeen || w.chunk == Any
			if w.chunk != Any && p.has.Has(w.chunk) { // it came from elsewhere
				s.unqueue(p, i)
				i--
				continue
			}
			c, n, ok := s.servable(p, w)
			if ok && (best == nil || s.before(p, n, best, rank)) {
				best, at, chunk, rank = p, i, c, n
			}
		}
	}
	return best, at, chunk
}

// before reports whether a chunk of rank n for p goes before one of rank m for q.
func (s *Swarm) before(p *peer, n int, q *peer, m int) bool {
	switch {
	case n != m:
		return n < m
	case p == q:
		return false
	case len(p.sending) != len(q.sending):
		return len(p.sending) < len(q.sending)
	}
	return p.served < q.served
}

// servable returns the chunk that an ask would get and its rank: how often that is spread,
// up to common; an ask that has waited for Patience counts as for a rarer one, lest
// it waits for ever. Any gets what is spread nowhere, so that we
// send each chunk once; after Patience, anything. What was given is not given again before
// Patience either: it is on its way.
func (s *Swarm) servable(p *peer, w *wish) (chunk, rank int, ok bool) {
	overdue := s.now-w.at >= s.cfg.Patience
	if w.chunk != Any {
		if p.given.Has(w.chunk) && (!overdue || p.isSending(w.chunk)) {
			return 0, 0, false
		}
		rank = min(int(s.spread.n[w.chunk]), common)
		if overdue {
			rank = min(rank, 2)
		}
		return w.chunk, rank, true
	}
	if s.now-w.at < holdBack && s.missing > 0 && s.ahead(p) {
		return 0, 0, false
	}
	for i, x := range s.have.words {
		if x &^= p.has.words[i] | p.given.words[i] | w.not.word(i) | s.spread.once.words[i]; x != 0 {
			return i*64 + bits.TrailingZeros64(x), 0, true
		}
	}
	if !overdue {
		return 0, 0, false
	}
	for i, x := range s.have.words {
		for x &^= p.has.words[i] | w.not.word(i); x != 0; x &= x - 1 {
			c := i*64 + bits.TrailingZeros64(x)
			if n := min(int(s.spread.n[c]), common); (!ok || n < rank) && !p.isSending(c) {
				chunk, rank, ok = c, n, true
			}
		}
	}
	return chunk, rank, ok
}

// ahead reports whether p was sent more than most who may still want something.
func (s *Swarm) ahead(p *peer) bool {
	sum, n := 0, 0
	for _, q := range s.order {
		if !q.full {
			sum += q.sent + len(q.sending)
			n++
		}
	}
	return (p.sent+len(p.sending))*n > sum
}

func (p *peer) isSending(c int) bool {
	return slices.ContainsFunc(p.sending, func(u upload) bool { return u.chunk == c })
}
