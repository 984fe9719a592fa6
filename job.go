// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"time"
)

// IsJob reports whether the replicas of a service in this mode run until they end, and are
// not started again once they ended well.
func (m Mode) IsJob() bool { return m == ModeReplicatedJob || m == ModeGlobalJob }

// IsGlobal reports whether a service in this mode wants one replica on each peer that
// it may run on, and not a number of them.
func (m Mode) IsGlobal() bool { return m == ModeGlobal || m == ModeGlobalJob }

// Job says how the replicas of a service run that end by themselves; see [DefaultJob].
type Job struct {
	// Attempts is how often the replica of one slot is run, and its launch tried, before
	// the slot has failed; at least 1.
	Attempts int
	// Parallelism is how many slots run at once, in the order of their numbers; 0: all.
	Parallelism int
	// Deadline is how long the replica of one slot may take on the peer that holds it, from
	// the first start of its container on, with all attempts and the pauses between them;
	// 0: without end. On another peer it counts anew.
	Deadline time.Duration
}

// DefaultJob is a job of which its user says nothing: six more attempts after the first,
// like a Job of Kubernetes (backoffLimit).
func DefaultJob() Job { return Job{Attempts: 7} }

// Limits of a job.
const (
	maxAttempts = 1000
	maxDeadline = 365 * 24 * time.Hour
)

// JobOutcome is what the runs of one slot of a job came to so far, as the slot's holder
// records it with its claim. It is never written to.
type JobOutcome struct {
	Attempts  int    // runs that ended, and launches that failed
	Completed bool   // the last run ended with exit code 0: none follows
	Failed    bool   // no run follows, though none ended well
	Code      int    // exit code of the last run, if there was one
	Why       string // how the last attempt failed, one line; "" if it did not
	At        int64  // when the holder saw that, by its wall clock, Unix seconds; display only
}

// Over reports whether no run follows; of nil it is false.
func (o *JobOutcome) Over() bool { return o != nil && (o.Completed || o.Failed) }

// IsCompleted reports whether the slot's work is done; of nil it is false.
func (o *JobOutcome) IsCompleted() bool { return o != nil && o.Completed }

// JobStatus is how far a job has come.
type JobStatus struct {
	Wanted    int // slots; of a global job the peers that it runs on
	Completed int
	Failed    int // slots that are given up
	Running   int // slots whose container runs now
	// Stopped: a user stopped it, or there is no such job. What completed before counts
	// again when it is started.
	Stopped bool
	// Asleep: the time of its first run has not come.
	Asleep bool
	// Why says how the first failed slot failed, else how the last attempt of a slot did
	// that is not over; "": nothing failed.
	Why      string
	Attempts int // of that slot, so far
}

// IsComplete reports whether the job's work is done.
func (s JobStatus) IsComplete() bool { return !s.Stopped && !s.Asleep && s.Completed >= s.Wanted }

// IsFailed reports whether the job cannot complete any more: a slot of it is given up.
func (s JobStatus) IsFailed() bool { return !s.Stopped && s.Failed > 0 }

// IsOver reports whether nothing runs any more, or will before its next time comes: every
// slot is completed or failed.
func (s JobStatus) IsOver() bool { return !s.Stopped && !s.Asleep && s.Completed+s.Failed >= s.Wanted }

// Progress says how far the job is, in a few words: "3/5 completed, 1 failed, 1 running".
func (s JobStatus) Progress() string {
	text := fmt.Sprintf("%d/%d completed", s.Completed, s.Wanted)
	if s.Failed > 0 {
		text += fmt.Sprintf(", %d failed", s.Failed)
	}
	if s.Running > 0 {
		text += fmt.Sprintf(", %d running", s.Running)
	}
	return text
}

// Failure says how the first failed slot failed, else how the last attempt of one did that
// is not over: "exited with code 3 (7 attempts)"; "" if nothing did.
func (s JobStatus) Failure() string {
	switch {
	case s.Why == "":
		return ""
	case s.Attempts == 1:
		return s.Why + " (1 attempt)"
	}
	return fmt.Sprintf("%s (%d attempts)", s.Why, s.Attempts)
}

// Outcome returns what a claim's runs came to, if they count for the current revision of
// its service: one of another revision does only if that makes the same container. nil if
// nothing is known.
func (s *Service) Outcome(c Claim) *JobOutcome {
	if c.Outcome == nil || !s.Runs(c.Revision) {
		return nil
	}
	return c.Outcome
}

// Job returns how far a service that runs to completion has come at its current revision.
// What completed or was given up counts for good, whatever becomes of its holder. False if
// there is no such service, or it is no job.
func (v *View) Job(service string) (JobStatus, bool) {
	svc, ok := v.Service(service)
	if !ok || !svc.Spec.Mode.IsJob() {
		return JobStatus{Stopped: true}, false
	}
	st := JobStatus{Wanted: svc.Wanted(), Stopped: svc.Stopped, Asleep: svc.IsAsleep()}
	claims := v.ClaimsOf(service)
	if svc.Spec.Mode == ModeGlobalJob && !svc.Stopped && !st.Asleep {
		return v.globalJob(svc, claims, st), true
	}
	for len(claims) > 0 {
		n := 1
		for n < len(claims) && claims[n].Slot == claims[0].Slot {
			n++
		}
		if slot := claims[0].Slot; slot >= 0 && slot < st.Wanted {
			v.countSlot(svc, claims[:n], &st)
		}
		claims = claims[n:]
	}
	return st, true
}

// globalJob counts by holders: the slot of a global service is only a number.
func (v *View) globalJob(svc *Service, claims []Claim, st JobStatus) JobStatus {
	held := make(map[PeerID]bool, len(claims))
	st.Wanted = 0
	for i, c := range claims {
		over := svc.Outcome(c).Over()
		if held[c.Holder] || !over && !v.Alive(c.Holder) {
			continue // what is not over on a peer that is gone is nobody's any more
		}
		held[c.Holder] = true
		st.Wanted++
		v.countSlot(svc, claims[i:i+1], &st)
	}
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if !held[p.ID] && v.Alive(p.ID) && p.mayEver(&svc.Spec) {
			st.Wanted++
		}
	}
	return st
}

// mayEver reports whether a peer takes slots, and its labels, its owner and its platform let
// it have one of a spec.
func (p *Peer) mayEver(s *Spec) bool {
	return p.TakesSlots() && p.MatchesAll(s.Constraints) && Forbidden(p.Facts.AllowedPolicy, s.Demands()) == "" &&
		p.Facts.Runs(s.Platforms)
}

// countSlot adds what the claims of one slot come to: completed before failed before what
// still runs.
func (v *View) countSlot(svc *Service, claims []Claim, st *JobStatus) {
	var best *JobOutcome
	runs := false
	for _, c := range claims {
		o := svc.Outcome(c)
		if best == nil || o.IsCompleted() || o.Over() && !best.Over() {
			best = o
		}
		r, told := v.Replica(c.Replica)
		runs = runs || told && v.Alive(c.Holder) && (r.Phase == PhaseRunning || r.Phase == PhaseReady)
	}
	switch {
	case best.IsCompleted():
		st.Completed++
		return
	case best.Over():
		st.Failed++
	case runs:
		st.Running++
	}
	if best != nil && (st.Why == "" || best.Failed && st.Failed == 1) {
		st.Why, st.Attempts = best.Why, best.Attempts
	}
}

// checkJob checks the terms of a job, and that nothing is asked that only makes sense for
// what stays.
func (s *Spec) checkJob() error {
	j := s.Job
	switch {
	case !s.Mode.IsJob() && j != nil:
		return invalid("job", "is for the modes %s and %s, got mode %s", ModeReplicatedJob, ModeGlobalJob, s.Mode)
	case !s.Mode.IsJob():
		return nil
	case j == nil:
		return invalid("job", "is missing; mode %s needs it", s.Mode)
	case j.Attempts < 1 || j.Attempts > maxAttempts:
		return invalid("job.attempts", "must be 1-%d, got %d", maxAttempts, j.Attempts)
	case j.Parallelism < 0 || j.Parallelism > MaxReplicas:
		return invalid("job.parallelism", "must be 0-%d, got %d", MaxReplicas, j.Parallelism)
	case j.Parallelism > 0 && s.Mode == ModeGlobalJob:
		return invalid("job.parallelism", "is for mode %s: a %s runs on every peer at once", ModeReplicatedJob, ModeGlobalJob)
	case j.Deadline < 0 || j.Deadline > maxDeadline:
		return invalid("job.deadline", "must be 0-%s, got %s", maxDeadline, j.Deadline)
	case s.Restart.MaxAttempts != 0 || s.Restart.Window != 0 || s.Restart.Condition != RestartOnFailure:
		return invalid("restart", "cannot be %s in mode %s: a job is run again after it failed, job.attempts says how often", s.Restart.Condition, s.Mode)
	case s.Rollout != Rollout{} || s.Rollback != nil:
		return invalid("update_config", "is for services that stay: all slots of a job run its new revision, as job.parallelism lets them")
	}
	return nil
}
