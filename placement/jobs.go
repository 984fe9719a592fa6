// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"

	"github.com/shoalnet/shoal"
)

// The slots of a job are claimed like those of any service, but for three things. A slot
// whose runs are over, by the record of any holder, living or not, is never filled again:
// its claim stays as the word of that, and takes no room. Only so many of the others are
// open at once, the lowest first. And no slot waits for another to be ready: what runs an
// older revision is let go at once, for its work is to be done anew.

// over reports whether the runs of a claim are over, at the current revision or at one that
// makes the same container.
func (s *serviceRow) over(i int) bool { return s.job && s.svc.Outcome(s.claims[i]).Over() }

// better reports whether one claim whose runs are over counts before another: what is done
// before what was given up.
func (s *serviceRow) better(i, j int) bool {
	a, b := s.claims[i], s.claims[j]
	if a.Outcome.Completed != b.Outcome.Completed {
		return a.Outcome.Completed
	}
	return beats(a, b)
}

// outcome returns what counts of what a claim's runs came to, nil if nothing does.
func outcome(v *shoal.View, c shoal.Claim) *shoal.JobOutcome {
	if c.Outcome == nil {
		return nil
	}
	if s, ok := v.Service(c.Service); ok && s.Spec.Mode.IsJob() {
		return s.Outcome(c)
	}
	return nil
}

// tried returns what the runs of a slot came to that is not over, by the holder that tried
// most; nil if none did.
func (s *serviceRow) tried(slot int) *shoal.JobOutcome {
	var most *shoal.JobOutcome
	if !s.job || s.spec.Mode.IsGlobal() { // there each peer's work is its own
		return nil
	}
	for _, c := range s.claims {
		if o := s.svc.Outcome(c); c.Slot == slot && o != nil && (most == nil || o.Attempts > most.Attempts) {
			most = o
		}
	}
	return most
}

// shut shuts the slots of a job that are not to be filled yet: what runs the same container
// as the current revision keeps its place, the rest are open in the order of their numbers,
// as far as there is place.
func (w *world) shut(s *serviceRow, slots []slotState) {
	places := len(slots)
	if j := s.spec.Job; j != nil && j.Parallelism > 0 {
		places = j.Parallelism
	}
	runs := make([]bool, len(slots))
	for i, c := range s.claims {
		if c.Slot < 0 || c.Slot >= len(slots) || slots[c.Slot].kind == ended || runs[c.Slot] || !s.svc.Runs(c.Revision) {
			continue
		}
		if kind := w.claimKind(s, i); kind == held || kind == handed {
			runs[c.Slot] = true
			places--
		}
	}
	for i := range slots {
		if st := &slots[i]; st.kind != ended && !runs[i] {
			st.shut = places <= 0
			places--
		}
	}
}

// jobTurns shuts the slots of a job that are not to be filled yet, and says which of those
// that are held at an older revision change now.
func (d *decision) jobTurns(s *serviceRow, slots []slotState) []bool {
	d.w.shut(s, slots)
	turns := make([]bool, len(slots))
	if d.w.v.Waits(s.svc) != "" { // until then what runs the older revision goes on
		return turns
	}
	for i, st := range slots {
		if st.kind == held && !st.shut && behind(s, s.claims[st.claim]) {
			turns[i] = d.adopts(s, st.claim) || d.w.unableToChange(s, int(s.holders[st.claim])) == ""
		}
	}
	return turns
}

// addTurns says of each slot of a job that it is over, or waits for others to end.
func (w *world) addTurns(s *serviceRow, out []shoal.ExplainSlot) {
	slots := w.slotStates(s)
	w.shut(s, slots)
	for i := range out {
		x := &out[i]
		if x.Slot < 0 || x.Slot >= len(slots) {
			continue
		}
		switch st := slots[x.Slot]; {
		case st.kind == ended:
			o := s.claims[st.claim].Outcome
			text := "its work is done"
			if o.Failed {
				text = "given up: " + shoal.JobStatus{Why: o.Why, Attempts: o.Attempts}.Failure()
			}
			x.Waits = append(x.Waits, text)
		case st.shut:
			x.Waits = append(x.Waits, fmt.Sprintf("waits for its turn: %d at once", s.spec.Job.Parallelism))
		}
	}
}

// superseded says why a job's slot is let go that runs an older revision.
func (d *decision) superseded(s *serviceRow, st slotState) string {
	if st.shut {
		return "a newer revision does its work anew when its turn comes"
	}
	if why := d.w.unableToChange(s, d.w.self); why != "" {
		return "a newer revision does its work anew, and this peer " + why
	}
	return "a newer revision does its work anew"
}

// keepOver holds on to the word that a slot's runs are over, at the current revision as
// long as that is the same container: what is remembered of earlier ones has an end.
func (d *decision) keepOver(s *serviceRow, i int) {
	c := s.claims[i]
	if !behind(s, c) {
		return
	}
	d.plan.Claims = append(d.plan.Claims, NewClaim{
		Service: c.Service, Slot: c.Slot, Revision: s.rev, Reuse: c.Replica, LeavesSlot: c.Slot,
	})
	d.say(c.Service, c.Slot, "is over at revision %d, too: its container is the same", s.rev.Seq)
}

// dropOver lets a slot go whose runs are over elsewhere.
func (d *decision) dropOver(s *serviceRow, c, winner shoal.Claim) {
	to := winner.Holder
	if to == d.id {
		to = ""
	}
	if s.svc.Outcome(winner).IsCompleted() {
		d.drop(c, to, "its work is done on %s", d.name(winner.Holder))
		return
	}
	d.drop(c, to, "%s has given it up", d.name(winner.Holder))
}

// The states of a job, where others have those of a rollout.
const (
	jobComplete = "complete"
	jobFailed   = "failed"
	jobRunning  = "running"
	jobAsleep   = "scheduled" // the time of its first run has not come
)

// jobReport is [Report] of a job: every slot runs the current revision, or is to.
func jobReport(v *shoal.View, out shoal.RolloutReport) shoal.RolloutReport {
	st, _ := v.Job(out.Service)
	out.State, out.FirstFailure = jobRunning, st.Failure()
	switch {
	case st.Asleep:
		out.State = jobAsleep
	case st.IsComplete():
		out.State = jobComplete
	case st.IsFailed():
		out.State = jobFailed
	}
	out.Slots, out.Current, out.Healthy, out.Failed = st.Wanted, st.Completed+st.Failed+st.Running, st.Completed, st.Failed
	return out
}
