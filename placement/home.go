// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// A slot of a service that stays home (Spec.StaysHome) belongs to one peer: who
// claims it, or, if nobody does, the peer that recorded that its data is there. Only
// that peer claims it again, so the slot waits while it is away. The home follows
// from records alone, a fixed target for each slot, as the theorem needs. It ends
// when the peer leaves or is removed; then the slot is placed anew, without its data.

// pinned reports whether a silent holder's slots are never replaced elsewhere.
func (s *serviceRow) pinned() bool {
	return s.stays || s.spec.OnPartition == shoal.PartitionSticky || s.spec.OnPartition == shoal.PartitionFixed
}

// staying reports whether a peer keeps its slots of s although it hands over others:
// nobody else has their data, unless it goes for good.
func (w *world) staying(s *serviceRow, p int) bool {
	return s.stays && !w.peers[p].peer.Facts.Leaving
}

// homes returns the records of where the data of one slot is.
func (w *world) homes(service string, slot int) []shoal.Home {
	all := w.v.Desired().Homes
	from, _ := slices.BinarySearchFunc(all, slot, func(h shoal.Home, slot int) int {
		return cmp.Or(strings.Compare(h.Service, service), cmp.Compare(h.Slot, slot))
	})
	to := from
	for to < len(all) && all[to].Service == service && all[to].Slot == slot {
		to++
	}
	return all[from:to]
}

// home returns the peer that an unclaimed slot belongs to; -1 if none. If several
// peers have data, because two sides of a split let go what each had begun alone,
// nothing tells which is newer: the highest rank counts, on every peer the same.
func (w *world) home(s *serviceRow, slot int) int {
	best := -1
	if !s.stays {
		return best
	}
	rank := func(p int) uint64 { return slotRank(s.hash, slot, w.peers[p].hash) }
	for _, h := range w.homes(s.spec.Name, slot) {
		p, ok := w.index[h.Peer]
		if !ok || w.peers[p].removed || w.peers[p].peer.Facts.Leaving {
			continue
		}
		if best < 0 || rank(int(p)) > rank(best) {
			best = int(p)
		}
	}
	return best
}

// lostHome names a peer that had the data of a slot and is gone for good; "" if
// there is none.
func (w *world) lostHome(s *serviceRow, slot int) string {
	if !s.stays {
		return ""
	}
	gone := func(id shoal.PeerID) string {
		p, ok := w.index[id]
		if !ok {
			return id.Short()
		}
		if w.peers[p].removed || w.peers[p].peer.Facts.Leaving {
			return w.peers[p].peer.Name()
		}
		return ""
	}
	for _, c := range s.claims {
		if name := gone(c.Holder); c.Slot == slot && name != "" {
			return name
		}
	}
	for _, h := range w.homes(s.spec.Name, slot) {
		if name := gone(h.Peer); name != "" {
			return name
		}
	}
	return ""
}

// takesBack reports whether a peer may claim a slot whose data it has. A cordon does
// not keep it from that: the slot was its own before.
func (w *world) takesBack(r *listRow, p int) bool { return w.keptFrom(r.s, p, int(r.held[p])) == "" }

// keptFrom says why a home does not take its slot back; "" if it does.
func (w *world) keptFrom(s *serviceRow, p, held int) string {
	row := &w.peers[p]
	switch {
	case !row.up:
		return notHeard
	case row.peer.Draining:
		return "is draining"
	}
	if why := w.unable(p, s); why != "" {
		return why
	}
	return w.cramped(p, s, held)
}

// notHeard is what is said of a peer that is away. Who shows it adds for how long.
const notHeard = "is not heard"

// waitsFor is the sentence about a slot whose home does not hold it now.
func (w *world) waitsFor(p int, why string) string {
	name := w.peers[p].peer.Name()
	for _, verb := range []string{"is ", "has ", "does ", "refuses "} {
		if strings.HasPrefix(why, verb) {
			return fmt.Sprintf("waits for its data on %s, which %s", name, why)
		}
	}
	return fmt.Sprintf("waits for its data on %s: %s", name, why)
}

// nameHomes gives slots to the peers that have their data.
func (l *list) nameHomes() {
	for _, r := range l.rows {
		for i := range r.wants {
			x := &r.wants[i]
			if x.home >= 0 && x.target < 0 && l.w.takesBack(r, x.home) {
				l.w.assign(r, i, x.home)
			}
		}
	}
}

// sayAway explains the slots whose holder has their data and is not heard.
func (d *decision) sayAway(s *serviceRow, slots []slotState) {
	if !s.stays {
		return
	}
	for slot, st := range slots {
		if st.kind != held {
			continue
		}
		if h := int(s.holders[st.claim]); d.w.peers[h].standing == dead {
			d.say(s.spec.Name, slot, "%s", d.w.waitsFor(h, notHeard))
		}
	}
}

// sayLost explains that a slot begins without the data it had.
func (d *decision) sayLost(s *serviceRow, slot int) {
	if name := d.w.lostHome(s, slot); name != "" {
		d.say(s.spec.Name, slot, "placed anew without its data, which was on %s", name)
	}
}

// leavesData reports whether this peer has the data of a slot it holds: from before,
// or because its replica may have begun to run. A service that is gone may come back
// with its volumes, so its data counts too.
func (d *decision) leavesData(c shoal.Claim) bool {
	if s := d.w.service(c.Service); s != nil && !s.stays {
		return false
	}
	if slices.ContainsFunc(d.w.homes(c.Service, c.Slot), func(h shoal.Home) bool { return h.Peer == d.id }) {
		return true
	}
	if !d.hasStarted(c) {
		return false
	}
	r, ok := d.w.v.Replica(c.Replica)
	if !ok {
		return true // not known: better its home without data than data without a home
	}
	switch r.Phase {
	case shoal.PhasePending, shoal.PhasePulling, shoal.PhaseCreating, shoal.PhaseFailed:
		return r.StartedAt != 0 || r.Restarts > 0
	default:
		return true
	}
}
