// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/placement/brake"
	"github.com/shoalnet/shoal/placement/rollout"
)

// memory is what is remembered of each service whose rollout is not over, by name. It is
// a value: look returns a new one. It is lost with the process, which makes a rollout
// settle later, and nothing else.
type memory map[string]watch

// watch is what is remembered of one rollout. Times are this peer's monotonic clock.
type watch struct {
	of      shoal.RevisionID
	since   time.Duration                     // first seen
	ready   map[shoal.ReplicaID]time.Duration // at this revision, since
	best    int                               // most slots that were healthy at once
	still   time.Duration                     // when that was reached
	first   string                            // the first failure, one line; "": none
	failure shoal.Failure                     // the same
	due     time.Duration                     // when the first in order should act; only with act
	act     shoal.RolloutChange               // what is to be done; "": nothing
	why     string                            // that is done
	asked   time.Duration                     // when this peer did so last; 0: never
	status  rollout.Status                    // as seen last
	held    string                            // why a brake holds it; "": none does
}

// look follows all rollouts of a view. It returns what this peer should ask for now, which
// is nothing before from, and when to look again at the latest, 0 for when the view
// changes. It is pure.
func look(v *shoal.View, m memory, verdicts brake.Verdicts, now, from time.Duration, cfg *Config) (memory, []shoal.RolloutWish, time.Duration) {
	next := make(memory, len(m))
	var acts []shoal.RolloutWish
	var wake time.Duration
	services := v.Services()
	for i := range services {
		s := &services[i]
		if s.Rollout.Settled || s.Stopped || s.Spec.Mode.IsJob() { // a job has no waves, and fails by its own rules
			continue
		}
		l := lookout{v: v, s: s, verdicts: verdicts, now: now, from: from, old: m[s.Spec.Name], wake: wake}
		w := l.watch()
		if a, ok := l.turn(&w, cfg); ok {
			acts = append(acts, a)
		}
		next[s.Spec.Name], wake = w, l.wake
	}
	return next, acts, wake
}

// lookout is one look at one rollout.
type lookout struct {
	v   *shoal.View
	s   *shoal.Service
	now time.Duration

	verdicts brake.Verdicts

	from time.Duration // nothing is asked for before
	old  watch
	wake time.Duration
}

// again asks for a look at a later time.
func (l *lookout) again(at time.Duration) {
	if at > l.now && (l.wake == 0 || at < l.wake) {
		l.wake = at
	}
}

// watch returns what is to be remembered, with what is to be done.
func (l *lookout) watch() watch {
	w := l.old
	if w.of != l.s.Revision {
		w = watch{of: l.s.Revision, since: l.now, still: l.now}
	}
	w.ready = make(map[shoal.ReplicaID]time.Duration)
	shape := l.s.Revise()
	slots, rules := placement.Rollout(l.v, l.s.Spec.Name, func(id shoal.ReplicaID) time.Duration {
		since, seen := l.old.ready[id]
		if !seen || l.old.of != l.s.Revision {
			since = l.now
		}
		w.ready[id] = since
		return l.now - since
	})
	rules.Hold(l.verdicts, l.s)
	for _, since := range w.ready {
		l.again(since + max(shape.Delay, shape.MinHealthy))
		l.again(since + shape.Monitor)
	}
	waited := w.status.State == rollout.Waiting
	w.status, w.held = rules.StatusOf(slots), ""
	if w.status.Waits == rules.Braked {
		w.held = rules.Braked
	}
	switch {
	case waited || rules.Waits != "": // the time that slots have begins when they may change
		w.still = l.now
	case w.status.Healthy > w.best:
		w.best, w.still = w.status.Healthy, l.now
	}
	if w.failure.IsZero() && w.status.Failed > 0 {
		if f := placement.FirstFailure(l.v, l.s); !f.IsZero() {
			f.After = l.now - w.since
			w.failure, w.first = f, f.Text(l.s, l.v.Name)
		}
	}
	change, why := l.remedy(&w, shape.Monitor)
	if change != w.act {
		w.due = l.now
	}
	w.act, w.why = change, why
	if shape.Deadline > 0 && w.act == "" && rules.Waits == "" {
		l.again(w.still + shape.Deadline)
	}
	return w
}

// remedy says what is to be done about a rollout, or that it is over.
func (l *lookout) remedy(w *watch, monitor time.Duration) (shoal.RolloutChange, string) {
	st := w.status
	if st.State == rollout.Complete && st.Slots > 0 {
		for _, since := range w.ready {
			if l.now-since < monitor {
				return "", ""
			}
		}
		return shoal.RolloutSettle, ""
	}
	action, why := rollout.Remedy(l.s, st, l.now-w.still)
	if shared, is := l.verdicts.Shared(); is && action != "" { // what fails with all else may be fine
		w.held = fmt.Sprintf("%s; nothing is done about it while %s", why, shared)
		return "", ""
	}
	switch action {
	case shoal.FailureRollback:
		return shoal.RolloutBack, join(why, w.first)
	case shoal.FailurePause:
		return shoal.RolloutPause, join(why, w.first)
	case shoal.FailureContinue:
	}
	return "", ""
}

func join(why, first string) string {
	if first == "" {
		return why
	}
	return why + "; " + first
}

// turn returns what this peer asks for, if it is to be done and the turn is its own.
func (l *lookout) turn(w *watch, cfg *Config) (shoal.RolloutWish, bool) {
	if w.act == "" {
		return shoal.RolloutWish{}, false
	}
	rank := slices.Index(order(l.v, l.s), l.v.Self())
	if rank < 0 {
		return shoal.RolloutWish{}, false
	}
	at := max(w.due, l.from) + time.Duration(rank)*cfg.Step
	if w.asked != 0 {
		at = max(at, w.asked+cfg.Again)
	}
	if l.now < at {
		l.again(at)
		return shoal.RolloutWish{}, false
	}
	w.asked = l.now
	l.again(l.now + cfg.Again)
	return shoal.RolloutWish{Service: l.s.Spec.Name, Change: w.act, Of: w.of, Why: w.why, Failure: w.failure}, true
}

// order returns the operators that are heard, in the order in which they act on the
// current revision of a service: by rendezvous rank, so that services are spread.
func order(v *shoal.View, s *shoal.Service) []shoal.PeerID {
	var out []shoal.PeerID
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if p.Role == shoal.RoleOperator && !p.Removed && !p.Facts.Leaving && v.Alive(p.ID) {
			out = append(out, p.ID)
		}
	}
	rank := func(id shoal.PeerID) uint64 { return placement.Rank(s.Spec.Name, int(s.Revision.Seq%1024), id) }
	slices.SortFunc(out, func(a, b shoal.PeerID) int { return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b)) })
	return out
}
