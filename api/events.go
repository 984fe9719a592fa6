// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// Kinds of events.
const (
	kindService = "service"
	kindClaim   = "claim"
	kindReplica = "replica"
	kindPeer    = "peer"
	kindImage   = "image"
	kindRollout = "rollout"
	kindFault   = "fault"
)

// difference tells what happened between two views, as events of the time at: peers,
// services, claims, replicas, each in sorted order. It is pure: equal views give equal
// events, and a view compared with itself gives none.
func difference(prev, next *shoal.View, at time.Time) []shoal.Event {
	if prev == nil || next == nil || prev == next {
		return nil
	}
	d := &differ{prev: prev, next: next, at: at, names: newPane(next, 0)}
	d.peers()
	d.services()
	d.claims()
	d.replicas()
	return d.out
}

type differ struct {
	prev, next *shoal.View
	at         time.Time
	names      *pane
	out        []shoal.Event
}

func (d *differ) add(kind string, peer shoal.PeerID, service string, slot int, format string, args ...any) {
	d.out = append(d.out, shoal.Event{Time: d.at, Peer: peer, Kind: kind, Service: service, Slot: slot, Text: fmt.Sprintf(format, args...)})
}

func (d *differ) peers() {
	for i := range d.next.Peers() {
		now := &d.next.Peers()[i]
		was, known := d.prev.Peer(now.ID)
		say := func(format string, args ...any) { d.add(kindPeer, now.ID, "", -1, format, args...) }
		if !known {
			say("joined as %s", cmp.Or(now.Role, shoal.RolePeer))
			continue
		}
		if now.Removed && !was.Removed {
			say("was removed")
			continue
		}
		if a, b := was.Facts.Name, now.Facts.Name; a != "" && a != b {
			say("renamed %s -> %s", a, b)
		}
		for _, flag := range []struct {
			was, now bool
			on, off  string
		}{
			{was.Cordoned, now.Cordoned, "cordoned", "uncordoned"},
			{was.Draining, now.Draining, "draining", "no longer draining"},
			{was.Facts.Leaving, now.Facts.Leaving, "leaving", "no longer leaving"},
		} {
			if flag.was != flag.now {
				say("%s", choose(flag.now, flag.on, flag.off))
			}
		}
		if a, b := d.prev.Life(now.ID).State, d.next.Life(now.ID).State; a != b {
			say("%s -> %s", a, b)
		}
		a, b := engineOf(d.prev, now.ID), engineOf(d.next, now.ID)
		if a.Down != b.Down {
			say("%s", choose(b.Down, "engine down: "+b.Reason, "engine answers again"))
		}
		if x, y := troubleOf(d.prev, now.ID), troubleOf(d.next, now.ID); (x == "") != (y == "") {
			say("%s", choose(y != "", "takes no new slots: "+y, "takes new slots again"))
		}
	}
}

func engineOf(v *shoal.View, id shoal.PeerID) shoal.EngineStatus {
	if st := v.State(id); st != nil {
		return st.Engine
	}
	return shoal.EngineStatus{}
}

func troubleOf(v *shoal.View, id shoal.PeerID) string {
	if st := v.State(id); st != nil {
		return st.Trouble
	}
	return ""
}

func (d *differ) services() {
	for i := range d.next.Services() {
		now := &d.next.Services()[i]
		was, known := d.prev.Service(now.Spec.Name)
		author := d.names.name(now.Revision.Author)
		say := func(format string, args ...any) {
			d.add(kindService, now.Revision.Author, now.Spec.Name, -1, format, args...)
		}
		switch {
		case !known && now.Spec.Mode.IsGlobal():
			say("created through %s: %s, one on every peer", author, now.Spec.Image)
		case !known:
			say("created through %s: %s, replicas %d", author, now.Spec.Image, now.Replicas)
		default:
			d.rollout(was, now)
			d.preFailed(was, now)
			goesOn := now.IsPre && now.Runs(was.Revision) // with its service, which tells it
			if was.Revision != now.Revision && now.Undoes.IsZero() && !now.Spec.SameRun(&was.Spec) && !goesOn {
				say("updated through %s: revision %d%s", author, now.Revision.Seq, imageChange(&was.Spec, &now.Spec))
			}
			if was.Stopped != now.Stopped {
				d.add(kindService, "", now.Spec.Name, -1, "%s", choose(now.Stopped, "stopped", "started"))
			}
			if was.Replicas != now.Replicas && !now.Spec.Mode.IsGlobal() {
				d.add(kindService, "", now.Spec.Name, -1, "scaled %d -> %d", was.Replicas, now.Replicas)
			}
		}
	}
	for i := range d.prev.Services() {
		name := d.prev.Services()[i].Spec.Name
		if _, still := d.next.Service(name); !still {
			d.add(kindService, "", name, -1, "removed")
		}
	}
	for _, c := range d.next.Desired().Conflicts {
		if !slices.Contains(d.prev.Desired().Conflicts, c) {
			if c.Image != "" {
				d.add(kindImage, "", "", -1, "conflict: %s", c.Rule)
				continue
			}
			d.add(kindService, c.Loser.Author, c.Service, -1, "conflict: revision %s superseded by %s: %s", c.Loser, c.Winner, c.Rule)
		}
	}
}

// preFailed tells that a revision does not begin, for what is run before it failed.
func (d *differ) preFailed(was, now *shoal.Service) {
	if now.Spec.PreDeploy == nil {
		return
	}
	why := d.next.Waits(now)
	if strings.HasPrefix(why, shoal.PreFailed) && d.prev.Waits(was) != why {
		d.add(kindRollout, "", now.Spec.Name, -1, "revision %d does not begin: %s", now.Revision.Seq, why)
	}
}

func imageChange(was, now *shoal.Spec) string {
	switch {
	case was.Image != now.Image:
		return fmt.Sprintf(", image %s -> %s", was.Image, now.Image)
	case was.Digest != now.Digest:
		return fmt.Sprintf(", image %s (%s -> %s)", now.Image, cmp.Or(was.Digest, "by name"), cmp.Or(now.Digest, "by name"))
	}
	return ""
}

// place is a slot of a service on a peer.
type place struct {
	service string
	slot    int
	holder  shoal.PeerID
}

func (d *differ) claims() {
	index := func(v *shoal.View) map[place]shoal.Claim {
		out := map[place]shoal.Claim{}
		for _, c := range v.Desired().Claims {
			out[place{c.Service, c.Slot, c.Holder}] = c
		}
		return out
	}
	before, after := index(d.prev), index(d.next)
	yields := map[place]shoal.PeerID{}
	for _, r := range d.next.Releases() {
		yields[place{r.Service, r.Slot, r.Holder}] = r.YieldTo
	}
	for _, c := range d.next.Desired().Claims {
		if _, had := before[place{c.Service, c.Slot, c.Holder}]; !had {
			d.add(kindClaim, c.Holder, c.Service, c.Slot, "claimed by %s", d.names.name(c.Holder))
		}
	}
	for _, c := range d.prev.Desired().Claims {
		at := place{c.Service, c.Slot, c.Holder}
		if _, has := after[at]; has {
			continue
		}
		text := "released by " + d.names.name(c.Holder)
		if to := yields[at]; to != "" {
			text += " to " + d.names.name(to)
		}
		d.add(kindClaim, c.Holder, c.Service, c.Slot, "%s", text)
	}
	d.waves(before, after)
}

func (d *differ) replicas() {
	now := runsOf(d.next)
	slices.SortFunc(now, func(a, b run) int {
		return cmp.Or(cmp.Compare(a.status.Service, b.status.Service), cmp.Compare(a.status.Slot, b.status.Slot), cmp.Compare(a.status.ID.String(), b.status.ID.String()))
	})
	for _, r := range now {
		st := r.status
		say := func(format string, args ...any) { d.add(kindReplica, r.holder, st.Service, st.Slot, format, args...) }
		was, known := d.prev.Replica(st.ID)
		if !known {
			say("%s on %s%s", st.Phase, d.names.name(r.holder), because(st.Reason))
			continue
		}
		if st.Restarts > was.Restarts {
			say("restart %d%s", st.Restarts, because(st.Reason))
		}
		if st.Phase != was.Phase {
			say("%s -> %s%s", was.Phase, st.Phase, because(st.Reason))
		}
		if st.Health != was.Health && st.Health == shoal.HealthUnhealthy {
			say("unhealthy%s", because(st.Reason))
		}
	}
}

func runsOf(v *shoal.View) []run {
	var out []run
	for i := range v.Peers() {
		id := v.Peers()[i].ID
		if st := v.State(id); st != nil {
			for j := range st.Replicas {
				out = append(out, run{id, &st.Replicas[j]})
			}
		}
	}
	return out
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func choose(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
