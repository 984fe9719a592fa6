// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strings"

	"github.com/shoalnet/shoal"
)

// schedule reads x-shoal.schedule: the times alone, or a mapping.
func (c *converter) schedule() {
	const field = "x-shoal.schedule"
	v, said := c.extensions()["schedule"]
	if !said {
		return
	}
	if !c.out.Mode.IsJob() {
		c.bad(field, "is for deploy.mode replicated-job and global-job")
		return
	}
	if text, short := v.(string); short {
		v = map[string]any{"cron": text}
	}
	m, ok := c.mapping(field, v)
	if !ok {
		return
	}
	word := func(key string) string {
		if m[key] == nil {
			return ""
		}
		return strings.TrimSpace(fmt.Sprint(m[key]))
	}
	c.out.Schedule = &shoal.Schedule{
		Cron: word("cron"), Zone: word("zone"),
		Missed: shoal.MissedRun(word("missed")), Overlap: shoal.Overlap(word("overlap")),
	}
}

// scheduleOf renders when a job runs; nil if it runs once.
func scheduleOf(s *shoal.Schedule) any {
	if s == nil {
		return nil
	}
	if s.Zone == "" && s.Missed == "" && s.Overlap == "" {
		return s.Cron
	}
	m := map[string]any{"cron": s.Cron}
	put(m, "zone", s.Zone)
	put(m, "missed", string(s.Missed))
	put(m, "overlap", string(s.Overlap))
	return m
}
