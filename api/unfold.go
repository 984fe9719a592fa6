// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// rollout tells how a rollout began, how a service went back, and what was said of a
// rollout: by no one peer, for any may say so.
func (d *differ) rollout(was, now *shoal.Service) {
	say := func(peer shoal.PeerID, format string, args ...any) {
		d.add(kindRollout, peer, now.Spec.Name, -1, format, args...)
	}
	if was.Revision != now.Revision && now.Spec.Run != was.Spec.Run && now.Spec.Run != 0 {
		say(now.Revision.Author, "run of %s began through %s", now.Spec.RunText(), d.names.name(now.Revision.Author))
		return
	}
	if was.Revision != now.Revision {
		if !now.Undoes.IsZero() {
			say(now.Revision.Author, "went back from revision %d through %s%s: %s",
				now.Undoes.Seq, d.names.name(now.Revision.Author), imageChange(&was.Spec, &now.Spec), cmp.Or(now.Why, "a user asked for it"))
		}
		if !now.Stopped {
			say(now.Revision.Author, "rollout of revision %d began through %s", now.Revision.Seq, d.names.name(now.Revision.Author))
		}
		return
	}
	if a, b := was.Rollout, now.Rollout; a != b {
		switch {
		case b.Paused && !a.Paused:
			say("", "rollout of revision %d paused: %s", now.Revision.Seq, cmp.Or(b.Why, "a user asked for it"))
		case a.Paused && !b.Paused:
			say("", "rollout of revision %d goes on", now.Revision.Seq)
		}
		if b.Promoted && !a.Promoted {
			say("", "canary of revision %d promoted", now.Revision.Seq)
		}
		if b.Settled && !a.Settled {
			say("", "rollout of revision %d is over: all slots run it and are healthy", now.Revision.Seq)
		}
	}
}

// waves tells which slots were given to the current revision of their service.
func (d *differ) waves(before, after map[place]shoal.Claim) {
	slots := map[string][]int{}
	for at, c := range after {
		s, ok := d.next.Service(c.Service)
		if was, had := before[at]; ok && had && was.Revision != c.Revision && c.Revision == s.Revision {
			slots[c.Service] = append(slots[c.Service], c.Slot)
		}
	}
	for i := range d.next.Services() {
		s := &d.next.Services()[i]
		changed := slots[s.Spec.Name]
		if len(changed) == 0 {
			continue
		}
		slices.Sort(changed)
		d.add(kindRollout, "", s.Spec.Name, -1, "%s to revision %d", slotsText(slices.Compact(changed)), s.Revision.Seq)
	}
}

// slotsText names slots that change: "slots 0, 1, 2 change".
func slotsText(slots []int) string {
	const most = 8
	var out []string
	for _, slot := range slots[:min(len(slots), most)] {
		out = append(out, strconv.Itoa(slot))
	}
	text := strings.Join(out, ", ")
	switch more := len(slots) - most; {
	case more > 0:
		return fmt.Sprintf("slots %s and %d more change", text, more)
	case len(slots) == 1:
		return "slot " + text + " changes"
	}
	return "slots " + text + " change"
}

// opinions are what the asked peer was last seen to think, which no view tells.
type opinions struct {
	failed map[string]shoal.RevisionID // services, by the revision whose first failure was told
	held   map[string]string           // services, by why their rollout is held
	faults []shoal.Fault
}

// next tells how opinions changed, and remembers the new ones. What a daemon finds when it
// starts is told as well: it is news to itself.
func (o *opinions) next(v *shoal.View, reports []shoal.RolloutReport, faults []shoal.Fault, at time.Time) []shoal.Event {
	var out []shoal.Event
	add := func(kind string, peer shoal.PeerID, service string, slot int, format string, args ...any) {
		out = append(out, shoal.Event{Time: at, Peer: peer, Kind: kind, Service: service, Slot: slot, Text: fmt.Sprintf(format, args...)})
	}
	failed, held := map[string]shoal.RevisionID{}, map[string]string{}
	for _, r := range reports {
		if f := r.Failure; !f.IsZero() {
			if failed[r.Service] = r.Revision; o.failed[r.Service] != r.Revision {
				add(kindRollout, f.Peer, r.Service, f.Slot, "%s", r.FirstFailure)
			}
		}
		if r.Held == "" {
			continue
		}
		if held[r.Service] = r.Held; o.held[r.Service] == "" {
			add(kindRollout, "", r.Service, -1, "rollout of revision %d held: %s", r.Revision.Seq, r.Held)
		}
	}
	for i := range v.Services() {
		name := v.Services()[i].Spec.Name
		if o.held[name] != "" && held[name] == "" {
			add(kindRollout, "", name, -1, "rollout no longer held")
		}
	}
	same := func(f shoal.Fault) func(shoal.Fault) bool {
		return func(g shoal.Fault) bool { return f.Cause == g.Cause && f.Service == g.Service && f.Peer == g.Peer }
	}
	for _, f := range faults {
		if !slices.ContainsFunc(o.faults, same(f)) {
			add(kindFault, f.Peer, f.Service, -1, "%s at fault: %s", f.Cause, f.Text)
		}
	}
	for _, f := range o.faults {
		if !slices.ContainsFunc(faults, same(f)) {
			add(kindFault, f.Peer, f.Service, -1, "%s no longer at fault", f.Cause)
		}
	}
	o.failed, o.held, o.faults = failed, held, faults
	return out
}

// reports asks how far the rollouts are that are under way.
func (c *Cluster) reports(v *shoal.View) []shoal.RolloutReport {
	if c.Rollouts == nil {
		return nil
	}
	var out []shoal.RolloutReport
	for i := range v.Services() {
		s := &v.Services()[i]
		if s.Rollout.Settled || s.Stopped {
			continue
		}
		if r, err := c.Rollouts.Rollout(s.Spec.Name); err == nil && r.Revision == s.Revision {
			out = append(out, r)
		}
	}
	return out
}

// thinks is what the asked peer holds to be at fault.
func (c *Cluster) thinks() []shoal.Fault {
	if c.Faults == nil {
		return nil
	}
	return c.Faults()
}
