// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

// still is a view that does not change, and a clock that stands.
type still struct {
	view *shoal.View
	now  time.Duration
}

func (s still) View() *shoal.View        { return s.view }
func (s still) Changed() <-chan struct{} { return nil }
func (s still) Wall() time.Time          { return time.Time{} }
func (s still) Mono() time.Duration      { return s.now }

func TestReport(t *testing.T) {
	turns := order(newWorld().view(), &newWorld().service)
	for _, c := range []struct {
		name string
		pass func(w *world)
		want shoal.RolloutReport
	}{
		{"never looked at", func(*world) {}, shoal.RolloutReport{
			State: "watching", Current: 3, Waits: "until slots 0, 1, 2 are healthy for long enough",
		}},
		{"not for long enough", func(w *world) { w.pass(4 * time.Second) }, shoal.RolloutReport{
			State: "watching", Current: 3, Waits: "until slots 0, 1, 2 are healthy for long enough", Since: 4 * time.Second,
		}},
		{"for long enough", func(w *world) { w.pass(12 * time.Second) }, shoal.RolloutReport{
			State: "complete", Current: 3, Healthy: 3, Since: 2 * time.Second, Actor: turns[1], ActsAfter: 0,
		}},
		{"settled", func(w *world) { w.service.Rollout.Settled = true }, shoal.RolloutReport{State: "complete", Current: 3, Healthy: 3}},
		{"another revision", func(w *world) {
			w.pass(4 * time.Second)
			w.service.Revision = rev(3)
		}, shoal.RolloutReport{
			State: "watching", Current: 3, Waits: "until slots 0, 1, 2 are healthy for long enough",
		}},
		{"one failed", func(w *world) {
			w.pass(4 * time.Second)
			w.fails[1], w.phases[1] = 1, shoal.PhaseFailed
			w.pass(time.Second)
		}, shoal.RolloutReport{
			State: "failing", Current: 3, Failed: 1, Waits: "1 of 3 slots failed, more than the 0 that may", Since: 5 * time.Second, Actor: turns[0],
			FirstFailure: "first failure 4s after revision 2 by the operator at peer-a: web/1 at peer-b: exited with code 1",
			Failure:      shoal.Failure{Slot: 1, Peer: "b", After: 4 * time.Second, Reason: "exited with code 1"},
		}},
		{"stopped", func(w *world) { w.service.Stopped = true }, shoal.RolloutReport{State: "stopped"}},
	} {
		w := newWorld()
		w.self = turns[2]
		c.pass(w)
		s := New(cfg, Deps{Views: still{view: w.view()}, Clock: still{now: w.now}, Log: slog.New(slog.DiscardHandler)})
		s.memory = w.memory
		c.want.Service, c.want.Revision = "web", w.service.Revision
		if c.want.State != "stopped" {
			c.want.Slots = 3
		}
		if !c.want.Failure.IsZero() {
			c.want.Failure.Replica = w.view().ClaimsOf("web")[c.want.Failure.Slot].Replica
		}
		got, err := s.Rollout("web")
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: Rollout(web): %v, want (-), got (+):\n%s", c.name, err, diff)
		}
		if _, err := s.Rollout("nosuch"); !errors.Is(err, shoal.ErrNotFound) {
			t.Errorf("Rollout(nosuch) = %v, want ErrNotFound", err)
		}
	}
}
