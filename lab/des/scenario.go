// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package des

import (
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// spec returns a service whose replicas reserve that many units each.
func (s *Sim) spec(name string, units int64) shoal.Spec {
	return shoal.Spec{
		Name: name, Mode: shoal.ModeReplicated, OnPartition: shoal.PartitionAvailable,
		Strategy: shoal.StrategySpread, Reservations: shoal.Resources{CPUMilli: 1000 * units, MemBytes: roomUnit * units},
	}
}

// deploy accepts a wish for a new service on peer p.
func (s *Sim) deploy(p *peer, name string, n int) {
	spec := s.spec(name, 1)
	placed := placement.Propose(p.view(), []placement.Wanted{{Spec: spec, Replicas: n}})
	p.seq++
	body := &wishBody{
		spec: spec, rev: shoal.RevisionID{Seq: 1, Author: p.id}, replicas: n, proposal: placed[0].Slots,
	}
	s.wanted[name] += n
	s.accept(p, &record{key: s.keyOf("service/" + name), seq: 1, wish: body})
}

// add accepts "+n" for a service on peer p.
func (s *Sim) add(p *peer, name string, n int) {
	svc, ok := p.view().Service(name)
	if !ok {
		return
	}
	placed := placement.Propose(p.view(), []placement.Wanted{{Spec: svc.Spec, Replicas: svc.Replicas + n}})
	body := &scaleBody{
		service: name, id: shoal.RevisionID{Seq: svc.Wish.Seq + 1, Author: p.id}, delta: n,
		from: svc.Replicas, proposal: placed[0].Slots[svc.Replicas:],
	}
	p.seq++
	s.wanted[name] += n
	s.accept(p, &record{key: s.keyOf("scale/" + name + "/" + string(p.id)), seq: p.seq, scale: body})
}

// accept writes a wish after a flush.
func (s *Sim) accept(p *peer, r *record) {
	s.tally.Records++
	s.after(s.between(2*time.Millisecond, 20*time.Millisecond), func() { p.push([]*record{r}) })
}

// install puts a service into the cluster as if it had run there for long.
func (s *Sim) install(name string, n int, units int64) {
	spec, author := s.spec(name, units), s.peers[0]
	placed := placement.Propose(author.view(), []placement.Wanted{{Spec: spec, Replicas: n}})
	rev := shoal.RevisionID{Seq: 1, Author: author.id}
	block := []*record{{key: s.keyOf("service/" + name), seq: 1, wish: &wishBody{
		spec: spec, rev: rev, replicas: n, proposal: placed[0].Slots,
	}}}
	s.wanted[name] = n
	for _, p := range s.peers {
		body := &claimBody{holder: p.id, service: name}
		for slot, holder := range placed[0].Slots {
			if holder != p.id {
				continue
			}
			c := shoal.Claim{
				Holder: p.id, Service: name, Slot: slot, Replica: s.mint(), Revision: rev,
				Since: shoal.HLC{WallMilli: s.now.Milliseconds()},
			}
			body.holds = append(body.holds, c)
			p.containers[c.Replica] = &container{id: c.Replica, service: name, slot: slot, rev: rev, units: units, ready: true}
			s.ready[name]++
		}
		p.seq++
		block = append(block, &record{key: s.keyOf("claim/" + name + "/" + string(p.id)), seq: p.seq, claim: body})
	}
	for _, p := range s.peers {
		p.learn(block, true)
		p.changed()
	}
}

// installed lets everybody know what runs, and time pass.
func (s *Sim) installed() {
	for _, p := range s.peers {
		p.tell()
	}
	s.run(s.now + 20*time.Second)
}

// Deploy measures one deploy of n replicas.
func Deploy(set Setup, n int) Result {
	s := New(set)
	s.reset()
	from := s.now
	s.deploy(s.peers[s.rng.IntN(len(s.peers))], "web", n)
	s.run(from + 30*time.Second)
	return s.result(n, from)
}

// Concurrent measures three deploys within 20 ms on different peers of a cluster
// that is 85 % full and will be 95 % full.
func Concurrent(set Setup, n int) Result {
	per := n / 3
	set.Room = 10 * per * 3 / set.Peers
	s := New(set)
	rest := set.Room * set.Peers * 85 / 100
	const units = 5
	for i := 0; rest >= units; i++ { // uneven: many services of their own size
		part := min(rest/units, 1+s.rng.IntN(set.Peers))
		s.install(fmt.Sprintf("old%03d", i), part, units)
		rest -= part * units
	}
	s.installed()
	s.reset()
	from := s.now
	for i := range 3 {
		s.after(s.between(0, 20*time.Millisecond), func() {
			s.deploy(s.peers[(i*7+1)%len(s.peers)], fmt.Sprintf("new%d", i), per)
		})
	}
	s.run(from + 40*time.Second)
	return s.result(3*per, from)
}

// Failure measures the death of some peers within half a second that together hold
// about lost slots of three services.
func Failure(set Setup, dying, lost int) Result {
	s := New(set)
	total := lost * set.Peers / dying
	set.Room = total // plenty
	for i := range 3 {
		s.install(fmt.Sprintf("svc%d", i), total/3, 1)
	}
	s.installed()
	s.reset()
	from, needed := s.now, 0
	for i := range dying {
		p := s.peers[(i*5+2)%len(s.peers)]
		needed += len(p.containers)
		s.after(s.between(0, 500*time.Millisecond), func() { s.crash(p) })
	}
	s.run(from + 40*time.Second)
	return s.result(needed, from)
}

// Split measures the healing of a split of 60 s during which both sides scale the
// same three services and deploy one of their own. minority is the smaller side's
// number of peers. What is counted happens after the healing. The adds of both sides
// meet on the same numbers, so 8 slots are open then: needed are 8 starts, or none
// where surplus replicas are re-used.
func Split(set Setup, n, minority int) Result {
	s := New(set)
	for i := range 3 {
		s.install(fmt.Sprintf("svc%d", i), n/3, 1)
	}
	s.installed()
	s.split(func(i int) int {
		if i < minority {
			return 0
		}
		return 1
	})
	s.run(s.now + 20*time.Second)
	a, b := s.peers[0], s.peers[len(s.peers)-1]
	for i, k := range []int{4, 2, 2} {
		s.add(a, fmt.Sprintf("svc%d", i), k)
		s.add(b, fmt.Sprintf("svc%d", i), k)
	}
	s.deploy(a, "left", 6)
	s.deploy(b, "right", 6)
	s.run(s.now + 40*time.Second)
	s.reset()
	from := s.now
	s.heal()
	s.run(from + 60*time.Second)
	if set.Config.NoReuse {
		return s.result(8, from)
	}
	return s.result(0, from)
}

// Restart measures a power cut of everything, each peer coming back at some time
// within the next minute.
func Restart(set Setup, n int) Result {
	s := New(set)
	for i := range 3 {
		s.install(fmt.Sprintf("svc%d", i), n/3, 1)
	}
	s.installed()
	for _, p := range s.peers {
		s.crash(p)
	}
	s.run(s.now + 10*time.Second)
	s.reset()
	from := s.now
	for _, p := range s.peers {
		s.after(s.between(0, 60*time.Second), func() { s.boot(p) })
	}
	s.run(from + 180*time.Second)
	return s.result(3*(n/3), from)
}

// Deaf measures a deploy while one peer hears no records but sounds alive.
func Deaf(set Setup, n int) Result {
	s := New(set)
	deaf := s.peers[len(s.peers)-1]
	deaf.deaf = true
	s.reset()
	from := s.now
	s.deploy(s.peers[0], "web", n)
	s.run(from + 60*time.Second)
	took := s.tally
	s.hearing(deaf)
	s.run(from + 90*time.Second)
	r := s.result(n, from)
	r.Took = took.FullAt - from
	if !took.isFull {
		r.Took = -1
	}
	return r
}

// Stale measures a failure seen by one peer whose incoming records are 5 s old.
func Stale(set Setup, n int) Result {
	s := New(set)
	s.install("web", n, 1)
	s.installed()
	s.peers[1].lag = 5 * time.Second
	s.reset()
	from := s.now
	p := s.peers[2]
	needed := len(p.containers)
	s.crash(p)
	s.run(from + 60*time.Second)
	return s.result(needed, from)
}

// Blackout measures half of the peers falling silent for 3 s on a network where a
// death is seen after one second: the case the brake is for.
func Blackout(set Setup, n int) Result {
	s := New(set)
	for i := range 3 {
		s.install(fmt.Sprintf("svc%d", i), n/3, 1)
	}
	s.installed()
	s.reset()
	from := s.now
	s.quick = time.Second
	s.split(func(i int) int { return i % 2 })
	s.run(from + 3*time.Second)
	s.heal()
	s.run(from + 60*time.Second)
	return s.result(0, from)
}
