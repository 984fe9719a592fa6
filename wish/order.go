// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// inOrder refuses new revisions that would wait for ever: for a service that is not there,
// for each other, or for an end that does not come.
func inOrder(after *shoal.Desired, steps []*step) error {
	needs := map[string][]shoal.Dependency{}
	specs := map[string]*shoal.Spec{}
	for i := range after.Services {
		spec := &after.Services[i].Spec
		specs[spec.Name], needs[spec.Name] = spec, spec.DependsOn
	}
	for _, s := range steps {
		if s.rev == nil || len(s.spec.DependsOn) == 0 {
			continue
		}
		for _, d := range s.spec.DependsOn {
			if why, advice := neverMet(specs[d.Service], d); why != "" {
				return &shoal.AdviceError{
					Err:    fmt.Errorf("service %q: depends_on.%s: %s: %w", s.spec.Name, d.Service, why, shoal.ErrRefused),
					Advice: advice,
				}
			}
		}
		// Of circles only those that this step is part of: what others are is not its doing.
		if circle := shoal.DependencyCycle(reach(needs, s.spec.Name)); slices.Contains(circle, s.spec.Name) {
			return &shoal.AdviceError{
				Err:    fmt.Errorf("service %q: depends_on goes in a circle: %s: %w", s.spec.Name, strings.Join(circle, " -> "), shoal.ErrRefused),
				Advice: "each would wait for the other; take one of them out",
			}
		}
	}
	return nil
}

// reach returns of needs what a service waits for, directly or not.
func reach(needs map[string][]shoal.Dependency, from string) map[string][]shoal.Dependency {
	out := map[string][]shoal.Dependency{}
	for todo := []string{from}; len(todo) > 0; {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, seen := out[name]; seen {
			continue
		}
		out[name] = needs[name]
		for _, d := range needs[name] {
			todo = append(todo, d.Service)
		}
	}
	return out
}

// neverMet says why a condition cannot be met by a service as it is asked for, and what to
// do about it; "" if it can. There is no service where of is nil.
func neverMet(of *shoal.Spec, d shoal.Dependency) (why, advice string) {
	switch {
	case of == nil && d.Optional:
		return "", ""
	case of == nil:
		return "there is no such service", "deploy it first, or in the same file, or say required: false"
	case of.Schedule != nil:
		return d.Service + " is a job with a schedule, which begins and ends again and again", "wait for a service that stays, or for a job without one"
	case d.Condition == shoal.ConditionCompleted && !of.Mode.IsJob() && of.Restart.Condition == shoal.RestartAny:
		return d.Service + " never completes: it is started again whenever it ends", "give it restart: on-failure or restart: \"no\", or make it a job"
	case d.Condition == shoal.ConditionHealthy && of.Mode.IsJob():
		return d.Service + " is a job, which is not healthy but done", "wait for service_completed_successfully"
	}
	return "", ""
}
