// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"

	"github.com/shoalnet/shoal"
)

// first returns with how many replicas a new service starts.
func (s *step) first() int {
	n, a := s.spec.Replicas, s.spec.Autoscale
	if a == nil || a.Clamp(n) == n {
		return n
	}
	s.note(fmt.Sprintf("starts with %d (the file says %d; autoscale has %s)", a.Clamp(n), n, a))
	return a.Clamp(n)
}

// rescaleLoaded leaves the number of an autoscaled service to its load, but brings it into
// the bounds. With ResetScale it is the file's, until the load says otherwise.
func (s *step) rescaleLoaded(old *shoal.Service, author shoal.PeerID, w *shoal.DeployWish) {
	n, a := old.Replicas, s.spec.Autoscale
	if w.ResetScale {
		n = s.spec.Replicas
	}
	n = a.Clamp(n)
	s.change.Replicas = n
	if n == old.Replicas {
		if n != s.spec.Replicas && !w.KeepScale {
			s.note(fmt.Sprintf("scale stays %d: the load decides (autoscale has %s)", n, a))
		}
		return
	}
	s.change.Details = append(s.change.Details, fmt.Sprintf("replicas %d -> %d", old.Replicas, n))
	if s.change.Kind == shoal.ChangeNone {
		s.change.Kind = shoal.ChangeUpdate
	}
	s.open(old.Scale, author, n, old.Scale.File)
}

// checkScale refuses a number that would not last: a user's outside of the bounds, and one
// that the load called for when another number was in force.
func checkScale(old *shoal.Service, t shoal.ScaleTarget, n int) error {
	a := old.Spec.Autoscale
	switch {
	case t.Why != "" && (a == nil || t.Relative):
		return fmt.Errorf("service %q is not scaled by its load: %w", t.Service, shoal.ErrConflict)
	case t.Why != "" && t.Base != old.Scale.Base:
		return fmt.Errorf("service %q was scaled by somebody else meanwhile: %w", t.Service, shoal.ErrConflict)
	case a != nil && a.Clamp(n) != n:
		return &shoal.AdviceError{
			Err: fmt.Errorf("service %q is autoscaled between %d and %d, and %d is outside: %w", t.Service, a.Min, a.Max, n, shoal.ErrRefused),
			Advice: fmt.Sprintf("change the bounds with \"shoal autoscale %[1]s\", end it with --off, or stop the service with \"shoal stop %[1]s\"",
				t.Service),
		}
	}
	return nil
}

// pins reports whether a user's number of an autoscaled service is to be written although
// there are as many replicas already: it keeps them for a while.
func pins(old *shoal.Service, t shoal.ScaleTarget) bool {
	return old.Spec.Autoscale != nil && t.Why == "" && !t.Relative && !old.Scale.Manual
}

// say notes in what is written who called for the number.
func (s *step) say(old *shoal.Service, t shoal.ScaleTarget) {
	a := old.Spec.Autoscale
	if s.scale.Base != nil && !t.Relative {
		s.scale.Base.Manual, s.scale.Base.Why = t.Why == "", t.Why
	}
	switch {
	case t.Why != "":
		s.change.Details = append(s.change.Details, t.Why)
	case a != nil && a.Manual > 0:
		s.note(fmt.Sprintf("the load decides again after %s (autoscale has %s)", a.Manual, a))
	case a != nil:
		s.note(fmt.Sprintf("the load decides again at once (autoscale has %s)", a))
	}
}

// autoscaleChange says what becomes of autoscaling; two that differ in their pace only have
// the same words.
func autoscaleChange(old, now *shoal.Autoscale) string {
	text := func(a *shoal.Autoscale) string {
		if a == nil {
			return "off"
		}
		return a.String()
	}
	if text(old) == text(now) {
		return "pace of autoscale changed"
	}
	return fmt.Sprintf("autoscale %s -> %s", text(old), text(now))
}
