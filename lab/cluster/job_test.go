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

// work makes a job's image known to all engines.
func (w *world) work(name string, p runtime.Program) {
	for _, m := range w.peers {
		m.twin.SetImages(image, name)
		m.twin.SetProgram(name, p)
	}
}

// jobSpec is a job of n slots.
func jobSpec(name, image string, n int, job shoal.Job) shoal.Spec {
	s := spec(name, n)
	s.Image, s.Mode, s.Job = image, shoal.ModeReplicatedJob, &job
	s.Restart = shoal.Restart{Condition: shoal.RestartOnFailure}
	return s
}

// runs counts how often containers of a service were started, on all engines, and how many
// run now.
func (w *world) runs(service string) (started, now int) {
	for _, p := range w.peers {
		for _, e := range p.twin.History() {
			if e.Service == service && e.Kind == "start" {
				started++
			}
		}
		running, _ := p.twin.Running(service)
		now += running
	}
	return started, now
}

// comes waits until every given peer says of a job what holds wants, while each check passes.
func (w *world) comes(within time.Duration, job, what string, peers []*peer, wants func(shoal.JobStatus) bool, checks ...func() error) time.Duration {
	w.t.Helper()
	return w.until(within, job+" "+what, func() error {
		for _, check := range checks {
			if err := check(); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, p := range peers {
			if st, _ := p.view().Job(job); !wants(st) {
				return fmt.Errorf("peer %d: %s", p.index, st.Progress())
			}
		}
		return nil
	})
}

// idle lets d pass and fails if anything of a job was started.
func (w *world) idle(job string, d time.Duration) {
	w.t.Helper()
	before, _ := w.runs(job)
	time.Sleep(d)
	if after, now := w.runs(job); after != before || now > 0 {
		w.t.Errorf("%d runs of %s began after all were over, %d run now", after-before, job, now)
	}
}

// TestJob: no more of a job's slots run at once than it says; a machine that dies takes
// with it what it ran, which runs anew elsewhere, and not what it had done; the peer that
// took the job may die, and all daemons may start anew.
func TestJob(t *testing.T) {
	t.Parallel()
	play(t, 7601, 5, func(w *world) {
		const slots, atOnce = 9, 3
		w.work("load:1", runtime.Program{Exits: true, ExitAfter: 6 * time.Second})
		accepting := w.peers[w.rng.IntN(5)]
		accepting.ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{jobSpec("load", "load:1", slots, shoal.Job{Attempts: 3, Parallelism: atOnce})}}})
		few := func() error {
			if _, now := w.runs("load"); now > atOnce {
				return fmt.Errorf("%d run at once", now)
			}
			return nil
		}
		w.comes(2*time.Minute, "load", "is known and has begun", w.peers, func(st shoal.JobStatus) bool { return st.Completed >= 2 && st.Running > 0 }, few)
		w.until(10*time.Second, "the accepting peer or another runs a slot", func() error {
			if _, now := w.runs("load"); now == 0 {
				return fmt.Errorf("none runs")
			}
			return nil
		})
		lost, _ := accepting.twin.Running("load")
		accepting.power()
		others := w.living()
		took := w.comes(5*time.Minute, "load", "is complete", others, shoal.JobStatus.IsComplete, few)
		started, _ := w.runs("load")
		t.Logf("complete %v after a machine with %d running slots died; %d runs of %d slots", took, lost, started, slots)
		if started > slots+lost {
			t.Errorf("%d runs of %d slots, of which %d were lost in their run", started, slots, lost)
		}
		w.idle("load", 3*time.Minute)
		for _, p := range others {
			p.end()
		}
		for _, p := range others {
			p.boot()
		}
		accepting.boot()
		w.comes(time.Minute, "load", "is complete", w.peers, shoal.JobStatus.IsComplete)
		w.idle("load", 3*time.Minute)
	})
}

// TestJobGivesUp: a run that fails is tried as often as the job says, and no more, also if
// daemons start anew in between; who waits for the job learns why it never comes, and
// what fails is not taken for a machine in trouble.
func TestJobGivesUp(t *testing.T) {
	t.Parallel()
	play(t, 7602, 4, func(w *world) {
		const slots, attempts = 3, 4
		w.work("bad:1", runtime.Program{Exits: true, ExitAfter: time.Second, ExitCode: 3})
		bad := jobSpec("bad", "bad:1", slots, shoal.Job{Attempts: attempts})
		web := spec("web", 2)
		web.DependsOn = []shoal.Dependency{{Service: "bad", Condition: shoal.ConditionCompleted}}
		w.peers[0].ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{bad, web}}})
		w.comes(30*time.Second, "bad", "has been tried", w.peers, func(st shoal.JobStatus) bool { return st.Attempts >= 2 })
		for _, p := range w.peers {
			p.end()
		}
		for _, p := range w.peers {
			p.boot()
		}
		w.comes(3*time.Minute, "bad", "is given up", w.peers, func(st shoal.JobStatus) bool { return st.Failed == slots && st.IsOver() })
		for _, p := range w.peers {
			if st, _ := p.view().Job("bad"); st.Failure() != "exited with code 3 (4 attempts)" {
				t.Errorf("peer %d: %q", p.index, st.Failure())
			}
			if s := p.view().State(p.id.Self()); s.Trouble != "" {
				t.Errorf("peer %d is in trouble: %s", p.index, s.Trouble)
			}
		}
		if started, _ := w.runs("bad"); started != slots*attempts {
			t.Errorf("%d runs, want %d of %d slots", started, attempts, slots)
		}
		w.idle("bad", 5*time.Minute)
		if started, _ := w.runs("web"); started > 0 {
			t.Errorf("%d of web were started", started)
		}

		w.work("bad:1", runtime.Program{Exits: true, ExitAfter: time.Second})
		w.peers[1].operate(shoal.OpRestart, "bad")
		w.comes(time.Minute, "bad", "is complete", w.peers, shoal.JobStatus.IsComplete)
		w.settled(time.Minute, w.peers, map[string]int{"web": 2})
	})
}

// TestJobSplit: each side of a split ends the job, and runs for that what the other holds
// once more; together they know of all that is done, and nothing runs again.
func TestJobSplit(t *testing.T) {
	t.Parallel()
	play(t, 7603, 5, func(w *world) {
		const slots = 6
		w.work("load:1", runtime.Program{Exits: true, ExitAfter: 20 * time.Second})
		w.peers[0].ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{jobSpec("load", "load:1", slots, shoal.DefaultJob())}}})
		w.until(20*time.Second, "all slots run", func() error {
			if _, now := w.runs("load"); now != slots {
				return fmt.Errorf("%d do", now)
			}
			return nil
		})
		left, right := w.peers[:2], w.peers[2:]
		w.split(left, right)
		w.comes(2*time.Minute, "load", "is complete on the left", left, shoal.JobStatus.IsComplete)
		w.comes(2*time.Minute, "load", "is complete on the right", right, shoal.JobStatus.IsComplete)
		started, _ := w.runs("load")
		t.Logf("%d runs of %d slots on two sides", started, slots)
		if started > 2*slots {
			t.Errorf("%d runs of %d slots on two sides", started, slots)
		}
		w.heal()
		w.agreed(w.peers)
		w.comes(time.Minute, "load", "is complete", w.peers, shoal.JobStatus.IsComplete)
		w.idle("load", 3*time.Minute)
	})
}
