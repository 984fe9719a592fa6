// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FailureAction says what becomes of a rollout in which too much fails. "" is
// FailureContinue.
type FailureAction string

// The actions.
const (
	FailureContinue FailureAction = "continue" // go on
	FailurePause    FailureAction = "pause"    // no more slots change until a user says so
	FailureRollback FailureAction = "rollback" // the last revision that was good comes back
)

// Share is a part of a service's replicas: a number, or a percentage. The zero value is
// not stated.
type Share struct {
	N       int
	Percent int // 1-100; else N counts
}

// Of returns the share of n replicas, rounded down; of what is not none, at least 1.
func (s Share) Of(n int) int {
	if s.Percent > 0 {
		return max(1, n*s.Percent/100)
	}
	return s.N
}

// String returns "25%" or "2".
func (s Share) String() string {
	if s.Percent > 0 {
		return fmt.Sprintf("%d%%", s.Percent)
	}
	return fmt.Sprint(s.N)
}

// ParseShare reads what String writes: 2 or 25%. 0 and 0% are not stated.
func ParseShare(text string) (Share, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseUint(number, 10, 16)
	switch {
	case err != nil:
		return Share{}, fmt.Errorf("must be a number of replicas like 2 or a part of them like 25%%, got %s", text)
	case percent && n > 100:
		return Share{}, fmt.Errorf("must be 0%%-100%%, got %s", text)
	case percent:
		return Share{Percent: int(n)}, nil
	case n > MaxReplicas:
		return Share{}, fmt.Errorf("must be 0–%d, got %s", MaxReplicas, text)
	}
	return Share{N: int(n)}, nil
}

// Rollout says how a new revision takes the place of an old one. The zero value changes
// a quarter of the slots at a time, and never stops or turns back; [DefaultRollout] is
// what users get who say nothing.
type Rollout struct {
	Parallelism    int   // slots that change at once; 0: as the shares allow
	StartFirst     bool  // the new replica starts before the old one stops
	MaxUnavailable Share // of the replicas, that may be not ready; not stated: a quarter
	MaxSurge       Share // replicas beyond the number wanted while StartFirst changes slots; not stated: a quarter

	Delay      time.Duration // from when a slot's replica is ready until the next slot may change
	MinHealthy time.Duration // the same; the longer counts
	// Monitor is how long the last slots are watched, beside MinHealthy: the rollout is
	// over when all have been ready for the longer.
	Monitor  time.Duration
	Deadline time.Duration // no slot became ready for this long: it has failed; 0: it never does

	MaxFailureRatio int // thousandths of the slots that may fail at the new revision
	OnFailure       FailureAction

	Canary Canary
}

// Canary lets a few slots try a revision before the others change.
type Canary struct {
	Slots        Share         // the lowest ones; not stated: all change in waves
	PromoteAfter time.Duration // they have been ready for this long: the others follow; 0: a user promotes
	Weight       int           // percent of the traffic they get together until then; 0: as many as they are
	// MaxRestarts is how often the replica of each may fail and run again; once more, and
	// the revision has failed. 0: they count as all slots do.
	MaxRestarts int
}

// DefaultRollout is the shape of a rollout for which a user says nothing: a bad revision
// takes at most a quarter of the replicas, and the last good one comes back by itself.
func DefaultRollout() Rollout {
	return Rollout{
		MaxUnavailable: Share{Percent: 25}, MaxSurge: Share{Percent: 25},
		MinHealthy: 10 * time.Second, Deadline: 10 * time.Minute, OnFailure: FailureRollback,
	}
}

// MaxPast is how many earlier revisions a revision remembers.
const MaxPast = 5

// PastRevision is one that was current before.
type PastRevision struct {
	Revision RevisionID
	Spec     Spec
	Accepted HLC  // display only
	Good     bool // every slot ran it, and was healthy, before the next one came
	// UndoneBy is the revision that went back from it, and Why it did; zero: none did.
	UndoneBy RevisionID
	Why      string
	Failure  Failure // what failed first, where that is why; zero: not known
}

// RolloutReport is how far a service has come to its current revision, as one peer sees it.
type RolloutReport struct {
	Service  string
	Revision RevisionID // the current one
	// State is a word of package placement/rollout: complete, rolling, watching, canary,
	// paused, failing, blocked; of a job running, complete, failed or
	// scheduled; or stopped.
	State                           string
	Slots, Current, Healthy, Failed int
	Next                            []int         // slots that may change now
	Waits                           string        // what the next slots wait for; "": nothing
	Since                           time.Duration // since a slot became healthy, as far as this peer saw
	Actor                           PeerID        // who does, or writes, what comes next; "": not known, or nobody
	ActsAfter                       time.Duration // how long the actor waits, beside what is waited for
	FirstFailure                    string        // of this revision, one line; "": there was none
	Failure                         Failure       // the same
	// Held says why nothing changes although slots may, or why a failure has no effect: what
	// is at fault. "": it is not held.
	Held string
}

// Revise returns the rules by which the current revision takes the place of the one
// before: those of going back, if it does.
func (s *Service) Revise() Rollout {
	switch {
	case s.Undoes.IsZero():
		return s.Spec.Rollout
	case s.Spec.Rollback != nil:
		return *s.Spec.Rollback
	}
	r := s.Spec.Rollout
	r.Canary = Canary{}
	if r.OnFailure == FailureRollback {
		r.OnFailure = FailurePause
	}
	return r
}

// LastGood returns the newest earlier revision that was good; nil: none is known.
func (s *Service) LastGood() *PastRevision {
	i := slices.IndexFunc(s.Past, func(p PastRevision) bool { return p.Good })
	if i < 0 {
		return nil
	}
	return &s.Past[i]
}

// Runs reports whether a replica of revision r may go on as one of the current revision:
// both make the same container. What is not remembered does not.
func (s *Service) Runs(r RevisionID) bool {
	if r == s.Revision {
		return true
	}
	i := slices.IndexFunc(s.Past, func(p PastRevision) bool { return p.Revision == r })
	return i >= 0 && s.Past[i].Spec.SameContainer(&s.Spec)
}

// SameContainer reports whether both specs make the same container, so that a replica of
// one need not be replaced to become one of the other: what differs is where replicas go
// and how many, who reaches them, how they are restarted and replaced, or labels.
func (s *Spec) SameContainer(o *Spec) bool {
	a, b := s.container(), o.container()
	return same(&a, &b)
}

func same[T any](a, b *T) bool { return reflect.DeepEqual(a, b) }

// container returns the part of a spec that its containers are made of, in one form.
func (s *Spec) container() Spec {
	c := Spec{
		Image: s.Image, Digest: s.Digest, Entrypoint: s.Entrypoint, Command: s.Command,
		Limits: s.Limits, PidsLimit: s.PidsLimit, Setup: s.Setup, Restarts: s.Restarts,
	}
	if s.Mode.IsJob() { // what ran to its end is not what stays
		c.Mode, c.Run = ModeReplicatedJob, s.Run
	}
	if len(s.Env) > 0 {
		c.Env = s.Env
	}
	if s.Health != nil {
		h := *s.Health
		c.Health = &h
	}
	for _, p := range s.Ports {
		if p.IsIngress() { // which port of every peer it is, the container does not know
			p.Published, p.Host = 0, true
		}
		c.Ports = append(c.Ports, p)
	}
	for _, a := range s.Attachments() {
		c.Networks = append(c.Networks, Attachment{Network: a.Network})
	}
	return c
}

// checkRollouts checks both shapes of replacing a revision.
func (s *Spec) checkRollouts() error {
	if err := s.Rollout.check("update_config"); err != nil {
		return err
	}
	if s.Rollback == nil {
		return nil
	}
	switch {
	case s.Rollback.OnFailure == FailureRollback:
		return invalid("rollback_config.failure_action", "must be pause or continue: there is nothing to go back to from a rollback")
	case s.Rollback.Canary != Canary{}:
		return invalid("rollback_config.canary", "cannot be: what is gone back to was good before")
	}
	return s.Rollback.check("rollback_config")
}

// CheckRollouts checks the shape against the most replicas that the service may have, or
// has now: a share of more than all of them was meant otherwise. A number that users scale
// down later is no reason to refuse it, nor is a service without replicas.
func (s *Spec) CheckRollouts(now int) error {
	most := max(s.Replicas, now)
	if s.Autoscale != nil {
		most = max(most, s.Autoscale.Max)
	}
	if s.Mode != ModeReplicated || most == 0 {
		return nil
	}
	for _, x := range []struct {
		field string
		n     int
	}{{"update_config.max_unavailable", s.Rollout.MaxUnavailable.N}, {"update_config.canary", s.Rollout.Canary.Slots.N}} {
		if x.n > most {
			return invalid(x.field, "is %d, more than the %d replicas there are", x.n, most)
		}
	}
	return nil
}

// longest is more than any rollout should be watched.
const longest = 30 * 24 * time.Hour

// maxCanaryRestarts is more than any trial should take.
const maxCanaryRestarts = 1000

func (r *Rollout) check(field string) error {
	if r.Parallelism < 0 || r.Parallelism > MaxReplicas {
		return invalid(field+".parallelism", "must be 0-%d, got %d", MaxReplicas, r.Parallelism)
	}
	for _, x := range []struct {
		name  string
		share Share
	}{{"max_unavailable", r.MaxUnavailable}, {"max_surge", r.MaxSurge}, {"canary", r.Canary.Slots}} {
		if x.share.N < 0 || x.share.N > MaxReplicas || x.share.Percent < 0 || x.share.Percent > 100 || x.share.N != 0 && x.share.Percent != 0 {
			return invalid(field+"."+x.name, "must be a number of replicas or 1%%-100%%, got %d and %d%%", x.share.N, x.share.Percent)
		}
	}
	for _, x := range []struct {
		name string
		d    time.Duration
	}{{"delay", r.Delay}, {"min_healthy", r.MinHealthy}, {"monitor", r.Monitor}, {"deadline", r.Deadline}, {"canary.promote_after", r.Canary.PromoteAfter}} {
		if x.d < 0 || x.d > longest {
			return invalid(field+"."+x.name, "must be 0-%s, got %s", longest, x.d)
		}
	}
	switch {
	case r.MaxFailureRatio < 0 || r.MaxFailureRatio > 1000:
		return invalid(field+".max_failure_ratio", "must be 0-1, got %g", float64(r.MaxFailureRatio)/1000)
	case r.Canary.Weight < 0 || r.Canary.Weight > 100:
		return invalid(field+".canary.weight", "must be 0-100 percent, got %d", r.Canary.Weight)
	case r.Canary.MaxRestarts < 0 || r.Canary.MaxRestarts > maxCanaryRestarts:
		return invalid(field+".canary.max_restarts", "must be 0-%d, got %d", maxCanaryRestarts, r.Canary.MaxRestarts)
	case r.Canary.Slots == Share{} && r.Canary != Canary{}:
		return invalid(field+".canary", "has terms but no slots; say how many")
	case r.Deadline > 0 && r.Deadline <= max(r.Delay, r.MinHealthy):
		return invalid(field+".deadline", "%s is not longer than the %s that pass between two waves anyway", r.Deadline, max(r.Delay, r.MinHealthy))
	}
	switch r.OnFailure {
	case "", FailureContinue, FailurePause, FailureRollback:
		return nil
	}
	return oneOf(field+".failure_action", r.OnFailure, FailurePause, FailureContinue, FailureRollback)
}
