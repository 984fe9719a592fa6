// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"time"
)

// wants lists the open slots of a service that may be filled now, and remembers
// since when each is open. Slots held back by a brake are not open yet, but for
// those the wish's proposal names.
func (d *decision) wants(s *serviceRow, slots []slotState, reuse map[int]int) []want {
	reserved, own := make(map[int]bool, len(reuse)), make(map[int]bool)
	for i, slot := range reuse {
		reserved[slot] = true
		own[slot] = int(s.holders[i]) == d.w.self
	}
	var out []want
	waiting := 0
	for slot, st := range slots {
		if st.kind == held || st.kind == ended || st.shut {
			continue
		}
		x := want{slot: slot, target: -1, home: d.w.home(s, slot), kind: st.kind}
		if x.home >= 0 { // nobody competes for it, so nothing is to be waited for
			out = append(out, x)
			continue
		}
		key := slotKey{s.spec.Name, slot}
		if d.gated(st.kind) {
			if st.kind == lost || slot >= len(s.svc.Proposed) {
				waiting++
				continue
			}
			x.gated = true
		}
		mem, known := d.old.open[key]
		if !known {
			mem = openMemory{since: d.now, able: never}
		}
		if !x.gated {
			x.mem = mem
			x.due = d.due(st.kind, mem.since)
			if reserved[slot] { // its taker may settle later than this peer
				x.due += d.cfg.Settle
			}
			x.late = !d.cfg.NoStepIn && d.now >= x.due
			d.m.open[key] = mem
			if !d.cfg.NoStepIn {
				d.wake(x.due)
			}
		}
		if !reserved[slot] || x.late && !own[slot] {
			out = append(out, x)
		}
	}
	if waiting > 0 {
		d.sayWaiting(s.spec.Name, waiting)
	}
	return out
}

func (d *decision) sayWaiting(service string, waiting int) {
	if d.now < d.deadGate {
		d.say(service, -1, "%d open, waiting for %v: %s", waiting, d.deadGate-d.now, d.deadWhy)
		d.wake(d.deadGate)
		return
	}
	d.wake(d.freeGate)
}

// due returns when an open slot is overdue.
func (d *decision) due(kind slotKind, since time.Duration) time.Duration {
	if kind == lost {
		return since + d.cfg.StepIn + d.cfg.DeadExtra
	}
	return since + d.cfg.StepIn
}

// fill finds a peer for each open slot and claims those that fall to this one.
func (d *decision) fill() {
	d.list.sortRows()
	d.list.nameHomes()
	if !d.cfg.NoProposal {
		d.list.nameProposed()
	}
	d.list.fill()
	for _, r := range d.list.rows {
		said := false
		for i := range r.wants {
			x := &r.wants[i]
			switch {
			case x.late:
				d.stepIn(r, x)
			case x.target == d.w.self:
				d.claimTarget(r, *x)
			case x.home >= 0 && x.target < 0:
				d.say(r.s.spec.Name, x.slot, "%s", d.w.waitsFor(x.home, d.w.keptFrom(r.s, x.home, int(r.held[x.home]))))
			case x.gated && x.target < 0:
				d.wake(d.freeGate)
			case x.target < 0 && !said:
				said = true
				d.sayUnplaced(r, x.slot)
			}
		}
	}
}

// claimTarget claims a slot whose turn is this peer's: proposed to it, or best
// placed here. What did not come by live push may be old news: pull first.
func (d *decision) claimTarget(r *listRow, x want) {
	mem := d.m.wishes[r.s.spec.Name]
	if !mem.fresh && d.m.lastPull < mem.at && d.mayPull() {
		d.pull("")
		d.say(r.s.spec.Name, x.slot, "falls to this peer; asks others first whether it is still open")
		return
	}
	young := mem.fresh && d.now-mem.at < d.cfg.Young
	if x.home >= 0 {
		d.claim(r, x.slot, true)
		d.plan.Claims[len(d.plan.Claims)-1].Data = true
		d.say(r.s.spec.Name, x.slot, "claimed: its data is here")
		return
	}
	d.sayLost(r.s, x.slot)
	switch {
	case x.named && young:
		d.claim(r, x.slot, true)
		d.say(r.s.spec.Name, x.slot, "claimed: proposed to this peer")
	case x.named:
		d.claim(r, x.slot, false)
		d.say(r.s.spec.Name, x.slot, "claimed: proposed to this peer earlier")
	default:
		d.claim(r, x.slot, false)
		d.say(r.s.spec.Name, x.slot, "claimed: best placed here")
	}
}

func (d *decision) claim(r *listRow, slot int, once bool) {
	d.plan.Claims = append(d.plan.Claims, NewClaim{Service: r.s.spec.Name, Slot: slot, Revision: r.s.rev, Outcome: r.s.tried(slot)})
	d.m.claimed[slotKey{r.s.spec.Name, slot}] = claimMemory{at: d.now, once: once}
}

// stepIn claims an overdue slot, in the order of rank among the feasible, each D
// after the one before, and only with proof that this peer's view is fresh: the
// supposed holder may be deaf, but so may we.
func (d *decision) stepIn(r *listRow, x *want) {
	key := slotKey{r.s.spec.Name, x.slot}
	if !d.w.feasible(r, d.w.self) {
		x.mem.able = never
		d.m.open[key] = x.mem
		return
	}
	if x.mem.able == never {
		x.mem.able = d.now
		d.m.open[key] = x.mem
	}
	rank := d.stepInRank(r, x.slot)
	at := max(x.due, x.mem.able) + time.Duration(rank)*d.cfg.Stagger
	if d.now < at {
		d.wake(at)
		d.say(r.s.spec.Name, x.slot, "open for %v; this peer steps in after %d others", d.now-x.mem.since, rank)
		return
	}
	fresh := d.m.lastPull >= x.mem.since && d.now-d.m.lastPull <= d.cfg.PullValid
	if !fresh && d.mayPull() {
		if p := d.supposed(r, x.slot); p >= 0 {
			d.pull(d.w.peers[p].peer.ID)
		}
		d.pull("")
		d.say(r.s.spec.Name, x.slot, "open for %v; asks others before it steps in", d.now-x.mem.since)
		return
	}
	x.target = d.w.self
	r.held[d.w.self]++
	d.w.give(d.w.self, r.s)
	d.sayLost(r.s, x.slot)
	d.claim(r, x.slot, false)
	d.say(r.s.spec.Name, x.slot, "claimed: open for %v, stepped in", d.now-x.mem.since)
}

// stepInRank counts the feasible peers that come before this one: less loaded by
// eighths, then by rank.
func (d *decision) stepInRank(r *listRow, slot int) int {
	bucket := func(p int) int {
		row := &d.w.peers[p]
		return int(min(8*share(row.load, row.alloc), 1e6))
	}
	rank := func(p int) uint64 { return slotRank(r.s.hash, slot, d.w.peers[p].hash) }
	self, before := d.w.self, 0
	mine, myRank := bucket(self), rank(self)
	for p := range d.w.peers {
		if p == self || !d.w.peers[p].open {
			continue
		}
		if b := bucket(p); (b < mine || b == mine && rank(p) > myRank) && d.w.feasible(r, p) {
			before++
		}
	}
	return before
}

// supposed returns the living peer that the proposal names for a slot, -1 if none.
func (d *decision) supposed(r *listRow, slot int) int {
	if slot >= len(r.s.svc.Proposed) {
		return -1
	}
	p, ok := d.w.index[r.s.svc.Proposed[slot]]
	if !ok || int(p) == d.w.self || !d.w.peers[p].up {
		return -1
	}
	return int(p)
}

// mayPull reports whether there is anybody to pull from, and a need to.
func (d *decision) mayPull() bool {
	if d.cfg.NoPull {
		return false
	}
	for i := range d.w.peers {
		if i != d.w.self && d.w.peers[i].up {
			return true
		}
	}
	return false
}

// sayUnplaced explains once per service why a slot finds no peer; in words for the
// first few services only, Explain has the rest.
func (d *decision) sayUnplaced(r *listRow, slot int) {
	const words = 16
	if d.worded++; d.worded > words {
		d.say(r.s.spec.Name, slot, "unplaced: no peer takes it now")
		return
	}
	d.say(r.s.spec.Name, slot, "unplaced: %s", d.w.nobody(r.s, r))
}
