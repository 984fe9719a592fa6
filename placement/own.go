// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// ownCase is what the judgement of own claims needs to know of their service.
type ownCase struct {
	turns  []bool
	losers []int       // claims that lost, in the order they yield
	reuse  map[int]int // claim that lost -> open slot it takes instead
}

// own judges one of this peer's claims.
func (d *decision) own(s *serviceRow, slots []slotState, i int, c shoal.Claim, oc ownCase) {
	switch {
	case s.over(i):
		d.keepOver(s, i)
		return
	case s.svc.Stopped:
		d.drop(c, "", "the service is stopped")
		return
	case c.Slot < 0 || c.Slot >= s.n:
		d.drop(c, "", "only %d slots are wanted", s.n)
		return
	}
	st := slots[c.Slot]
	winner := s.claims[st.claim] // own claim at least, so there is one
	switch mine, other := winner.Holder == d.id, d.overtaken(s, c); {
	case st.kind == ended:
		d.dropOver(s, c, winner)
	case !mine && d.w.peers[d.w.self].standing == hands:
		d.handOver(s, c, winner)
	case !mine:
		d.lose(s, slots, i, c, oc)
	case winner.Replica != c.Replica && (d.ready(winner.Replica) || !d.hasStarted(c)):
		d.drop(c, "", "another replica fills the slot on this peer")
	case other != "":
		d.drop(c, other, "%s runs it already, and it never started here", d.name(other))
	case d.declines(c):
		d.decline(c)
	case s.job && behind(s, c) && (oc.turns == nil || !oc.turns[c.Slot]) && d.w.v.Waits(s.svc) == "":
		d.drop(c, "", "%s", d.superseded(s, st))
	case st.kind == held && oc.turns != nil && oc.turns[c.Slot] && winner.Replica == c.Replica:
		d.change(s, i)
	default:
		if d.w.peers[d.w.self].standing == hands {
			d.sayKept(s, c)
		}
		d.keep(c)
	}
}

// sayKept explains why a peer that hands over its slots still has one.
func (d *decision) sayKept(s *serviceRow, c shoal.Claim) {
	switch {
	case d.w.staying(s, d.w.self):
		d.say(c.Service, c.Slot, "stays, its data is here: this peer %s", d.leavingWord())
		return
	case d.w.done(s, c) && !d.w.peers[d.w.self].peer.Facts.Leaving:
		d.say(c.Service, c.Slot, "stays, for it has ended: this peer %s", d.leavingWord())
		return
	}
	d.say(c.Service, c.Slot, "kept until another peer can take it: this one %s", d.leavingWord())
}

// leavingWord says why this peer hands its slots over.
func (d *decision) leavingWord() string {
	if why := d.w.barred(d.w.self); why != "" {
		return why
	}
	return "has no engine"
}

// overtaken returns a peer that runs, or is about to run, a slot whose older claim
// is this peer's but has not started yet: it was proposed there, so it starts at
// once. The later claim is the better one then; "" if there is none.
func (d *decision) overtaken(s *serviceRow, c shoal.Claim) shoal.PeerID {
	if d.hasStarted(c) {
		return ""
	}
	wish := d.m.wishes[s.spec.Name]
	young := !d.cfg.NoProposal && wish.fresh && d.now-wish.at < d.cfg.Young
	for i, o := range s.claims {
		if o.Slot != c.Slot || o.Holder == d.id || d.w.claimKind(s, i) != held || o.Revision.Compare(c.Revision) < 0 {
			continue // one of an older revision runs until this one is ready
		}
		named := young && o.Slot < len(s.svc.Proposed) && s.svc.Proposed[o.Slot] == o.Holder
		if named || d.runs(o.Replica) || d.phase(o.Replica) == shoal.PhaseStarting {
			return o.Holder
		}
	}
	return ""
}

// keep holds on to a claim, and lets its replica start once the hold-off is over.
// What was claimed in an earlier life starts at once.
func (d *decision) keep(c shoal.Claim) {
	key := slotKey{c.Service, c.Slot}
	mem, fresh := d.old.claimed[key]
	switch {
	case !d.old.begun || d.old.started[c.Replica] || !fresh || mem.once || d.cfg.NoHold:
	case d.now < mem.at+d.cfg.Hold:
		d.m.claimed[key] = mem
		d.wake(mem.at + d.cfg.Hold)
		d.say(c.Service, c.Slot, "claimed, starts in %v unless somebody claimed it first", mem.at+d.cfg.Hold-d.now)
		return
	}
	d.start(c.Replica)
}

func (d *decision) start(id shoal.ReplicaID) {
	d.m.started[id] = true
	d.plan.Start = append(d.plan.Start, id)
}

// hasStarted reports whether a replica may have been started already.
func (d *decision) hasStarted(c shoal.Claim) bool {
	if !d.old.begun || d.old.started[c.Replica] || d.phase(c.Replica) > shoal.PhasePulling {
		return true
	}
	_, fresh := d.old.claimed[slotKey{c.Service, c.Slot}]
	return !fresh
}

// drop lets a slot go.
func (d *decision) drop(c shoal.Claim, to shoal.PeerID, format string, args ...any) {
	d.plan.Releases = append(d.plan.Releases, Drop{
		Service: c.Service, Slot: c.Slot, Replica: c.Replica, YieldTo: to,
		Data: to == "" && d.leavesData(c),
	})
	d.say(c.Service, c.Slot, "released: "+format, args...)
}

// declines reports whether this peer refuses a slot it holds and that does not run. What
// fails everywhere it keeps: the slot would only wander.
func (d *decision) declines(c shoal.Claim) bool {
	if _, braked := d.plan.Brakes.Of(c.Service, c.Revision); braked {
		return false
	}
	return refusal(d.w.peers[d.w.self].state, c.Service, c.Revision) != "" && !d.runs(c.Replica)
}

// decline gives up a slot that this peer refuses: to the replica of an older revision
// that still fills it here, if there is one, else to whoever takes it.
func (d *decision) decline(c shoal.Claim) {
	why := refusal(d.w.peers[d.w.self].state, c.Service, c.Revision)
	old := d.predecessor(c)
	if s := d.w.service(c.Service); old == nil || s.job {
		d.drop(c, "", "%s", why)
		return
	}
	d.plan.Claims = append(d.plan.Claims, NewClaim{
		Service: c.Service, Slot: c.Slot, Revision: old.Revision,
		Reuse: old.ID, LeavesSlot: c.Slot, Replaces: c.Replica, Data: d.leavesData(c),
	})
	d.m.claimed[slotKey{c.Service, c.Slot}] = claimMemory{at: d.now, once: true}
	d.start(old.ID)
	d.say(c.Service, c.Slot, "back to revision %d, which runs: %s", old.Revision.Seq, why)
}

// predecessor returns the replica of an older revision that this peer runs in the slot
// of a claim until the claimed one can take over; nil if there is none.
func (d *decision) predecessor(c shoal.Claim) *shoal.ReplicaStatus {
	state := d.w.peers[d.w.self].state
	if state == nil {
		return nil
	}
	var best *shoal.ReplicaStatus
	for i := range state.Replicas {
		r := &state.Replicas[i]
		if r.Service != c.Service || r.Slot != c.Slot || r.Revision.Compare(c.Revision) >= 0 || !d.runs(r.ID) {
			continue
		}
		if best == nil || r.Revision.Compare(best.Revision) > 0 {
			best = r
		}
	}
	return best
}

// change takes an own slot to the current revision: with the replica that it has, where
// that is the same container, else with a new one.
func (d *decision) change(s *serviceRow, i int) {
	c, to := s.claims[i], s.rev
	d.m.claimed[slotKey{c.Service, c.Slot}] = claimMemory{at: d.now, once: true}
	n := NewClaim{Service: c.Service, Slot: c.Slot, Revision: to, Data: d.leavesData(c)}
	if d.adopts(s, i) {
		n.Reuse, n.LeavesSlot = c.Replica, c.Slot
		d.say(c.Service, c.Slot, "is of revision %d as it is: its container is the same", to.Seq)
	} else {
		n.Replaces = c.Replica
		d.say(c.Service, c.Slot, "changes to revision %d: its turn", to.Seq)
	}
	d.plan.Claims = append(d.plan.Claims, n)
	d.keep(c)
}

// handOver lets a slot go that another peer took from a draining, leaving or
// engineless one, once it is ready there, or has ended here or there.
func (d *decision) handOver(s *serviceRow, c, winner shoal.Claim) {
	switch {
	case d.ready(winner.Replica):
		d.drop(c, winner.Holder, "handed over to %s, which is ready", d.name(winner.Holder))
	case d.w.done(s, c):
		d.drop(c, winner.Holder, "handed over to %s: it has ended here", d.name(winner.Holder))
	case s.job:
		d.drop(c, winner.Holder, "handed over to %s, where it runs anew", d.name(winner.Holder))
	case d.w.done(s, winner):
		d.drop(c, winner.Holder, "handed over to %s, where it has ended", d.name(winner.Holder))
	case !d.hasStarted(c):
		d.drop(c, winner.Holder, "handed over to %s before it started", d.name(winner.Holder))
	default:
		d.say(c.Service, c.Slot, "hands over to %s once it is ready there", d.name(winner.Holder))
		d.keep(c)
	}
}

// lose handles a claim that another peer's claim beats (DESIGN.md section 6).
func (d *decision) lose(s *serviceRow, slots []slotState, i int, c shoal.Claim, oc ownCase) {
	winner := s.claims[slots[c.Slot].claim]
	if !d.hasStarted(c) {
		d.drop(c, winner.Holder, "%s holds it, and it never started here", d.name(winner.Holder))
		return
	}
	settled := d.settled(c.Replica)
	switch slot, again := oc.reuse[i]; {
	case again:
		d.plan.Claims = append(d.plan.Claims, NewClaim{
			Service: c.Service, Slot: slot, Revision: c.Revision,
			Reuse: c.Replica, LeavesSlot: c.Slot, YieldTo: winner.Holder,
		})
		d.m.claimed[slotKey{c.Service, slot}] = claimMemory{at: d.now, once: true}
		d.say(c.Service, slot, "takes surplus slot %d's replica, %s holds that slot", c.Slot, d.name(winner.Holder))
		d.start(c.Replica)
		return
	case d.now < settled:
		d.wake(settled)
		d.say(c.Service, c.Slot, "surplus, %s holds it; settles for %v", d.name(winner.Holder), settled-d.now)
	case s.job && d.w.began(winner):
		d.drop(c, winner.Holder, "%s runs it, too, and has held it for longer", d.name(winner.Holder))
		return
	case s.job:
		d.say(c.Service, c.Slot, "surplus, %s holds it; goes on until it runs there", d.name(winner.Holder))
	case d.cfg.NoAllReady && d.ready(winner.Replica):
		d.drop(c, winner.Holder, "%s holds it and is ready", d.name(winner.Holder))
		return
	case winner.Revision.Compare(c.Revision) > 0 && d.ready(winner.Replica):
		d.drop(c, winner.Holder, "%s runs a newer revision in it and is ready", d.name(winner.Holder))
		return
	case d.allReady(s, slots):
		d.drop(c, winner.Holder, "%s holds it and every slot is ready", d.name(winner.Holder))
		return
	case d.now >= settled+d.cfg.SurplusRelief && d.firstToYield(s, slots, oc.losers) == i:
		d.drop(c, winner.Holder, "%s holds it and is ready; not all slots are, after %v", d.name(winner.Holder), d.cfg.SurplusRelief)
		return
	default:
		d.wake(settled + d.cfg.SurplusRelief)
		d.say(c.Service, c.Slot, "surplus, %s holds it; waits until every slot is ready", d.name(winner.Holder))
	}
	d.keep(c)
}

// settled returns when a loser may act: some time after it lost, and after anybody
// came back.
func (d *decision) settled(id shoal.ReplicaID) time.Duration {
	since, ok := d.old.losing[id]
	if !ok {
		since = d.now
	}
	d.m.losing[id] = since
	if d.cfg.NoSettle {
		return since
	}
	return max(since, d.m.returnedAt) + d.cfg.Settle
}

func (d *decision) allReady(s *serviceRow, slots []slotState) bool {
	for _, st := range slots {
		if st.kind != held || !d.ready(s.claims[st.claim].Replica) {
			return false
		}
	}
	return true
}

// firstToYield returns the first of the losers whose own slot's winner is ready, -1
// if there is none.
func (d *decision) firstToYield(s *serviceRow, slots []slotState, losers []int) int {
	for _, i := range losers {
		if d.ready(s.claims[slots[s.claims[i].Slot].claim].Replica) {
			return i
		}
	}
	return -1
}

// losers returns the claims by peers that keep their slots but lost this one, in
// the order in which they take other slots or yield: by rank.
func (d *decision) losers(s *serviceRow, slots []slotState) []int {
	var out []int
	for i, c := range s.claims {
		if c.Slot >= 0 && c.Slot < s.n && slots[c.Slot].claim != i && d.w.claimKind(s, i) == held &&
			d.w.peers[s.holders[i]].up && s.claims[slots[c.Slot].claim].Holder != c.Holder {
			out = append(out, i)
		}
	}
	rank := func(i int) uint64 {
		return slotRank(s.hash, s.claims[i].Slot, d.w.peers[s.holders[i]].hash)
	}
	slices.SortFunc(out, func(a, b int) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b))
	})
	return out
}

// matchReuse pairs running losers with open slots, the same on every peer with an
// equal view: each takes one instead of stopping while another peer starts.
func (d *decision) matchReuse(s *serviceRow, slots []slotState, losers []int) map[int]int {
	if d.cfg.NoReuse || len(losers) == 0 || s.stays || s.job { // a replica with data keeps its slot, a run its work
		return nil
	}
	out := make(map[int]int)
	slot := 0
	for _, i := range losers {
		h := int(s.holders[i])
		if !d.runs(s.claims[i].Replica) || s.claims[i].Revision != s.rev || !d.w.peers[h].up || d.w.unable(h, s) != "" {
			continue
		}
		for slot < len(slots) && (slots[slot].kind == held || d.gated(slots[slot].kind)) {
			slot++
		}
		if slot == len(slots) {
			break
		}
		out[i] = slot
		slot++
	}
	return out
}

// gated reports whether open slots of a kind wait for a brake.
func (d *decision) gated(kind slotKind) bool {
	if kind == lost {
		return d.now < d.deadGate
	}
	return d.now < d.freeGate
}

// name returns what people call a peer.
func (d *decision) name(id shoal.PeerID) string {
	if i, ok := d.w.index[id]; ok {
		return d.w.peers[i].peer.Name()
	}
	return id.Short()
}
