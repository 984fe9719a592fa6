// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
)

// serviceVerdict is what the records about one service come to.
type serviceVerdict struct {
	name      string
	service   *shoal.Service // nil: there is none
	gone      *shoal.GoneBody
	scale     shoal.ScaleState
	claims    []shoal.Claim
	releases  []shoal.Release
	homes     []shoal.Home
	conflicts []shoal.Conflict
}

// revision is one author's revision while it is judged.
type revision struct {
	*item
	body    *shoal.RevisionBody
	pending bool // it replaces one that is not known here
	removed bool // a gone record names it, or one that reaches it
}

func (s *serviceVerdict) addTo(d *shoal.Desired) {
	if s.service != nil {
		d.Services = append(d.Services, *s.service)
	}
	if s.gone != nil {
		d.Gone = append(d.Gone, *s.gone)
		if s.service == nil && len(s.scale.By) > 0 {
			d.GoneScale[s.name] = s.scale
		}
	}
	d.Claims = append(d.Claims, s.claims...)
	d.Releases = append(d.Releases, s.releases...)
	d.Homes = append(d.Homes, s.homes...)
	d.Conflicts = append(d.Conflicts, s.conflicts...)
}

// judgeService folds revisions, removals, scale intents and claims of a service.
func (v *verdict) judgeService(versions []version) {
	s := &serviceVerdict{name: v.topic.key.name}
	v.service = s
	var revs []*revision
	var scales, ops, words []*item
	for _, ver := range versions {
		if ver.counts == nil {
			continue
		}
		switch b := ver.counts.Record.Body.(type) {
		case *shoal.RevisionBody:
			revs = append(revs, &revision{item: ver.counts, body: b})
		case *shoal.ScaleBody:
			scales = append(scales, ver.counts)
		case *shoal.OpBody:
			ops = append(ops, ver.counts)
		case *shoal.RolloutBody:
			words = append(words, ver.counts)
		case *shoal.GoneBody:
			s.join(b)
		case *shoal.ClaimBody:
			s.claim(b, v.authority.removed(b.Peer))
		}
	}
	s.sort()
	markPending(revs, versions)
	s.markRemoved(revs)
	for _, r := range revs {
		if !r.pending {
			v.seenRevs = append(v.seenRevs, r.body.Revision)
		}
	}
	s.scale, v.seenBases = foldScale(scales)
	if heads := headsOf(revs); len(heads) > 0 {
		s.stand(heads, revs, scales, ops)
		steer(s.service, words)
	}
	s.voided(versions, v.authority)
}

// wellFormed checks what a body must be for any state: what replaces others, and a base,
// are their author's and come right after all they replace.
func wellFormed(r *shoal.Record) bool {
	if b, ok := r.Body.(*shoal.ScaleBody); ok {
		return b.Base == nil || follows(b.Base.ID, r.Author, b.Base.Covers)
	}
	s, ok := successionOf(r.Body)
	return !ok || follows(s.id, r.Author, s.replaces)
}

// succession is the place of a body among those of its topic that replace each other.
type succession struct {
	id       shoal.RevisionID
	replaces []shoal.RevisionID
}

// successionOf returns false for a body that replaces no other author's.
func successionOf(b shoal.Body) (succession, bool) {
	switch b := b.(type) {
	case *shoal.RevisionBody:
		return succession{b.Revision, b.Replaces}, true
	case *shoal.ImageBody:
		return succession{b.ID, b.Replaces}, true
	case *shoal.PolicyBody:
		return succession{b.ID, b.Replaces}, true
	}
	return succession{}, false
}

// successor returns the succession of an item, the zero value for other kinds.
func successor(it *item) succession {
	s, _ := successionOf(it.Record.Body)
	return s
}

// standing returns the items that count and that no other author's replaces, sorted by
// ID, and the IDs of all that count.
func standing(versions []version) (heads []*item, seen []shoal.RevisionID) {
	var all []*item
	for _, ver := range versions {
		if ver.counts != nil {
			all = append(all, ver.counts)
			seen = append(seen, successor(ver.counts).id)
		}
	}
	for _, it := range all {
		id := successor(it).id
		if !slices.ContainsFunc(all, func(o *item) bool { return o != it && reaches(successor(o).replaces, id) }) {
			heads = append(heads, it)
		}
	}
	slices.SortFunc(heads, func(a, b *item) int { return successor(a).id.Compare(successor(b).id) })
	return heads, seen
}

// follows reports whether id is the author's and its sequence is 1 + the highest
// of what it replaces.
func follows(id shoal.RevisionID, author shoal.PeerID, replaces []shoal.RevisionID) bool {
	high := uint64(0)
	for _, r := range replaces {
		high = max(high, r.Seq)
	}
	return id.Author == author && id.Seq == high+1 && id.Seq != 0
}

// reaches reports whether the references include id: they name it, or a later one
// of its author, which replaced it.
func reaches(refs []shoal.RevisionID, id shoal.RevisionID) bool {
	return slices.ContainsFunc(refs, func(r shoal.RevisionID) bool { return r.Author == id.Author && r.Seq >= id.Seq })
}

// markPending marks the revisions that replace one not known here. (s, A) is known
// when a revision by A with a sequence of at least s is held, be it void, but not
// if it is pending itself.
func markPending(revs []*revision, versions []version) {
	void := map[shoal.PeerID]uint64{} // highest sequence held that does not count
	for _, ver := range versions {
		if ver.newest != ver.counts {
			void[ver.newest.Record.Author] = successor(ver.newest).id.Seq
		}
	}
	for again := true; again; {
		again = false
		for _, r := range revs {
			known := func(ref shoal.RevisionID) bool {
				return void[ref.Author] >= ref.Seq || slices.ContainsFunc(revs, func(o *revision) bool {
					return !o.pending && o.body.Revision.Author == ref.Author && o.body.Revision.Seq >= ref.Seq
				})
			}
			for _, ref := range r.body.Replaces {
				if !r.pending && ref.Author != r.Record.Author && !known(ref) {
					r.pending, again = true, true
				}
			}
		}
	}
}

// markRemoved marks what gone records name and all that it replaced.
func (s *serviceVerdict) markRemoved(revs []*revision) {
	if s.gone == nil {
		return
	}
	refs := slices.Clone(s.gone.Removes)
	for again := true; again; {
		again = false
		for _, r := range revs {
			if !r.removed && !r.pending && reaches(refs, r.body.Revision) {
				r.removed, again = true, true
				refs = append(refs, r.body.Replaces...)
			}
		}
	}
}

// headsOf returns the standing revisions that no other one replaced, current first.
func headsOf(revs []*revision) []*revision {
	var heads []*revision
	for _, r := range revs {
		if r.pending || r.removed || slices.ContainsFunc(revs, func(o *revision) bool {
			return o != r && !o.pending && reaches(o.body.Replaces, r.body.Revision)
		}) {
			continue
		}
		heads = append(heads, r)
	}
	slices.SortFunc(heads, func(a, b *revision) int { return b.body.Revision.Compare(a.body.Revision) })
	return heads
}

// stand makes the service out of its heads, the first of which is current.
func (s *serviceVerdict) stand(heads, revs []*revision, scales, ops []*item) {
	cur := heads[0]
	svc := &shoal.Service{
		Spec: cur.body.Spec, Revision: cur.body.Revision, Record: cur.Envelope, Accepted: cur.Record.HLC,
		Replicas: replicas(s.scale, cur.body.Spec.Replicas), Scale: s.scale,
		Past: slices.Clone(cur.body.Past), Undoes: cur.body.Undoes, Why: cur.body.Why,
	}
	for _, h := range heads {
		svc.Heads = append(svc.Heads, h.body.Revision)
		if h != cur { // what runs it may go on if it is the same container; and a user may bring it back
			svc.Past = append(svc.Past, shoal.PastRevision{Revision: h.body.Revision, Spec: h.body.Spec, Accepted: h.Record.HLC})
		}
		if h != cur && !sameRemedy(h.body, cur.body) && !h.body.Spec.SameRun(&cur.body.Spec) {
			s.conflicts = append(s.conflicts, shoal.Conflict{
				Service: s.name, Loser: h.body.Revision, Winner: svc.Revision, Rule: rule(h.body.Revision, svc.Revision),
			})
		}
	}
	slices.SortFunc(svc.Heads, shoal.RevisionID.Compare)
	operate(svc, ops)
	wishes := slices.Concat([]*item{cur.item}, scales, ops)
	newest := slices.MaxFunc(wishes, compareAdvice)
	svc.Wish = shoal.RevisionID{Seq: svc.Revision.Seq + s.scale.Seq + svc.OpSeq, Author: newest.Record.Author}
	svc.Fresh = newest.Pushed
	for _, r := range revs {
		if r != cur && !r.pending && !r.removed {
			wishes = append(wishes, r.item)
		}
	}
	svc.Proposed = proposed(wishes, svc)
	s.service = svc
}

// operate applies the newest operation, of all authors' the highest (Seq, author). A
// stop counts for the revision it was asked of and those before: a newer one starts
// the service again (docs/adr/0005).
func operate(svc *shoal.Service, ops []*item) {
	if len(ops) == 0 {
		return
	}
	order := func(it *item) shoal.RevisionID {
		return shoal.RevisionID{Seq: it.Record.Body.(*shoal.OpBody).Seq, Author: it.Record.Author}
	}
	last := slices.MaxFunc(ops, func(a, b *item) int { return order(a).Compare(order(b)) })
	op := last.Record.Body.(*shoal.OpBody)
	svc.OpSeq = op.Seq
	svc.Stopped = op.Stopped && svc.Revision.Compare(op.Of) <= 0
}

// steer takes what is said of the current revision's rollout: of all authors' word the
// highest (Seq, author) counts, and any that it has settled.
func steer(svc *shoal.Service, words []*item) {
	var last shoal.RevisionID
	for _, it := range words {
		b := it.Record.Body.(*shoal.RolloutBody)
		if b.Of != svc.Revision {
			continue
		}
		st := &svc.Rollout
		st.Settled = st.Settled || b.Settled
		if at := (shoal.RevisionID{Seq: b.Seq, Author: it.Record.Author}); last.IsZero() || last.Compare(at) < 0 {
			last = at
			st.Seq, st.Paused, st.Promoted, st.Why = b.Seq, b.Paused, b.Promoted, b.Why
		}
	}
}

// sameRemedy reports whether both go back from one revision to the same containers: each
// side of a split, or two peers at once, did what the service's rollout asks for.
func sameRemedy(a, b *shoal.RevisionBody) bool {
	return !a.Undoes.IsZero() && a.Undoes == b.Undoes && a.Spec.SameContainer(&b.Spec)
}

// rule says why one of two heads is current.
func rule(loser, winner shoal.RevisionID) string {
	if loser.Seq == winner.Seq {
		return fmt.Sprintf("neither author saw the other's revision; of sequence %d the higher peer ID counts (%s over %s)",
			winner.Seq, winner.Author.Short(), loser.Author.Short())
	}
	return fmt.Sprintf("neither author saw the other's revision; the higher sequence counts (%d over %d)", winner.Seq, loser.Seq)
}

// voided shows the revisions that are void only because their author was removed.
func (s *serviceVerdict) voided(versions []version, a *authority) {
	for _, ver := range versions {
		b, ok := ver.newest.Record.Body.(*shoal.RevisionBody)
		if !ok || ver.newest == ver.counts || !a.capped(ver.newest.Record) {
			continue
		}
		c := shoal.Conflict{Service: s.name, Loser: b.Revision, Rule: fmt.Sprintf(
			"its author was removed: of its records those above %d are void, and this is %d",
			a.cap(ver.newest.Record.Author), ver.newest.Record.AuthorSeq)}
		if s.service != nil {
			c.Winner = s.service.Revision
		}
		s.conflicts = append(s.conflicts, c)
	}
	slices.SortFunc(s.conflicts, func(x, y shoal.Conflict) int { return x.Loser.Compare(y.Loser) })
}

// join adds what one author removed.
func (s *serviceVerdict) join(b *shoal.GoneBody) {
	if s.gone == nil {
		s.gone = &shoal.GoneBody{Service: s.name}
	}
	s.gone.Removes = append(s.gone.Removes, b.Removes...)
	slices.SortFunc(s.gone.Removes, shoal.RevisionID.Compare)
	s.gone.Removes = slices.Compact(s.gone.Removes)
}

// claim adds what a peer holds. A removed one holds nothing: only its data may be there
// still, and what its jobs came to stays true.
func (s *serviceVerdict) claim(b *shoal.ClaimBody, removed bool) {
	for _, h := range b.Holds {
		if removed && !h.Outcome.Over() {
			s.homes = append(s.homes, shoal.Home{Peer: b.Peer, Service: s.name, Slot: h.Slot})
			continue
		}
		s.claims = append(s.claims, shoal.Claim{
			Holder: b.Peer, Service: s.name, Slot: h.Slot, Replica: h.Replica, Revision: h.Revision, Since: h.Since, Outcome: h.Outcome,
		})
	}
	for _, r := range b.Released {
		r.Holder, r.Service = b.Peer, s.name
		s.releases = append(s.releases, r)
	}
	for _, slot := range b.Data {
		s.homes = append(s.homes, shoal.Home{Peer: b.Peer, Service: s.name, Slot: slot})
	}
}

// sort orders claims and releases by (slot, holder, replica), homes by (slot, peer).
func (s *serviceVerdict) sort() {
	slices.SortFunc(s.claims, func(a, b shoal.Claim) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Holder, b.Holder), slices.Compare(a.Replica[:], b.Replica[:]))
	})
	slices.SortFunc(s.releases, func(a, b shoal.Release) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Holder, b.Holder), slices.Compare(a.Replica[:], b.Replica[:]))
	})
	slices.SortFunc(s.homes, func(a, b shoal.Home) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Peer, b.Peer))
	})
	s.homes = slices.Compact(s.homes)
}
