// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// TestDeploySteadyScaleRemove: a wish becomes containers, then nothing happens for
// an hour (G9), scale moves only what it must, remove leaves nothing.
func TestDeploySteadyScaleRemove(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 3, p.id, p.id, p.id)
		took := s.until(2*time.Second, "3 ready", func() bool { return p.ready("web") == 3 })
		if took > 500*time.Millisecond {
			t.Errorf("deploy took %s, want about the engine's 250 ms", took)
		}
		for _, e := range p.engine.History() {
			if at := e.At - s.clock.Mono() + took; e.Kind == "create" && at > 115*time.Millisecond {
				t.Errorf("created %s after the wish, want 100 ms of the engine and at most 15 ms of ours", at)
			}
		}
		r := p.replica("web", 1)
		if r.Restarts != 0 || r.Reason != "" || r.Container == "" || r.Image == "" || r.StartedAt == 0 {
			t.Errorf("status = %+v, want a container, an image, a start and nothing to say", r)
		}

		s.wait(time.Minute)
		before, events := p.engine.Counts(shoal.ReplicaID{}), len(p.engine.History())
		updates, published := p.counts()
		s.wait(time.Hour)
		if u, b := p.counts(); u != updates || b != published || len(p.engine.History()) != events {
			t.Errorf("in an hour without a wish: %d updates, %d states told, %d engine events; want none", u-updates, b-published, len(p.engine.History())-events)
		}

		s.wish(shoal.Spec{Name: "web"}, 1, 5, p.id, p.id, p.id, p.id, p.id)
		s.until(2*time.Second, "5 ready", func() bool { return p.ready("web") == 5 })
		s.wish(shoal.Spec{Name: "web"}, 1, 2)
		s.until(2*time.Second, "2 left", func() bool { return p.containers() == 2 && len(p.state().Replicas) == 2 })
		after := p.engine.Counts(shoal.ReplicaID{})
		if after.Creates != before.Creates+2 || after.Starts != before.Starts+2 || after.Stops != 3 || after.Removes != 3 {
			t.Errorf("counts = %+v after %+v, want 2 more created and started, 3 stopped and removed", after, before)
		}
		for slot := range 2 {
			if r := p.replica("web", slot); r.Restarts != 0 || r.Phase != shoal.PhaseReady {
				t.Errorf("slot %d = %+v, want it untouched", slot, r)
			}
		}
		s.remove("web")
		s.until(2*time.Second, "nothing left", func() bool { return p.containers() == 0 && len(p.state().Replicas) == 0 })
	})
}
