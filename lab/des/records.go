// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package des

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// record is one fact; of each key the highest seq counts.
type record struct {
	key   int
	seq   uint64
	wish  *wishBody
	scale *scaleBody
	claim *claimBody
	fresh bool // on this peer: written here or come by push
}

type wishBody struct {
	spec     shoal.Spec
	rev      shoal.RevisionID
	replicas int
	proposal []shoal.PeerID
}

// scaleBody is what one author added to a service.
type scaleBody struct {
	service  string
	id       shoal.RevisionID
	delta    int
	from     int
	proposal []shoal.PeerID
}

type claimBody struct {
	holder   shoal.PeerID
	service  string
	holds    []shoal.Claim
	releases []shoal.Release
}

// fold joins a service's revision with all adds on it.
func (p *peer) fold(r *record) shoal.Service {
	svc := shoal.Service{
		Spec: r.wish.spec, Revision: r.wish.rev, Wish: r.wish.rev, Fresh: r.fresh,
		Replicas: r.wish.replicas, Proposed: slices.Clone(r.wish.proposal),
	}
	var adds []*record
	for _, o := range p.records {
		if o != nil && o.scale != nil && o.scale.service == svc.Spec.Name {
			adds = append(adds, o)
			svc.Replicas += o.scale.delta
		}
	}
	slices.SortFunc(adds, func(a, b *record) int { return a.scale.id.Compare(b.scale.id) })
	for _, o := range adds {
		if o.scale.id.Compare(svc.Wish) > 0 {
			svc.Wish, svc.Fresh = o.scale.id, o.fresh
		}
		for i, who := range o.scale.proposal {
			for len(svc.Proposed) <= o.scale.from+i {
				svc.Proposed = append(svc.Proposed, "")
			}
			svc.Proposed[o.scale.from+i] = who
		}
	}
	return svc
}

// learn takes records in and reports whether anything was new.
func (p *peer) learn(block []*record, fresh bool) bool {
	news := false
	for _, r := range block {
		for len(p.records) <= r.key {
			p.records = append(p.records, nil)
		}
		if old := p.records[r.key]; old != nil && old.seq >= r.seq {
			continue
		}
		mine := *r
		mine.fresh = fresh
		p.records[r.key] = &mine
		news = true
		if r.claim != nil {
			p.index(r.claim)
		}
	}
	p.stale = p.stale || news
	return news
}

// index keeps a service's claims sorted by slot and holder.
func (p *peer) index(b *claimBody) {
	order := func(a, b shoal.Claim) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Holder, b.Holder))
	}
	news := slices.SortedFunc(slices.Values(b.holds), order)
	old := p.byName[b.service]
	merged := make([]shoal.Claim, 0, len(old)+len(news))
	for i := range old {
		if old[i].Holder == b.holder {
			continue
		}
		for len(news) > 0 && order(news[0], old[i]) < 0 {
			merged, news = append(merged, news[0]), news[1:]
		}
		merged = append(merged, old[i])
	}
	p.byName[b.service] = append(merged, news...)
}

// push writes a block and sends it to everybody this peer reaches.
func (p *peer) push(block []*record) {
	s := p.s
	if p.learn(block, true) {
		p.changed()
	}
	for _, o := range s.peers {
		if o == p || !s.reaches(p.i, o.i) || o.deaf {
			continue
		}
		in, fresh := s.delay(p.i, o.i)+o.lag, true
		if s.rng.Float64() < s.net.Loss {
			in, fresh = s.between(time.Second, 5*time.Second), false
		}
		s.deliver(p, o, in, func() {
			if !o.deaf && o.learn(block, fresh) {
				o.changed()
			}
		})
	}
}

// deliver does something at peer o unless the way from p was cut meanwhile.
func (s *Sim) deliver(p, o *peer, in time.Duration, do func()) {
	life := o.life
	s.after(in, func() {
		if o.life == life && o.up && s.linked[p.i*len(s.peers)+o.i] {
			do()
		}
	})
}

// tell publishes the phases of own replicas; a lost beat is repaired by the next.
func (p *peer) tell() {
	s := p.s
	st := &shoal.PeerState{}
	for _, box := range p.containers {
		phase := shoal.PhaseStarting
		if box.ready {
			phase = shoal.PhaseReady
		}
		st.Replicas = append(st.Replicas, shoal.ReplicaStatus{
			ID: box.id, Service: box.service, Slot: box.slot, Phase: phase, Revision: box.rev,
		})
	}
	slices.SortFunc(st.Replicas, func(a, b shoal.ReplicaStatus) int { return slices.Compare(a.ID[:], b.ID[:]) })
	p.stateSeq++
	p.states[p.id] = st
	for _, o := range s.peers {
		if o != p && s.reaches(p.i, o.i) {
			in := s.delay(p.i, o.i)
			if s.rng.Float64() < s.net.Loss {
				in += s.between(0, time.Second)
			}
			p.tellOne(o, st, p.stateSeq, in)
		}
	}
}

func (p *peer) tellOne(o *peer, st *shoal.PeerState, seq int, in time.Duration) {
	p.s.deliver(p, o, in, func() {
		if o.told[p.id] < seq {
			o.told[p.id] = seq
			o.states[p.id] = st
			o.changed()
		}
	})
}

// pull asks a peer, or two random ones, for all they know.
func (p *peer) pull(from shoal.PeerID) {
	s := p.s
	if p.pulling[from] {
		return
	}
	var ask []*peer
	for _, o := range s.peers {
		if o != p && (o.id == from || from == "" && p.lives[o.id].State == shoal.LifeAlive) {
			ask = append(ask, o)
		}
	}
	s.rng.Shuffle(len(ask), func(i, j int) { ask[i], ask[j] = ask[j], ask[i] })
	p.pulling[from] = true
	life := p.life
	s.after(time.Second, func() {
		if p.life == life {
			delete(p.pulling, from)
		}
	})
	for _, o := range ask[:min(2, len(ask))] {
		if !s.reaches(p.i, o.i) || !s.reaches(o.i, p.i) || p.deaf || o.deaf {
			continue
		}
		s.after(s.delay(p.i, o.i), func() {
			answer := o.known()
			s.deliver(o, p, s.delay(o.i, p.i), func() {
				p.learn(answer, false)
				p.mem = p.mem.Pulled(from, s.now)
				p.changed()
			})
		})
	}
}

func (p *peer) known() []*record {
	return slices.DeleteFunc(slices.Clone(p.records), func(r *record) bool { return r == nil })
}

// edit gathers one block of own claims.
type edit struct {
	p      *peer
	bodies map[string]*claimBody
	names  []string
	hlc    shoal.HLC
}

func (p *peer) newEdit() *edit {
	return &edit{
		p: p, bodies: make(map[string]*claimBody),
		hlc: shoal.HLC{WallMilli: p.s.now.Milliseconds() + p.skew},
	}
}

// body returns this peer's draft for a service: a copy of what it wrote last.
func (e *edit) body(service string) *claimBody {
	if b, ok := e.bodies[service]; ok {
		return b
	}
	b := &claimBody{holder: e.p.id, service: service}
	if k := e.p.s.keyOf("claim/" + service + "/" + string(e.p.id)); k < len(e.p.records) && e.p.records[k] != nil {
		old := e.p.records[k].claim
		b.holds = slices.Clone(old.holds)
		b.releases = slices.Clone(old.releases)
	}
	e.bodies[service] = b
	e.names = append(e.names, service)
	return b
}

func (e *edit) claim(c placement.NewClaim) {
	b := e.body(c.Service)
	made := shoal.Claim{
		Holder: e.p.id, Service: c.Service, Slot: c.Slot, Revision: c.Revision, Replica: c.Reuse, Since: e.hlc,
	}
	if made.Replica.IsZero() {
		made.Replica = e.p.s.mint()
	} else if c.LeavesSlot != c.Slot {
		b.releases = append(b.releases, shoal.Release{
			Holder: e.p.id, Service: c.Service, Slot: c.LeavesSlot, Replica: c.Reuse, YieldTo: c.YieldTo,
		})
	}
	b.holds = slices.DeleteFunc(b.holds, func(o shoal.Claim) bool {
		return o.Replica == c.Reuse || o.Replica == c.Replaces
	})
	b.holds = append(b.holds, made)
}

func (e *edit) release(d placement.Drop) {
	b := e.body(d.Service)
	b.holds = slices.DeleteFunc(b.holds, func(c shoal.Claim) bool { return c.Replica == d.Replica })
	b.releases = append(b.releases, shoal.Release{
		Holder: e.p.id, Service: d.Service, Slot: d.Slot, Replica: d.Replica, YieldTo: d.YieldTo,
	})
	if len(b.releases) > 64 {
		b.releases = b.releases[len(b.releases)-64:]
	}
}

// block returns the records to write.
func (e *edit) block() []*record {
	var out []*record
	for _, name := range e.names {
		e.p.seq++
		key := e.p.s.keyOf("claim/" + name + "/" + string(e.p.id))
		out = append(out, &record{key: key, seq: e.p.seq, claim: e.bodies[name]})
	}
	return out
}
