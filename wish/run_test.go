// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// backup is a job with a schedule.
func backup(fn ...func(*shoal.Spec)) shoal.Spec {
	s := spec("backup", 1)
	s.Mode, s.Job, s.Restart = shoal.ModeReplicatedJob, &shoal.Job{Attempts: 1}, shoal.Restart{Condition: shoal.RestartOnFailure}
	s.Schedule = &shoal.Schedule{Cron: "0 3 * * *"}
	for _, f := range fn {
		f(&s)
	}
	return s
}

func (p *place) backup(t *testing.T) *shoal.Service {
	t.Helper()
	s, ok := p.store.Desired().Service("backup")
	if !ok {
		t.Fatal("no backup")
	}
	return s
}

// due is what a peer asks for when a run's time has come.
func (p *place) due(t *testing.T, at int64) shoal.Wish {
	return shoal.Wish{Run: &shoal.RunWish{Service: "backup", Of: p.backup(t).Revision, At: at}}
}

func TestRuns(t *testing.T) {
	p := cluster(t, 1)[0]
	now := time.Now().Unix()
	made := backup()
	made.Run, made.Schedule.From = 77, 78 // that is not for users to say
	p.must(t, deploy(made))
	s := p.backup(t)
	if !s.IsAsleep() || s.Wanted() != 0 || s.Spec.Schedule.From < now || s.Spec.Schedule.From > now+5 {
		t.Errorf("deployed: run %d, from %d, wants %d", s.Spec.Run, s.Spec.Schedule.From, s.Wanted())
	}
	from := s.Spec.Schedule.From
	if got := p.must(t, deploy(backup())); got.Kind != shoal.ChangeNone {
		t.Errorf("the same again: %+v", got)
	}
	first := now + 3600
	if got := p.must(t, p.due(t, first)); got.Kind != shoal.ChangeUpdate || !strings.HasPrefix(got.Details[0], "run of ") {
		t.Errorf("a run: %+v", got)
	}
	if s = p.backup(t); s.Spec.Run != first || s.Wanted() != 1 || s.Revision.Seq != 2 || len(s.Past) != 0 {
		t.Errorf("it runs: %d, wants %d, revision %s, past %v", s.Spec.Run, s.Wanted(), s.Revision, s.Past)
	}
	for _, at := range []int64{first, first - 1} {
		if got := p.must(t, p.due(t, at)); got.Kind != shoal.ChangeNone || p.backup(t).Revision.Seq != 2 {
			t.Errorf("a run of %d again: %+v", at, got)
		}
	}

	labelled := backup(func(s *shoal.Spec) { s.Labels = map[string]string{"tier": "back"} })
	p.must(t, deploy(labelled))
	if s = p.backup(t); s.Spec.Run != first || !s.Runs(shoal.RevisionID{Seq: 2, Author: p.self}) || s.Spec.Schedule.From != from {
		t.Errorf("another label: run %d, past %v, from %d", s.Spec.Run, s.Past, s.Spec.Schedule.From)
	}
	p.must(t, p.due(t, first+3600))
	if s = p.backup(t); len(s.Past) != 1 || s.Past[0].Spec.Labels != nil {
		t.Errorf("after another run the past is %+v, want what had no label", s.Past)
	}

	got := p.must(t, deploy(backup(func(s *shoal.Spec) { s.Image = "hello:2" })))
	if s = p.backup(t); !s.IsAsleep() || s.Spec.Schedule.From != from || slices.Contains(got.Details, "run changed") {
		t.Errorf("another image: run %d, %v", s.Spec.Run, got.Details)
	}
	got = p.must(t, deploy(backup(func(s *shoal.Spec) { s.Image, s.Schedule.Cron, s.Schedule.Zone = "hello:2", "@hourly", "Europe/Vienna" })))
	if !slices.Equal(got.Details, []string{"schedule 0 3 * * * -> @hourly Europe/Vienna"}) {
		t.Errorf("another schedule: %v", got.Details)
	}
	got = p.must(t, deploy(backup(func(s *shoal.Spec) {
		s.Image, s.Schedule.Cron, s.Schedule.Zone, s.Schedule.Missed = "hello:2", "@hourly", "Europe/Vienna", shoal.MissedOnce
	})))
	if !slices.Equal(got.Details, []string{"schedule changed what is done about missed and overlapping runs"}) {
		t.Errorf("another word on missed runs: %v", got.Details)
	}

	p.must(t, operate(shoal.OpRestart, "backup"))
	if s = p.backup(t); s.Spec.Run < now || s.Spec.Run > time.Now().Unix()+1 || s.Spec.Restarts != 0 {
		t.Errorf("restarted at %d it runs %d", now, s.Spec.Run)
	}
	last := s.Spec.Run
	p.must(t, operate(shoal.OpRestart, "backup"))
	if s = p.backup(t); s.Spec.Run <= last {
		t.Errorf("restarted again it runs %d, as before %d", s.Spec.Run, last)
	}
	last = s.Spec.Run
	got = p.must(t, steer(shoal.RolloutBack, func(w *shoal.RolloutWish) { w.Service = "backup" }))
	if s = p.backup(t); s.Spec.Schedule.String() != "@hourly Europe/Vienna" || s.Spec.Schedule.Missed != "" || s.Spec.Run != last {
		t.Errorf("back to what has the same container: %v, %+v", got.Details, s.Spec.Schedule)
	}
	got = p.must(t, deploy(backup(func(s *shoal.Spec) { s.Image, s.Schedule = "hello:2", nil })))
	if s = p.backup(t); s.Spec.Run != 0 || s.Wanted() != 1 || !slices.Contains(got.Details, "schedule @hourly Europe/Vienna -> off") {
		t.Errorf("without a schedule: run %d, wants %d, %v", s.Spec.Run, s.Wanted(), got.Details)
	}
}

func TestRunIsFenced(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(backup(), spec("web", 1)))
	refuse := func(name string, w shoal.Wish, want error) {
		t.Helper()
		if _, err := p.Submit(context.Background(), w, shoal.UpdateOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	seen := p.due(t, 1_900_000_000)
	p.must(t, deploy(backup(func(s *shoal.Spec) { s.Image = "hello:2" })))
	refuse("changed meanwhile", seen, shoal.ErrConflict)
	p.must(t, operate(shoal.OpStop, "backup"))
	refuse("stopped", p.due(t, 1_900_000_000), shoal.ErrConflict)
	web, _ := p.store.Desired().Service("web")
	refuse("has no schedule", shoal.Wish{Run: &shoal.RunWish{Service: "web", Of: web.Revision, At: 5}}, shoal.ErrConflict)
	refuse("is not there", shoal.Wish{Run: &shoal.RunWish{Service: "nosuch", At: 5}}, shoal.ErrNotFound)
	needs := spec("app", 1)
	needs.DependsOn = []shoal.Dependency{{Service: "backup", Condition: shoal.ConditionCompleted}}
	refuse("waits for it", deploy(needs), shoal.ErrRefused)
}

// TestEqualRunsMerge: two that begin a run at once, or the two sides of a split, mean the
// same, and what runs one goes on as the other.
func TestEqualRunsMerge(t *testing.T) {
	peers := cluster(t, 2)
	a, b := peers[0], peers[1]
	a.must(t, deploy(backup()))
	exchange(peers)
	for i := range 12 {
		at := int64(2_000_000_000 + i*3600)
		a.must(t, a.due(t, at))
		if i != 5 { // one side missed it
			b.must(t, b.due(t, at))
		}
		if i%3 == 0 {
			exchange(peers)
		}
	}
	exchange(peers)
	for _, p := range peers {
		s := p.backup(t)
		if n := len(p.store.Desired().Conflicts); n != 0 || s.Spec.Run != 2_000_000_000+11*3600 || len(s.Past) > 1 {
			t.Errorf("%d conflicts, run %d, %d remembered", n, s.Spec.Run, len(s.Past))
		}
		for _, h := range s.Heads {
			if h.Seq == s.Revision.Seq && !s.Runs(h) {
				t.Errorf("%s does not run as %s", h, s.Revision)
			}
		}
	}
}
