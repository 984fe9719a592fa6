// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
)

// run begins a run of a job whose time has come: a revision that differs in the run alone.
func run(d *shoal.Desired, author shoal.PeerID, w *shoal.RunWish) (*step, error) {
	old, ok := d.Service(w.Service)
	switch {
	case !ok:
		return nil, noService(d, w.Service)
	case old.Spec.Schedule == nil || old.Stopped || old.Revision != w.Of:
		return nil, fmt.Errorf("service %q was changed meanwhile: %w", w.Service, shoal.ErrConflict)
	}
	s := &step{change: shoal.Change{Kind: shoal.ChangeNone, Service: w.Service, Revision: old.Revision, Replicas: old.Replicas}}
	if w.At <= old.Spec.Run {
		s.change.Details = []string{"has begun already"}
		return s, nil
	}
	s.begin(d, author, old, w.At)
	return s, nil
}

// runNow begins a run that no schedule asks for.
func (s *step) runNow(d *shoal.Desired, author shoal.PeerID, old *shoal.Service, now int64) {
	s.begin(d, author, old, max(now, old.Spec.Run+1))
}

// begin writes a run. Those before are no earlier revisions that one could go back to: they
// are the same.
func (s *step) begin(d *shoal.Desired, author shoal.PeerID, old *shoal.Service, at int64) {
	spec := old.Spec
	spec.Run = at
	s.spec = &spec
	s.revise(d, author, old)
	s.rev.Past = slices.DeleteFunc(slices.Clone(old.Past), func(p shoal.PastRevision) bool { return p.Spec.SameRun(&spec) })
	s.change.Kind, s.change.Details = shoal.ChangeUpdate, []string{"run of " + spec.RunText()}
}

// carryRun settles what a user does not say of a schedule: from when on its times count, and
// which run it is. A container that changes, or has changed, waits for the next time.
func carryRun(spec *shoal.Spec, old *shoal.Service, now int64) {
	spec.Run = 0
	if spec.Schedule == nil {
		return
	}
	sched := *spec.Schedule
	sched.From = now
	spec.Schedule = &sched
	if old == nil || old.Spec.Schedule == nil {
		return
	}
	if sched.SameTimes(old.Spec.Schedule) {
		sched.From = old.Spec.Schedule.From
	}
	if spec.Run = old.Spec.Run; !spec.SameContainer(&old.Spec) {
		spec.Run = 0
	}
}

// scheduleChange says what becomes of a schedule; two that are due at the same times have
// the same words.
func scheduleChange(old, now *shoal.Schedule) string {
	text := func(s *shoal.Schedule) string {
		if s == nil {
			return "off"
		}
		return s.String()
	}
	if old.SameTimes(now) {
		return "schedule changed what is done about missed and overlapping runs"
	}
	return fmt.Sprintf("schedule %s -> %s", text(old), text(now))
}
