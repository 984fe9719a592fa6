// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement/rollout"
)

// Rollout returns the slots of a service as its rollout sees them, and the rules by which
// they change. readyFor tells for how long a replica has been ready, as far as the caller
// has seen. Of a service that is not there, or stopped, there are no slots; nor of a job,
// whose slots change as it lets them, and not in waves.
func Rollout(v *shoal.View, service string, readyFor func(shoal.ReplicaID) time.Duration) ([]rollout.Slot, rollout.Rules) {
	w := newWorld(v, nil)
	s := w.service(service)
	if s == nil || s.svc.Stopped || s.job {
		return nil, rollout.Rules{}
	}
	w.setStandings()
	if s.global() {
		return w.globalSlots(s, readyFor)
	}
	return w.rolloutSlots(s, w.slotStates(s), readyFor)
}

// turns asks the rollout which held slots may change to the current revision now;
// nil when there is nothing to change.
func (d *decision) turns(s *serviceRow, slots []slotState) []bool {
	if s.job {
		return d.jobTurns(s, slots)
	}
	if !slices.ContainsFunc(slots, func(st slotState) bool { return st.claim >= 0 && behind(s, s.claims[st.claim]) }) {
		return nil
	}
	view, rules := d.w.rolloutSlots(s, slots, d.readyFor(s))
	rules.Hold(d.plan.Brakes, s.svc)
	turns := rules.Turns(view)
	for i, st := range slots { // what the new revision does not change, it need not wait for
		turns[i] = turns[i] || st.kind == held && behind(s, s.claims[st.claim]) && d.adopts(s, st.claim)
	}
	return turns
}

// behind reports whether a claim is of an older revision than the current one.
func behind(s *serviceRow, c shoal.Claim) bool { return c.Revision.Compare(s.rev) < 0 }

// adopts reports whether the replica of a claim goes on as one of the current revision:
// the container is the same, and its holder may have it.
func (d *decision) adopts(s *serviceRow, claim int) bool {
	h := int(s.holders[claim])
	_, no := unmatched(d.w.peers[h].peer, s.spec.Constraints)
	return s.svc.Runs(s.claims[claim].Revision) && !no && d.w.forbidden(h, s) == ""
}

// readyFor tells for how long a replica of the current revision has been ready as this
// peer saw it, and asks for a decision when that is as long as the next slot waits. A
// daemon that has just started begins to count anew: a slot is only later.
func (d *decision) readyFor(s *serviceRow) func(shoal.ReplicaID) time.Duration {
	shape := s.svc.Revise()
	return func(id shoal.ReplicaID) time.Duration {
		since, seen := d.old.ready[id]
		if !seen {
			since = d.now
		}
		d.m.ready[id] = since
		for _, wait := range []time.Duration{max(shape.Delay, shape.MinHealthy), shape.Canary.PromoteAfter} {
			if wait > 0 {
				d.wake(since + wait)
			}
		}
		return d.now - since
	}
}

// rolloutSlots lays out the wanted slots of a replicated service.
func (w *world) rolloutSlots(s *serviceRow, slots []slotState, readyFor func(shoal.ReplicaID) time.Duration) ([]rollout.Slot, rollout.Rules) {
	able := w.anyAble(s)
	out := make([]rollout.Slot, len(slots))
	for i, st := range slots {
		if st.kind != held {
			out[i].Stuck = !able   // else somebody fills it soon
			if st.kind == handed { // until then it serves
				r, told := w.v.Replica(s.claims[st.claim].Replica)
				out[i].Ready = told && r.Phase == shoal.PhaseReady
			}
			continue
		}
		out[i] = w.rolloutSlot(s, st.claim, readyFor)
		if x := &out[i]; !x.Current && (s.stays || !able) && !s.svc.Runs(x.Revision) {
			x.Stuck = w.unableToChange(s, int(s.holders[st.claim])) != ""
			x.Failed = x.Stuck && w.refused(s, int(s.holders[st.claim]))
		}
	}
	return w.rules(s, out, slots, readyFor)
}

// globalSlots lays out the replicas of a global service, in the order of their claims.
func (w *world) globalSlots(s *serviceRow, readyFor func(shoal.ReplicaID) time.Duration) ([]rollout.Slot, rollout.Rules) {
	var out []rollout.Slot
	var slots []slotState
	for i := range s.claims {
		h := int(s.holders[i])
		if h < 0 || w.peers[h].standing != stands {
			continue
		}
		x := w.rolloutSlot(s, i, readyFor)
		x.Stuck = !x.Current && w.unable(h, s) != "" && !s.svc.Runs(x.Revision)
		x.Failed = x.Failed || x.Stuck && w.refused(s, h)
		out, slots = append(out, x), append(slots, slotState{kind: held, claim: i})
	}
	return w.rules(s, out, slots, readyFor)
}

// rolloutSlot lays out one claim that counts.
func (w *world) rolloutSlot(s *serviceRow, claim int, readyFor func(shoal.ReplicaID) time.Duration) rollout.Slot {
	c := s.claims[claim]
	x := rollout.Slot{Held: true, Revision: c.Revision, Current: !behind(s, c)}
	r, told := w.v.Replica(c.Replica)
	if !told {
		return x
	}
	done := x.Current && w.done(s, c)
	x.Ready = r.Phase == shoal.PhaseReady || done
	x.Healthy = x.Ready
	x.Broken = !done && (r.Phase == shoal.PhaseFailed || r.Phase == shoal.PhaseLost || r.Phase == shoal.PhaseStopped)
	if x.Current {
		shape := s.svc.Revise()
		x.Failed = r.Revision == c.Revision && (r.Failures > 0 || r.Phase == shoal.PhaseFailed)
		x.Failures = r.Failures
		if r.Phase == shoal.PhaseFailed {
			x.Failures = rollout.ForGood
		}
		x.Healthy = done || x.Ready && readyFor(c.Replica) >= max(shape.Delay, shape.MinHealthy)
	}
	return x
}

// rules returns the rules for slots that are laid out, which know of the canary whether it
// has been ready for long enough.
func (w *world) rules(s *serviceRow, out []rollout.Slot, slots []slotState, readyFor func(shoal.ReplicaID) time.Duration) ([]rollout.Slot, rollout.Rules) {
	shape := s.svc.Revise()
	passed := shape.Canary.PromoteAfter > 0
	for i := range min(shape.Canary.Slots.Of(len(out)), len(out)) {
		passed = passed && out[i].Current && out[i].Ready && readyFor(s.claims[slots[i].claim].Replica) >= shape.Canary.PromoteAfter
	}
	rules := rollout.RulesOf(s.svc, len(out), passed)
	rules.Waits = w.v.Waits(s.svc)
	return out, rules
}

// refused reports whether a peer says that it cannot run the current revision.
func (w *world) refused(s *serviceRow, p int) bool {
	return refusal(w.peers[p].state, s.spec.Name, s.rev) != ""
}

// handStuck opens slots whose turn has come but whose holder cannot run the
// current revision: somebody else takes them before it lets go. Slots with data wait.
func (d *decision) handStuck(s *serviceRow, slots []slotState, turns []bool) {
	if s.stays || s.job {
		return
	}
	for i := range turns {
		if turns[i] && !d.adopts(s, slots[i].claim) && d.w.unableToChange(s, int(s.holders[slots[i].claim])) != "" {
			slots[i].kind = handed
		}
	}
}
