// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package des

import (
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// Detection of a death: 5 s after the last beat heard, and a failed dial.
const deadAfter = 5 * time.Second

// silence makes peer a stop hearing b: it becomes suspect and then dead in a's view.
func (s *Sim) silence(a, b *peer, lastBeat time.Duration) {
	if !a.up {
		return
	}
	a.seen[b.i]++
	gen, life := a.seen[b.i], a.life
	set := func(state shoal.LifeState) func() {
		return func() {
			if a.seen[b.i] != gen || a.life != life || !a.up || a.lives[b.id].State == shoal.LifeUnknown {
				return
			}
			a.lives[b.id] = shoal.Life{State: state, Heard: lastBeat}
			a.changed()
		}
	}
	s.after(lastBeat+s.deadAfter()*3/5-s.now, set(shoal.LifeSuspect))
	dial := s.scaled(s.between(100*time.Millisecond, 1100*time.Millisecond))
	s.after(lastBeat+s.deadAfter()+dial-s.now, set(shoal.LifeDead))
}

func (s *Sim) deadAfter() time.Duration { return s.scaled(deadAfter) }

// scaled shortens a time of the detection of deaths on a quicker network.
func (s *Sim) scaled(d time.Duration) time.Duration {
	if s.quick > 0 {
		return d / (deadAfter / s.quick)
	}
	return d
}

// meet makes two peers that reach each other again hear each other: a dial, beats both ways, then the difference of their records.
func (s *Sim) meet(a, b *peer) {
	in := s.between(0, s.redial)
	lifeA, lifeB := a.life, b.life
	s.after(in, func() {
		if a.life != lifeA || b.life != lifeB || !s.reaches(a.i, b.i) || !s.reaches(b.i, a.i) {
			return
		}
		s.hear(a, b)
		s.hear(b, a)
		s.after(s.delay(a.i, b.i), func() { // heads there and back, then the bulk
			fromA, fromB := a.known(), b.known()
			s.deliver(a, b, s.delay(a.i, b.i)+s.delay(a.i, b.i), func() {
				if !b.deaf && b.learn(fromA, false) {
					b.changed()
				}
			})
			s.deliver(b, a, s.delay(a.i, b.i)+s.delay(a.i, b.i), func() {
				if !a.deaf && a.learn(fromB, false) {
					a.changed()
				}
			})
		})
	})
}

// hear lets a's next beat reach b.
func (s *Sim) hear(a, b *peer) {
	b.seen[a.i]++
	in := s.delay(a.i, b.i)
	booted := a.bootedAt
	s.deliver(a, b, in, func() {
		b.lives[a.id] = shoal.Life{State: shoal.LifeAlive, Heard: s.now, Uptime: s.now - booted}
		b.changed()
	})
	if st := a.states[a.id]; st != nil {
		a.tellOne(b, st, a.stateSeq, in)
	}
}

// crash takes a peer and its containers away.
func (s *Sim) crash(p *peer) {
	p.up = false
	p.life++
	for _, box := range p.containers {
		p.stop(box)
	}
	last := s.now - s.scaled(s.between(0, time.Second))
	for _, o := range s.peers {
		if o != p && s.linked[p.i*len(s.peers)+o.i] {
			s.silence(o, p, last)
		}
	}
}

// boot brings a crashed peer back with its records and an empty memory.
func (s *Sim) boot(p *peer) {
	p.up = true
	p.life++
	p.bootedAt = s.now
	p.due, p.writing, p.again = -1, false, false
	clear(p.pulling)
	clear(p.lives)
	clear(p.states)
	clear(p.told)
	p.mem = placement.NewMemory(s.now)
	p.tell()
	p.changed()
	for _, o := range s.peers {
		if o != p && s.reaches(p.i, o.i) {
			s.meet(p, o)
		}
	}
}

// split cuts every link between peers of different sides.
func (s *Sim) split(side func(i int) int) {
	for _, a := range s.peers {
		last := s.now - s.scaled(s.between(0, time.Second))
		for _, b := range s.peers {
			if side(a.i) != side(b.i) {
				s.linked[a.i*len(s.peers)+b.i] = false
				s.silence(b, a, last)
			}
		}
	}
}

// heal restores all links.
func (s *Sim) heal() {
	for i, a := range s.peers {
		for _, b := range s.peers[i+1:] {
			if cut := !s.linked[a.i*len(s.peers)+b.i]; cut {
				s.linked[a.i*len(s.peers)+b.i] = true
				s.linked[b.i*len(s.peers)+a.i] = true
				if a.up && b.up {
					s.meet(a, b)
				}
			}
		}
	}
}

// hearing ends a peer's deafness: everybody syncs with it.
func (s *Sim) hearing(p *peer) {
	p.deaf = false
	for _, o := range s.peers {
		if o != p && s.reaches(p.i, o.i) {
			s.meet(p, o)
		}
	}
}
