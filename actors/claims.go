// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// errStale: the claims changed under a decision; decide again.
var errStale = errors.New("own claims changed since the decision")

// releaseMemory is how long a release is repeated in later records of the service,
// so that a peer which sees only the later one still learns whom it vouched for.
// Twice placement's Vouch (PLACEMENT.md: 5 s).
const releaseMemory = 10 * time.Second

// dated is a release with the time it was made.
type dated struct {
	service string
	release shoal.Release
	at      time.Duration
}

// drafts returns the claim records that carry out a plan: for every service that
// changes, all that this peer holds of it afterwards, what it let go, and which
// slots' data it has (homes: so far). news is what the runs of jobs' replicas came to since
// that was recorded last. mint makes replica identities.
func drafts(self shoal.PeerID, own []shoal.Claim, homes []shoal.Home, plan *placement.Plan, news map[shoal.ReplicaID]shoal.JobOutcome, recent []dated, mint func() shoal.ReplicaID) []*shoal.ClaimBody {
	bodies := make(map[string]*shoal.ClaimBody)
	body := func(service string) *shoal.ClaimBody {
		if b := bodies[service]; b != nil {
			return b
		}
		b := &shoal.ClaimBody{Peer: self, Service: service}
		for _, c := range own {
			if c.Service == service {
				h := shoal.Holding{Slot: c.Slot, Replica: c.Replica, Revision: c.Revision, Since: c.Since, Outcome: c.Outcome}
				if o, is := news[c.Replica]; is {
					h.Outcome = &o
				}
				b.Holds = append(b.Holds, h)
			}
		}
		for _, h := range homes {
			if h.Service == service {
				b.Data = append(b.Data, h.Slot)
			}
		}
		for _, d := range recent {
			if d.service == service { // newest last: it counts
				b.Released = slices.DeleteFunc(b.Released, func(r shoal.Release) bool { return r.Slot == d.release.Slot })
				b.Released = append(b.Released, d.release)
			}
		}
		bodies[service] = b
		return b
	}
	for _, c := range own {
		if _, is := news[c.Replica]; is {
			body(c.Service)
		}
	}
	for _, l := range letGo(plan) {
		b := body(l.service)
		b.Holds = slices.DeleteFunc(b.Holds, func(h shoal.Holding) bool { return h.Slot == l.release.Slot && h.Replica == l.release.Replica })
		b.Released = slices.DeleteFunc(b.Released, func(r shoal.Release) bool { return r.Slot == l.release.Slot })
		b.Released = append(b.Released, l.release)
	}
	for _, d := range plan.Releases {
		keepData(body(d.Service), d.Slot, d.Data)
	}
	for _, n := range plan.Claims {
		claim(body(n.Service), n, mint)
		if n.Data {
			keepData(body(n.Service), n.Slot, true)
		}
	}
	out := make([]*shoal.ClaimBody, 0, len(bodies))
	for _, b := range bodies {
		slices.SortFunc(b.Holds, func(a, c shoal.Holding) int { return cmp.Compare(a.Slot, c.Slot) })
		b.Released = slices.DeleteFunc(b.Released, func(r shoal.Release) bool {
			return slices.ContainsFunc(b.Holds, func(h shoal.Holding) bool { return h.Slot == r.Slot })
		})
		slices.SortFunc(b.Released, func(a, c shoal.Release) int { return cmp.Compare(a.Slot, c.Slot) })
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *shoal.ClaimBody) int { return cmp.Compare(a.Service, b.Service) })
	return out
}

// keepData notes in a record whether a slot's data is here.
func keepData(b *shoal.ClaimBody, slot int, is bool) {
	switch at, there := slices.BinarySearch(b.Data, slot); {
	case is && !there && len(b.Data) < maxData:
		b.Data = slices.Insert(b.Data, at, slot)
	case !is && there:
		b.Data = slices.Delete(b.Data, at, at+1)
	}
}

// maxData is the bound of ClaimBody.Data: as many slots as a service may have.
const maxData = 10_000

// homesOf returns the slots whose data this peer has, as far as that still matters:
// not of services that may move now. Those of a service that was removed are kept,
// it may come back with its volumes.
func homesOf(v *shoal.View, self shoal.PeerID) []shoal.Home {
	var out []shoal.Home
	for _, h := range v.Desired().Homes {
		if s, ok := v.Service(h.Service); h.Peer == self && (!ok || s.Spec.StaysHome()) {
			out = append(out, h)
		}
	}
	return out
}

// letGo returns the slots a plan lets go: its drops, and those that re-used
// replicas leave.
func letGo(plan *placement.Plan) []dated {
	var out []dated
	for _, d := range plan.Releases {
		out = append(out, dated{service: d.Service, release: shoal.Release{Slot: d.Slot, Replica: d.Replica, YieldTo: d.YieldTo}})
	}
	for _, n := range plan.Claims {
		if !n.Reuse.IsZero() && n.LeavesSlot != n.Slot {
			out = append(out, dated{service: n.Service, release: shoal.Release{Slot: n.LeavesSlot, Replica: n.Reuse, YieldTo: n.YieldTo}})
		}
	}
	return out
}

// claim adds one new claim to a body. A slot that only changes its revision keeps
// the time it has been held since; and with the same replica, what its runs came to.
func claim(b *shoal.ClaimBody, n placement.NewClaim, mint func() shoal.ReplicaID) {
	h := shoal.Holding{Slot: n.Slot, Replica: n.Reuse, Revision: n.Revision, Outcome: n.Outcome}
	if h.Replica.IsZero() {
		h.Replica = mint()
	}
	b.Holds = slices.DeleteFunc(b.Holds, func(o shoal.Holding) bool {
		if o.Slot == n.Slot {
			h.Since = o.Since
			if o.Replica == h.Replica {
				h.Outcome = o.Outcome
			}
			return true
		}
		return false
	})
	b.Holds = append(b.Holds, h)
}

// releaseAll returns the records of a peer that leaves: it holds nothing any more, but for
// the word that runs of jobs are over, and is nobody's home. None: so it is recorded.
func releaseAll(self shoal.PeerID, own []shoal.Claim, news map[shoal.ReplicaID]shoal.JobOutcome) []*shoal.ClaimBody {
	var plan placement.Plan
	for _, c := range own {
		if o, is := news[c.Replica]; is && o.Over() || c.Outcome.Over() {
			continue
		}
		plan.Releases = append(plan.Releases, placement.Drop{Service: c.Service, Slot: c.Slot, Replica: c.Replica})
	}
	return drafts(self, own, nil, &plan, news, nil, nil)
}

// sameClaims reports whether the store still holds what a decision was made from.
func sameClaims(d *shoal.Desired, self shoal.PeerID, own []shoal.Claim) bool {
	i := 0
	for _, c := range d.Claims {
		if c.Holder != self {
			continue
		}
		if i >= len(own) || !sameClaim(c, own[i]) {
			return false
		}
		i++
	}
	return i == len(own)
}

// sameClaim compares two claims by what they say.
func sameClaim(a, b shoal.Claim) bool {
	same := a.Outcome == b.Outcome || a.Outcome != nil && b.Outcome != nil && *a.Outcome == *b.Outcome
	a.Outcome, b.Outcome = nil, nil
	return same && a == b
}

// newsOf returns what the runs of own claims' replicas came to where that is not recorded.
func newsOf(own []shoal.Claim, came map[shoal.ReplicaID]shoal.JobOutcome) map[shoal.ReplicaID]shoal.JobOutcome {
	var out map[shoal.ReplicaID]shoal.JobOutcome
	for _, c := range own {
		o, is := came[c.Replica]
		if !is || c.Outcome.Over() || c.Outcome != nil && *c.Outcome == o {
			continue
		}
		if out == nil {
			out = make(map[shoal.ReplicaID]shoal.JobOutcome)
		}
		out[c.Replica] = o
	}
	return out
}

// parts splits this peer's recorded claims into what each service actor looks
// after. A claim that the plan drops is still held: it is let go by the record.
func parts(v *shoal.View, self shoal.PeerID, start []shoal.ReplicaID) map[string]*part {
	may := make(map[shoal.ReplicaID]bool, len(start))
	for _, id := range start {
		may[id] = true
	}
	publish := ""
	if p, ok := v.Peer(self); ok {
		publish = p.Facts.PublishAddr
	}
	out := make(map[string]*part)
	for _, c := range v.ClaimsBy(self) {
		p := out[c.Service]
		if p == nil {
			p = &part{service: c.Service, publish: publish}
			if s, ok := v.Service(c.Service); ok {
				p.spec, p.revision, p.record = &s.Spec, s.Revision, s.Record
			}
			out[c.Service] = p
		}
		h := hold{slot: c.Slot, replica: c.Replica, revision: c.Revision, start: may[c.Replica]}
		if c.Outcome != nil {
			h.outcome = *c.Outcome
		}
		p.holds = append(p.holds, h)
	}
	return out
}

// knows reports whether the records have a word about a service: that it is wanted,
// or that it was removed. Containers of a service that nobody has a word about are
// left alone: the records may be lost, not the wish (FAILURES F24).
func knows(d *shoal.Desired, service string) bool {
	if _, ok := d.Service(service); ok {
		return true
	}
	return d.IsGone(service)
}
