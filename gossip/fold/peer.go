// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// judgePeer joins a peer's facts with what operators say of it: a mark is in force if
// no author lifts it; of several edits of one field the highest (Seq, author) counts.
func (v *verdict) judgePeer(versions []version) {
	p := &shoal.Peer{}
	v.peer = p
	for _, ver := range versions {
		if ver.counts == nil {
			continue
		}
		switch b := ver.counts.Record.Body.(type) {
		case *shoal.PeerBody:
			p.Own = b.Facts
		case *shoal.MarkBody:
			if p.By == nil {
				p.By = map[shoal.PeerID]*shoal.MarkBody{}
			}
			p.By[ver.counts.Record.Author] = b
		}
	}
	p.Marks, p.Edits = marksOf(p.By), editsOf(p.By)
	for _, m := range p.Marks {
		p.Cordoned = true
		p.Draining = p.Draining || m.Drain
	}
	p.Facts = edited(p.Own, p.Edits)
}

// addTo adds what a peer's own topic came to, to what its membership did.
func (v *verdict) addTo(p *shoal.Peer) {
	q := *v.peer
	q.ID, q.Role, q.Admission, q.Removed, q.Removal = p.ID, p.Role, p.Admission, p.Removed, p.Removal
	*p = q
}

func marksOf(by map[shoal.PeerID]*shoal.MarkBody) []shoal.Mark {
	lifted := map[string]bool{}
	for _, b := range by { // a union: the order does not matter
		for _, id := range b.Lifts {
			lifted[id] = true
		}
	}
	var out []shoal.Mark
	for _, author := range slices.Sorted(maps.Keys(by)) {
		for _, m := range by[author].Laid {
			if !lifted[m.ID] {
				out = append(out, m)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b shoal.Mark) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func editsOf(by map[shoal.PeerID]*shoal.MarkBody) []shoal.Edit {
	counts := map[string]shoal.Edit{}
	for _, author := range slices.Sorted(maps.Keys(by)) { // of equal Seq the last one stays
		for _, e := range by[author].Edits {
			if old, ok := counts[e.Label]; !ok || e.Seq >= old.Seq {
				counts[e.Label] = e
			}
		}
	}
	return slices.SortedFunc(maps.Values(counts), func(a, b shoal.Edit) int { return cmp.Compare(a.Label, b.Label) })
}

// edited returns the facts with the edits over them; own is not written to.
func edited(own shoal.PeerFacts, edits []shoal.Edit) shoal.PeerFacts {
	if len(edits) == 0 {
		return own
	}
	out := own
	out.Labels = maps.Clone(own.Labels)
	for _, e := range edits {
		switch {
		case e.Own:
		case e.Label == "":
			out.Name = e.Value
		case e.Gone:
			delete(out.Labels, e.Label)
		default:
			if out.Labels == nil {
				out.Labels = map[string]string{}
			}
			out.Labels[e.Label] = e.Value
		}
	}
	return out
}
