// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"github.com/shoalnet/shoal/placement/brake"
	"github.com/shoalnet/shoal/placement/rollout"
)

// brake finds out what is at fault where replicas fail.
func (d *decision) brake() {
	verdicts, memory, again := brake.Look(d.w.v, d.old.brake, d.now)
	d.plan.Brakes, d.m.brake = verdicts, memory
	d.wake(again)
}

// sayBraked explains the replicas that restart slowly, and the slots that wait for them.
func (d *decision) sayBraked() {
	for _, v := range d.plan.Brakes {
		s := d.w.service(v.Service)
		if v.Cause != brake.Application || s == nil {
			continue
		}
		text := v.String()
		holds := !s.svc.Stopped && v.Revision == s.rev && rollout.RulesOf(s.svc, s.n, false).Failures >= 0
		for i, c := range s.claims {
			r, told := d.w.v.Replica(c.Replica)
			switch {
			case s.holders[i] < 0:
			case c.Revision == v.Revision && told && r.Failures > 0:
				d.say(c.Service, c.Slot, "restarts slowly: %s", text)
			case behind(s, c) && holds:
				d.say(c.Service, c.Slot, "keeps revision %d for now: %s", c.Revision.Seq, text)
			}
		}
	}
}
