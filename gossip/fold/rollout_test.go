// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"testing"

	"github.com/shoalnet/shoal"
)

// TestRolloutWords: of what is said about the current revision the highest (Seq, author)
// counts, but that it has settled counts whoever says so; words about others do not.
func TestRolloutWords(t *testing.T) {
	word := func(seq uint64, of shoal.RevisionID, fn func(*shoal.RolloutBody)) *shoal.RolloutBody {
		b := &shoal.RolloutBody{Service: "web", Seq: seq, Of: of}
		fn(b)
		return b
	}
	pause := func(b *shoal.RolloutBody) { b.Paused, b.Why = true, "too much fails" }
	settle := func(b *shoal.RolloutBody) { b.Settled = true }
	promote := func(b *shoal.RolloutBody) { b.Promoted = true }
	nothing := func(*shoal.RolloutBody) {}
	a1, c2 := rev(1, "A"), rev(2, "C")
	one, two := at("A", 7, revise(a1)), at("C", 8, revise(c2, a1))
	paused := shoal.RolloutState{Seq: 1, Paused: true, Why: "too much fails"}
	for name, c := range map[string]struct {
		entries []Entry
		want    shoal.RolloutState
	}{
		"nothing is said":          {with(one), shoal.RolloutState{}},
		"paused":                   {with(one, at("B", 9, word(1, a1, pause))), paused},
		"resumed":                  {with(one, at("B", 9, word(1, a1, pause)), at("A", 9, word(2, a1, nothing))), shoal.RolloutState{Seq: 2}},
		"of two the higher author": {with(one, at("A", 9, word(1, a1, promote)), at("B", 9, word(1, a1, pause))), paused},
		"settled, and paused later": {
			with(one, at("A", 9, word(1, a1, settle)), at("B", 9, word(2, a1, pause))),
			shoal.RolloutState{Seq: 2, Paused: true, Why: "too much fails", Settled: true},
		},
		"of an older revision":       {with(one, two, at("B", 9, word(1, a1, pause))), shoal.RolloutState{}},
		"of a revision not here yet": {with(one, at("B", 9, word(1, c2, pause))), shoal.RolloutState{}},
		"by a peer, not an operator": {with(one, at("P", 9, word(1, a1, pause))), shoal.RolloutState{}},
	} {
		s, ok := fold(t, c.entries...).Service("web")
		if !ok || s.Rollout != c.want {
			t.Errorf("%s: %+v, want %+v", name, s.Rollout, c.want)
		}
	}
}

// TestEqualRemediesMerge: both sides of a split go back from the same revision to the same
// containers; that is one wish, not a conflict, and what runs one may go on as the other.
func TestEqualRemediesMerge(t *testing.T) {
	a1, a2 := rev(1, "A"), rev(2, "A")
	back := func(author shoal.PeerID, image string) *shoal.RevisionBody {
		b := revise(rev(3, author), a2)
		b.Spec.Image, b.Undoes = image, a2
		return b
	}
	two := at("A", 7, revise(a2, a1))
	d := fold(t, with(two, at("B", 9, back("B", "good")), at("C", 9, back("C", "good")))...)
	s, _ := d.Service("web")
	if len(d.Conflicts) != 0 || s.Revision != rev(3, "C") || s.Undoes != a2 || !s.Runs(rev(3, "B")) {
		t.Errorf("service %+v, conflicts %v, want one wish", s, d.Conflicts)
	}
	d = fold(t, with(two, at("B", 9, back("B", "good")), at("C", 9, back("C", "other")))...)
	s, _ = d.Service("web")
	if len(d.Conflicts) != 1 || s.Runs(rev(3, "B")) || len(s.Past) != 1 || s.Past[0].Revision != rev(3, "B") {
		t.Errorf("service %+v, conflicts %v, want a conflict, and the loser remembered", s, d.Conflicts)
	}
}
