// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// scheduleFlags say when a job begins anew.
type scheduleFlags struct {
	cron, zone, missed, overlap string
}

// scheduleTerms are the flags that do.
var scheduleTerms = []string{"schedule", "zone", "missed", "overlap"}

func (s *scheduleFlags) add(f *pflag.FlagSet, of string) {
	f.StringVar(&s.cron, "schedule", "", of+": begin it anew at these times, like \"0 3 * * *\" or @daily")
	f.StringVar(&s.zone, "zone", "", of+": the time zone of --schedule, like Europe/Vienna (default: UTC)")
	f.StringVar(&s.missed, "missed", string(shoal.MissedSkip), of+": skip a run whose time passed while no peer was there, or make up for it once")
	f.StringVar(&s.overlap, "overlap", string(shoal.OverlapSkip), of+": skip a run whose time comes while the last one goes on, or replace that")
}

// edit changes what the flags name of a schedule, which may be nil; --schedule "" ends it.
func (s *scheduleFlags) edit(f *pflag.FlagSet, now *shoal.Schedule) (*shoal.Schedule, error) {
	var out shoal.Schedule
	if now != nil {
		out = *now
	}
	for _, t := range []struct {
		name string
		set  func()
	}{
		{"schedule", func() { out.Cron = s.cron }},
		{"zone", func() { out.Zone = s.zone }},
		{"missed", func() { out.Missed = shoal.MissedRun(s.missed) }},
		{"overlap", func() { out.Overlap = shoal.Overlap(s.overlap) }},
	} {
		switch {
		case !f.Changed(t.name):
		case t.name != "schedule" && out.Cron == "":
			return nil, usage("--%s: goes with --schedule", t.name)
		default:
			t.set()
		}
	}
	if out.Cron == "" {
		return nil, nil
	}
	return &out, nil
}

// nextRun is "; next in 4h", "" of what runs once.
func nextRun(j *api.Job) string {
	if j == nil || j.Next.IsZero() {
		return ""
	}
	return "; next in " + age(time.Until(j.Next))
}

// runsText says when a job runs, and for which time it did last.
func runsText(j *api.Job) string {
	if j == nil || j.Schedule == "" {
		return ""
	}
	text := j.Schedule
	if !j.Next.IsZero() {
		text += "; next " + moment(j.Next)
	}
	if !j.Run.IsZero() {
		text += "; last " + moment(j.Run)
	}
	return text
}

// scheduleJSON is when a job begins anew, in the words of x-shoal.schedule.
type scheduleJSON struct {
	Cron    string `json:"cron"`
	Zone    string `json:"zone,omitempty"`
	Missed  string `json:"missed,omitempty"`
	Overlap string `json:"overlap,omitempty"`
}

func scheduleJSONOf(s *shoal.Schedule) *scheduleJSON {
	if s == nil {
		return nil
	}
	return &scheduleJSON{s.Cron, s.Zone, string(s.Missed), string(s.Overlap)}
}
