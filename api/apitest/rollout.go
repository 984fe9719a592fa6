// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// Rollout says how far a service has come. All slots change at once here, so what is under
// way is what its image does not let be ready.
func (c *Cluster) Rollout(service string) (shoal.RolloutReport, error) {
	return placement.Report(c.View(), service, func(shoal.ReplicaID) time.Duration { return math.MaxInt64 })
}

// Undo makes a service go back by itself, as peers do once too much has failed.
func (c *Cluster) Undo(service, why string) {
	report, _ := c.Rollout(service) // of one that is not there nothing failed
	c.Change(func() {
		i := c.find(c.services, service)
		_, _ = c.back(&c.services[i], &shoal.RolloutWish{Service: service, Why: why, Failure: report.Failure}) // without a past it stays
	})
}

// Halt makes a rollout pause by itself.
func (c *Cluster) Halt(service, why string) {
	c.Change(func() {
		s := &c.services[c.find(c.services, service)]
		s.Rollout.Paused, s.Rollout.Why = true, why
	})
}

// Settle makes the rollout of a service be over.
func (c *Cluster) Settle(service string) {
	c.Change(func() { c.services[c.find(c.services, service)].Rollout.Settled = true })
}

// supersede makes a service have a new revision; c.mu is held.
func (c *Cluster) supersede(s *shoal.Service) {
	if !s.Revision.IsZero() {
		past := append([]shoal.PastRevision{{Revision: s.Revision, Spec: s.Spec, Good: s.Rollout.Settled}}, s.Past...)
		s.Past = past[:min(len(past), shoal.MaxPast)]
	}
	c.seq++
	s.Revision = shoal.RevisionID{Seq: c.seq, Author: c.self}
	s.Heads, s.Undoes, s.Why, s.Rollout = []shoal.RevisionID{s.Revision}, shoal.RevisionID{}, "", shoal.RolloutState{}
}

// steer changes a rollout; c.mu is held.
func (c *Cluster) steer(s *shoal.Service, w *shoal.RolloutWish) (shoal.Change, error) {
	if !w.Of.IsZero() && w.Of != s.Revision {
		return shoal.Change{}, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q is at revision %s, not at %s: %w", w.Service, s.Revision, w.Of, shoal.ErrConflict),
			Advice: "look at it again",
		}
	}
	if w.Change == shoal.RolloutBack {
		return c.back(s, w)
	}
	ch := shoal.Change{Kind: shoal.ChangeUpdate, Service: w.Service, Revision: s.Revision, Replicas: s.Replicas, Stopped: s.Stopped, Details: []string{string(w.Change)}}
	was := s.Rollout
	switch w.Change {
	case shoal.RolloutPause:
		s.Rollout.Paused = true
	case shoal.RolloutResume:
		s.Rollout.Paused, s.Rollout.Why = false, ""
	case shoal.RolloutPromote:
		if s.Revise().Canary == (shoal.Canary{}) {
			return ch, &shoal.AdviceError{
				Err:    fmt.Errorf("revision %d of service %q has no canary: %w", s.Revision.Seq, w.Service, shoal.ErrConflict),
				Advice: "x-shoal.canary says how many slots try a revision first",
			}
		}
		s.Rollout.Promoted = true
	case shoal.RolloutBack, shoal.RolloutSettle:
	}
	if s.Rollout == was {
		ch.Kind, ch.Details = shoal.ChangeNone, []string{"is so already"}
	}
	return ch, nil
}

// back makes an earlier revision current again; c.mu is held.
func (c *Cluster) back(s *shoal.Service, w *shoal.RolloutWish) (shoal.Change, error) {
	var to *shoal.PastRevision
	if w.To == "" {
		if to = s.LastGood(); to == nil && len(s.Past) > 0 {
			to = &s.Past[0]
		}
	}
	var known []string
	for i := range s.Past {
		seq := strconv.FormatUint(s.Past[i].Revision.Seq, 10)
		known = append(known, seq)
		if w.To == seq {
			to = &s.Past[i]
		}
	}
	if len(s.Past) == 0 {
		return shoal.Change{}, &shoal.AdviceError{
			Err: fmt.Errorf("service %q has no earlier revision: %w", s.Spec.Name, shoal.ErrNotFound), Advice: "deploy what it should be",
		}
	}
	if to == nil {
		return shoal.Change{}, &shoal.AdviceError{
			Err:    fmt.Errorf("revision %s of service %q is not remembered: %w", w.To, s.Spec.Name, shoal.ErrNotFound),
			Advice: "revisions that are: " + strings.Join(known, ", "),
		}
	}
	spec, seq, undoes := to.Spec, to.Revision.Seq, s.Revision
	c.supersede(s)
	s.Past[0].UndoneBy, s.Past[0].Why, s.Past[0].Failure = s.Revision, w.Why, w.Failure
	s.Spec, s.Undoes, s.Why, s.Proposed = spec, undoes, w.Why, c.place(spec, s.Replicas)
	return shoal.Change{
		Kind: shoal.ChangeUpdate, Service: spec.Name, Revision: s.Revision, Replicas: s.Replicas, Slots: s.Proposed,
		Details: []string{fmt.Sprintf("back to revision %d", seq), "image " + spec.Image},
	}, nil
}
