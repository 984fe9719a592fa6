// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
)

// global looks at a service that wants one replica on every feasible peer. No peer
// competes with another: each claims for itself, starts at once and never takes
// what another holds. The slot is only a number for people: a peer keeps the one
// it has; peers without one take the free numbers in the order of their IDs (so
// the k-th of the first peers gets k); if two came to hold the same number, the
// loser takes a free one and keeps running.
func (d *decision) global(s *serviceRow) {
	var mine []int
	taken := make(map[int]bool)
	held := make([]bool, len(d.w.peers))
	for i, c := range s.claims {
		h := int(s.holders[i])
		if h < 0 || d.w.peers[h].standing == absent {
			continue
		}
		taken[c.Slot], held[h] = true, true
		if h == d.w.self {
			mine = append(mine, i)
		}
	}
	if len(mine) == 0 {
		d.joinGlobal(s, held, taken)
		return
	}
	over := slices.ContainsFunc(mine, s.over)
	for k, i := range mine {
		c := s.claims[i]
		switch why := d.unfitGlobal(s); {
		case s.over(i):
			d.keepOver(s, i)
		case over:
			d.drop(c, "", "its run here is over")
		case k > 0:
			d.drop(c, "", "one replica per peer is wanted")
		case why != "":
			d.drop(c, "", "%s", why)
		case d.declines(c):
			d.decline(c)
		case d.turnGlobal(s, i):
			d.change(s, i)
		default:
			d.renumber(s, i, held, taken)
		}
	}
}

// unfitGlobal says why this peer should not have the service at all.
func (d *decision) unfitGlobal(s *serviceRow) string {
	row := &d.w.peers[d.w.self]
	if sel, no := unmatched(row.peer, s.spec.Constraints); no {
		return "does not match " + selectorText(sel)
	}
	if row.peer.Draining || row.peer.Facts.Leaving {
		return d.w.barred(d.w.self)
	}
	return ""
}

func (d *decision) joinGlobal(s *serviceRow, held []bool, taken map[int]bool) {
	if why := d.w.v.Waits(s.svc); why != "" {
		d.say(s.spec.Name, -1, "waits: %s", why)
		return
	}
	row := d.w.newListRow(s, nil)
	if !d.w.feasible(row, d.w.self) {
		why := d.w.verdict(d.w.self, s, 0)
		d.say(s.spec.Name, -1, "not here: %s", why)
		return
	}
	slot := d.freeNumber(row, held, taken)
	d.w.give(d.w.self, s)
	d.claim(row, slot, true)
	d.say(s.spec.Name, slot, "claimed: one on every peer")
}

// freeNumber returns the number this peer should take: the k-th free one if it is
// the k-th feasible peer without.
func (d *decision) freeNumber(row *listRow, held []bool, taken map[int]bool) int {
	before := 0
	for p := 0; p < d.w.self; p++ {
		if !held[p] && d.w.feasible(row, p) {
			before++
		}
	}
	slot := 0
	for ; taken[slot] || before > 0; slot++ {
		if !taken[slot] {
			before--
		}
	}
	return slot
}

// turnGlobal reports whether this peer's replica may change revision now.
func (d *decision) turnGlobal(s *serviceRow, mine int) bool {
	c := s.claims[mine]
	switch {
	case !behind(s, c):
		return false
	case d.adopts(s, mine):
		return true
	case d.w.unableToChange(s, d.w.self) != "":
		return false
	case s.job:
		return d.w.v.Waits(s.svc) == ""
	}
	slots, rules := d.w.globalSlots(s, d.readyFor(s))
	rules.Hold(d.plan.Brakes, s.svc)
	at := 0
	for i := range mine { // those that are laid out before it
		if h := s.holders[i]; h >= 0 && d.w.peers[h].standing == stands {
			at++
		}
	}
	return d.w.peers[d.w.self].standing == stands && rules.Turns(slots)[at]
}

// renumber keeps a claim, under a free number if another peer's claim has won its own.
func (d *decision) renumber(s *serviceRow, mine int, held []bool, taken map[int]bool) {
	c := s.claims[mine]
	winner := c
	for i, o := range s.claims {
		if o.Slot == c.Slot && s.holders[i] >= 0 && d.w.peers[s.holders[i]].standing != absent && beats(o, winner) {
			winner = o
		}
	}
	if winner.Holder == c.Holder || d.cfg.NoReuse {
		d.keep(c)
		return
	}
	if settled := d.settled(c.Replica); d.now < settled {
		d.wake(settled)
		d.keep(c)
		return
	}
	mark := slices.Clone(held)
	mark[d.w.self] = false
	slot := d.freeNumber(d.w.newListRow(s, nil), mark, taken)
	d.plan.Claims = append(d.plan.Claims, NewClaim{
		Service: c.Service, Slot: slot, Revision: c.Revision,
		Reuse: c.Replica, LeavesSlot: c.Slot, YieldTo: winner.Holder,
	})
	d.m.claimed[slotKey{c.Service, slot}] = claimMemory{at: d.now, once: true}
	d.start(c.Replica)
	d.say(c.Service, slot, "takes a number of its own: %s holds %d", d.name(winner.Holder), c.Slot)
}
