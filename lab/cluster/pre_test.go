// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// pre is the job that runs before web's first wave.
const pre = "web-pre-deploy"

// migrated is web with 8 replicas of an image, before which tool is run.
func (w *world) migrated(image, tool string, what runtime.Program) shoal.Spec {
	for _, p := range w.peers {
		p.twin.SetImages("hello:1", "hello:2", "hello:3", tool)
		p.twin.SetProgram(tool, what)
	}
	s := shaped(image)
	s.PreDeploy = &shoal.PreDeploy{Image: tool, Attempts: 2}
	return s
}

// begun returns how many replicas of web's current revision there are, as these peers see it.
func begun(peers []*peer) (n int) {
	for _, p := range peers {
		v := p.view()
		s, _ := v.Service("web")
		for _, c := range v.ClaimsOf("web") {
			if c.Revision == s.Revision {
				n++
			}
		}
	}
	return n
}

// TestPreDeploy: the first wave begins once what runs before has ended well, on whatever
// peer, though the one that took the wish and the one that runs it die; labels and a restart run it
// no more, another container does.
func TestPreDeploy(t *testing.T) {
	t.Parallel()
	play(t, 7801, 5, func(w *world) {
		w.peers[0].update(shaped("hello:1"))
		w.rolled(60*time.Second, "hello:1", w.peers)
		tool := runtime.Program{Exits: true, ExitAfter: 8 * time.Second}
		accepting := w.peers[w.rng.IntN(5)]
		accepting.update(w.migrated("hello:2", "pre:1", tool))
		w.comes(10*time.Second, pre, "runs", w.peers, func(st shoal.JobStatus) bool { return st.Running == 1 })
		accepting.power()
		var holder *peer
		for _, p := range w.peers {
			if n, _ := p.twin.Running(pre); n > 0 || p == accepting && holder == nil {
				holder = p
			}
		}
		if holder != accepting {
			holder.power()
		}
		others := w.living()
		took := w.comes(2*time.Minute, pre, "is complete", others, shoal.JobStatus.IsComplete, func() error {
			for _, p := range others {
				if st, _ := p.view().Job(pre); !st.IsComplete() && begun([]*peer{p}) > 0 {
					return fmt.Errorf("peer %d sees a replica of a revision that waits", p.index)
				}
			}
			return nil
		})
		rolled := w.rolled(2*time.Minute, "hello:2", others)
		started, _ := w.runs(pre)
		t.Logf("complete %v after its peers died, rolled out by %d peers %v later, %d runs", took, len(others), rolled, started)
		if started != 2 {
			t.Errorf("%d runs, of which one was lost", started)
		}
		labelled := w.migrated("hello:2", "pre:1", tool)
		labelled.Labels = map[string]string{"a": "b"}
		others[0].update(labelled)
		w.rolled(time.Minute, "hello:2", others)
		others[1].operate(shoal.OpRestart, "web")
		w.rolled(2*time.Minute, "hello:2", others)
		accepting.boot()
		if holder != accepting {
			holder.boot()
		}
		w.agreed(w.peers)
		w.idle(pre, time.Minute)

		others[0].update(w.migrated("hello:3", "pre:1", tool))
		w.rolled(2*time.Minute, "hello:3", w.peers)
		if again, _ := w.runs(pre); again != started+1 {
			t.Errorf("%d runs for another container", again-started)
		}
		others[0].ask(shoal.Wish{Remove: &shoal.RemoveWish{Services: []string{"web"}}})
		w.until(time.Minute, "all of it is gone", func() error {
			for _, p := range w.peers {
				v := p.view()
				if c := slices.Concat(v.ClaimsOf("web"), v.ClaimsOf(pre)); len(c) > 0 || len(v.Services()) > 0 || len(p.containers()) > 0 {
					return fmt.Errorf("peer %d: %d claims, %d services, %d containers", p.index, len(c), len(v.Services()), len(p.containers()))
				}
			}
			return nil
		})
		w.quiet(w.peers)
	})
}

// TestPreDeployFails: where what runs before fails, no wave begins, whatever the deadline of
// the rollout, and what runs goes on untouched; all can say why. A run again that ends well
// lets the wave begin, and so does a deploy of something else.
func TestPreDeployFails(t *testing.T) {
	t.Parallel()
	play(t, 7802, 4, func(w *world) {
		w.peers[0].update(w.migrated("hello:1", "pre:1", runtime.Program{Exits: true, ExitAfter: time.Second}))
		w.rolled(60*time.Second, "hello:1", w.peers)
		before := make([][]shoal.ReplicaID, len(w.peers))
		for i, p := range w.peers {
			before[i] = p.containers()
		}
		untouched := func(what string) {
			t.Helper()
			for i, p := range w.peers {
				if now := p.containers(); !slices.Equal(now, before[i]) {
					t.Errorf("%s: peer %d runs %v, before %v", what, i, now, before[i])
				}
			}
		}
		bad := w.migrated("hello:2", "bad:1", runtime.Program{Exits: true, ExitAfter: time.Second, ExitCode: 1})
		bad.Rollout.Deadline = time.Minute
		w.peers[w.rng.IntN(4)].update(bad)
		w.comes(time.Minute, pre, "is given up", w.peers, shoal.JobStatus.IsFailed)
		time.Sleep(4 * time.Minute)
		untouched("after it failed")
		for _, p := range w.peers {
			v := p.view()
			s, _ := v.Service("web")
			if want := `pre_deploy failed: exited with code 1 (2 attempts); see "shoal logs web-pre-deploy"`; v.Waits(s) != want || s.Rollout.Paused {
				t.Errorf("peer %d waits: %q, paused %v; want %q", p.index, v.Waits(s), s.Rollout.Paused, want)
			}
		}
		w.quiet(w.peers)
		for _, p := range w.peers {
			p.end()
		}
		for _, p := range w.peers {
			p.boot()
		}
		w.comes(time.Minute, pre, "is given up", w.peers, shoal.JobStatus.IsFailed)
		untouched("after all daemons started anew")
		w.peers[1].ask(shoal.Wish{Rollout: &shoal.RolloutWish{Service: "web", Change: shoal.RolloutBack}})
		w.rolled(time.Minute, "hello:1", w.peers)
		untouched("after it went back")

		w.peers[1].update(bad)
		w.comes(time.Minute, pre, "is given up", w.peers, shoal.JobStatus.IsFailed)
		w.migrated("hello:2", "bad:1", runtime.Program{Exits: true, ExitAfter: time.Second})
		w.peers[2].operate(shoal.OpRestart, pre)
		w.rolled(2*time.Minute, "hello:2", w.peers)

		w.peers[3].update(w.migrated("hello:3", "slow:1", runtime.Program{Exits: true, ExitAfter: time.Hour}))
		w.comes(10*time.Second, pre, "runs", w.peers, func(st shoal.JobStatus) bool { return st.Running == 1 })
		next := shaped("hello:1")
		w.peers[0].update(next)
		w.rolled(2*time.Minute, "hello:1", w.peers)
		w.until(time.Minute, "what ran before is gone", func() error {
			if _, now := w.runs(pre); now > 0 {
				return fmt.Errorf("%d run", now)
			}
			return nil
		})
		w.quiet(w.peers)
	})
}

// TestPreDeploySplit: each side of a split deploys and runs what comes before; when they
// meet, the revision that counts goes on by what was run for it, without a conflict between
// the service and its job.
func TestPreDeploySplit(t *testing.T) {
	t.Parallel()
	play(t, 7803, 5, func(w *world) {
		tool := runtime.Program{Exits: true, ExitAfter: 2 * time.Second}
		w.peers[0].update(w.migrated("hello:1", "pre:1", tool))
		w.rolled(60*time.Second, "hello:1", w.peers)
		one, two := w.peers[:2], w.peers[2:]
		w.split(one, two)
		one[0].update(w.migrated("hello:2", "pre:1", tool))
		labelled := w.migrated("hello:2", "pre:1", tool)
		labelled.Labels = map[string]string{"a": "b"}
		one[1].update(labelled)
		two[0].update(w.migrated("hello:3", "pre:1", tool))
		w.rolled(3*time.Minute, "hello:2", one)
		w.rolled(3*time.Minute, "hello:3", two)
		before, _ := w.runs(pre)
		w.heal()
		w.agreed(w.peers)
		v := w.peers[0].view()
		s, _ := v.Service("web")
		w.rolled(3*time.Minute, s.Spec.Image, w.peers)
		w.idle(pre, time.Minute)
		if after, _ := w.runs(pre); after != before {
			t.Errorf("%d runs after the sides met: each had run it", after-before)
		}
		for _, p := range w.peers {
			if st, _ := p.view().Job(pre); !st.IsComplete() {
				t.Errorf("peer %d: %s", p.index, st.Progress())
			}
		}
	})
}
