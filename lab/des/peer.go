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

// peer is one machine of the model: what it knows, what it runs, what it decides.
type peer struct {
	s        *Sim
	i        int
	id       shoal.PeerID
	up       bool
	bootedAt time.Duration
	life     int // counts boots; what an earlier life scheduled is void

	records []*record // newest by key number
	desired shoal.Desired
	byName  map[string][]shoal.Claim
	stale   bool // desired must be built again

	lives  map[shoal.PeerID]shoal.Life
	seen   []int // per other peer: generation of what is known of its life
	states map[shoal.PeerID]*shoal.PeerState
	told   map[shoal.PeerID]int // newest state's number heard

	mem      placement.Memory
	due      time.Duration // of the next decision; -1 none
	writing  bool
	again    bool // something changed while writing
	pulling  map[shoal.PeerID]bool
	seq      uint64
	skew     int64         // milliseconds its wall clock is off
	lag      time.Duration // of pushed records coming in
	deaf     bool          // no record comes in
	stateSeq int

	containers map[shoal.ReplicaID]*container
}

type container struct {
	id      shoal.ReplicaID
	service string
	slot    int
	rev     shoal.RevisionID
	units   int64
	ready   bool
}

func newPeer(s *Sim, i int, members []shoal.Peer) *peer {
	return &peer{
		s: s, i: i, id: members[i].ID, up: true, due: -1,
		desired: shoal.Desired{Peers: members}, byName: make(map[string][]shoal.Claim),
		lives: make(map[shoal.PeerID]shoal.Life), states: make(map[shoal.PeerID]*shoal.PeerState),
		told: make(map[shoal.PeerID]int), seen: make([]int, len(members)),
		mem: placement.NewMemory(s.now - steadyTime), pulling: make(map[shoal.PeerID]bool),
		containers: make(map[shoal.ReplicaID]*container),
	}
}

// wake schedules a decision, coalesced over 1 ms.
func (p *peer) wake(in time.Duration) {
	at := p.s.now + max(in, time.Millisecond)
	if p.due >= 0 && p.due <= at {
		return
	}
	p.due = at
	life := p.life
	p.s.after(at-p.s.now, func() {
		if p.due != at || p.life != life || !p.up {
			return
		}
		p.due = -1
		if p.writing {
			p.again = true
			return
		}
		p.decide()
	})
}

// changed asks for a decision because the view is another one.
func (p *peer) changed() { p.wake(0) }

// view builds what the peer sees now.
func (p *peer) view() *shoal.View {
	if p.stale {
		p.rebuild()
		p.stale = false
	}
	d := p.desired
	return shoal.NewView(p.id, &d, p.lives, p.states)
}

// rebuild folds the records that services and scales are made of.
func (p *peer) rebuild() {
	p.desired.Services = p.desired.Services[:0]
	p.desired.Claims = p.desired.Claims[:0]
	p.desired.Releases = p.desired.Releases[:0]
	for _, r := range p.records {
		if r == nil {
			continue
		}
		if r.wish != nil {
			p.desired.Services = append(p.desired.Services, p.fold(r))
		}
		if r.claim != nil {
			p.desired.Releases = append(p.desired.Releases, r.claim.releases...)
		}
	}
	slices.SortFunc(p.desired.Services, func(a, b shoal.Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	for i := range p.desired.Services {
		p.desired.Claims = append(p.desired.Claims, p.byName[p.desired.Services[i].Spec.Name]...)
	}
}

// decide runs the real thing and carries out its plan.
func (p *peer) decide() {
	s := p.s
	s.tally.Decides++
	var plan placement.Plan
	plan, p.mem = placement.Decide(p.view(), p.mem, p.id, s.now, s.cfg)
	if s.trace != nil {
		for _, r := range plan.Reasons {
			s.trace("%s %s/%d %s", p.id, r.Service, r.Slot, r.Text)
		}
	}
	for _, id := range plan.Start {
		p.start(id)
	}
	for _, from := range plan.Pulls {
		p.pull(from)
	}
	if plan.Wake > 0 {
		p.wake(plan.Wake - s.now)
	}
	if len(plan.Claims)+len(plan.Releases) == 0 {
		return
	}
	p.writing = true
	life := p.life
	s.after(s.between(2*time.Millisecond, 20*time.Millisecond), func() {
		if p.life != life || !p.up {
			return
		}
		p.writing = false
		p.carryOut(plan)
		p.again = false
		p.changed()
	})
}

// carryOut writes a plan's claims and releases as one block and does what follows
// from them.
func (p *peer) carryOut(plan placement.Plan) {
	edit := p.newEdit()
	for _, c := range plan.Claims {
		edit.claim(c)
		if box := p.containers[c.Reuse]; box != nil {
			box.slot = c.Slot
		}
	}
	changed := len(plan.Claims) > 0
	for _, d := range plan.Releases {
		edit.release(d)
		if box := p.containers[d.Replica]; box != nil {
			p.stop(box)
			changed = true
		} else {
			p.s.tally.Unheld++
		}
	}
	p.s.tally.Records++
	p.push(edit.block())
	if changed {
		p.tell()
	}
}

// start starts a claimed replica's container unless it runs.
func (p *peer) start(id shoal.ReplicaID) {
	if p.containers[id] != nil {
		return
	}
	for _, r := range p.records {
		if r == nil || r.claim == nil || r.claim.holder != p.id {
			continue
		}
		for _, c := range r.claim.holds {
			if c.Replica == id {
				p.startClaim(c)
				return
			}
		}
	}
}

func (p *peer) startClaim(c shoal.Claim) {
	s := p.s
	box := &container{id: c.Replica, service: c.Service, slot: c.Slot, rev: c.Revision, units: 1}
	p.containers[c.Replica] = box
	s.tally.Starts++
	if s.trace != nil {
		s.trace("%s START %s/%d", p.id, c.Service, c.Slot)
	}
	if p.used()*roomUnit > p.desired.Peers[p.i].Facts.Capacity.MemBytes {
		s.tally.Over++
	}
	life := p.life
	s.after(s.between(500*time.Millisecond, 1500*time.Millisecond), func() {
		if p.life != life || p.containers[box.id] != box {
			return
		}
		box.ready = true
		s.count(box.service, 1)
		p.tell()
		p.changed()
	})
}

// used returns the units of what runs.
func (p *peer) used() int64 {
	sum := int64(0)
	for _, box := range p.containers {
		sum += box.units
	}
	return sum
}

func (p *peer) stop(box *container) {
	delete(p.containers, box.id)
	if box.ready {
		p.s.count(box.service, -1)
	}
}
