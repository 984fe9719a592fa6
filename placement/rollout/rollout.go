// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollout decides from a view which slots of a service may go from an old
// revision to the current one now, where a rollout stands, and what is to be done about
// one that goes wrong. Each holder asks it with its own view and changes its own slots;
// nobody conducts.
//
// Slots at the oldest revision change first, and of these the lowest. A slot that has
// begun to change looks, to those whose view lags, like one that has not; so it stands
// before all that wait for it, and takes up its place among the few that may change. So
// holders whose views lag are only later, never beyond the limits, also when a newer
// revision comes while an older one is still under way.
//
// It refuses to look at time, and to say how a slot changes: that is its holder's.
package rollout

import (
	"cmp"
	"math"
	"slices"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement/brake"
)

// Slot is what the order of waves needs to know of one slot. Its position in the
// slice is its number.
type Slot struct {
	Held     bool             // somebody holds it
	Revision shoal.RevisionID // that its holder claims
	Current  bool             // that is the current one
	Ready    bool             // its replica is known to be ready
	Healthy  bool             // and, at the current revision, has been for as long as the next slot waits
	Broken   bool             // its replica is known not to work: changing it takes nothing away
	Failed   bool             // it failed since it came to the current revision
	Failures int              // how often its replica did; [ForGood]: it does not run again
	Stuck    bool             // nobody could run the current revision in it for now
}

// ForGood is more failures than any limit.
const ForGood = math.MaxInt

// Rules are the limits of one rollout.
type Rules struct {
	Width       int // slots that may be on their way at once
	Unavailable int // slots that may be not ready when one more is stopped; StartFirst stops none
	StartFirst  bool
	Failures    int // slots that may fail; more hold the rollout; -1: any number
	Canary      int // the slots below are the canary; 0: there is none
	MaxRestarts int // of each slot of the canary; 0: its failures count as all do
	Promoted    bool
	Paused      bool
	Braked      string // why no wave follows for now; "": one may
	Waits       string // for what the revision waits before it begins; "": for nothing
}

// RulesOf returns the rules by which the current revision of a service comes to n slots.
// passed says that the canary has been healthy for as long as it takes to be promoted by
// itself.
func RulesOf(s *shoal.Service, n int, passed bool) Rules {
	shape := s.Revise()
	r := Rules{
		StartFirst: shape.StartFirst, Failures: n * shape.MaxFailureRatio / 1000,
		Canary: min(shape.Canary.Slots.Of(n), n), MaxRestarts: shape.Canary.MaxRestarts, Promoted: s.Rollout.Promoted || passed && shape.Canary.PromoteAfter > 0,
		Paused: s.Rollout.Paused,
	}
	if shape.OnFailure == shoal.FailureContinue || shape.OnFailure == "" {
		r.Failures = -1
	}
	quarter := max(1, n/4)
	part := func(s shoal.Share) int {
		if s == (shoal.Share{}) {
			return quarter
		}
		return max(1, s.Of(n))
	}
	r.Unavailable = part(shape.MaxUnavailable)
	switch {
	case shape.StartFirst && shape.Parallelism > 0 && shape.MaxSurge != shoal.Share{}:
		r.Width = min(shape.Parallelism, part(shape.MaxSurge))
	case shape.StartFirst && shape.Parallelism == 0:
		r.Width = part(shape.MaxSurge)
	case shape.Parallelism > 0 && shape.MaxUnavailable != shoal.Share{}:
		r.Width = min(shape.Parallelism, r.Unavailable)
	case shape.Parallelism > 0:
		r.Width = shape.Parallelism
		r.Unavailable = max(r.Unavailable, r.Width)
	default:
		r.Width = r.Unavailable
	}
	return r
}

// Hold stops the waves while the current revision of a service is at fault on most of its
// holders, unless the service goes on whatever fails. That it is over its limit of
// failures is another matter: that stays as the user set it.
func (r *Rules) Hold(verdicts brake.Verdicts, s *shoal.Service) {
	if v, braked := verdicts.Of(s.Spec.Name, s.Revision); braked && r.Failures >= 0 {
		r.Braked = v.String()
	}
}

// Turns reports for each slot whether it may change now. At most Width slots are not
// healthy, or about to be so, at a time: that of an older revision is, too, for it may be
// on its way to one that has been overtaken. One that is ready is stopped only while fewer
// than Unavailable are not ready, open ones included; changing one that is not healthy
// takes no place, and one that is broken may always change. A slot that is open needs no
// turn: whoever claims it claims the current revision.
func (r Rules) Turns(slots []Slot) []bool {
	turns := make([]bool, len(slots))
	if r.Paused || r.Braked != "" || r.Waits != "" || r.failing(slots) {
		return turns
	}
	moving, unready := 0, 0
	for _, s := range slots {
		if s.Held && !s.Healthy && !s.Stuck {
			moving++
		}
		if !s.Ready && !s.Stuck {
			unready++
		}
	}
	gate := r.gate(slots)
	for _, i := range order(slots) {
		switch s := slots[i]; {
		case !s.Held || s.Current || s.Stuck || i >= gate:
		case s.Broken:
			turns[i] = true
		case s.Healthy && moving >= r.Width || s.Ready && !r.StartFirst && unready >= r.Unavailable:
		default:
			turns[i] = true
			if s.Healthy {
				moving++
			}
			if s.Ready {
				unready++
			}
		}
	}
	return turns
}

// order returns the numbers of the slots, those at the oldest revision first.
func order(slots []Slot) []int {
	out := make([]int, len(slots))
	for i := range out {
		out[i] = i
	}
	slices.SortFunc(out, func(a, b int) int {
		return cmp.Or(slots[a].Revision.Compare(slots[b].Revision), cmp.Compare(a, b))
	})
	return out
}

// gate returns the number below which slots may change.
func (r Rules) gate(slots []Slot) int {
	if r.Canary == 0 || r.Promoted {
		return len(slots)
	}
	return r.Canary
}

// failing reports whether more slots have failed than may.
func (r Rules) failing(slots []Slot) bool {
	_, lapsed := r.lapsed(slots)
	return r.Failures >= 0 && (lapsed || r.failed(slots) > r.Failures)
}

// lapsed returns the first slot of a canary that failed more often than its own limit
// allows, whatever other slots may do.
func (r Rules) lapsed(slots []Slot) (slot int, is bool) {
	for i := range slots[:min(r.Canary, len(slots))] {
		if r.MaxRestarts > 0 && r.counts(i, slots[i]) {
			return i, true
		}
	}
	return 0, false
}

// counts reports whether a slot counts as failed. That of a canary with a limit of its own
// does not until it is over that, also once it is promoted.
func (r Rules) counts(i int, s Slot) bool {
	if i < r.Canary && r.MaxRestarts > 0 && s.Failures <= r.MaxRestarts {
		return false
	}
	return s.Held && s.Current && s.Failed
}

func (r Rules) failed(slots []Slot) int {
	n := 0
	for i, s := range slots {
		if r.counts(i, s) {
			n++
		}
	}
	return n
}
