// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"math/bits"
	"slices"
	"time"
)

// The pause after a failed ask: it doubles from pauseFirst to pauseLast.
const (
	pauseFirst = 250 * time.Millisecond
	pauseLast  = 8 * time.Second
)

// ask is one chunk that we asked a peer for.
type ask struct {
	id    uint64
	peer  *peer
	chunk int // Any while the peer has not chosen
	not   Bitmap
	at    time.Duration
	head  time.Duration // when it began to come; -1: not yet
	doubt bool          // nobody waits for it
}

// fetch asks whoever may be asked for more. Peers take turns in being first, for the
// asks outstanding in all are limited.
func (s *Swarm) fetch() {
	if s.missing == 0 || s.paused || len(s.order) == 0 {
		return
	}
	s.renew()
	s.turn++
	for i := range s.order {
		p := s.order[(s.turn+i)%len(s.order)]
		s.trim(p)
		s.askOf(p)
	}
}

// pause takes back what was asked for.
func (s *Swarm) pause() {
	s.paused = true
	for len(s.asks) > 0 {
		s.cancel(s.asks[len(s.asks)-1])
	}
}

// askOf asks p until its window is full or there is nothing to ask it for.
func (s *Swarm) askOf(p *peer) {
	for s.missing > 0 && !s.paused && s.now >= p.resume {
		if p.stalled && len(p.asks) > 0 || !p.stalled && (len(p.asks)-p.doubts >= p.window || len(s.asks)-s.doubts >= s.limit) {
			return
		}
		c, ok := s.choose(p)
		if !ok {
			return
		}
		s.ask(p, c)
	}
}

func (s *Swarm) ask(p *peer, c int) {
	s.nextAsk++
	a := &ask{id: s.nextAsk, peer: p, chunk: c, at: s.now, head: -1, doubt: p.stalled}
	if len(p.asks) == 0 && !p.renewed {
		p.progress = s.now
	}
	p.renewed = false
	if a.doubt {
		p.doubts++
		s.doubts++
	}
	p.asks = append(p.asks, a)
	s.asks = append(s.asks, a)
	r := Request{Kind: RequestAsk, Peer: p.id, Ask: a.id, Chunk: c}
	if c == Any {
		p.open++
		a.not = s.not(p)
		r.Not = a.not
	} else if !a.doubt {
		s.bound.add(c)
	}
	s.request(r)
}

// choose returns what to ask p for: first what no other downloader has, which of that is
// up to p; then by name what nobody was asked for; last, when everything missing is asked
// for, what another peer was asked for and has not begun.
func (s *Swarm) choose(p *peer) (int, bool) {
	exclusive := s.exclusive(p, p.open+1)
	if exclusive > p.open {
		return Any, true
	}
	if c, ok := s.named(p, exclusive > 0); ok {
		return c, true
	}
	if p.stalled || s.missing > s.bound.once.Count() {
		return 0, false
	}
	return s.again(p)
}

// exclusive counts, up to limit, the missing chunks that no downloader but p has and
// that are p's share.
func (s *Swarm) exclusive(p *peer, limit int) int {
	if !p.full && s.full > 0 {
		return 0
	}
	n := 0
	for i, w := range p.has.words {
		w &^= s.have.words[i] | s.bound.once.words[i]
		switch {
		case !p.full:
			w &^= s.held.two.words[i]
		case s.full == 1:
			w &^= s.held.once.words[i]
		default:
			w = s.shareOf(p, i, w&^s.held.once.words[i])
		}
		if n += bits.OnesCount64(w); n >= limit {
			return limit
		}
	}
	return n
}

// shareOf returns the chunks of word i in w that are p's share among the full peers.
func (s *Swarm) shareOf(p *peer, i int, w uint64) uint64 {
	out := uint64(0)
	for ; w != 0; w &= w - 1 {
		b := bits.TrailingZeros64(w)
		if (i*64+b)%s.full == p.share {
			out |= 1 << b
		}
	}
	return out
}

// not returns what p shall not choose: what is asked for already, and the shares of others.
func (s *Swarm) not(p *peer) Bitmap {
	not := s.bound.once.Clone()
	if !p.full || s.full < 2 {
		return not
	}
	for c := range s.n {
		if c%s.full != p.share {
			not.Set(c)
		}
	}
	return not
}

// named returns the rarest chunk of p that is missing and that nobody was asked for.
// shared leaves out those that no downloader has: p was asked for these already.
func (s *Swarm) named(p *peer, shared bool) (int, bool) {
	others := s.held.once // p itself counts unless it is full
	if !p.full {
		others = s.held.two
	}
	best, rare, mixed := 0, -1, uint64(0)
	for i, w := range p.has.words {
		w &^= s.have.words[i] | s.bound.once.words[i]
		if shared {
			w &= others.words[i]
		}
		for ; w != 0; w &= w - 1 {
			c := i*64 + bits.TrailingZeros64(w)
			n := int(s.held.n[c])
			if rare >= 0 && n > rare {
				continue
			}
			if m := mix(s.cfg.Seed, uint64(c+p.fails)); n < rare || rare < 0 || m < mixed {
				best, rare, mixed = c, n, m
			}
		}
	}
	return best, rare >= 0
}

// again returns the chunk of p that was asked for longest ago of one other peer, and has
// not begun to come or comes slowly.
func (s *Swarm) again(p *peer) (int, bool) {
	for _, a := range s.asks {
		waits := a.head < 0 || s.now-a.head >= s.cfg.Patience
		if a.chunk != Any && !a.doubt && a.peer != p && waits && s.bound.n[a.chunk] == 1 && p.has.Has(a.chunk) {
			return a.chunk, true
		}
	}
	return 0, false
}

// trim takes back asks for Any that p has nothing left for. Of a peer that gets more
// itself one stays, for the next chunk; nobody waits for it.
func (s *Swarm) trim(p *peer) {
	if p.open == 0 || p.stalled {
		return
	}
	due := s.exclusive(p, p.open)
	keep := due
	if !p.full {
		keep = max(due, 1)
	}
	for surplus := p.open - keep; surplus > 0; surplus-- {
		s.cancel(p.lastOpen())
	}
	if keep > due {
		s.distrust(p.lastOpen())
	}
}

// renew makes asks for Any anew that leave out what may be sent by now, or once the peer
// has it: who else was asked for it is gone or silent, and nothing else may ever come.
func (s *Swarm) renew() {
	if !s.freed {
		return
	}
	s.freed = false
	for _, p := range s.order {
		if p.open == 0 {
			continue
		}
		not := s.not(p)
		for _, a := range slices.Clone(p.asks) {
			if a.chunk == Any && s.stale(a, not) {
				s.cancel(a)
				p.renewed = true
			}
		}
	}
}

// stale reports whether a leaves out a missing chunk that is not in not any more.
func (s *Swarm) stale(a *ask, not Bitmap) bool {
	for i, w := range a.not.words {
		if w&^(s.have.words[i]|not.words[i]) != 0 {
			return true
		}
	}
	return false
}

func (p *peer) lastOpen() *ask {
	i := len(p.asks) - 1
	for p.asks[i].chunk != Any {
		i--
	}
	return p.asks[i]
}

// head binds an ask to the chunk that begins to come, unless it is on its way already.
func (s *Swarm) head(p *peer, e Event) {
	a := p.findAsk(e.Ask)
	if a == nil || a.head >= 0 {
		return
	}
	if e.Chunk < 0 || e.Chunk >= s.n || a.chunk != Any && a.chunk != e.Chunk {
		s.drop(p, "sends a chunk that it was not asked for")
		return
	}
	s.trust(p)
	if s.have.Has(e.Chunk) {
		s.cancel(a)
		return
	}
	for _, b := range slices.Clone(s.asks) {
		if b == a || b.chunk != e.Chunk {
			continue
		}
		if b.head >= 0 && !b.doubt && s.now-b.head < s.cfg.Patience {
			s.cancel(a)
			return
		}
		if b.head < 0 {
			s.cancel(b)
		}
	}
	a.head = s.now
	if a.chunk == Any {
		a.chunk = e.Chunk
		p.open--
		s.bound.add(a.chunk)
	}
}

// gotChunk takes a chunk that is verified, asked for or not.
func (s *Swarm) gotChunk(p *peer, e Event) {
	if e.Chunk < 0 || e.Chunk >= s.n {
		return
	}
	if p != nil {
		p.got++
		if a := p.findAsk(e.Ask); a != nil {
			s.learn(p, s.now-a.at)
			s.endAsk(a)
		}
		s.trust(p)
	}
	if s.have.Has(e.Chunk) {
		s.wasted++
		return
	}
	s.have.Set(e.Chunk)
	s.missing--
	s.gained++
	for _, a := range slices.Clone(s.asks) {
		if a.chunk == e.Chunk || s.missing == 0 {
			s.cancel(a)
		}
	}
	s.request(Request{Kind: RequestHave, Chunk: e.Chunk})
	if s.missing == 0 {
		s.request(Request{Kind: RequestDone})
	}
}

// learn adapts the window of p so that what is in flight is about twice what the path
// holds: the asks then wait at the uploader for as long as they travel. It adapts the
// limit of all asks so that none takes much longer than Patience: behind a slow downlink
// more of them only wait, and look as if their source were slow.
func (s *Swarm) learn(p *peer, took time.Duration) {
	if p.latency == 0 || took < p.latency {
		p.latency = took
	} else {
		p.latency += p.latency / 64
	}
	switch {
	case took <= 2*p.latency:
		p.window = min(p.window+1, s.cfg.Window)
	case took > 4*p.latency:
		p.window = max(p.window-1, min(leastWindow, s.cfg.Window))
	}
	switch {
	case took <= s.cfg.Patience:
		s.limit = min(s.limit+1, s.cfg.Asks)
	case took > 2*s.cfg.Patience:
		s.limit = max(s.limit-1, min(leastAsks, s.cfg.Asks))
	}
}

// trust makes p a source as before: something came from it.
func (s *Swarm) trust(p *peer) {
	s.advance(p)
	p.fails = 0
	p.stalled = false
	for _, a := range p.asks {
		if !a.doubt {
			continue
		}
		a.doubt = false
		p.doubts--
		s.doubts--
		if a.chunk != Any {
			s.bound.add(a.chunk)
		}
	}
}

// distrust lets others be asked for what a was to bring.
func (s *Swarm) distrust(a *ask) {
	if a.doubt {
		return
	}
	a.doubt = true
	a.peer.doubts++
	s.doubts++
	if a.chunk != Any {
		s.bound.sub(a.chunk)
		s.freed = s.freed || s.bound.n[a.chunk] == 0
	}
}

// failed ends an ask that brings nothing; p is not asked for a while.
func (s *Swarm) failed(p *peer, id uint64) {
	a := p.findAsk(id)
	if a == nil {
		return
	}
	s.endAsk(a)
	p.resume = s.now + min(pauseFirst<<min(p.fails, 8), pauseLast)
	p.fails++
}

func (s *Swarm) cancel(a *ask) {
	s.request(Request{Kind: RequestCancel, Peer: a.peer.id, Ask: a.id, Chunk: a.chunk})
	s.endAsk(a)
}

// endAsk forgets an ask.
func (s *Swarm) endAsk(a *ask) {
	s.distrust(a)
	a.peer.doubts--
	s.doubts--
	if a.chunk == Any {
		a.peer.open--
	}
	same := func(b *ask) bool { return a == b }
	s.asks = slices.DeleteFunc(s.asks, same)
	a.peer.asks = slices.DeleteFunc(a.peer.asks, same)
}

func (p *peer) findAsk(id uint64) *ask {
	for _, a := range p.asks {
		if a.id == id {
			return a
		}
	}
	return nil
}

// mix spreads x, by a seed (splitmix64).
func mix(seed, x uint64) uint64 {
	x += seed + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
