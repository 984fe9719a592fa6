// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"cmp"
	"slices"

	"github.com/shoalnet/shoal"
)

// The bounds of a service's replicas, whatever the adds come to.
const (
	minReplicas = 0
	maxReplicas = shoal.MaxReplicas
)

// foldScale joins all authors' scale intents. A base is in force if no other covers
// it; the highest of these counts. It also returns every author's newest base.
func foldScale(scales []*item) (shoal.ScaleState, []shoal.RevisionID) {
	out := shoal.ScaleState{File: -1}
	var bases []*shoal.ScaleBase
	var ids []shoal.RevisionID
	for _, it := range scales {
		b := it.Record.Body.(*shoal.ScaleBody)
		if out.By == nil {
			out.By = make(map[shoal.PeerID]*shoal.ScaleBody, len(scales))
		}
		out.By[it.Record.Author] = b
		out.Seq = max(out.Seq, b.Seq)
		if b.Base != nil {
			bases = append(bases, b.Base)
			ids = append(ids, b.Base.ID)
		}
	}
	for _, b := range bases {
		if slices.ContainsFunc(bases, func(o *shoal.ScaleBase) bool { return o != b && reaches(o.Covers, b.ID) }) {
			continue
		}
		out.Bases = append(out.Bases, b.ID)
		if b.ID.Compare(out.Base) > 0 {
			out.Base, out.File, out.Manual, out.Why = b.ID, b.File, b.Manual, b.Why
		}
	}
	for _, b := range out.By {
		if slices.ContainsFunc(b.Adds, func(a shoal.ScaleAdd) bool { return a.Base == out.Base }) {
			out.Manual, out.Why = true, "" // only users add
		}
	}
	slices.SortFunc(out.Bases, shoal.RevisionID.Compare)
	slices.SortFunc(ids, shoal.RevisionID.Compare)
	return out, ids
}

// replicas returns the number the base in force opened (without one, what the spec
// says) plus what all authors added to it.
func replicas(s shoal.ScaleState, spec int) int {
	n := spec
	sum := 0
	for id, b := range s.By { // addition: the order does not matter
		if b.Base != nil && b.Base.ID == s.Base && s.Base.Author == id {
			n = b.Base.N
		}
		for _, a := range b.Adds {
			if a.Base == s.Base {
				sum += a.Delta
			}
		}
	}
	return max(minReplicas, min(maxReplicas, n+sum))
}

// compareAdvice orders wishes by age: (HLC, author, AuthorSeq). Revisions and scale
// intents count their sequences apart, so these cannot order one against the other;
// that is harmless here, as a proposal is advice and freshness a hint.
func compareAdvice(a, b *item) int {
	x, y := a.Record, b.Record
	return cmp.Or(x.HLC.Compare(y.HLC), cmp.Compare(x.Author, y.Author), cmp.Compare(x.AuthorSeq, y.AuthorSeq))
}

// proposed returns by slot what the newest proposal that covers it says, for as many
// slots as are wanted; a proposal of nobody ends older advice too.
func proposed(wishes []*item, svc *shoal.Service) []shoal.PeerID {
	slices.SortFunc(wishes, compareAdvice)
	limit := svc.Replicas
	if svc.Spec.Mode.IsGlobal() {
		limit = maxReplicas
	}
	var out []shoal.PeerID
	for _, it := range wishes { // oldest first: newer ones write over it
		var p shoal.Proposal
		switch b := it.Record.Body.(type) {
		case *shoal.RevisionBody:
			p = b.Proposal
		case *shoal.ScaleBody:
			p = b.Proposal
		}
		for i, peer := range p.Peers {
			slot := p.From + i
			if slot < 0 || slot >= limit {
				break
			}
			for len(out) <= slot {
				out = append(out, "")
			}
			out[slot] = peer
		}
	}
	return out
}
