// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shoalnet/shoal"
)

// changePeer works on a copy of the peers, and of the services whose slots move;
// c.mu is held.
func (c *Cluster) changePeer(w *shoal.PeerWish) (ch shoal.Change, peers []shoal.Peer, services []shoal.Service) {
	peers, services = slices.Clone(c.peers), slices.Clone(c.services)
	p := &peers[slices.IndexFunc(peers, func(p shoal.Peer) bool { return p.ID == w.Peer })]
	ch = shoal.Change{Kind: shoal.ChangeUpdate, Peer: w.Peer, Details: []string{string(w.Change)}}
	marks := map[shoal.PeerChange]shoal.Mark{
		shoal.PeerCordon: {ID: string(c.self) + "/1"}, shoal.PeerDrain: {ID: string(c.self) + "/2", Drain: true},
	}
	before := len(p.Marks)
	switch w.Change {
	case shoal.PeerCordon, shoal.PeerDrain:
		if !slices.Contains(p.Marks, marks[w.Change]) {
			p.Marks = append(slices.Clone(p.Marks), marks[w.Change])
		}
		ch.Replicas = c.handOver(services, p)
	case shoal.PeerRemove:
		p.Removed = true
		ch.Kind = shoal.ChangeRemove
		return ch, peers, services
	case shoal.PeerUncordon:
		p.Marks = nil
	case shoal.PeerUndrain:
		p.Marks = slices.DeleteFunc(slices.Clone(p.Marks), func(m shoal.Mark) bool { return m.Drain })
	case shoal.PeerEdit:
		ch.Details = c.edit(p, w)
		p.By = map[shoal.PeerID]*shoal.MarkBody{c.self: {Peer: p.ID, Laid: p.Marks, Edits: p.Edits}}
		return ch, peers, services
	default:
	}
	p.By = map[shoal.PeerID]*shoal.MarkBody{c.self: {Peer: p.ID, Laid: p.Marks, Edits: p.Edits}}
	p.Cordoned = len(p.Marks) > 0
	p.Draining = slices.Contains(p.Marks, marks[shoal.PeerDrain])
	if len(p.Marks) == before {
		ch.Kind, ch.Details = shoal.ChangeNone, []string{fmt.Sprintf("already %sed", w.Change)}
	}
	return ch, peers, services
}

// edit changes a peer's name and labels, and says what it did.
func (c *Cluster) edit(p *shoal.Peer, w *shoal.PeerWish) (details []string) {
	say := func(e shoal.Edit, format string, args ...any) {
		p.Edits = append(slices.Clone(p.Edits), e)
		details = append(details, fmt.Sprintf(format, args...))
	}
	if p.Own.Name == "" {
		p.Own = p.Facts
	}
	p.Facts.Labels = maps.Clone(p.Facts.Labels)
	if w.Name != "" {
		say(shoal.Edit{Value: w.Name}, "name %s -> %s", p.Facts.Name, w.Name)
		p.Facts.Name = w.Name
	}
	for _, k := range slices.Sorted(maps.Keys(w.Set)) {
		say(shoal.Edit{Label: k, Value: w.Set[k]}, "label %s=%s", k, w.Set[k])
		p.Facts.Labels[k] = w.Set[k]
	}
	for _, k := range w.Unset {
		say(shoal.Edit{Label: k, Gone: true}, "label %s-", k)
		delete(p.Facts.Labels, k)
	}
	return details
}

// handOver moves a drained peer's slots to the first other peer that takes some, and
// says how many there were to move.
func (c *Cluster) handOver(services []shoal.Service, from *shoal.Peer) (moves int) {
	if !slices.ContainsFunc(from.Marks, func(m shoal.Mark) bool { return m.Drain }) {
		return 0
	}
	to := shoal.PeerID("")
	for _, id := range c.open() {
		if id != from.ID {
			to = id
			break
		}
	}
	for i := range services {
		s := &services[i]
		if s.Spec.StaysHome() {
			continue
		}
		s.Proposed = slices.Clone(s.Proposed)
		for slot, holder := range s.Proposed {
			if holder == from.ID && !c.ended(s, slot) {
				moves++
				if to != "" {
					s.Proposed[slot] = to
				}
			}
		}
	}
	return moves
}

// ended reports whether a slot's replica is a job that has ended.
func (c *Cluster) ended(s *shoal.Service, slot int) bool {
	at := slices.IndexFunc(c.desired.Claims, func(x shoal.Claim) bool { return x.Service == s.Spec.Name && x.Slot == slot })
	return at >= 0 && c.seen().Done(c.desired.Claims[at])
}

// open returns the peers that are heard and take slots; c.mu is held.
func (c *Cluster) open() []shoal.PeerID {
	var out []shoal.PeerID
	for _, p := range c.peers {
		if !c.lost[p.ID] && !p.Cordoned {
			out = append(out, p.ID)
		}
	}
	return out
}
