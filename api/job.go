// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// job says how far a job is.
func (p *pane) job(s *shoal.Service) *shoalv1.JobRow {
	st, _ := p.view.Job(s.Spec.Name)
	out := &shoalv1.JobRow{
		Completed: int32(st.Completed), Failed: int32(st.Failed), Running: int32(st.Running), Why: st.Why, Attempts: int32(st.Attempts),
	}
	sched := s.Spec.Schedule
	if sched == nil {
		return out
	}
	out.Schedule, out.Run = sched.String(), stamp(s.Spec.Run*1000)
	if next := sched.Next(p.wall); !p.wall.IsZero() && !next.IsZero() && !s.Stopped {
		out.Next = timestamppb.New(next)
	}
	return out
}

// over reports whether the runs of a claim are over, whoever holds it.
func (p *pane) over(s *shoal.Service, c shoal.Claim) bool {
	return s != nil && s.Spec.Mode.IsJob() && s.Outcome(c).Over()
}

// ended makes the row of a claim whose runs are over: that stays so, whatever its holder's
// beats say, and at every revision that makes the same container.
func (p *pane) ended(row *shoalv1.ReplicaRow, s *shoal.Service, c shoal.Claim) {
	o := s.Outcome(c)
	row.IsCurrent, row.ExitCode, row.Health = true, int32(o.Code), ""
	if o.Completed {
		row.State, row.Reason = stateDone, ""
		return
	}
	row.State = shoal.PhaseFailed.String()
	row.Reason = shoal.JobStatus{Why: o.Why, Attempts: o.Attempts}.Failure()
}

// shut returns the slots of a job that nobody holds because others come first.
func (p *pane) shut(s *shoal.Service, want int) map[int]bool {
	if s.Spec.Mode != shoal.ModeReplicatedJob || s.Spec.Job == nil || s.Spec.Job.Parallelism == 0 {
		return nil
	}
	places, held, over := s.Spec.Job.Parallelism, map[int]bool{}, map[int]bool{}
	for _, c := range p.view.ClaimsOf(s.Spec.Name) {
		held[c.Slot] = true
		over[c.Slot] = over[c.Slot] || p.over(s, c)
	}
	places -= len(held) - len(slices.DeleteFunc(slices.Collect(maps.Values(over)), func(is bool) bool { return !is }))
	out := map[int]bool{}
	for slot := range want {
		if held[slot] {
			continue
		}
		out[slot] = places <= 0
		places--
	}
	for slot, waits := range out {
		if !waits {
			delete(out, slot)
		}
	}
	return out
}

// jobProgress says whether a job is complete, or what failed first. One that is stopped, or
// has not run by its schedule yet, has settled once nothing runs.
func (p *pane) jobProgress(s *shoal.Service, out *shoalv1.ServiceProgress) {
	st, _ := p.view.Job(s.Spec.Name)
	held := map[shoal.ReplicaID]bool{}
	for _, c := range p.view.ClaimsOf(s.Spec.Name) {
		switch o := s.Outcome(c); {
		case o.Over():
			if o.Failed && st.IsFailed() && out.Trouble == "" {
				out.TroubleSlot = int32(c.Slot)
				out.Trouble = fmt.Sprintf("%s/%d on %s failed: %s", c.Service, c.Slot, p.name(c.Holder),
					shoal.JobStatus{Why: o.Why, Attempts: o.Attempts}.Failure())
			}
		case p.view.Alive(c.Holder):
			held[c.Replica] = true
		}
	}
	out.IsSettled = len(held) == 0 && !p.remains(s.Spec.Name, held) && (s.Stopped || st.Asleep || st.IsComplete())
}

func jobOf(m *shoalv1.JobRow) *Job {
	if m == nil {
		return nil
	}
	return &Job{
		Completed: int(m.GetCompleted()), Failed: int(m.GetFailed()), Running: int(m.GetRunning()), Why: m.GetWhy(), Attempts: int(m.GetAttempts()),
		Schedule: m.GetSchedule(), Next: timeOf(m.GetNext()), Run: timeOf(m.GetRun()),
	}
}
