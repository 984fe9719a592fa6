// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// State is where a rollout stands.
type State string

// The states.
const (
	Complete State = "complete" // every slot is at the current revision and healthy
	Waiting  State = "waiting"  // it begins when the services that it depends on are there
	Rolling  State = "rolling"  // slots change, or wait for those that do
	Watching State = "watching" // all have changed, and are not healthy for long enough yet
	Canary   State = "canary"   // the first few have changed, and wait to be promoted
	Paused   State = "paused"   // a user, or what the service says of failures, stopped it
	Failing  State = "failing"  // too many have failed; what is to be done comes next
	Blocked  State = "blocked"  // no slot that is left can change
)

// Status is where a rollout stands, as one peer sees it.
type Status struct {
	State                           State
	Slots, Current, Healthy, Failed int
	Next                            []int  // slots that may change now
	Waits                           string // what the next one waits for; "" if there is none
	Cause                           string // of Failing: what failed
}

// StatusOf returns where a rollout stands.
func (r Rules) StatusOf(slots []Slot) Status {
	s := Status{Slots: len(slots), Failed: r.failed(slots)}
	var moving, behind, stuck []int
	for i, x := range slots {
		switch {
		case x.Held && x.Current:
			s.Current++
			if x.Healthy {
				s.Healthy++
			} else {
				moving = append(moving, i)
			}
		case x.Stuck:
			stuck = append(stuck, i)
		default:
			behind = append(behind, i)
		}
	}
	for i, turn := range r.Turns(slots) {
		if turn {
			s.Next = append(s.Next, i)
		}
	}
	switch gate := r.gate(slots); {
	case r.failing(slots):
		s.State, s.Cause, s.Waits = Failing, fmt.Sprintf("%d of %d slots failed", s.Failed, s.Slots), ""
		if i, lapsed := r.lapsed(slots); lapsed {
			s.Cause = fmt.Sprintf("slot %d of the canary failed %s; it may %d times", i, timesText(slots[i].Failures), r.MaxRestarts)
			s.Waits = s.Cause
		} else {
			s.Waits = fmt.Sprintf("%s, more than the %d that may", s.Cause, r.Failures)
		}
	case len(behind)+len(stuck)+len(moving) == 0:
		s.State = Complete
	case r.Paused:
		s.State, s.Waits = Paused, "it is paused"
	case r.Waits != "":
		s.State, s.Waits = Waiting, r.Waits
	case r.Braked != "" && len(behind) > 0:
		s.State, s.Waits = Rolling, r.Braked
	case len(behind)+len(stuck) == 0:
		s.State, s.Waits = Watching, "until "+names(moving)+" "+areHealthy(moving)
	case gate < len(slots) && len(moving) == 0 && len(s.Next) == 0:
		s.State, s.Waits = Canary, fmt.Sprintf("the first %d run it and are healthy; the others wait until it is promoted", gate)
	case len(behind) == 0:
		s.State, s.Waits = Blocked, names(stuck)+" cannot run it anywhere now"
	case len(s.Next) > 0:
		s.State = Rolling
	case len(moving) > 0:
		s.State, s.Waits = Rolling, "until "+names(moving)+" "+areHealthy(moving)
	default:
		s.State, s.Waits = Rolling, fmt.Sprintf("not more than %d slots may be without a ready replica", r.Unavailable)
	}
	return s
}

// timesText says how often a replica failed.
func timesText(failures int) string {
	switch failures {
	case ForGood:
		return "for good"
	case 1:
		return "once"
	}
	return fmt.Sprintf("%d times", failures)
}

func areHealthy(slots []int) string {
	if len(slots) == 1 {
		return "is healthy for long enough"
	}
	return "are healthy for long enough"
}

// names lists slots for people: "slot 3", "slots 3, 4 and 9 more".
func names(slots []int) string {
	const most = 4
	var out []string
	for _, i := range slots[:min(len(slots), most)] {
		out = append(out, fmt.Sprint(i))
	}
	text := strings.Join(out, ", ")
	if more := len(slots) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(slots) == 1 {
		return "slot " + text
	}
	return "slots " + text
}

// Remedy says what is to be done about a rollout, and why: shoal.FailurePause,
// shoal.FailureRollback, or "" for nothing. still is how long no slot has become healthy.
// Every peer that sees the same says the same, so it does not matter who does it, or how
// many do.
func Remedy(s *shoal.Service, st Status, still time.Duration) (action shoal.FailureAction, why string) {
	shape := s.Revise()
	switch {
	case s.Rollout.Paused || s.Rollout.Settled || s.Stopped || st.State == Complete || len(s.Past) == 0:
		return "", ""
	case st.State == Failing:
		why = st.Cause
	case shape.Deadline > 0 && still >= shape.Deadline && st.State != Canary:
		why = fmt.Sprintf("no slot became healthy in %s, %s", shape.Deadline, st.Waits)
	default:
		return "", ""
	}
	switch shape.OnFailure {
	case shoal.FailureRollback:
		if s.LastGood() == nil {
			return shoal.FailurePause, why + "; no earlier revision is known to be good"
		}
		return shoal.FailureRollback, why
	case shoal.FailurePause:
		return shoal.FailurePause, why
	case shoal.FailureContinue:
	}
	return "", ""
}
