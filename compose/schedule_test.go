// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func TestSchedules(t *testing.T) {
	for text, want := range map[string]shoal.Schedule{
		"'0 3 * * *'":      {Cron: "0 3 * * *"},
		"'@daily'":         {Cron: "@daily"},
		"{cron: '@daily'}": {Cron: "@daily"},
		"{cron: '*/5 * * * 1-5', zone: Europe/Vienna, missed: once, overlap: replace}": {Cron: "*/5 * * * 1-5", Zone: "Europe/Vienna", Missed: shoal.MissedOnce, Overlap: shoal.OverlapReplace},
	} {
		p, err := fromText(t, jobFile("deploy: {mode: replicated-job}, x-shoal: {schedule: "+text+"}"), Options{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(&want, p.Specs[0].Schedule); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		again(t, p.Specs)
	}
}

func TestBadSchedules(t *testing.T) {
	for text, want := range map[string]string{
		"'0 3 * *'":                         "stdin:2: services.load.x-shoal.schedule: must be five fields, minute, hour, day of the month, month and day of the week",
		"'0 0 30 2 *'":                      "stdin:2: services.load.x-shoal.schedule: never comes",
		"'@every 5m'":                       "stdin:2: services.load.x-shoal.schedule: cannot be \"@every 5m\"",
		"5":                                 "services.load.x-shoal.schedule: must be a mapping",
		"{zone: Europe/Vienna}":             "services.load.x-shoal.schedule: is missing; it says when",
		"{cron: '@daily', zone: Nowhere}":   "services.load.x-shoal.schedule.zone: must be a time zone like Europe/Vienna, got \"Nowhere\"",
		"{cron: '@daily', missed: twice}":   "services.load.x-shoal.schedule.missed: must be skip or once, got \"twice\"",
		"{cron: '@daily', overlap: allow}":  "services.load.x-shoal.schedule.overlap: must be skip or replace, got \"allow\"",
		"{cron: '@daily', timezone: Local}": "services.load.x-shoal.schedule.timezone: ",
		"{cron: '@daily', from: 5}":         "services.load.x-shoal.schedule.from: ",
	} {
		if _, err := fromText(t, jobFile("deploy: {mode: replicated-job}, x-shoal: {schedule: "+text+"}"), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Load = %v, want %q in it", text, err, want)
		}
	}
	if _, err := fromText(t, jobFile("x-shoal: {schedule: '@daily'}"), Options{}); err == nil || !strings.Contains(err.Error(), "x-shoal.schedule: is for deploy.mode replicated-job and global-job") {
		t.Errorf("of what stays: %v", err)
	}
}
