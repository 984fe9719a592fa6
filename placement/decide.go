// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Decide returns what peer self should do now about all services, and the memory
// for the next decision. It is level triggered and idempotent: the same plan comes
// again until the view shows it carried out, so the shell decides again only once
// the view contains its last block. v must be self's own view; now and every time
// in it are self's monotonic clock; now never goes back.
//
// Same input, same output, on every peer and machine.
func Decide(v *shoal.View, m Memory, self shoal.PeerID, now time.Duration, cfg Config) (Plan, Memory) {
	w := newWorld(v, nil)
	if i, ok := w.index[self]; ok && !w.peers[i].removed {
		w.self = int(i)
	} else {
		return Plan{Reasons: []Reason{{Slot: -1, Peer: self, Text: "is no member of the cluster"}}}, m
	}
	d := &decision{
		w: w, cfg: cfg, now: now, id: self, old: m, m: m.observe(w, now, cfg),
		list: &list{w: w},
	}
	d.brake()
	d.m.open = make(map[slotKey]openMemory)
	d.m.claimed = make(map[slotKey]claimMemory)
	d.m.started = make(map[shoal.ReplicaID]bool)
	d.m.ready = make(map[shoal.ReplicaID]time.Duration)
	d.m.losing = make(map[shoal.ReplicaID]time.Duration)
	d.setStandings()
	d.setGates()
	d.orphans()
	for i := range w.services {
		s := &w.services[i]
		switch {
		case s.global():
			d.global(s)
		case !d.quiet(s):
			d.survey(s)
		}
	}
	d.sayBraked()
	d.fill()
	return d.finish()
}

// decision is one call of Decide at work.
type decision struct {
	w    *world
	cfg  Config
	now  time.Duration
	id   shoal.PeerID
	old  Memory // as given
	m    Memory // as it will be returned
	list *list
	plan Plan

	deadGate time.Duration // dead holders' slots wait until
	deadWhy  string
	freeGate time.Duration // slots nobody holds wait until, unless proposed here
	worded   int           // services whose lack of room was put in words
}

func (d *decision) say(service string, slot int, format string, args ...any) {
	d.plan.Reasons = append(d.plan.Reasons, Reason{
		Service: service, Slot: slot, Peer: d.id, Text: fmt.Sprintf(format, args...),
	})
}

// wake asks for a decision at a later time.
func (d *decision) wake(at time.Duration) {
	if at > d.now && (d.plan.Wake == 0 || at < d.plan.Wake) {
		d.plan.Wake = at
	}
}

// setStandings decides how each peer's claims count for this peer now.
func (d *decision) setStandings() {
	for i := range d.w.peers {
		d.w.peers[i].standing = d.standing(i)
	}
}

func (d *decision) standing(i int) standing {
	p := &d.w.peers[i]
	mem := d.m.peers[p.peer.ID]
	if p.removed {
		return absent
	}
	if p.up {
		if p.peer.Draining || p.peer.Facts.Leaving {
			return hands
		}
		if mem.engineDown != never {
			if d.now >= mem.engineDown+d.cfg.EngineGrace {
				return hands
			}
			d.wake(mem.engineDown + d.cfg.EngineGrace)
		}
		return stands
	}
	if until, ok := d.m.vouched[p.peer.ID]; ok && d.now < until {
		d.wake(until)
		return stands
	}
	switch life := d.w.v.Life(p.peer.ID); life.State {
	case shoal.LifeReturning:
		if d.now < life.BackBy {
			d.wake(life.BackBy)
			return stands
		}
	case shoal.LifeUnknown:
		if !d.m.warm {
			d.wake(d.m.bootAt + d.cfg.Cold)
			return stands
		}
	default:
	}
	return dead
}

// setGates computes what holds fills back (PLACEMENT.md, step 3).
func (d *decision) setGates() {
	d.deadGate, d.deadWhy = d.m.graceUntil, "this peer has just booted"
	if until := brakeUntil(d.w, d.cfg); until > d.deadGate {
		d.deadGate, d.deadWhy = until, "half of the peers fell silent together"
	}
	d.freeGate = never
	if !d.cfg.NoSettle && d.m.returnedAt != never {
		d.freeGate = d.m.returnedAt + d.cfg.Settle
		if d.freeGate > d.deadGate {
			d.deadGate, d.deadWhy = d.freeGate, "a peer has just come back"
		}
	}
}

// orphans lets go what is held of services that are gone. A service that is merely
// not known here yet keeps its replicas.
func (d *decision) orphans() {
	for _, c := range d.w.v.ClaimsBy(d.id) {
		if d.w.service(c.Service) != nil {
			continue
		}
		if d.w.v.Desired().IsGone(c.Service) {
			d.drop(c, "", "the service was removed")
			continue
		}
		d.say(c.Service, c.Slot, "keeps it: the service's record has not arrived yet")
		d.keep(c)
	}
}

// quiet reports that a service needs no look: every wanted slot has exactly one
// claim, by a standing peer that is not this one, at the current revision; or one that
// says that nobody runs it again.
func (d *decision) quiet(s *serviceRow) bool {
	if len(s.claims) != s.n {
		return false
	}
	for i := range s.claims {
		h := int(s.holders[i])
		if s.claims[i].Slot == i && s.over(i) && (h != d.w.self || !behind(s, s.claims[i])) {
			continue
		}
		if s.claims[i].Slot != i || h < 0 || h == d.w.self || d.w.peers[h].standing != stands ||
			s.claims[i].Revision.Compare(s.rev) < 0 {
			return false
		}
	}
	return true
}

// survey looks at one replicated service: this peer's own claims, and open slots.
func (d *decision) survey(s *serviceRow) {
	slots := d.w.slotStates(s)
	turns := d.turns(s, slots)
	d.handStuck(s, slots, turns)
	losers := d.losers(s, slots)
	reuse := d.matchReuse(s, slots, losers)
	d.sayAway(s, slots)
	if why := d.w.v.Waits(s.svc); why != "" { // open slots are filled at the current revision, which has not begun
		d.say(s.spec.Name, -1, "waits: %s", why)
	} else if row := d.w.newListRow(s, d.wants(s, slots, reuse)); len(row.wants) > 0 {
		d.list.rows = append(d.list.rows, row)
	}
	for i, c := range s.claims {
		if int(s.holders[i]) == d.w.self {
			d.own(s, slots, i, c, ownCase{turns: turns, losers: losers, reuse: reuse})
		}
	}
}

// phase returns what is known of a replica's phase.
func (d *decision) phase(id shoal.ReplicaID) shoal.Phase {
	if r, ok := d.w.v.Replica(id); ok {
		return r.Phase
	}
	return shoal.PhaseUnknown
}

func (d *decision) ready(id shoal.ReplicaID) bool { return d.phase(id) == shoal.PhaseReady }

// runs reports whether a replica is known to run, ready or not yet.
func (d *decision) runs(id shoal.ReplicaID) bool {
	p := d.phase(id)
	return p == shoal.PhaseRunning || p == shoal.PhaseReady
}

// finish sorts the plan and closes the memory.
func (d *decision) finish() (Plan, Memory) {
	for key, mem := range d.old.claimed { // written, but not in the view yet
		if _, seen := d.m.claimed[key]; !seen && d.now-mem.at < claimLag && !d.holds(key) {
			d.m.claimed[key] = mem
		}
	}
	p := &d.plan
	slices.SortFunc(p.Claims, func(a, b NewClaim) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot))
	})
	slices.SortFunc(p.Releases, func(a, b Drop) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), slices.Compare(a.Replica[:], b.Replica[:]))
	})
	slices.SortFunc(p.Start, func(a, b shoal.ReplicaID) int { return slices.Compare(a[:], b[:]) })
	slices.Sort(p.Pulls)
	slices.SortStableFunc(p.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot))
	})
	return d.plan, d.m
}

// claimLag bounds how long a claim may take from the plan into the view.
const claimLag = 10 * time.Second

func (d *decision) holds(key slotKey) bool {
	return slices.ContainsFunc(d.w.v.ClaimsBy(d.id), func(c shoal.Claim) bool {
		return c.Service == key.service && c.Slot == key.slot
	})
}

// pull asks for proof of freshness from a peer, "" for two random ones, not more
// often than the configuration says.
func (d *decision) pull(from shoal.PeerID) {
	if at, ok := d.m.asked[from]; ok && d.now-at < d.cfg.PullRetry {
		d.wake(at + d.cfg.PullRetry)
		return
	}
	asked := maps.Clone(d.m.asked)
	if asked == nil {
		asked = make(map[shoal.PeerID]time.Duration)
	}
	maps.DeleteFunc(asked, func(_ shoal.PeerID, at time.Duration) bool { return d.now-at >= d.cfg.PullRetry })
	asked[from] = d.now
	d.m.asked = asked
	d.plan.Pulls = append(d.plan.Pulls, from)
	d.wake(d.now + d.cfg.PullRetry)
}
