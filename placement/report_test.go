// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func TestReport(t *testing.T) {
	rev2 := shoal.RevisionID{Seq: 2, Author: "op"}
	// change makes a slot be of the new revision, in a phase.
	change := func(k *kit, slot int, phase shoal.Phase) *shoal.ReplicaStatus {
		c := &k.claims[slot]
		c.Revision = rev2
		k.phase(*c, phase)
		st := k.states[c.Holder]
		i := slices.IndexFunc(st.Replicas, func(r shoal.ReplicaStatus) bool { return r.ID == c.Replica })
		st.Replicas[i].Revision = rev2
		return &st.Replicas[i]
	}
	for _, c := range []struct {
		name string
		edit func(k *kit, s *shoal.Service)
		want shoal.RolloutReport
	}{
		{"nothing changed yet", func(*kit, *shoal.Service) {}, shoal.RolloutReport{State: "rolling", Slots: 4, Next: []int{0}, Actor: "p000"}},
		{"the first is on its way", func(k *kit, _ *shoal.Service) { change(k, 0, shoal.PhaseStarting) }, shoal.RolloutReport{
			State: "rolling", Slots: 4, Current: 1, Waits: "until slot 0 is healthy for long enough",
		}},
		{"the first is ready", func(k *kit, _ *shoal.Service) { change(k, 0, shoal.PhaseReady) }, shoal.RolloutReport{
			State: "rolling", Slots: 4, Current: 1, Healthy: 1, Next: []int{1}, Actor: "p001",
		}},
		{"the first failed", func(k *kit, _ *shoal.Service) { change(k, 0, shoal.PhaseFailed).Reason = "exit 1" }, shoal.RolloutReport{
			State: "failing", Slots: 4, Current: 1, Failed: 1, Waits: "1 of 4 slots failed, more than the 0 that may", FirstFailure: "web/0 at p000: exit 1",
			Failure: shoal.Failure{Peer: "p000", After: -1, Reason: "exit 1"},
		}},
		{"it failed and runs again", func(k *kit, s *shoal.Service) {
			s.Spec.Rollout.OnFailure = shoal.FailureContinue
			change(k, 0, shoal.PhaseStarting).Failures = 2
		}, shoal.RolloutReport{
			State: "rolling", Slots: 4, Current: 1, Failed: 1, Waits: "until slot 0 is healthy for long enough", FirstFailure: "web/0 at p000: starting now",
			Failure: shoal.Failure{Peer: "p000", After: -1, Reason: "starting now"},
		}},
		{"a canary", func(k *kit, s *shoal.Service) {
			s.Spec.Rollout.Canary.Slots.N = 1
			change(k, 0, shoal.PhaseReady)
		}, shoal.RolloutReport{
			State: "canary", Slots: 4, Current: 1, Healthy: 1, Waits: "the first 1 run it and are healthy; the others wait until it is promoted",
		}},
		{"all changed", func(k *kit, _ *shoal.Service) {
			for slot := range 4 {
				change(k, slot, shoal.PhaseReady)
			}
		}, shoal.RolloutReport{State: "complete", Slots: 4, Current: 4, Healthy: 4}},
		{"stopped", func(_ *kit, s *shoal.Service) { s.Stopped = true }, shoal.RolloutReport{State: "stopped"}},
	} {
		k := newKit(4)
		s := k.service("web", 4)
		s.Revision, s.Spec.Rollout = rev2, shoal.DefaultRollout()
		for slot, holder := range []shoal.PeerID{"p000", "p001", "p002", "p003"} {
			k.hold("web", slot, holder)
		}
		c.edit(k, s)
		c.want.Service, c.want.Revision = "web", rev2
		if !c.want.Failure.IsZero() {
			c.want.Failure.Replica = k.view("p003").ClaimsOf("web")[0].Replica
		}
		got, err := Report(k.view("p003"), "web", func(shoal.ReplicaID) time.Duration { return math.MaxInt64 })
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: Report: %v, want (-), got (+):\n%s", c.name, err, diff)
		}
	}
	if _, err := Report(newKit(1).view("p000"), "web", nil); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Report of no service: %v, want ErrNotFound", err)
	}
}
