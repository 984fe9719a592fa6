// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package brake

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// The least numbers of a verdict.
const (
	leastHolders  = 2 // on which an application fails
	leastServices = 3 // unrelated, that fail on a machine
	leastShared   = 2 // unrelated, that fail everywhere
)

// tally counts the holders of one revision of a service.
type tally struct {
	svc      *shoal.Service
	revision shoal.RevisionID
	holders  map[shoal.PeerID]bool // that are heard; true: it fails there
	again    map[shoal.PeerID]bool // on which it failed and was started in vain
	failing  int
	replicas int  // that fail
	guilty   bool // it is the application
}

// Look returns what is at fault as one peer sees it at own monotonic time now, what to
// remember for the next look, and when another may find something else in the same view,
// 0 for never. It is pure: equal arguments, equal results.
func Look(v *shoal.View, m Memory, now time.Duration) (Verdicts, Memory, time.Duration) {
	l := &look{v: v, now: now, old: m, m: Memory{
		spells: map[shoal.ReplicaID]spell{}, former: map[place]time.Duration{}, blamed: map[shoal.PeerID]blame{},
	}}
	suspects := l.suspects()
	if len(suspects) == 0 && m.empty() {
		return nil, Memory{}, 0
	}
	var all []*tally
	for _, s := range suspects {
		all = append(all, l.count(s)...)
	}
	l.leave()
	var out Verdicts
	for _, t := range all {
		if x, guilty := l.application(t); guilty {
			t.guilty = true
			out = append(out, x)
		}
	}
	shared, is := l.cluster(all)
	l.machines(all, is, &out)
	if is {
		out = append(out, shared)
	}
	slices.SortStableFunc(out, func(a, b Verdict) int {
		return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Service, b.Service), a.Revision.Compare(b.Revision), cmp.Compare(a.Peer, b.Peer))
	})
	return out, l.m, l.wake
}

// count tallies each revision of a service that is held, the oldest first.
func (l *look) count(s *shoal.Service) []*tally {
	var out []*tally
	for _, c := range l.v.ClaimsOf(s.Spec.Name) {
		if s.Outcome(c).IsCompleted() {
			continue // that it failed before is over
		}
		if !l.v.Alive(c.Holder) {
			if spell, ok := l.old.spells[c.Replica]; ok { // it may come back
				l.m.spells[c.Replica] = spell
			}
			continue
		}
		at := slices.IndexFunc(out, func(t *tally) bool { return t.revision == c.Revision })
		if at < 0 {
			at = len(out)
			out = append(out, &tally{svc: s, revision: c.Revision, holders: map[shoal.PeerID]bool{}, again: map[shoal.PeerID]bool{}})
		}
		t, times := out[at], l.follow(c)
		if times > 0 {
			t.replicas++
		}
		t.holders[c.Holder] = t.holders[c.Holder] || times > 0
		t.again[c.Holder] = t.again[c.Holder] || times > 1
	}
	for _, t := range out {
		for _, fails := range t.holders {
			if fails {
				t.failing++
			}
		}
	}
	slices.SortFunc(out, func(a, b *tally) int { return a.revision.Compare(b.revision) })
	return out
}

// application judges one revision. Where it fails now, those count as well on which it
// failed before and that let it go.
func (l *look) application(t *tally) (Verdict, bool) {
	failing, of := t.failing, len(t.holders)
	if failing == 0 {
		return Verdict{}, false
	}
	for at, until := range l.m.former {
		if _, holds := t.holders[at.peer]; at.service == t.svc.Spec.Name && at.revision == t.revision && !holds {
			failing, of = failing+1, of+1
			l.again(until)
		}
	}
	return Verdict{
		Cause: Application, Service: t.svc.Spec.Name, Revision: t.revision, Image: imageOf(t.svc, t.revision),
		Replicas: t.replicas, Failing: failing, Of: of,
	}, failing >= leastHolders && 2*failing >= of
}

func imageOf(s *shoal.Service, rev shoal.RevisionID) string {
	if rev == s.Revision {
		return s.Spec.Image
	}
	for i := range s.Past {
		if s.Past[i].Revision == rev {
			return s.Past[i].Spec.Image
		}
	}
	return ""
}

// group is what makes services related: a project.
func group(s *shoal.Service) string {
	if s.Spec.Project != "" {
		return "project " + s.Spec.Project
	}
	return "service " + s.Spec.Name
}

// cluster judges what was fine: only a revision that has settled tells of what is
// shared; one that is new may have brought its fault along.
func (l *look) cluster(all []*tally) (Verdict, bool) {
	bad, peers := map[string]bool{}, map[shoal.PeerID]bool{}
	failing := 0
	for _, t := range all {
		if !t.svc.Rollout.Settled || t.revision != t.svc.Revision || t.failing == 0 || 2*t.failing < len(t.holders) {
			continue
		}
		failing++
		bad[group(t.svc)] = true
		for id, fails := range t.holders {
			if fails {
				peers[id] = true
			}
		}
	}
	if len(bad) < leastShared {
		return Verdict{}, false
	}
	groups, services := map[string]bool{}, 0
	for i := range l.v.Services() {
		if s := &l.v.Services()[i]; s.Rollout.Settled && !s.Stopped && len(l.v.ClaimsOf(s.Spec.Name)) > 0 {
			groups[group(s)] = true
			services++
		}
	}
	holders := 0
	for i := range l.v.Peers() {
		if id := l.v.Peers()[i].ID; l.v.Alive(id) && len(l.v.ClaimsBy(id)) > 0 {
			holders++
		}
	}
	return Verdict{Cause: Cluster, Failing: len(peers), Of: holders, Shares: failing, All: services},
		2*len(bad) > len(groups) && len(peers) > 1 && 2*len(peers) > holders
}

// machines judges the peers that are heard. Where half of them would be at fault it is
// none of them.
func (l *look) machines(all []*tally, shared bool, out *Verdicts) {
	heard, guilty := 0, 0
	found := map[shoal.PeerID]Verdict{}
	l.engines(all, found)
	for i := range l.v.Peers() {
		p := &l.v.Peers()[i]
		if p.Removed || !l.v.Alive(p.ID) {
			continue
		}
		heard++
		l.blame(p.ID, all, found)
		st := l.v.State(p.ID)
		if _, bad := l.m.blamed[p.ID]; bad || st != nil && st.Trouble != "" {
			guilty++
		}
	}
	if shared || 2*guilty >= heard {
		clear(l.m.blamed)
		return
	}
	for _, id := range slices.Sorted(maps.Keys(l.m.blamed)) {
		l.again(l.m.blamed[id].until) // 0 while it is not quiet
		*out = append(*out, l.m.blamed[id].verdict)
	}
}

// blame judges one peer, and remembers it until it has been quiet for long enough.
func (l *look) blame(id shoal.PeerID, all []*tally, found map[shoal.PeerID]Verdict) {
	x, bad := found[id]
	if !bad {
		x, bad = l.machine(id, all)
	}
	old, was := l.old.blamed[id]
	switch {
	case bad:
		l.m.blamed[id] = blame{verdict: x}
		return
	case !was:
		return
	case !old.isQuiet:
		old.isQuiet, old.until = true, l.now+Quiet
	}
	if l.now < old.until {
		l.m.blamed[id] = old
	}
}

// machine judges one peer by what fails there again and again and is no application's
// fault: at least three unrelated services, and half of all that it holds. That all die
// once is what an engine that is restarted looks like.
func (l *look) machine(id shoal.PeerID, all []*tally) (Verdict, bool) {
	bad := map[string]bool{}
	x := Verdict{Cause: Machine, Peer: id}
	for _, t := range all {
		if t.again[id] && !t.guilty {
			bad[group(t.svc)] = true
			x.Services = append(x.Services, t.svc.Spec.Name)
		}
	}
	if len(bad) < leastServices {
		return x, false
	}
	held := map[string]bool{}
	for _, c := range l.v.ClaimsBy(id) {
		if s, ok := l.v.Service(c.Service); ok {
			held[group(s)] = true
		}
	}
	x.Services = slices.Compact(x.Services) // two revisions of one may fail
	return x, 2*len(bad) >= len(held)
}

// engines finds peers whose engine is at fault: at least three unrelated services fail
// again and again on half of those with its version, two at least, and on no peer with
// another, where one of them does well.
func (l *look) engines(all []*tally, found map[shoal.PeerID]Verdict) {
	peers := map[string][]shoal.PeerID{}
	for i := range l.v.Peers() {
		if p := &l.v.Peers()[i]; !p.Removed && p.Facts.Engine != "" && l.v.Alive(p.ID) {
			peers[p.Facts.Engine] = append(peers[p.Facts.Engine], p.ID)
		}
	}
	for engine, own := range peers {
		bad, at, well := map[string]bool{}, map[shoal.PeerID]bool{}, false
		x := Verdict{Cause: Engine, Engine: engine, Of: len(own)}
		for _, t := range all {
			if !only(t, own) {
				continue
			}
			bad[group(t.svc)] = true
			x.Services = append(x.Services, t.svc.Spec.Name)
			for id := range t.holders {
				if t.again[id] {
					at[id] = true
				}
				well = well || !slices.Contains(own, id)
			}
		}
		x.Failing = len(at)
		if len(bad) < leastServices || !well || len(at) < 2 || 2*len(at) < len(own) {
			continue
		}
		x.Services = slices.Compact(x.Services)
		for _, id := range own {
			x.Peer = id
			found[id] = x
		}
	}
}

// only reports whether a revision fails again and again, and on none but these peers.
func only(t *tally, peers []shoal.PeerID) bool {
	often := false
	for id, fails := range t.holders {
		if fails && !slices.Contains(peers, id) {
			return false
		}
		often = often || t.again[id]
	}
	return often
}
