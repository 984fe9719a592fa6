// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/api"
)

// settleTime is how long replicas may take to be healthy unless --timeout says; a
// failing replica gets patience to recover before the whole is called unhealthy.
// What is ready without a health check has only just started: it must last a moment.
const (
	settleTime = 5 * time.Minute
	patience   = 15 * time.Second
	proofTime  = time.Second
)

// errSettled ends a watch that saw what it waited for.
var errSettled = errors.New("settled")

// snapshot is one moment of what is waited for.
type snapshot struct {
	services []api.Progress
	trouble  string // of the first failing replica
	settled  bool
	unproven bool    // something is ready that has no health check
	stuck    bool    // all that is missing has no peer to go to
	over     *ending // of a rollout that ended otherwise than asked for
	canary   string  // what waits for a user to promote it
}

// newSnapshot judges the services. wrote are the revisions that are waited for.
func newSnapshot(services []api.Progress, wrote map[string]string) snapshot {
	s := snapshot{services: services, settled: true}
	others := false // services without a canary are not settled
	for _, p := range services {
		s.settled = s.settled && p.Settled
		s.trouble = cmp.Or(s.trouble, p.Trouble)
		for _, r := range p.Replicas {
			s.unproven = s.unproven || r.State == "ready" && r.Health == ""
		}
		s.over = cmp.Or(s.over, jobFailed(p))
		of := wrote[p.Service.Name]
		if p.Rollout != nil && of != "" {
			s.over = cmp.Or(s.over, undone(p.Rollout, of), preFailed(p.Rollout, of))
		}
		switch tries := p.Rollout != nil && p.Rollout.Revision == of && holdsBack(p.Rollout); {
		case tries:
			s.canary = p.Service.Name
		case !p.Settled:
			others = true
		}
	}
	if others {
		s.canary = "" // it is not yet all there is to wait for
	}
	s.stuck = !s.settled && !slices.ContainsFunc(services, moves)
	return s
}

// holdsBack reports whether the canary of a service is healthy, and a user has to promote it.
func holdsBack(r *api.Rollout) bool {
	return r.State == stateCanary && r.Healthy > 0 && r.PromoteAfter == 0
}

// undone says that a revision was taken back, or paused because it fails; nil if it was not.
func undone(r *api.Rollout, wrote string) *ending {
	switch {
	case r.Undoes == wrote:
		return &ending{"rolled_back", undoneText(*r), "shoal rollout history " + r.Service}
	case r.Revision == wrote && r.Paused && r.Why != "":
		return &ending{"paused", fmt.Sprintf("the rollout of %s is paused: %s", r.Service, r.Why), "shoal rollout status " + r.Service}
	}
	return nil
}

// ending is the end of a rollout that was not asked for.
type ending struct{ name, what, see string }

// firstFailure is how the reason begins that a peer gives for what failed first.
const firstFailure = "first failure "

// with returns the error, with the last trouble of a replica that was seen: once a service
// went back it is gone.
func (e *ending) with(trouble string) error {
	if strings.Contains(e.what, firstFailure) { // then it is told already
		trouble = ""
	}
	if trouble != "" {
		trouble = "; " + trouble
	}
	return &coded{code: exitUnhealthy, name: e.name, err: fmt.Errorf("accepted, but %s%s; see %s", e.what, trouble, e.see)}
}

// moves reports whether anything of a service is on its way.
func moves(p api.Progress) bool {
	return !p.Exists || slices.ContainsFunc(p.Replicas, func(r api.Replica) bool {
		if p.Service.Job != nil {
			return r.State != "unplaced" && r.State != "waiting" && r.State != "completed" && r.State != "failed"
		}
		if r.State == "unplaced" || keeps(r) {
			return false
		}
		return !r.Current || r.State != "ready"
	})
}

// keeps reports whether a replica stays at an older revision, for the reason it has.
func keeps(r api.Replica) bool { return !r.Current && r.State == "ready" && r.Reason != "" }

// await shows progress until all services are settled: exit 0. Exit 5 if a replica
// keeps failing, or a revision of wrote is taken back or paused for it; 4 if time is up, or
// a canary waits to be promoted.
func (a *app) await(ctx context.Context, c *api.Client, services []string, wrote map[string]string) error {
	if len(services) == 0 {
		return nil
	}
	limit := cmp.Or(time.Duration(a.timeout), settleTime)
	show := &progress{app: a}
	seen := make(chan snapshot)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g, watching := errgroup.WithContext(watching)
	g.Go(func() error {
		return c.Watch(watching, services, func(all []api.Progress, _ api.Freshness) error {
			select {
			case seen <- newSnapshot(all, wrote):
				return nil
			case <-watching.Done():
				return watching.Err()
			}
		})
	})
	last, err := a.judgeProgress(ctx, watching, seen, show, limit)
	stop()
	watchErr := g.Wait()
	if errors.Is(err, errSettled) {
		return nil
	}
	if exitCode(err) == exitUnhealthy {
		err = a.lastWords(ctx, c, last, err)
	}
	if err == nil { // the watch ended by itself
		return fmt.Errorf("accepted, but its progress is not known: %w", watchErr)
	}
	return err
}

// judgeProgress returns what was seen last, and errSettled, the verdict, or nil if the
// watch ended first.
func (a *app) judgeProgress(ctx, watching context.Context, seen <-chan snapshot, show *progress, limit time.Duration) (last snapshot, err error) {
	end := time.NewTimer(limit)
	defer end.Stop()
	var failing, stuck, proven, canary <-chan time.Time // fire when a trouble, a standstill, success, a canary's success has lasted
	trouble := ""                                       // the last that was seen: once a service went back it is gone
	for {
		select {
		case last = <-seen:
			show.draw(last)
			if trouble = cmp.Or(last.trouble, trouble); last.over != nil {
				return last, last.over.with(trouble)
			}
			canary = lasting(canary, last.canary != "", proofTime)
			if last.settled && !last.unproven {
				return last, errSettled
			}
			proven = lasting(proven, last.settled, proofTime)
			stuck = lasting(stuck, last.stuck, patience)
			failing = lasting(failing, last.trouble != "", min(patience, limit/2))
		case <-proven:
			return last, errSettled
		case <-canary:
			return last, &coded{code: exitTimeout, name: "canary", err: fmt.Errorf("accepted, and the canary of %[1]s is healthy; the other slots wait for shoal rollout promote %[1]s", last.canary)}
		case <-stuck:
			return last, &coded{code: exitTimeout, name: "unplaced", err: fmt.Errorf("accepted, but %s; it goes on when a peer can take it, see shoal explain", open(last))}
		case <-failing:
			return last, &coded{code: exitUnhealthy, name: "unhealthy", err: fmt.Errorf("accepted, but unhealthy; %s; see shoal logs", last.trouble)}
		case <-end.C:
			if last.trouble != "" {
				return last, &coded{code: exitUnhealthy, name: "unhealthy", err: fmt.Errorf("accepted, but unhealthy after %s; %s; see shoal logs", limit, last.trouble)}
			}
			return last, &coded{code: exitTimeout, name: api.CodeTimeout, err: fmt.Errorf("accepted, but not settled after %s; %s; see shoal ps", limit, open(last))}
		case <-watching.Done(): // with ctx, or because the watch ended by itself
			if ctx.Err() == nil {
				return last, nil
			}
			return last, &coded{code: exitTimeout, name: "interrupted", err: errors.New("interrupted; accepted: it goes on, shoal ps shows how")}
		}
	}
}

// lasting returns a timer that runs while something is so: the present one, a new one,
// or none.
func lasting(timer <-chan time.Time, so bool, d time.Duration) <-chan time.Time {
	switch {
	case !so:
		return nil
	case timer != nil:
		return timer
	}
	return time.After(d)
}

// open names what is not settled.
func open(s snapshot) string {
	var out []string
	for _, p := range s.services {
		if !p.Settled {
			out = append(out, progressLine(p)+becauseOf(p))
		}
	}
	if len(out) == 0 {
		return "nothing was heard of it"
	}
	return strings.Join(out, ", ")
}

// progressLine says how far a service is: "web 2/3 ready, 1 starting".
func progressLine(p api.Progress) string {
	if !p.Exists {
		if p.Settled {
			return p.Service.Name + " gone"
		}
		return stopping(p)
	}
	if p.Service.Stopped {
		if p.Settled {
			return p.Service.Name + " stopped"
		}
		return stopping(p)
	}
	if p.Service.Job != nil {
		return clean(jobLine(p))
	}
	n := map[string]int{}
	for _, r := range p.Replicas {
		switch {
		case r.State == "unplaced":
			n["unplaced"]++
		case !r.Current:
			n["of an older revision"]++
		case r.State != "ready":
			n[r.State]++
		}
	}
	parts := []string{fmt.Sprintf("%s %d/%d ready", p.Service.Name, p.Service.Ready, p.Service.Replicas)}
	var states []string
	for s := range n {
		states = append(states, s)
	}
	slices.Sort(states)
	for _, s := range states {
		parts = append(parts, fmt.Sprintf("%d %s", n[s], s))
	}
	return clean(strings.Join(parts, ", "))
}

// stopping says how many slots are still held; what was let go may still be ending.
func stopping(p api.Progress) string {
	if len(p.Replicas) == 0 {
		return p.Service.Name + " stopping"
	}
	return fmt.Sprintf("%s stopping, %s left", p.Service.Name, count(len(p.Replicas), "replica"))
}

// becauseOf says why the first slot without a holder has none, or why the first of an
// older revision keeps it: " (no room)", " (db is not healthy: 0 of 1 slots are)".
func becauseOf(p api.Progress) string {
	for _, r := range p.Replicas {
		if (r.State == "unplaced" || r.State == "waiting") && r.Reason != "" || keeps(r) {
			return clean(" (" + r.Reason + ")")
		}
	}
	return ""
}
