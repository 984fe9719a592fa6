// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"maps"
	"slices"
)

// Condition says how far a service must have come before another one begins, in the words
// of the Compose specification (depends_on).
type Condition string

// The conditions.
const (
	ConditionStarted   Condition = "service_started"                // every slot has a container that runs
	ConditionHealthy   Condition = "service_healthy"                // every slot has a replica that is ready
	ConditionCompleted Condition = "service_completed_successfully" // every slot has ended with exit code 0
)

// Dependency is one service that another one waits for when a revision of it begins.
type Dependency struct {
	Service   string
	Condition Condition
	// Optional: it is waited for only where there is such a service.
	Optional bool
}

// maxDependencies is the most services that one may wait for.
const maxDependencies = 100

// checkOrder checks what is to be waited for. That it is there, and goes in no circle, is
// not to be seen from one spec.
func (s *Spec) checkOrder() error {
	if len(s.DependsOn) > maxDependencies {
		return invalid("depends_on", "has %d entries, at most %d are allowed", len(s.DependsOn), maxDependencies)
	}
	for i, d := range s.DependsOn {
		field := "depends_on." + d.Service
		switch {
		case CheckName(field, d.Service) != nil:
			return CheckName(fmt.Sprintf("depends_on[%d]", i), d.Service)
		case d.Service == s.Name:
			return invalid(field, "is the service itself")
		case i > 0 && d.Service <= s.DependsOn[i-1].Service:
			return invalid(field, "stands twice, or not in the order of names")
		}
		switch d.Condition {
		case ConditionStarted, ConditionHealthy, ConditionCompleted:
		default:
			return oneOf(field+".condition", d.Condition, ConditionStarted, ConditionHealthy, ConditionCompleted)
		}
	}
	return nil
}

// DependencyCycle returns services that wait for each other, the first of them again at the
// end; nil if there are none. needs says what each service waits for; those that it has no
// word of wait for nothing. Of several circles it returns the one with the lowest name.
func DependencyCycle(needs map[string][]Dependency) []string {
	const under, over = 1, 2
	state := make(map[string]int, len(needs))
	var path []string
	var visit func(name string) []string
	visit = func(name string) []string {
		switch state[name] {
		case over:
			return nil
		case under:
			return append(slices.Clone(path[slices.Index(path, name):]), name)
		}
		state[name] = under
		path = append(path, name)
		for _, d := range needs[name] {
			if cycle := visit(d.Service); cycle != nil {
				return cycle
			}
		}
		path = path[:len(path)-1]
		state[name] = over
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		if cycle := visit(name); cycle != nil {
			return cycle
		}
	}
	return nil
}

// Waits says for what the current revision of a service waits before its first replica is
// made: "db is not healthy: 1 of 2 slots are"; "" if it may begin. What has begun anywhere,
// and what goes back to an earlier revision, waits for nothing.
func (v *View) Waits(s *Service) string {
	waits := len(s.Spec.DependsOn) > 0 || s.Spec.PreDeploy != nil
	if !waits || s.Stopped || !s.Undoes.IsZero() || v.begun(s) {
		return ""
	}
	for _, d := range s.Spec.DependsOn {
		if why := v.unmet(d); why != "" {
			return why
		}
	}
	return v.unready(s)
}

// begun reports whether some slot of a service is at its current revision, or at one with
// the same container.
func (v *View) begun(s *Service) bool {
	return slices.ContainsFunc(v.ClaimsOf(s.Spec.Name), func(c Claim) bool { return s.Runs(c.Revision) })
}

// unmet says why a dependency is not met yet; "" if it is.
func (v *View) unmet(d Dependency) string {
	s, ok := v.Service(d.Service)
	switch {
	case !ok && d.Optional:
		return ""
	case !ok:
		return fmt.Sprintf("%s is not there", d.Service)
	case s.Stopped:
		return fmt.Sprintf("%s is stopped", d.Service)
	case s.Spec.Mode.IsJob() && d.Condition == ConditionCompleted:
		return v.uncompleted(s)
	}
	met, wanted := v.standing(s, d.Condition)
	if met >= wanted {
		return ""
	}
	word := map[Condition]string{ConditionStarted: "started", ConditionHealthy: "healthy", ConditionCompleted: "completed"}[d.Condition]
	return fmt.Sprintf("%s is not %s: %d of %d slots are%s", d.Service, word, met, wanted, v.trouble(s))
}

// trouble says what the first slot of a service that has any trouble tells of it: "; slot 0
// exited with code 1"; "" if none does.
func (v *View) trouble(s *Service) string {
	for _, c := range v.ClaimsOf(s.Spec.Name) {
		r, told := v.Replica(c.Replica)
		if told && s.Runs(c.Revision) && r.Reason != "" && r.Phase != PhaseReady && v.Alive(c.Holder) {
			return fmt.Sprintf("; slot %d: %s", c.Slot, r.Reason)
		}
	}
	return ""
}

// uncompleted says why a job is not completed; "" if it is.
func (v *View) uncompleted(s *Service) string {
	st, _ := v.Job(s.Spec.Name)
	switch {
	case st.Asleep:
		return s.Spec.Name + " has not run yet: its time has not come"
	case st.IsComplete():
		return ""
	case st.IsFailed() && st.Why != "":
		return fmt.Sprintf("%s failed: %s", s.Spec.Name, st.Why)
	case st.IsFailed():
		return s.Spec.Name + " failed"
	}
	return fmt.Sprintf("%s is not completed: %d of %d slots are", s.Spec.Name, st.Completed, st.Wanted)
}

// standing counts the slots of a service, and those that meet a condition at its current
// revision. Of a global service the peers that it may run on are counted.
func (v *View) standing(s *Service, want Condition) (met, wanted int) {
	slots, holders := map[int]bool{}, map[PeerID]bool{}
	for _, c := range v.ClaimsOf(s.Spec.Name) {
		counts := s.Spec.Mode.IsGlobal() || c.Slot >= 0 && c.Slot < s.Wanted()
		if counts && v.meets(s, c, want) {
			slots[c.Slot], holders[c.Holder] = true, true
		}
	}
	if !s.Spec.Mode.IsGlobal() {
		return len(slots), s.Wanted()
	}
	wanted = len(holders)
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if !holders[p.ID] && v.Alive(p.ID) && p.TakesSlots() && p.MatchesAll(s.Spec.Constraints) {
			wanted++
		}
	}
	return len(holders), wanted
}

// meets reports whether a claim's replica has come as far as a condition says. What has
// ended well was started, and was healthy.
func (v *View) meets(s *Service, c Claim, want Condition) bool {
	if !s.Runs(c.Revision) {
		return false
	}
	if v.Done(c) || s.Outcome(c).IsCompleted() {
		return true
	}
	r, told := v.Replica(c.Replica)
	if !told || !v.Alive(c.Holder) || want == ConditionCompleted {
		return false
	}
	return r.Phase == PhaseReady || want == ConditionStarted && r.Phase == PhaseRunning
}
