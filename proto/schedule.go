// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func scheduleMessage(s *shoal.Schedule) *shoalv1.Schedule {
	if s == nil {
		return nil
	}
	return &shoalv1.Schedule{Cron: s.Cron, Zone: s.Zone, Missed: string(s.Missed), Overlap: string(s.Overlap), From: s.From}
}

func scheduleOf(m *shoalv1.Schedule) *shoal.Schedule {
	if m == nil {
		return nil
	}
	return &shoal.Schedule{
		Cron: m.GetCron(), Zone: m.GetZone(), Missed: shoal.MissedRun(m.GetMissed()), Overlap: shoal.Overlap(m.GetOverlap()), From: m.GetFrom(),
	}
}

// What a schedule holds at most: bytes of each word, and Unix seconds.
const (
	maxSchedule = 200
	maxTime     = 1 << 40
)

// schedule bounds what is computed with; what makes sense, [shoal.Spec.Validate] says.
func (c *checker) schedule(s *shoal.Schedule, run int64) {
	c.between("run", run, 0, maxTime)
	if s == nil {
		return
	}
	for _, text := range []string{s.Cron, s.Zone, string(s.Missed), string(s.Overlap)} {
		c.text("schedule", text, maxSchedule)
	}
	c.between("schedule", s.From, 0, maxTime)
}
