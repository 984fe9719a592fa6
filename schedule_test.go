// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

func clock(t rapid.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestDue: which run is due at ten, of what is to run at every full hour.
func TestDue(t *testing.T) {
	now := clock(t, "2026-03-02T10:00:00Z")
	ago := func(d time.Duration) int64 { return now.Add(-d).Unix() }
	over := shoal.JobStatus{Wanted: 1, Completed: 1}
	for name, c := range map[string]struct {
		late     time.Duration // after ten
		from     int64
		run      int64
		last     shoal.JobStatus
		missed   shoal.MissedRun
		overlap  shoal.Overlap
		stopped  bool
		want     int64
		wantNext string
	}{
		"the first":                      {from: ago(time.Minute), want: now.Unix()},
		"deployed at that moment":        {from: now.Unix()},
		"not yet":                        {late: -time.Second, from: ago(time.Minute), wantNext: "10:00"},
		"a little late":                  {late: 59 * time.Second, from: ago(time.Minute), want: now.Unix()},
		"too late":                       {late: 61 * time.Second, from: ago(time.Minute)},
		"made up for":                    {late: 30 * time.Minute, from: ago(time.Minute), missed: shoal.MissedOnce, want: now.Unix()},
		"many are made up for once":      {late: 30 * time.Minute, from: ago(500 * time.Hour), missed: shoal.MissedOnce, want: now.Unix()},
		"none was missed":                {late: 30 * time.Minute, from: ago(-time.Minute), missed: shoal.MissedOnce},
		"has begun":                      {late: time.Second, run: now.Unix(), last: over},
		"the next after one":             {run: ago(time.Hour), last: over, want: now.Unix()},
		"the last one failed":            {run: ago(time.Hour), last: shoal.JobStatus{Wanted: 1, Failed: 1}, want: now.Unix()},
		"the last one goes on":           {run: ago(time.Hour), last: shoal.JobStatus{Wanted: 1, Running: 1}},
		"and is replaced":                {run: ago(time.Hour), last: shoal.JobStatus{Wanted: 1, Running: 1}, overlap: shoal.OverlapReplace, want: now.Unix()},
		"it ended, and one was missed":   {late: time.Hour / 2, run: ago(time.Hour), last: over, missed: shoal.MissedOnce, want: now.Unix()},
		"a user ran it between":          {run: ago(time.Minute), last: over, want: now.Unix()},
		"a user stopped it":              {from: ago(time.Minute), stopped: true, wantNext: "never"},
		"a part of the last one is over": {run: ago(time.Hour), last: shoal.JobStatus{Wanted: 2, Completed: 1}},
	} {
		s := shoal.Service{Stopped: c.stopped, Spec: shoal.Spec{
			Run: c.run, Schedule: &shoal.Schedule{Cron: "0 * * * *", Missed: c.missed, Overlap: c.overlap, From: c.from},
		}}
		c.last.Asleep = s.IsAsleep()
		got, next := s.Due(now.Add(c.late), c.last)
		if got != c.want {
			t.Errorf("%s: Due = %s, want %s", name, time.Unix(got, 0).UTC(), time.Unix(c.want, 0).UTC())
		}
		wantNext := map[string]time.Time{"": now.Add(time.Hour), "10:00": now, "never": {}}[c.wantNext]
		if !next.Equal(wantNext) {
			t.Errorf("%s: next = %s, want %s", name, next, wantNext)
		}
	}
}

// TestDueIsOneOfItsTimes: what is due is a time of the schedule, not in the future, not
// before the last, and the latest of those; what has begun is not due again.
func TestDueIsOneOfItsTimes(t *testing.T) {
	crons := []string{"* * * * *", "*/7 * * * *", "0 3 * * *", "30 2 * * 0", "0 0 1 * *", "0 0 29 2 *", "* 4 * * 1", "15,45 9-17 * * 1-5"}
	rapid.Check(t, func(t *rapid.T) {
		sched := &shoal.Schedule{
			Cron: rapid.SampledFrom(crons).Draw(t, "cron"), Zone: rapid.SampledFrom([]string{"", "Europe/Vienna", "Australia/Lord_Howe"}).Draw(t, "zone"),
			Missed: rapid.SampledFrom([]shoal.MissedRun{"", shoal.MissedOnce}).Draw(t, "missed"), From: 1_772_000_000,
		}
		now := time.Unix(sched.From+rapid.Int64Range(0, 40_000_000).Draw(t, "now"), 0)
		s := shoal.Service{Spec: shoal.Spec{Schedule: sched}}
		if rapid.Bool().Draw(t, "run?") {
			s.Spec.Run = rapid.Int64Range(sched.From, now.Unix()).Draw(t, "run")
		}
		run, next := s.Due(now, shoal.JobStatus{})
		if next.IsZero() || !next.After(now) {
			t.Fatalf("next is %s, now %s", next, now)
		}
		first := sched.Next(time.Unix(max(sched.From, s.Spec.Run), 0))
		if run == 0 {
			if sched.Missed == shoal.MissedOnce && !first.After(now) {
				t.Fatalf("nothing is due at %s, but %s was missed", now, first)
			}
			return
		}
		at := time.Unix(run, 0)
		if at.After(now) || at.Before(first) || !sched.Next(at.Add(-time.Second)).Equal(at) {
			t.Fatalf("%s is due at %s, the first was %s", at, now, first)
		}
		if later := sched.Next(at); !later.After(now) {
			t.Fatalf("%s is due at %s, but %s is later", at, now, later)
		}
		if sched.Missed != shoal.MissedOnce && now.Sub(at) > shoal.StartWindow {
			t.Fatalf("%s is due at %s, too late", at, now)
		}
		s.Spec.Run = run
		if again, _ := s.Due(now, shoal.JobStatus{Wanted: 1, Completed: 1}); again != 0 {
			t.Fatalf("%s is due again", time.Unix(again, 0))
		}
	})
}

// TestClockChange: a time that is skipped begins no run, one that comes twice two.
func TestClockChange(t *testing.T) {
	sched := shoal.Schedule{Cron: "30 2 * * *", Zone: "Europe/Vienna"}
	for name, c := range map[string]struct{ from, until, want string }{
		"spring": {"2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z", "28 02:30, 30 02:30"},
		"autumn": {"2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z", "24 02:30, 25 02:30, 25 02:30, 26 02:30"},
	} {
		var got []string
		for at := sched.Next(clock(t, c.from)); at.Before(clock(t, c.until)); at = sched.Next(at) {
			got = append(got, at.Format("2 15:04"))
		}
		if text := strings.Join(got, ", "); c.want != text {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

func TestBadSchedules(t *testing.T) {
	job := shoal.Spec{
		Name: "backup", Image: "db:1", Mode: shoal.ModeReplicatedJob, Replicas: 1, Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable,
		Restart: shoal.Restart{Condition: shoal.RestartOnFailure}, Job: &shoal.Job{Attempts: 1},
	}
	for name, c := range map[string]struct {
		sched shoal.Schedule
		want  string // field: the beginning of why
	}{
		"fine":          {shoal.Schedule{Cron: "0 3 * * 1-5", Zone: "America/New_York", Missed: "once", Overlap: "replace"}, ""},
		"a name":        {shoal.Schedule{Cron: "@daily"}, ""},
		"empty":         {shoal.Schedule{}, "schedule.cron: is missing"},
		"six fields":    {shoal.Schedule{Cron: "0 0 3 * * *"}, "schedule.cron: must be five fields"},
		"four fields":   {shoal.Schedule{Cron: "0 3 * *"}, "schedule.cron: must be five fields"},
		"minute 60":     {shoal.Schedule{Cron: "60 * * * *"}, "schedule.cron: must be five fields"},
		"unknown name":  {shoal.Schedule{Cron: "@fortnightly"}, "schedule.cron: must be five fields"},
		"a period":      {shoal.Schedule{Cron: "@every 5m"}, "schedule.cron: cannot be \"@every 5m\""},
		"zone in it":    {shoal.Schedule{Cron: "CRON_TZ=UTC 0 3 * * *"}, "schedule.cron: cannot name a time zone"},
		"never comes":   {shoal.Schedule{Cron: "0 0 30 2 *"}, "schedule.cron: never comes"},
		"unknown zone":  {shoal.Schedule{Cron: "@daily", Zone: "Mars/Olympus"}, "schedule.zone: must be a time zone"},
		"the machine's": {shoal.Schedule{Cron: "@daily", Zone: "Local"}, "schedule.zone: must be a time zone"},
		"path as zone":  {shoal.Schedule{Cron: "@daily", Zone: "../../etc/passwd"}, "schedule.zone: must be a time zone"},
		"missed":        {shoal.Schedule{Cron: "@daily", Missed: "twice"}, "schedule.missed: must be skip or once"},
		"overlap":       {shoal.Schedule{Cron: "@daily", Overlap: "allow"}, "schedule.overlap: must be skip or replace"},
		"before 1970":   {shoal.Schedule{Cron: "@daily", From: -1}, "schedule: must be after 1970"},
	} {
		s := job
		s.Schedule = &c.sched
		err := s.Validate()
		bad, is := errors.AsType[*shoal.InvalidError](err)
		if c.want == "" && err != nil || c.want != "" && (!is || !strings.HasPrefix(bad.Field+": "+bad.Why, c.want)) {
			t.Errorf("%s: Validate = %v, want %q", name, err, c.want)
		}
	}
	stays := job
	stays.Mode, stays.Job, stays.Schedule = shoal.ModeReplicated, nil, &shoal.Schedule{Cron: "@daily"}
	if err := stays.Validate(); err == nil || !strings.Contains(err.Error(), "schedule") {
		t.Errorf("of what stays: %v", err)
	}
	alone := job
	alone.Run = 5
	if err := alone.Validate(); err == nil || !strings.Contains(err.Error(), "run") {
		t.Errorf("a run without a schedule: %v", err)
	}
}

// TestRunsAreOneJob: what one run came to does not count for the next, and a job that has
// not run yet wants nothing and is not complete.
func TestRunsAreOneJob(t *testing.T) {
	spec := shoal.Spec{Name: "load", Image: "load:1", Mode: shoal.ModeReplicatedJob, Replicas: 1, Schedule: &shoal.Schedule{Cron: "@hourly"}}
	next, other := spec, spec
	next.Run, other.Image = 3600, "load:2"
	if !spec.SameRun(&next) || spec.SameContainer(&next) || spec.SameRun(&other) {
		t.Error("two runs of a job are the same but for the container, which each has for itself")
	}
	first, second := shoal.RevisionID{Seq: 1, Author: "A"}, shoal.RevisionID{Seq: 2, Author: "A"}
	view := func(s shoal.Spec) *shoal.View {
		d := &shoal.Desired{
			Services: []shoal.Service{{Spec: s, Revision: second, Replicas: 1, Past: []shoal.PastRevision{{Revision: first, Spec: next}}}},
			Claims:   []shoal.Claim{{Holder: "A", Service: "load", Revision: first, Outcome: done}},
			Peers:    []shoal.Peer{{ID: "A"}},
		}
		return shoal.NewView("A", d, nil, nil)
	}
	if st, _ := view(spec).Job("load"); st != (shoal.JobStatus{Asleep: true}) || st.IsComplete() || st.IsOver() {
		t.Errorf("before the first run: %+v", st)
	}
	if st, _ := view(next).Job("load"); !st.IsComplete() {
		t.Errorf("the same run by another revision: %+v", st)
	}
	next2 := next
	next2.Run = 7200
	if st, _ := view(next2).Job("load"); st != (shoal.JobStatus{Wanted: 1}) {
		t.Errorf("the next run: %+v", st)
	}
	if got := next.RunText(); got != "01:00 on 1 Jan 1970" {
		t.Errorf("RunText = %q", got)
	}
}

// FuzzSchedule: whatever is accepted has a next time after each, in its zone.
func FuzzSchedule(f *testing.F) {
	f.Add("0 3 * * 1-5", "Europe/Vienna", int64(1_772_000_000))
	f.Add("@daily", "", int64(0))
	f.Add("*/5 0-23/2 1,15 JAN-MAR SUN", "UTC", int64(5))
	f.Fuzz(func(t *testing.T, text, zone string, at int64) {
		s := shoal.Spec{
			Name: "a", Image: "a", Mode: shoal.ModeReplicatedJob, Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable,
			Restart: shoal.Restart{Condition: shoal.RestartOnFailure}, Job: &shoal.Job{Attempts: 1},
			Schedule: &shoal.Schedule{Cron: text, Zone: zone},
		}
		if s.Validate() != nil {
			return
		}
		now := time.Unix(max(0, at)%4_000_000_000, 0)
		svc := shoal.Service{Spec: s}
		if next := s.Schedule.Next(now); !next.IsZero() && !next.After(now) {
			t.Errorf("after %s comes %s", now, next)
		}
		if run, _ := svc.Due(now, shoal.JobStatus{}); run > now.Unix() {
			t.Errorf("%d is due at %d", run, now.Unix())
		}
	})
}
