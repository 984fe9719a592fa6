// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// TestOrder: of one deploy, what others depend on begins first, whoever holds it and though
// the peer that took the wish is dead; what comes after begins as soon as that is there.
func TestOrder(t *testing.T) {
	t.Parallel()
	play(t, 7501, 5, func(w *world) {
		for _, p := range w.peers {
			p.twin.SetImages(image, "db:1", "seed:1")
			p.twin.SetProgram("db:1", runtime.Program{HealthCheck: true, HealthyAfter: 8 * time.Second})
			p.twin.SetProgram("seed:1", runtime.Program{Exits: true, ExitAfter: 3 * time.Second})
		}
		db, seed, web := spec("db", 2), spec("seed", 1), spec("web", 4)
		db.Image, seed.Image = "db:1", "seed:1"
		seed.Restart = shoal.Restart{Condition: shoal.RestartOnFailure}
		seed.DependsOn = []shoal.Dependency{{Service: "db", Condition: shoal.ConditionHealthy}}
		web.DependsOn = []shoal.Dependency{
			{Service: "cache", Condition: shoal.ConditionHealthy, Optional: true},
			{Service: "db", Condition: shoal.ConditionHealthy},
			{Service: "seed", Condition: shoal.ConditionCompleted},
		}
		accepting := w.peers[w.rng.IntN(5)]
		accepting.ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{web, seed, db}}})
		w.until(2*time.Second, "the wish is known", func() error {
			for _, p := range w.peers {
				if _, ok := p.view().Service("web"); !ok {
					return fmt.Errorf("peer %d", p.index)
				}
			}
			return nil
		})
		accepting.power()
		others := w.living()
		held := func(service string) int { return len(others[0].view().ClaimsOf(service)) }
		ready := func(service string) int {
			n := 0
			v := others[0].view()
			for _, c := range v.ClaimsOf(service) {
				if r, ok := v.Replica(c.Replica); ok && v.Alive(c.Holder) && r.Phase == shoal.PhaseReady {
					n++
				}
			}
			return n
		}
		first := func(within time.Duration, service string, before func() error) time.Duration {
			return w.until(within, service+" begins", func() error {
				if held(service) > 0 {
					return nil
				}
				if err := before(); err != nil {
					w.t.Fatal(err)
				}
				return fmt.Errorf("%d of db are ready", ready("db"))
			})
		}
		seeds := first(40*time.Second, "seed", func() error {
			if held("web") > 0 {
				return fmt.Errorf("web began before seed")
			}
			return nil
		})
		if n := ready("db"); n != 2 {
			t.Errorf("seed began with %d of 2 of db ready", n)
		}
		webs := first(20*time.Second, "web", func() error { return nil })
		if v := others[0].view(); len(v.ClaimsOf("seed")) != 1 || !v.Done(v.ClaimsOf("seed")[0]) {
			t.Error("web began before seed had ended well")
		}
		w.until(10*time.Second, "web is ready", func() error {
			if n := ready("web"); n != 4 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
		t.Logf("seed began after %v, web %v later", seeds, webs)
	})
}
