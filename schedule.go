// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"cmp"
	"strings"
	"time"
	_ "time/tzdata" // a peer without zone files must see the same times as all others

	"github.com/robfig/cron/v3"
)

// Schedule begins a job anew at certain times. Between its runs, and before the first, the
// service wants nothing. A run is a revision that differs from the one before in [Spec.Run]
// alone, so two peers that begin it at once, or the two sides of a split, write the same.
type Schedule struct {
	// Cron says when: five fields as in crontab(5), minute, hour, day of the month, month
	// and day of the week, or @hourly, @daily, @weekly, @monthly or @yearly.
	Cron string
	// Zone is where, a name of the IANA time zone database; "": UTC. Where a clock is set
	// back, a time that comes twice begins two runs; one that is skipped begins none.
	Zone    string
	Missed  MissedRun
	Overlap Overlap
	// From is the time after which a run can be due, Unix seconds, by the clock of the peer
	// that accepted this Cron and Zone. No user says it.
	From int64
}

// MissedRun says what becomes of a run that no peer began within [StartWindow] of its time.
type MissedRun string

// What becomes of it. "" is MissedSkip.
const (
	MissedSkip MissedRun = "skip" // it is left out
	MissedOnce MissedRun = "once" // of all that were missed, the last is made up for
)

// Overlap says what becomes of a run whose time comes while the one before is not over.
type Overlap string

// What becomes of it. "" is OverlapSkip.
const (
	OverlapSkip    Overlap = "skip"    // it is missed
	OverlapReplace Overlap = "replace" // the one before is ended, and it begins
)

// StartWindow is how long after its time a run still begins: longer than it takes all peers
// that come before in the order, and shorter than two runs can be apart.
const StartWindow = time.Minute

// cronOptions are the fields of crontab(5) and its names for some times.
const cronOptions = cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor

// times reads Cron and Zone.
func (s *Schedule) times() (cron.Schedule, error) {
	zone, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "Local" {
		return nil, invalid("schedule.zone", "must be a time zone like Europe/Vienna, got %q", s.Zone)
	}
	switch text := strings.TrimSpace(s.Cron); {
	case text == "":
		return nil, invalid("schedule.cron", "is missing; it says when, like \"0 3 * * *\" or @daily")
	case strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ="):
		return nil, invalid("schedule.cron", "cannot name a time zone, got %q; zone does", s.Cron)
	case strings.HasPrefix(text, "@every"):
		return nil, invalid("schedule.cron", "cannot be %q, for it does not say from when on; \"*/10 * * * *\" is every ten minutes", s.Cron)
	}
	t, err := cron.NewParser(cronOptions).Parse(s.Cron)
	if err != nil {
		return nil, invalid("schedule.cron", "must be five fields, minute, hour, day of the month, month and day of the week, like \"0 3 * * 1-5\", got %q: %s",
			s.Cron, strings.TrimPrefix(err.Error(), "expected exactly 5 fields, "))
	}
	return zoned{t, zone}, nil
}

// zoned reads times in a zone; what it extends gives them back in the one it was asked in.
type zoned struct {
	cron.Schedule
	zone *time.Location
}

func (z zoned) Next(t time.Time) time.Time { return z.Schedule.Next(t.In(z.zone)) }

// Next returns the first time after t, in the schedule's zone; the zero time if none comes,
// or the schedule is not valid.
func (s *Schedule) Next(t time.Time) time.Time {
	times, err := s.times()
	if err != nil {
		return time.Time{}
	}
	return times.Next(t)
}

// String returns "0 3 * * * Europe/Vienna".
func (s *Schedule) String() string {
	if s.Zone == "" {
		return s.Cron
	}
	return s.Cron + " " + s.Zone
}

// SameTimes reports whether both are due at the same times: what is missed or overlaps may
// be treated otherwise.
func (s *Schedule) SameTimes(o *Schedule) bool {
	return s != nil && o != nil && s.Cron == o.Cron && s.Zone == o.Zone
}

// last returns the last time in (after, now]; the zero time if there is none. It looks back
// ever further, so that it does not walk through all times of a long absence.
func (s *Schedule) last(after, now time.Time) time.Time {
	times, err := s.times()
	if err != nil {
		return time.Time{}
	}
	for back := StartWindow; ; back *= 60 {
		from := now.Add(-back)
		isAll := !from.After(after)
		if isAll {
			from = after
		}
		var last time.Time
		for t := times.Next(from); !t.IsZero() && !t.After(now); t = times.Next(t) {
			last = t
		}
		if !last.IsZero() || isAll || back > 10*365*24*time.Hour {
			return last
		}
	}
}

// IsAsleep reports whether a service wants nothing because the time of its first run, or of
// its first run with this container, has not come.
func (s *Service) IsAsleep() bool { return s.Spec.Schedule != nil && s.Spec.Run == 0 }

// Due returns for which time a run is to begin now, which is [Spec.Run] of it, with what has
// become of the last one: 0 if none is. next is when to ask again, if nothing changes until
// then; zero: never.
func (s *Service) Due(now time.Time, last JobStatus) (run int64, next time.Time) {
	sched := s.Spec.Schedule
	if sched == nil || s.Stopped {
		return 0, time.Time{}
	}
	next = sched.Next(now)
	if s.Spec.Run != 0 && !last.IsOver() && sched.Overlap != OverlapReplace {
		return 0, next
	}
	after := time.Unix(max(s.Spec.Run, sched.From), 0)
	if window := now.Add(-StartWindow); sched.Missed != MissedOnce && after.Before(window) {
		after = window
	}
	if t := sched.last(after, now); !t.IsZero() {
		return t.Unix(), next
	}
	return 0, next
}

// checkSchedule checks when a job runs.
func (s *Spec) checkSchedule() error {
	sched := s.Schedule
	switch {
	case sched == nil && s.Run != 0:
		return invalid("run", "is of a schedule, and there is none")
	case sched == nil:
		return nil
	case !s.Mode.IsJob():
		return invalid("schedule", "is for the modes %s and %s, got mode %s", ModeReplicatedJob, ModeGlobalJob, s.Mode)
	case sched.From < 0 || s.Run < 0:
		return invalid("schedule", "must be after 1970")
	}
	times, err := sched.times()
	if err != nil {
		return err
	}
	if times.Next(time.Unix(cmp.Or(s.Run, sched.From), 0)).IsZero() {
		return invalid("schedule.cron", "never comes, got %q", sched.Cron)
	}
	switch sched.Missed {
	case "", MissedSkip, MissedOnce:
	default:
		return oneOf("schedule.missed", sched.Missed, MissedSkip, MissedOnce)
	}
	switch sched.Overlap {
	case "", OverlapSkip, OverlapReplace:
	default:
		return oneOf("schedule.overlap", sched.Overlap, OverlapSkip, OverlapReplace)
	}
	return nil
}

// SameRun reports whether both specs are of one job with a schedule, and differ at most in
// which of its runs they are.
func (s *Spec) SameRun(o *Spec) bool {
	if s.Schedule == nil || o.Schedule == nil {
		return false
	}
	a, b := *s, *o
	a.Run, b.Run = 0, 0
	return same(&a, &b)
}

// RunText says which run a revision is of, "03:00 on 2 Mar 2026", in its zone; "" if of none.
func (s *Spec) RunText() string {
	if s.Schedule == nil || s.Run == 0 {
		return ""
	}
	zone, err := time.LoadLocation(s.Schedule.Zone)
	if err != nil {
		zone = time.UTC
	}
	return time.Unix(s.Run, 0).In(zone).Format("15:04 on 2 Jan 2006")
}
