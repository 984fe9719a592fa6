// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// load is work of so many thousandths of a core that the running replicas of web share, and
// how often their number changed.
type load struct {
	w       *world
	cpu     int64
	last    int
	changes []string
}

// pass lets time pass under a load, as the first living peer sees it.
func (l *load) pass(d time.Duration, is func(s *shoal.Service) bool) (time.Duration, bool) {
	from := time.Now()
	for time.Since(from) < d {
		running := 0
		for _, p := range l.w.living() {
			n, _ := p.twin.Running("web")
			running += n
		}
		each := l.cpu / int64(max(running, 1))
		for _, p := range l.w.living() {
			p.twin.SetUse("web", shoal.Usage{CPUMilli: min(each, 500), MemBytes: 20 << 20})
		}
		s, ok := l.w.living()[0].view().Service("web")
		if ok && s.Replicas != l.last {
			l.last = s.Replicas
			l.changes = append(l.changes, fmt.Sprintf("%s after %v", s.Scale.Why, time.Since(from).Round(time.Second)))
		}
		if ok && is(s) {
			return time.Since(from), true
		}
		time.Sleep(500 * time.Millisecond)
	}
	return d, false
}

func (l *load) follow(within time.Duration, n int) {
	l.w.t.Helper()
	took, ok := l.pass(within, func(s *shoal.Service) bool {
		ready, v := map[int]bool{}, l.w.living()[0].view()
		for _, c := range v.ClaimsOf("web") {
			if r, told := v.Replica(c.Replica); told && v.Alive(c.Holder) && r.Phase == shoal.PhaseReady {
				ready[c.Slot] = true
			}
		}
		return s.Replicas == n && len(ready) == n
	})
	if !ok {
		l.w.dump()
		l.w.t.Fatalf("not %d replicas within %v: %q", n, within, l.changes)
	}
	l.w.t.Logf("%d replicas ready after %v", n, took)
}

func (l *load) stays(d time.Duration, n int) {
	l.w.t.Helper()
	if took, changed := l.pass(d, func(s *shoal.Service) bool { return s.Replicas != n }); changed {
		l.w.t.Errorf("it changed after %v: %q", took, l.changes)
	}
}

// TestAutoscale: a service follows its load within its bounds, whichever peers are there to
// decide, does not change while the load stays, and leaves a user's number alone.
func TestAutoscale(t *testing.T) {
	t.Parallel()
	play(t, 9001, 4, func(w *world) {
		s := spec("web", 2)
		s.Limits.CPUMilli, s.Reservations.CPUMilli = 500, 0
		a := shoal.DefaultAutoscale()
		a.Min, a.Max, a.CPU = 2, 12, 60 // 300 of 500 thousandths
		a.DownWindow, a.Manual = time.Minute, time.Minute
		s.Autoscale = &a
		w.peers[0].update(s)
		l := &load{w: w, cpu: 600}
		l.follow(20*time.Second, 2)

		l.cpu = 1800
		l.follow(90*time.Second, 6) // 2 at their limit call for 4, and these for 6 once they are measured
		before := len(l.changes)
		w.peers[w.rng.IntN(4)].power() // whoever decided may be gone; the others place its replicas anew
		l.stays(20*time.Second, 6)
		l.cpu = 2700
		l.follow(90*time.Second, 9)
		l.stays(time.Minute, 9)

		l.cpu = 600
		l.stays(50*time.Second, 9)
		l.follow(2*time.Minute, 2)
		t.Logf("changes: %q", l.changes)
		if n := len(l.changes) - before; n > 6 {
			t.Errorf("%d changes for one step up and one down: %q", n, l.changes)
		}

		w.living()[1].scale("web", 5)
		if _, ok := l.pass(5*time.Second, func(s *shoal.Service) bool { return s.Replicas == 5 && s.Scale.Manual }); !ok {
			t.Error("a user's number is not taken")
		}
		l.stays(50*time.Second, 5)
		l.follow(2*time.Minute, 2)
		w.agreed(w.living())
		w.quiet(w.living())
	})
}
