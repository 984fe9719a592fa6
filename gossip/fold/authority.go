// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/shoalnet/shoal"
)

// unlimited is the cap of an author that nobody removed.
const unlimited = math.MaxUint64

// member is what the member records say of one peer.
type member struct {
	role    shoal.Role
	cap     uint64 // its records above this AuthorSeq are void
	removed *item  // a removal that applied, nil if none did
	by      []byte // envelope of the admission that counts
}

// authority says who may write what. It is immutable.
type authority struct {
	cluster shoal.PeerID
	members map[shoal.PeerID]*member // admitted ones, removed ones included; not the cluster key
	ids     []shoal.PeerID           // the keys of members, sorted
	caps    map[shoal.PeerID]uint64
}

// newAuthority folds the member records. The cluster key is the root and the most
// senior operator; only operators admit and remove. A peer is an operator if any
// admission in force says so.
//
// Removals apply in order of seniority: of all that are in force the one whose
// author is nearest to the cluster key, then lowest by ID, applies first, voids
// what its target wrote above HighestSeq (the lowest of several counts), and the
// rest is judged anew. So of two operators that remove each other the senior one
// stands, and the cluster key has the last word. A removal that applied stays, even
// if its author is removed later. A removal vouches, as an admission does, for what
// the removed peer wrote before.
func newAuthority(t *topic, cluster shoal.PeerID) *authority {
	a := &authority{cluster: cluster, caps: map[shoal.PeerID]uint64{}}
	byAuthor := map[shoal.PeerID][]*item{} // in order of (target, newest first)
	if t != nil {
		for _, it := range t.items {
			byAuthor[it.Record.Author] = append(byAuthor[it.Record.Author], it)
		}
	}
	applied := map[*item]bool{}
	for {
		seniority := a.admit(byAuthor)
		if !a.removeNext(byAuthor, seniority, applied) {
			break
		}
	}
	for it := range applied {
		// Of several the first by author, on every peer the same.
		if m := a.members[it.target()]; m != nil && (m.removed == nil || compareItems(it, m.removed) < 0) {
			m.removed = it
		}
	}
	a.ids = slices.Sorted(maps.Keys(a.members))
	for _, id := range a.ids {
		a.members[id].cap = a.cap(id)
	}
	return a
}

// admit walks the admissions from the cluster key under the present caps and
// returns the operators by seniority.
func (a *authority) admit(byAuthor map[shoal.PeerID][]*item) []shoal.PeerID {
	a.members = map[shoal.PeerID]*member{}
	order := []shoal.PeerID{a.cluster}
	for layer := order; len(layer) > 0; {
		var next []shoal.PeerID
		for _, author := range layer {
			for _, it := range a.inForce(author, byAuthor[author]) {
				target, role := it.target(), it.role()
				if target == a.cluster {
					continue
				}
				m := a.members[target]
				if m != nil && (m.role == shoal.RoleOperator || role != shoal.RoleOperator) {
					continue
				}
				a.members[target] = &member{role: role, by: it.Envelope}
				if role == shoal.RoleOperator {
					next = append(next, target)
				}
			}
		}
		slices.Sort(next)
		order = append(order, next...)
		layer = next
	}
	return order
}

// removeNext applies the removals of the most senior author that has any left.
func (a *authority) removeNext(byAuthor map[shoal.PeerID][]*item, seniority []shoal.PeerID, applied map[*item]bool) bool {
	for _, author := range seniority {
		found := false
		for _, it := range a.inForce(author, byAuthor[author]) {
			b := it.Record.Body.(*shoal.MemberBody)
			if !b.Removed || applied[it] || b.Peer == a.cluster {
				continue
			}
			applied[it], found = true, true
			a.caps[b.Peer] = min(a.cap(b.Peer), b.HighestSeq)
		}
		if found {
			return true
		}
	}
	return false
}

// inForce returns an author's newest member records at or below its cap.
func (a *authority) inForce(author shoal.PeerID, items []*item) []*item {
	var out []*item
	for _, it := range items {
		newest := len(out) == 0 || !sameKey(out[len(out)-1], it)
		if newest && it.Record.AuthorSeq <= a.cap(author) && it.aboutItsName() {
			out = append(out, it)
		}
	}
	return out
}

func (a *authority) cap(id shoal.PeerID) uint64 {
	if c, ok := a.caps[id]; ok {
		return c
	}
	return unlimited
}

// may reports whether a record counts: its author is a member whose pen had not
// ended, with the role its kind needs, and it is about what its key says.
func (a *authority) may(it *item) bool {
	r := it.Record
	if !it.aboutItsName() {
		return false
	}
	if r.Author == a.cluster {
		return r.Kind == shoal.KindMember
	}
	m := a.members[r.Author]
	if m == nil || r.AuthorSeq > m.cap {
		return false
	}
	switch b := r.Body.(type) {
	case *shoal.PeerBody:
		return b.Peer == r.Author
	case *shoal.ClaimBody:
		return b.Peer == r.Author
	default:
		return m.role == shoal.RoleOperator
	}
}

// removed reports whether a peer's membership was ended.
func (a *authority) removed(id shoal.PeerID) bool {
	m := a.members[id]
	return m != nil && m.removed != nil
}

// capped reports whether a record is void only because its author was removed.
func (a *authority) capped(r *shoal.Record) bool {
	m := a.members[r.Author]
	return m != nil && m.role == shoal.RoleOperator && r.AuthorSeq > m.cap
}

// aboutItsName reports whether the body is about what the key names.
func (it *item) aboutItsName() bool { return it.Record.Body.About() == it.Record.Name }

func (it *item) target() shoal.PeerID { return it.Record.Body.(*shoal.MemberBody).Peer }

func (it *item) role() shoal.Role {
	return cmp.Or(it.Record.Body.(*shoal.MemberBody).Role, shoal.RolePeer)
}
