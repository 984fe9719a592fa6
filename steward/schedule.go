// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// begins is what is remembered of the runs that are due, by service. It is a value:
// lookSchedules returns a new one.
type begins map[string]begin

// begin is a run that has not begun although its time has come.
type begin struct {
	run   int64         // its time
	since time.Duration // when this peer first saw that, by its monotonic clock
	asked time.Duration // when this peer began it last; 0: never
}

// lookSchedules looks which jobs are due by the wall clock. It returns the runs that this
// peer should begin now, which is none before from, and when to look again at the latest, 0
// for when the view changes. It is pure.
func lookSchedules(v *shoal.View, m begins, now, from time.Duration, wall time.Time, cfg *Config) (begins, []shoal.RunWish, time.Duration) {
	next := begins{}
	var acts []shoal.RunWish
	var wake time.Duration
	for i := range v.Services() {
		s := &v.Services()[i]
		if s.Spec.Schedule == nil {
			continue
		}
		l := lookout{v: v, s: s, now: now, from: from, wake: wake}
		last, _ := v.Job(s.Spec.Name)
		run, later := s.Due(wall, last)
		if !later.IsZero() { // a wall clock may be set meanwhile
			l.again(now + min(later.Sub(wall), shoal.StartWindow/2))
		}
		if run != 0 {
			b := m[s.Spec.Name]
			if b.run != run {
				b = begin{run: run, since: now}
			}
			if l.begins(&b, cfg) {
				acts = append(acts, shoal.RunWish{Service: s.Spec.Name, Of: s.Revision, At: run})
			}
			next[s.Spec.Name] = b
		}
		wake = l.wake
	}
	return next, acts, wake
}

// begins reports whether the turn to begin a run is this peer's.
func (l *lookout) begins(b *begin, cfg *Config) bool {
	rank := slices.Index(order(l.v, l.s), l.v.Self())
	if rank < 0 {
		return false
	}
	at := max(b.since, l.from) + time.Duration(rank)*cfg.Step
	if b.asked != 0 {
		at = max(at, b.asked+cfg.Again)
	}
	if l.now < at {
		l.again(at)
		return false
	}
	b.asked = l.now
	l.again(l.now + cfg.Again)
	return true
}

// askRun submits a run whose time has come. That another peer did, or that the service was
// changed meanwhile, is no error.
func (s *Steward) askRun(ctx context.Context, w *shoal.RunWish) {
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	out, err := s.deps.Wishes.Submit(ctx, shoal.Wish{Run: w}, shoal.UpdateOptions{})
	switch {
	case errors.Is(err, shoal.ErrConflict), errors.Is(err, shoal.ErrNotFound):
	case err != nil:
		s.deps.Log.Warn("a run whose time has come does not begin", logkey.Service, w.Service, logkey.Err, err)
	case len(out.Changes) > 0 && out.Changes[0].Kind != shoal.ChangeNone:
		s.deps.Log.Info("a run begins", logkey.Service, w.Service, "run", out.Changes[0].Details[0])
	}
}
