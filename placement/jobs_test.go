// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// jobOf adds a job of n slots.
func (k *kit) jobOf(name string, n, atOnce int) *shoal.Service {
	s := k.service(name, n)
	s.Spec.Mode, s.Spec.Restart.Condition = shoal.ModeReplicatedJob, shoal.RestartOnFailure
	s.Spec.Job = &shoal.Job{Attempts: 3, Parallelism: atOnce}
	return s
}

// came sets what the runs of a claim came to.
func (k *kit) came(c shoal.Claim, o shoal.JobOutcome) {
	for i := range k.claims {
		if k.claims[i].Replica == c.Replica {
			k.claims[i].Outcome = &o
		}
	}
}

var (
	jobDone   = shoal.JobOutcome{Attempts: 1, Completed: true}
	jobBroken = shoal.JobOutcome{Attempts: 3, Failed: true, Code: 1, Why: "exited with code 1"}
	jobTried  = shoal.JobOutcome{Attempts: 2, Code: 1, Why: "exited with code 1"}
)

// drawJob draws a cluster with a job whose slots came to anything, held by anybody: also
// twice, by peers that are gone, at an older revision of the same container or another.
func drawJob(t *rapid.T) *kit {
	k := newKit(rapid.IntRange(2, 6).Draw(t, "peers"))
	for i := range k.peers {
		p := &k.peers[i]
		switch rapid.IntRange(0, 5).Draw(t, "peer") {
		case 0:
			k.dead(p.ID, later-60e9)
		case 1:
			p.Draining, p.Cordoned = true, true
		case 2:
			p.Removed = i > 0
		}
	}
	k.alive(k.peers[0].ID)
	s := k.jobOf("load", rapid.IntRange(1, 6).Draw(t, "slots"), rapid.IntRange(0, 3).Draw(t, "at once"))
	s.Revision = shoal.RevisionID{Seq: 2, Author: "op"}
	s.Stopped = rapid.IntRange(0, 9).Draw(t, "stopped") == 0
	past := s.Spec
	if rapid.Bool().Draw(t, "other container") {
		past.Image = "load:0"
	}
	s.Past = []shoal.PastRevision{{Revision: shoal.RevisionID{Seq: 1, Author: "op"}, Spec: past}}
	for slot := range s.Replicas + 1 {
		for i := range k.peers {
			if rapid.IntRange(0, 3).Draw(t, "held") > 0 {
				continue
			}
			c := k.hold("load", slot, k.peers[i].ID)
			if rapid.Bool().Draw(t, "current") {
				k.claims[len(k.claims)-1].Revision = s.Revision
			}
			o := rapid.SampledFrom([]shoal.JobOutcome{{}, {}, jobDone, jobBroken, jobTried}).Draw(t, "outcome")
			if o.Attempts > 0 {
				k.came(c, o)
			}
			if o.Over() {
				k.phase(c, shoal.PhaseStopped)
			}
		}
	}
	return k
}

// TestWhatIsOverNeverRunsAgain: whoever holds it and whatever else is claimed, nobody
// claims or starts a slot that the records say is over, or lets go of that word.
func TestWhatIsOverNeverRunsAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawJob(t)
		svc := &k.services[0]
		over := map[int]bool{}
		for _, c := range k.claims {
			over[c.Slot] = over[c.Slot] || svc.Outcome(c).Over()
		}
		for id, plan := range k.decideAll(LAN()) {
			for _, c := range plan.Claims {
				if over[c.Slot] && (c.Reuse.IsZero() || c.Revision != svc.Revision) {
					t.Fatalf("%s claims slot %d, which is over: %+v", id, c.Slot, plan)
				}
			}
			for _, c := range k.claims {
				ends := svc.Outcome(c).Over()
				if ends && slices.Contains(plan.Start, c.Replica) || over[c.Slot] && !ends && c.Holder == id && slices.Contains(plan.Start, c.Replica) {
					t.Fatalf("%s starts slot %d, which is over", id, c.Slot)
				}
				if ends && slices.ContainsFunc(plan.Releases, func(d Drop) bool { return d.Replica == c.Replica }) {
					t.Fatalf("%s lets go the word that slot %d is over", id, c.Slot)
				}
			}
		}
	})
}

// TestSoManyAtOnce: claims that a plan makes never take the open slots of a job beyond its
// parallelism, and of what waits the lowest comes first.
func TestSoManyAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawJob(t)
		svc := &k.services[0]
		svc.Spec.Job.Parallelism = rapid.IntRange(1, 3).Draw(t, "limit")
		runs, fresh, over := map[int]bool{}, map[int]bool{}, map[int]bool{}
		for _, c := range k.claims {
			over[c.Slot] = over[c.Slot] || svc.Outcome(c).Over()
		}
		for _, c := range k.claims {
			removed := slices.ContainsFunc(k.peers, func(p shoal.Peer) bool { return p.ID == c.Holder && p.Removed })
			if c.Slot < svc.Replicas && !over[c.Slot] && !removed && k.lives[c.Holder].State == shoal.LifeAlive && svc.Runs(c.Revision) {
				runs[c.Slot] = true
			}
		}
		held := len(runs)
		for _, plan := range k.decideAll(LAN()) {
			for _, c := range plan.Claims {
				if c.Reuse.IsZero() && !runs[c.Slot] {
					fresh[c.Slot] = true
				}
			}
		}
		if len(fresh) > 0 && held+len(fresh) > svc.Spec.Job.Parallelism {
			t.Fatalf("%d slots run, %v begin: more than %d at once", held, fresh, svc.Spec.Job.Parallelism)
		}
	})
}

// TestJobWinner: the word that a slot is done counts before a claim that would win.
func TestJobWinner(t *testing.T) {
	k := newKit(3)
	k.jobOf("load", 1, 0)
	running := k.hold("load", 0, "p000")
	broken, finished := k.hold("load", 0, "p001"), k.hold("load", 0, "p002")
	k.came(broken, jobBroken)
	k.came(finished, jobDone)
	v := k.view("p000")
	if got := Winner(v, v.ClaimsOf("load")); got.Holder != finished.Holder {
		t.Errorf("Winner = %s, want %s, which did it", got.Holder, finished.Holder)
	}
	k.dead("p002", later-60e9)
	v = k.view("p000")
	if got := Winner(v, v.ClaimsOf("load")); got.Holder != finished.Holder {
		t.Errorf("Winner = %s, want the dead %s, which did it", got.Holder, finished.Holder)
	}
	if plan := k.decideAll(LAN())["p000"]; len(plan.Releases) != 1 || plan.Releases[0].Replica != running.Replica {
		t.Errorf("what still runs is not let go: %+v", plan)
	}
}

// TestJobReport: the states of a job, and what they say.
func TestJobReport(t *testing.T) {
	k := newKit(2)
	k.jobOf("load", 2, 0)
	first, second := k.hold("load", 0, "p000"), k.hold("load", 1, "p001")
	report := func() string {
		r, err := Report(k.view("p000"), "load", nil)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s: %d of %d, %d failed; %s", r.State, r.Healthy, r.Slots, r.Failed, r.FirstFailure)
	}
	k.came(first, jobDone)
	k.came(second, jobTried)
	if got, want := report(), "running: 1 of 2, 0 failed; exited with code 1 (2 attempts)"; got != want {
		t.Errorf("Report = %q, want %q", got, want)
	}
	k.came(second, jobBroken)
	if got, want := report(), "failed: 1 of 2, 1 failed; exited with code 1 (3 attempts)"; got != want {
		t.Errorf("Report = %q, want %q", got, want)
	}
	k.came(second, jobDone)
	if got, want := report(), "complete: 2 of 2, 0 failed; "; got != want {
		t.Errorf("Report = %q, want %q", got, want)
	}
}
