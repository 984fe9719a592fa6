// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"math"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/placement/brake"
)

// Rollout says how far a service has come to its current revision, with what only who
// watches knows: for how long replicas have been ready, what failed first, and who acts
// next. ErrNotFound if there is no such service.
func (s *Steward) Rollout(service string) (shoal.RolloutReport, error) {
	s.mu.Lock()
	w := s.memory[service] // its maps are not written to any more
	s.mu.Unlock()
	return report(s.deps.Views.View(), service, w, s.deps.Clock.Mono(), s.cfg.Step)
}

// report is pure. w is what is remembered of the service, or nothing.
func report(v *shoal.View, service string, w watch, now, step time.Duration) (shoal.RolloutReport, error) {
	svc, ok := v.Service(service)
	followed := ok && w.of == svc.Revision
	out, err := placement.Report(v, service, func(id shoal.ReplicaID) time.Duration {
		since, seen := w.ready[id]
		switch {
		case svc.Rollout.Settled: // they were, for long enough
			return math.MaxInt64
		case !followed || !seen:
			return 0
		}
		return now - since
	})
	if err != nil || !followed || svc.Rollout.Settled || svc.Stopped {
		return out, err
	}
	out.Since = now - w.still
	if w.first != "" {
		out.Failure, out.FirstFailure = w.failure, w.first
	}
	if out.Held = w.held; w.held != "" {
		out.Waits, out.Next, out.Actor = w.held, nil, ""
	}
	if w.act == "" {
		return out, nil
	}
	if turns := order(v, svc); len(turns) > 0 { // each that comes after the first waits for one step more
		past := min(int(max(0, now-w.due)/step), len(turns)-1)
		out.Actor, out.ActsAfter = turns[past], max(0, w.due+time.Duration(past)*step-now)
	}
	return out, nil
}

// Faults returns what this peer holds to be at fault, as it saw last.
func (s *Steward) Faults() []shoal.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []shoal.Fault
	for _, v := range s.verdicts {
		out = append(out, shoal.Fault{Cause: causes[v.Cause], Service: v.Service, Peer: v.Peer, Text: v.String()})
	}
	return out
}

// causes are the words for what is at fault.
var causes = map[brake.Cause]string{
	brake.Application: "application", brake.Machine: "machine", brake.Engine: "engine", brake.Cluster: "cluster",
}
