// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/runtime"
)

// load is a job whose runs exit with code after the given time.
func (s *sea) load(image string, code int, takes time.Duration) shoal.Spec {
	for _, p := range s.peers {
		p.engine.SetProgram(image, runtime.Program{Exits: true, ExitAfter: takes, ExitCode: code})
	}
	return shoal.Spec{
		Name: "load", Image: image, Mode: shoal.ModeReplicatedJob, Job: &shoal.Job{Attempts: 3},
		Restart: shoal.Restart{Condition: shoal.RestartOnFailure}, Reservations: shoal.Resources{MemBytes: 1 << 30},
	}
}

// jobStatus is what a peer knows of the job.
func (p *tank) jobStatus() shoal.JobStatus {
	st, _ := p.View().Job("load")
	return st
}

// TestJobCompletes: every slot runs once, its container stays for its logs and takes no
// room, and nothing is written or started any more, also by a daemon that starts again.
func TestJobCompletes(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		s.startAll()
		s.wait(time.Second)
		s.wish(s.load("hello:1", 0, 2*time.Second), 1, 3, s.ids...)
		s.until(20*time.Second, "completed", func() bool { return s.first().jobStatus().IsComplete() })
		s.wait(10 * time.Second)
		p := s.first()
		if r := p.replica("load", 0); r.Phase != shoal.PhaseStopped || r.Reason != "completed" || r.ExitCode != 0 || r.Restarts != 0 {
			t.Errorf("replica = %+v, want it stopped: completed", r)
		}
		if free := p.state().Free.MemBytes; free != 16<<30 {
			t.Errorf("%d bytes are free, want all", free)
		}
		before := s.updates()
		p.stop()
		s.wait(time.Minute)
		p.start()
		s.wait(5 * time.Minute)
		if n := s.updates(); n != before {
			t.Errorf("%d updates after the end, want none", n-before)
		}
		for _, p := range s.peers {
			if c := p.engine.Counts(shoal.ReplicaID{}); c.Starts != 1 || c.Removes != 0 {
				t.Errorf("counts of %s = %+v, want one start and nothing removed", p.id, c)
			}
		}
		s.remove("load")
		s.until(10*time.Second, "removed", func() bool { return p.containers() == 0 })
	})
}

// TestJobIsGivenUp: attempts are recorded as they come, and counted once each although the
// daemon restarts between any two of them.
func TestJobIsGivenUp(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		s.startAll()
		s.wait(time.Second)
		p := s.first()
		s.wish(s.load("hello:1", 4, 3*time.Second), 1, 1, p.id)
		for n := 1; n <= 3; n++ {
			s.until(30*time.Second, "tried", func() bool { st := p.jobStatus(); return st.Attempts == n || st.IsFailed() })
			p.stop()
			s.wait(2 * time.Second)
			p.start()
			s.wait(time.Second)
			if st := p.jobStatus(); st.Attempts != n {
				t.Fatalf("after attempt %d and a restart: %+v", n, st)
			}
		}
		s.wait(10 * time.Minute)
		st := p.jobStatus()
		if c := p.engine.Counts(shoal.ReplicaID{}); !st.IsFailed() || st.Attempts != 3 || st.Why != "exited with code 4" || c.Starts != 3 {
			t.Errorf("status = %+v after %+v, want it given up after 3 starts", st, c)
		}
		if r := p.replica("load", 0); r.Phase != shoal.PhaseFailed || r.ExitCode != 4 {
			t.Errorf("replica = %+v, want it failed", r)
		}
	})
}

// TestJobEndsWhileNobodyWatches: an end while the daemon is down counts, once.
func TestJobEndsWhileNobodyWatches(t *testing.T) {
	for name, code := range map[string]int{"well": 0, "badly": 1} {
		t.Run(name, func(t *testing.T) {
			inSea(t, 1, func(s *sea) {
				s.startAll()
				s.wait(time.Second)
				p := s.first()
				s.wish(s.load("hello:1", code, time.Minute), 1, 1, p.id)
				s.until(10*time.Second, "runs", func() bool { return p.ready("load") == 1 })
				p.stop()
				s.wait(5 * time.Minute)
				p.start()
				s.wait(4 * time.Second)
				st := p.jobStatus()
				if code == 0 && !st.IsComplete() || code != 0 && st.Attempts != 1 {
					t.Errorf("status = %+v, want the end counted once", st)
				}
				if c := p.engine.Counts(shoal.ReplicaID{}); code == 0 && c.Starts != 1 || code != 0 && c.Starts != 2 {
					t.Errorf("counts = %+v", c)
				}
			})
		})
	}
}

// TestJobOfADeadHolder: what it completed is not run again, what it had not is, with the
// attempts that it recorded.
func TestJobOfADeadHolder(t *testing.T) {
	inSea(t, 4, func(s *sea) {
		s.startAll()
		s.wait(time.Second)
		p, q := s.peers[s.ids[0]], s.peers[s.ids[1]]
		spec := s.load("hello:1", 0, time.Second)
		q.engine.SetProgram("hello:1", runtime.Program{Exits: true, ExitAfter: 10 * time.Second, ExitCode: 5})
		s.wish(spec, 1, 2, q.id, p.id)
		s.until(30*time.Second, "tried once", func() bool { st := p.jobStatus(); return st.Completed == 1 && st.Attempts == 1 })
		q.stop()
		q.engine.KillAll()
		for _, p := range s.peers {
			p.engine.SetProgram("hello:1", runtime.Program{Exits: true, ExitAfter: time.Second, ExitCode: 6})
		}
		s.until(time.Minute, "given up", func() bool { return p.jobStatus().IsFailed() })
		starts := 0
		for _, p := range s.peers {
			starts += p.engine.Counts(shoal.ReplicaID{}).Starts
		}
		if st := p.jobStatus(); st.Attempts != 3 || st.Completed != 1 || starts != 4 {
			t.Errorf("status = %+v, %d starts; want two more attempts of the lost slot, none of the completed", st, starts)
		}
	})
}

// TestJobAnew: a new revision with another container runs all anew, and the old container
// goes; the same container does not.
func TestJobAnew(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		s.startAll()
		s.wait(time.Second)
		p := s.first()
		s.load("hello:2", 0, time.Second)
		spec := s.load("hello:1", 0, time.Second)
		s.wish(spec, 1, 1, p.id)
		s.until(20*time.Second, "completed", func() bool { return p.jobStatus().IsComplete() })
		again := spec
		again.Image = "hello:2"
		s.wish(again, 2, 1, p.id)
		s.until(20*time.Second, "runs anew", func() bool { return p.ready("load") == 1 })
		s.until(20*time.Second, "completed again", func() bool { return p.jobStatus().IsComplete() })
		s.wait(5 * time.Second)
		if n := p.containers(); n != 1 {
			t.Errorf("%d containers, want that of the last run", n)
		}
	})
}

// TestLeavingKeepsTheWord: who leaves lets everything go but the word of what is over.
func TestLeavingKeepsTheWord(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		s.startAll()
		s.wait(time.Second)
		p := s.first()
		s.wish(s.load("hello:1", 0, time.Second), 1, 2, p.id, p.id)
		s.until(20*time.Second, "completed", func() bool { return p.jobStatus().IsComplete() })
		if err := p.system.Leave(s.t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := p.jobStatus(); !st.IsComplete() || p.containers() != 0 {
			t.Errorf("status = %+v with %d containers, want the word and no container", st, p.containers())
		}
	})
}

func TestDraftsOfJobs(t *testing.T) {
	id := func(n byte) shoal.ReplicaID { return shoal.ReplicaID{n} }
	one, two := shoal.RevisionID{Seq: 1, Author: "op"}, shoal.RevisionID{Seq: 2, Author: "op"}
	tried, done := shoal.JobOutcome{Attempts: 1, Code: 2}, shoal.JobOutcome{Attempts: 2, Completed: true}
	own := []shoal.Claim{
		{Holder: "me", Service: "load", Slot: 0, Replica: id(1), Revision: one, Outcome: &tried},
		{Holder: "me", Service: "load", Slot: 1, Replica: id(2), Revision: one, Outcome: &done},
		{Holder: "me", Service: "load", Slot: 2, Replica: id(3), Revision: one, Outcome: &tried},
	}
	news := newsOf(own, map[shoal.ReplicaID]shoal.JobOutcome{id(1): done, id(2): tried, id(3): tried, id(9): done})
	if want := map[shoal.ReplicaID]shoal.JobOutcome{id(1): done}; !cmp.Equal(news, want) {
		t.Errorf("newsOf = %v, want what is not recorded, and nothing of what is over", news)
	}
	plan := placement.Plan{Claims: []placement.NewClaim{
		{Service: "load", Slot: 1, Revision: two, Reuse: id(2), LeavesSlot: 1},
		{Service: "load", Slot: 2, Revision: two, Replaces: id(3)},
		{Service: "load", Slot: 5, Revision: two, Outcome: &tried},
	}}
	n := byte(50)
	got := drafts("me", own, nil, &plan, news, nil, func() shoal.ReplicaID { n++; return id(n) })
	want := []*shoal.ClaimBody{{Peer: "me", Service: "load", Holds: []shoal.Holding{
		{Slot: 0, Replica: id(1), Revision: one, Outcome: &done},
		{Slot: 1, Replica: id(2), Revision: two, Outcome: &done},
		{Slot: 2, Replica: id(51), Revision: two},
		{Slot: 5, Replica: id(52), Revision: two, Outcome: &tried},
	}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("drafts (-want +got):\n%s", d)
	}
	left := releaseAll("me", own, news)
	if len(left) != 1 || len(left[0].Holds) != 2 || len(left[0].Released) != 1 || left[0].Released[0].Slot != 2 {
		t.Errorf("releaseAll = %+v, want what is over kept", left)
	}
	if again := releaseAll("me", own[1:2], nil); len(again) != 0 {
		t.Errorf("releaseAll of what is over = %+v, want nothing to write", again)
	}
}
