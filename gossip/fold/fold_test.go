// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func TestMembership(t *testing.T) {
	// each case says which of the peers stand, as "ID role" or "ID removed"
	tests := map[string]struct {
		entries []Entry
		want    string
		void    int
	}{
		"nobody without the root":       {[]Entry{at("A", 1, admit("B", shoal.RoleOperator))}, "", 1},
		"chain":                         {abc(), "A operator, B operator, C operator, P peer", 0},
		"a broken chain admits nobody":  {abc()[1:], "", 3},
		"a role-peer peer cannot admit": {with(at("P", 1, admit("X", shoal.RoleOperator))), "A operator, B operator, C operator, P peer", 1},
		"nobody admits itself":          {with(at("X", 1, admit("X", shoal.RoleOperator))), "A operator, B operator, C operator, P peer", 1},
		"operator if anybody says so":   {with(at("C", 1, admit("P", shoal.RoleOperator))), "A operator, B operator, C operator, P operator", 0},
		"no role is the least":          {with(at("C", 1, admit("X", ""))), "A operator, B operator, C operator, P peer, X peer", 0},
		"earlier admissions stay":       {with(at("A", 3, removal("B", 1))), "A operator, B removed, C operator, P peer", 0},
		"later ones are void":           {with(at("A", 3, removal("B", 0))), "A operator, B removed, P peer", 1},
		"the lowest cap counts": {
			with(at("A", 3, removal("B", 1)), at("C", 1, removal("B", 2)), at("B", 2, admit("X", shoal.RoleOperator))),
			"A operator, B removed, C operator, P peer", 1,
		},
		"the newest of one author counts": {
			with(at("A", 3, removal("B", 1)), at("A", 4, admit("B", shoal.RoleOperator)), at("B", 2, admit("X", shoal.RolePeer))),
			"A operator, B operator, C operator, P peer, X peer", 0,
		},
		"a removal after a removal, in time": {
			with(at("A", 3, removal("B", 2)), at("B", 2, removal("C", 0))), "A operator, B removed, C removed, P peer", 0,
		},
		"a removed one removes nobody": {
			with(at("A", 3, removal("B", 1)), at("B", 2, removal("C", 0))), "A operator, B removed, C operator, P peer", 1,
		},
		"of two that remove each other the senior stands": {
			with(at("A", 3, removal("C", 0)), at("C", 1, removal("A", 2))), "A operator, B operator, C removed, P peer", 1,
		},
		"of two as senior the lower ID stands": {
			with(
				at("A", 3, admit("D", shoal.RoleOperator)), at("B", 2, admit("Z", shoal.RoleOperator)), at("D", 1, admit("Y", shoal.RoleOperator)),
				at("Y", 1, removal("Z", 0)), at("Z", 1, removal("Y", 0)),
			), "A operator, B operator, C operator, D operator, P peer, Y operator, Z removed", 1,
		},
		"the cluster key has the last word": {
			with(at("A", 3, removal("B", 1)), at(cluster, 2, removal("A", 2))), "A removed, B operator, C operator, P peer", 1,
		},
		"the cluster key cannot be removed": {with(at("A", 3, removal(cluster, 0))), "A operator, B operator, C operator, P peer", 0},
		"a body about another":              {with(rename(at("A", 3, admit("X", shoal.RoleOperator)), "Y")), "A operator, B operator, C operator, P peer", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := fold(t, tt.entries...)
			var got []string
			for _, p := range d.Peers {
				what := string(p.Role)
				if p.Removed {
					what = "removed"
				}
				got = append(got, string(p.ID)+" "+what)
			}
			if s := strings.Join(got, ", "); s != tt.want {
				t.Errorf("peers = %s, want %s", s, tt.want)
			}
			if d.Void != tt.void {
				t.Errorf("Void = %d, want %d", d.Void, tt.void)
			}
		})
	}
}

func rename(e Entry, name string) Entry {
	r := *e.Record
	r.Name = name
	e.Record = &r
	return e
}

func TestRoles(t *testing.T) {
	key := make([]byte, 32)
	bodies := map[string]struct {
		body shoal.Body
		peer bool // a role-peer author may write it about itself
	}{
		"revision":  {revise(rev(1, "P")), false},
		"scale":     {&shoal.ScaleBody{Service: "web", Seq: 1}, false},
		"gone":      {gone(), false},
		"mark":      {&shoal.MarkBody{Peer: "P"}, false},
		"image":     {name("P", "x"), false},
		"invite":    {&shoal.InviteBody{ID: "i", Role: shoal.RolePeer, PublicKey: key}, false},
		"own facts": {&shoal.PeerBody{Peer: "P"}, true},
		"own claim": {&shoal.ClaimBody{Peer: "P", Service: "web"}, true},
		"facts":     {&shoal.PeerBody{Peer: "A"}, false},
		"claim":     {&shoal.ClaimBody{Peer: "A", Service: "web"}, false},
	}
	for name, tt := range bodies {
		t.Run(name, func(t *testing.T) {
			base := fold(t, abc()...)
			d := fold(t, with(at("P", 1, tt.body))...)
			if live, void := d.Live-base.Live, d.Void-base.Void; live == 1 != tt.peer || void == 1 == tt.peer {
				t.Errorf("Live, Void grew by %d, %d, may count: %v", live, void, tt.peer)
			}
			if d := fold(t, with(at("X", 1, tt.body))...); d.Void != 1 {
				t.Errorf("a stranger's record: Void = %d, want 1", d.Void)
			}
			if d := fold(t, with(at(cluster, 2, tt.body))...); d.Void != 1 {
				t.Errorf("the cluster key's record: Void = %d, want 1", d.Void)
			}
		})
	}
}

func TestRevisions(t *testing.T) {
	tests := map[string]struct {
		entries   []Entry
		want      string // image of web: the current revision
		conflicts int
		void      int
	}{
		"first":                      {with(at("A", 9, revise(rev(1, "A")))), "1@A", 0, 0},
		"first must be 1":            {with(at("A", 9, revise(rev(2, "A")))), "", 0, 1},
		"zero":                       {with(at("A", 9, revise(rev(0, "A")))), "", 0, 1},
		"by its author only":         {with(at("A", 9, revise(rev(1, "B")))), "", 0, 1},
		"replaced":                   {with(at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(2, "B"), rev(1, "A")))), "2@B", 0, 0},
		"skips a number":             {with(at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(3, "B"), rev(1, "A")))), "1@A", 0, 1},
		"lower than what it saw":     {with(at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(1, "B"), rev(1, "A")))), "1@A", 0, 1},
		"concurrent, by author":      {with(at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(1, "B")))), "1@B", 1, 0},
		"concurrent, by sequence":    {with(at("A", 8, revise(rev(1, "A"))), at("A", 9, revise(rev(2, "A"), rev(1, "A"))), at("B", 9, revise(rev(1, "B")))), "2@A", 1, 0},
		"concurrent, joined":         {with(at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(1, "B"))), at("C", 9, revise(rev(2, "C"), rev(1, "A"), rev(1, "B")))), "2@C", 0, 0},
		"pending":                    {with(at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(3, "B"), rev(2, "C")))), "1@A", 0, 0},
		"pending upon pending":       {with(at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(9, "B"), rev(8, "X"))), at("C", 9, revise(rev(10, "C"), rev(9, "B")))), "1@A", 0, 0},
		"known by a later one":       {with(at("A", 9, revise(rev(3, "A"), rev(2, "B"))), at("B", 9, revise(rev(2, "B"), rev(1, "A")))), "3@A", 0, 0},
		"the same author's is known": {with(at("A", 9, revise(rev(5, "A"), rev(4, "A")))), "5@A", 0, 0},
		"invalid newer leaves older": {with(at("A", 8, revise(rev(1, "A"))), at("A", 9, revise(rev(7, "A")))), "1@A", 0, 1},
		"a lost store goes not back": {with(at("A", 8, revise(rev(3, "A"), rev(2, "A"))), at("A", 9, revise(rev(1, "A"))), at("B", 9, revise(rev(4, "B"), rev(3, "A")))), "4@B", 0, 0},
		"removed author, before":     {with(at("B", 8, revise(rev(1, "B"))), at("A", 9, removal("B", 8))), "1@B", 0, 0},
		"removed author, after": {
			with(at("B", 8, revise(rev(1, "B"))), at("B", 9, revise(rev(2, "B"), rev(1, "B"))), at("A", 9, removal("B", 8))), "1@B", 1, 1,
		},
		"built on a void one": {
			with(at("A", 8, revise(rev(1, "A"))), at("B", 9, revise(rev(2, "B"), rev(1, "A"))), at("C", 9, revise(rev(3, "C"), rev(2, "B"), rev(1, "A"))), at("A", 9, removal("B", 8))),
			"3@C", 1, 1,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := fold(t, tt.entries...)
			if got := image(d); got != tt.want {
				t.Errorf("current = %q, want %q", got, tt.want)
			}
			if len(d.Conflicts) != tt.conflicts || d.Void != tt.void {
				t.Errorf("Conflicts, Void = %v, %d, want %d, %d", d.Conflicts, d.Void, tt.conflicts, tt.void)
			}
			for _, c := range d.Conflicts {
				if c.Service != "web" || c.Rule == "" || c.Winner.String() != tt.want {
					t.Errorf("conflict %+v, want one about web, won by %s, with a rule", c, tt.want)
				}
			}
		})
	}
}

func TestGone(t *testing.T) {
	one, two := at("A", 8, revise(rev(1, "A"))), at("B", 8, revise(rev(2, "B"), rev(1, "A")))
	tests := map[string]struct {
		entries []Entry
		want    string
	}{
		"removes the head":            {with(one, at("C", 9, gone(rev(1, "A")))), ""},
		"and all it replaced":         {with(one, two, at("C", 9, gone(rev(2, "B")))), ""},
		"not what came after":         {with(one, two, at("C", 9, gone(rev(1, "A")))), "2@B"},
		"nor what it had not seen":    {with(one, at("C", 8, revise(rev(1, "C"))), at("B", 9, gone(rev(1, "A")))), "1@C"},
		"before what it removes":      {with(at("C", 9, gone(rev(2, "B"))), two, one), ""},
		"created again":               {with(one, at("C", 9, gone(rev(1, "A"))), at("A", 9, revise(rev(2, "A"), rev(1, "A")))), "2@A"},
		"two removals":                {with(one, at("C", 8, revise(rev(1, "C"))), at("B", 9, gone(rev(1, "A"))), at("A", 9, gone(rev(1, "C")))), ""},
		"what was removed reaches on": {with(one, two, at("C", 8, gone(rev(2, "B"))), at("C", 9, gone(rev(2, "B")))), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := fold(t, tt.entries...)
			if got := image(d); got != tt.want {
				t.Errorf("current = %q, want %q", got, tt.want)
			}
			if len(d.Gone) != 1 || d.Gone[0].Service != "web" {
				t.Errorf("Gone = %+v, want web", d.Gone)
			}
		})
	}
}

func base(n int, id shoal.RevisionID, covers ...shoal.RevisionID) *shoal.ScaleBase {
	return &shoal.ScaleBase{ID: id, N: n, File: n, Covers: covers}
}

func TestScale(t *testing.T) {
	intent := func(b *shoal.ScaleBase, adds ...shoal.ScaleAdd) *shoal.ScaleBody {
		return &shoal.ScaleBody{Service: "web", Seq: 1, Base: b, Adds: adds}
	}
	add := func(on shoal.RevisionID, n int) shoal.ScaleAdd { return shoal.ScaleAdd{Base: on, Delta: n} }
	a1, b1, b2 := rev(1, "A"), rev(1, "B"), rev(2, "B")
	tests := map[string]struct {
		entries []Entry
		want    int
		bases   []shoal.RevisionID
	}{
		"the spec's":                {nil, 3, nil},
		"opened":                    {[]Entry{at("A", 9, intent(base(7, a1)))}, 7, []shoal.RevisionID{a1}},
		"covered":                   {[]Entry{at("A", 9, intent(base(7, a1))), at("B", 9, intent(base(2, b2, a1)))}, 2, []shoal.RevisionID{b2}},
		"concurrent":                {[]Entry{at("A", 9, intent(base(7, a1))), at("B", 9, intent(base(2, b1)))}, 2, []shoal.RevisionID{a1, b1}},
		"two splits each add one":   {[]Entry{at("A", 9, intent(base(7, a1), add(a1, 1))), at("B", 9, intent(nil, add(a1, 1)))}, 9, []shoal.RevisionID{a1}},
		"adds to a covered one":     {[]Entry{at("A", 9, intent(base(7, a1), add(a1, 5))), at("B", 9, intent(base(2, b2, a1)))}, 2, []shoal.RevisionID{b2}},
		"adds to the spec's":        {[]Entry{at("A", 9, intent(nil, add(shoal.RevisionID{}, 2)))}, 5, nil},
		"never below none":          {[]Entry{at("A", 9, intent(base(1, a1), add(a1, -5)))}, 0, []shoal.RevisionID{a1}},
		"never above the limit":     {[]Entry{at("A", 9, intent(base(9999, a1), add(a1, 9999)))}, shoal.MaxReplicas, []shoal.RevisionID{a1}},
		"out of sequence":           {[]Entry{at("A", 9, intent(base(7, a1))), at("B", 9, intent(base(2, rev(9, "B"), a1)))}, 7, []shoal.RevisionID{a1}},
		"another's base":            {[]Entry{at("A", 9, intent(base(7, b1)))}, 3, nil},
		"a later one covers before": {[]Entry{at("A", 9, intent(base(7, rev(3, "A"), b2))), at("B", 9, intent(base(2, rev(3, "B"), b2, a1)))}, 2, []shoal.RevisionID{rev(3, "A"), rev(3, "B")}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := fold(t, with(append(tt.entries, at("C", 9, revise(rev(1, "C"))))...)...)
			s, ok := d.Service("web")
			if !ok || s.Replicas != tt.want {
				t.Fatalf("Replicas = %+v, want %d", s, tt.want)
			}
			if diff := cmp.Diff(tt.bases, s.Scale.Bases); diff != "" {
				t.Errorf("Bases differ (-want +got):\n%s", diff)
			}
			if file := s.Scale.File; len(tt.bases) == 0 && file != -1 || len(tt.bases) > 0 && file < 0 {
				t.Errorf("File = %d with bases %v", file, tt.bases)
			}
		})
	}
}

// TestScaleSaidBy: who called for the number, of the base in force only; who adds is a user.
func TestScaleSaidBy(t *testing.T) {
	a1, b2 := rev(1, "A"), rev(2, "B")
	load, user := base(7, a1), base(5, b2, a1)
	load.Why, user.Manual = "cpu 83% of 60%: 5 -> 7", true
	body := func(b *shoal.ScaleBase, adds ...shoal.ScaleAdd) *shoal.ScaleBody {
		return &shoal.ScaleBody{Service: "web", Seq: 1, Base: b, Adds: adds}
	}
	tests := map[string]struct {
		entries []Entry
		manual  bool
		why     string
	}{
		"nobody":             {nil, false, ""},
		"the load":           {[]Entry{at("A", 9, body(load))}, false, load.Why},
		"a user after it":    {[]Entry{at("A", 9, body(load)), at("B", 9, body(user))}, true, ""},
		"a user adds to it":  {[]Entry{at("A", 9, body(load)), at("B", 9, body(nil, shoal.ScaleAdd{Base: a1, Delta: 1}))}, true, ""},
		"added to what went": {[]Entry{at("A", 9, body(load)), at("B", 9, body(nil, shoal.ScaleAdd{Base: b2, Delta: 1}))}, false, load.Why},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, ok := fold(t, with(append(tt.entries, at("C", 9, revise(rev(1, "C"))))...)...).Service("web")
			if !ok || s.Scale.Manual != tt.manual || s.Scale.Why != tt.why {
				t.Errorf("Scale = %+v, want manual %t, why %q", s.Scale, tt.manual, tt.why)
			}
		})
	}
}

func TestOperations(t *testing.T) {
	op := func(seq uint64, stopped bool, of shoal.RevisionID) *shoal.OpBody {
		return &shoal.OpBody{Service: "web", Seq: seq, Stopped: stopped, Of: of}
	}
	a1, c2 := rev(1, "A"), rev(2, "C")
	one, two := at("A", 7, revise(a1)), at("C", 8, revise(c2, a1))
	tests := map[string]struct {
		entries []Entry
		stopped bool
		seq     uint64
	}{
		"none":                       {with(one), false, 0},
		"stopped":                    {with(one, at("B", 9, op(1, true, a1))), true, 1},
		"started":                    {with(one, at("B", 9, op(1, true, a1)), at("A", 9, op(2, false, a1))), false, 2},
		"stopped again":              {with(one, at("B", 9, op(1, true, a1)), at("A", 9, op(2, false, a1)), at("B", 10, op(3, true, a1))), true, 3},
		"concurrent, by author":      {with(one, at("A", 9, op(1, false, a1)), at("B", 9, op(1, true, a1))), true, 1},
		"a newer revision starts":    {with(one, two, at("B", 9, op(1, true, a1))), false, 1},
		"asked of the newer one":     {with(one, two, at("B", 9, op(1, true, c2))), true, 1},
		"of a revision not here":     {with(one, at("B", 9, op(1, true, c2))), true, 1},
		"by a peer, not an operator": {with(one, at("P", 9, op(1, true, a1))), false, 0},
		"removed and created again":  {with(one, at("B", 9, op(1, true, a1)), at("B", 10, gone(a1)), two), false, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, ok := fold(t, tt.entries...).Service("web")
			if !ok || s.Stopped != tt.stopped || s.OpSeq != tt.seq {
				t.Fatalf("web: %+v, want stopped %v by operation %d", s, tt.stopped, tt.seq)
			}
			if want := map[bool]int{true: 0, false: 3}[tt.stopped]; s.Wanted() != want || s.Replicas != 3 {
				t.Errorf("Wanted, Replicas = %d, %d, want %d, 3", s.Wanted(), s.Replicas, want)
			}
		})
	}
}

func TestScaleOfGoneService(t *testing.T) {
	d := fold(t, with(at("A", 8, revise(rev(1, "A"))), at("B", 9, &shoal.ScaleBody{Service: "web", Seq: 4, Base: base(7, rev(1, "B"))}), at("C", 9, gone(rev(1, "A"))))...)
	if s := d.GoneScale["web"]; s.Seq != 4 || s.Base != rev(1, "B") {
		t.Errorf("GoneScale = %+v, want the base 1@B and sequence 4", d.GoneScale)
	}
}

func TestProposed(t *testing.T) {
	d := fold(t, with(
		entry("A", 9, shoal.HLC{WallMilli: 1}, &shoal.RevisionBody{
			Revision: rev(1, "A"), Spec: shoal.Spec{Name: "web", Replicas: 5}, Proposal: shoal.Proposal{Peers: []shoal.PeerID{"A", "B", "C"}},
		}),
		entry("C", 9, shoal.HLC{WallMilli: 3}, &shoal.ScaleBody{Service: "web", Seq: 1, Proposal: shoal.Proposal{From: 4, Peers: []shoal.PeerID{"P", "P", "P"}}}),
		entry("B", 9, shoal.HLC{WallMilli: 2}, &shoal.ScaleBody{Service: "web", Seq: 2, Proposal: shoal.Proposal{From: 1, Peers: []shoal.PeerID{"", "A", "A", "A"}}}),
	)...)
	s, _ := d.Service("web")
	if diff := cmp.Diff([]shoal.PeerID{"A", "", "A", "A", "P"}, s.Proposed); diff != "" {
		t.Errorf("Proposed differs (-want +got):\n%s", diff)
	}
}

// TestProposedAfterGone: the advice of what was removed, and of what that had
// replaced, ends.
func TestProposedAfterGone(t *testing.T) {
	one, two := revise(rev(1, "A")), revise(rev(2, "B"), rev(1, "A"))
	one.Proposal.Peers, two.Proposal.Peers = []shoal.PeerID{"A", "B", "C"}, []shoal.PeerID{"P"}
	d := fold(t, with(at("A", 8, one), at("B", 8, two), at("B", 9, gone(rev(2, "B"))), at("C", 9, revise(rev(3, "C"), rev(2, "B"))))...)
	if s, ok := d.Service("web"); !ok || s.Revision != rev(3, "C") || len(s.Proposed) > 0 {
		t.Errorf("web = %+v, want 3@C without advice", s)
	}
}

func TestWishAndFresh(t *testing.T) {
	first := at("A", 8, revise(rev(1, "A")))
	scale := at("B", 9, &shoal.ScaleBody{Service: "web", Seq: 1})
	second := at("C", 10, revise(rev(2, "C"), rev(1, "A")))
	seen := map[shoal.RevisionID]bool{}
	entries := abc()
	stop := at("B", 11, &shoal.OpBody{Service: "web", Seq: 1, Stopped: true, Of: rev(2, "C")})
	for i, e := range []Entry{first, scale, second, stop} {
		e.Pushed = i%2 == 0
		entries = append(entries, e)
		s, _ := fold(t, entries...).Service("web")
		if seen[s.Wish] {
			t.Errorf("Wish = %v did not change", s.Wish)
		}
		seen[s.Wish] = true
		if s.Fresh != e.Pushed {
			t.Errorf("Fresh = %v after wish %d, want %v", s.Fresh, i, e.Pushed)
		}
		if s.Accepted.WallMilli == 0 || len(s.Record) == 0 {
			t.Errorf("Accepted, Record = %v, %q, want both", s.Accepted, s.Record)
		}
	}
}

func TestClaims(t *testing.T) {
	hold := func(slot int) shoal.Holding {
		return shoal.Holding{Slot: slot, Replica: shoal.ReplicaID{byte(slot + 1)}, Revision: rev(1, "A"), Since: shoal.HLC{WallMilli: 7}}
	}
	d := fold(t, with(
		at("P", 1, &shoal.ClaimBody{Peer: "P", Service: "web", Holds: []shoal.Holding{hold(2), hold(0)}}),
		at("C", 7, &shoal.ClaimBody{Peer: "C", Service: "web", Holds: []shoal.Holding{hold(9)}}),
		at("C", 8, &shoal.ClaimBody{Peer: "C", Service: "web", Holds: []shoal.Holding{hold(0)}, Released: []shoal.Release{{Slot: 9, Replica: shoal.ReplicaID{10}, YieldTo: "P"}}, Data: []int{3, 9}}),
		at("A", 8, &shoal.ClaimBody{Peer: "A", Service: "web", Data: []int{9}}),
		at("B", 9, &shoal.ClaimBody{Peer: "B", Service: "web", Holds: []shoal.Holding{hold(4)}}),
		at("B", 8, &shoal.ClaimBody{Peer: "B", Service: "db", Holds: []shoal.Holding{hold(5)}}), // its data, no more
		at("A", 9, removal("B", 8)),
	)...)
	want := []shoal.Claim{
		{Holder: "C", Service: "web", Slot: 0, Replica: shoal.ReplicaID{1}, Revision: rev(1, "A"), Since: shoal.HLC{WallMilli: 7}},
		{Holder: "P", Service: "web", Slot: 0, Replica: shoal.ReplicaID{1}, Revision: rev(1, "A"), Since: shoal.HLC{WallMilli: 7}},
		{Holder: "P", Service: "web", Slot: 2, Replica: shoal.ReplicaID{3}, Revision: rev(1, "A"), Since: shoal.HLC{WallMilli: 7}},
	}
	if diff := cmp.Diff(want, d.Claims); diff != "" {
		t.Errorf("Claims differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]shoal.Release{{Holder: "C", Service: "web", Slot: 9, Replica: shoal.ReplicaID{10}, YieldTo: "P"}}, d.Releases); diff != "" {
		t.Errorf("Releases differ (-want +got):\n%s", diff)
	}
	homes := []shoal.Home{{Peer: "B", Service: "db", Slot: 5}, {Peer: "C", Service: "web", Slot: 3}, {Peer: "A", Service: "web", Slot: 9}, {Peer: "C", Service: "web", Slot: 9}}
	if diff := cmp.Diff(homes, d.Homes); diff != "" {
		t.Errorf("Homes differ (-want +got):\n%s", diff)
	}
	if d.Void != 1 {
		t.Errorf("Void = %d, want 1 (what B wrote after its removal)", d.Void)
	}
}

func TestMarks(t *testing.T) {
	mark := func(id string, drain bool) *shoal.MarkBody {
		return &shoal.MarkBody{Peer: "P", Laid: []shoal.Mark{{ID: id, Drain: drain}}}
	}
	lift := &shoal.MarkBody{Peer: "P", Lifts: []string{"a"}}
	tests := map[string]struct {
		entries            []Entry
		cordoned, draining bool
	}{
		"none":                       {nil, false, false},
		"cordon":                     {[]Entry{at("A", 9, mark("a", false))}, true, false},
		"drain":                      {[]Entry{at("A", 9, mark("a", true))}, true, true},
		"lifted by another":          {[]Entry{at("A", 9, mark("a", true)), at("B", 9, lift)}, false, false},
		"an unseen one survives":     {[]Entry{at("A", 9, mark("a", true)), at("C", 9, mark("c", false)), at("B", 9, lift)}, true, false},
		"lifting before it was laid": {[]Entry{at("B", 9, lift), at("A", 9, mark("a", true))}, false, false},
		"by a role-peer peer":        {[]Entry{at("P", 9, mark("a", true))}, false, false},
		"the newest of one author": {
			[]Entry{at("A", 9, mark("a", true)), at("A", 10, mark("b", false))}, true, false,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, ok := fold(t, with(tt.entries...)...).Peer("P")
			if !ok || p.Cordoned != tt.cordoned || p.Draining != tt.draining {
				t.Errorf("P = %+v, want cordoned %v, draining %v", p, tt.cordoned, tt.draining)
			}
		})
	}
}

func TestPeerFacts(t *testing.T) {
	d := fold(t, with(
		at("P", 1, &shoal.PeerBody{Peer: "P", Facts: shoal.PeerFacts{Name: "old"}}),
		at("P", 2, &shoal.PeerBody{Peer: "P", Facts: shoal.PeerFacts{Name: "new"}}),
	)...)
	if p, ok := d.Peer("P"); !ok || p.Facts.Name != "new" {
		t.Errorf("P = %+v, want the newest facts", p)
	}
}

func TestEdits(t *testing.T) {
	own := at("P", 1, &shoal.PeerBody{Peer: "P", Facts: shoal.PeerFacts{Name: "p", Labels: map[string]string{"zone": "a", "disk": "ssd"}}})
	edits := func(e ...shoal.Edit) *shoal.MarkBody { return &shoal.MarkBody{Peer: "P", Edits: e} }
	tests := map[string]struct {
		entries []Entry
		name    string
		labels  map[string]string
	}{
		"none":                {nil, "p", map[string]string{"zone": "a", "disk": "ssd"}},
		"a name and a label":  {[]Entry{at("A", 9, edits(shoal.Edit{Value: "osaka", Seq: 1}, shoal.Edit{Label: "zone", Value: "b", Seq: 1}))}, "osaka", map[string]string{"zone": "b", "disk": "ssd"}},
		"taken away":          {[]Entry{at("A", 9, edits(shoal.Edit{Label: "disk", Gone: true, Seq: 1}))}, "p", map[string]string{"zone": "a"}},
		"its own name again":  {[]Entry{at("A", 9, edits(shoal.Edit{Value: "osaka", Seq: 1})), at("B", 9, edits(shoal.Edit{Own: true, Seq: 2}))}, "p", map[string]string{"zone": "a", "disk": "ssd"}},
		"its own label again": {[]Entry{at("A", 9, edits(shoal.Edit{Label: "zone", Gone: true, Seq: 1})), at("B", 9, edits(shoal.Edit{Label: "zone", Own: true, Seq: 2}))}, "p", map[string]string{"zone": "a", "disk": "ssd"}},
		"the highest counts":  {[]Entry{at("B", 9, edits(shoal.Edit{Value: "kyoto", Seq: 2})), at("C", 9, edits(shoal.Edit{Value: "osaka", Seq: 1}))}, "kyoto", map[string]string{"zone": "a", "disk": "ssd"}},
		"then the author":     {[]Entry{at("B", 9, edits(shoal.Edit{Value: "kyoto", Seq: 2})), at("C", 9, edits(shoal.Edit{Value: "osaka", Seq: 2}))}, "osaka", map[string]string{"zone": "a", "disk": "ssd"}},
		"nobody edits itself without being an operator": {[]Entry{at("P", 9, edits(shoal.Edit{Value: "king", Seq: 9}))}, "p", map[string]string{"zone": "a", "disk": "ssd"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, ok := fold(t, with(append(tt.entries, own)...)...).Peer("P")
			if !ok || p.Facts.Name != tt.name || !cmp.Equal(p.Facts.Labels, tt.labels) {
				t.Errorf("Facts = %+v, want name %q, labels %v", p.Facts, tt.name, tt.labels)
			}
			if p.Own.Name != "p" || p.Own.Labels["zone"] != "a" {
				t.Errorf("Own = %+v, want what P says of itself", p.Own)
			}
		})
	}
}

func TestInvites(t *testing.T) {
	key := make([]byte, 32)
	d := fold(t, with(
		at("A", 9, &shoal.InviteBody{ID: "i", Role: shoal.RolePeer, PublicKey: key, ExpiresAt: 99, Uses: 2}),
		at("B", 9, &shoal.InviteBody{ID: "i", RedeemedBy: []shoal.PeerID{"Y", "X"}}),
		at("C", 9, &shoal.InviteBody{ID: "i", RedeemedBy: []shoal.PeerID{"X"}, Revoked: true}),
		at("C", 10, &shoal.InviteBody{ID: "j", RedeemedBy: []shoal.PeerID{"X"}}),
	)...)
	want := []shoal.Invite{{
		ID: "i", Issuer: "A", Role: shoal.RolePeer, PublicKey: key, ExpiresAt: 99, Uses: 2,
		RedeemedBy: []shoal.PeerID{"X", "Y"}, Revoked: true,
	}}
	if diff := cmp.Diff(want, d.Invites); diff != "" {
		t.Errorf("Invites differ (-want +got):\n%s", diff)
	}
}

func TestUnknown(t *testing.T) {
	strange := func(author shoal.PeerID, kind shoal.Kind, seq uint64) Entry {
		return Entry{Record: &shoal.Record{Schema: 1, Kind: kind, Name: "x", Author: author, AuthorSeq: seq, Raw: []byte("?")}}
	}
	before := fold(t, with(at("A", 8, revise(rev(1, "A"))))...)
	d := fold(t, with(at("A", 8, revise(rev(1, "A"))), strange("B", "epoch", 4), strange("B", "epoch", 5), strange("C", shoal.KindService, 9), strange("X", "epoch", 1))...)
	if d.Unknown != 2 || d.Void != 1 || d.Live != before.Live {
		t.Errorf("Unknown, Void, Live = %d, %d, %d, want 2, 1, %d", d.Unknown, d.Void, d.Live, before.Live)
	}
	if diff := cmp.Diff(before.Services, d.Services); diff != "" {
		t.Errorf("Services differ (-want +got):\n%s", diff)
	}
	if d.Digest == before.Digest {
		t.Error("unknown records are not in the digest")
	}
}

func TestComplete(t *testing.T) {
	a, b := newPen("A"), newPen("B")
	a.state, _ = a.state.Add(abc()...)
	a.seq = 9
	b.state, b.seq = a.state, 9
	b.write(revise(rev(1, "B")), &shoal.ScaleBody{Service: "web", Seq: 1, Base: base(1, rev(1, "B"))})
	a.learn(b)
	a.write(revise(rev(2, "A"), rev(1, "B")), &shoal.ScaleBody{Service: "web", Seq: 2, Base: base(2, rev(2, "A"), rev(1, "B"))})
	draft := &shoal.ClaimBody{Peer: "A", Service: "web", Holds: []shoal.Holding{{Slot: 1}, {Slot: 2, Since: shoal.HLC{WallMilli: 1}}}}
	out := a.write(revise(rev(3, "A"), rev(2, "A")), &shoal.ScaleBody{Service: "web", Seq: 3, Base: base(3, rev(3, "A"), rev(2, "A"))},
		draft, &shoal.MemberBody{Peer: "B", Removed: true}, &shoal.MemberBody{Peer: "A", Removed: true})

	if got, want := out[0].Record.Body.(*shoal.RevisionBody).Replaces, []shoal.RevisionID{rev(1, "B"), rev(2, "A")}; !cmp.Equal(got, want) {
		t.Errorf("Replaces = %v, want %v", got, want)
	}
	if got, want := out[1].Record.Body.(*shoal.ScaleBody).Base.Covers, []shoal.RevisionID{rev(1, "B"), rev(2, "A")}; !cmp.Equal(got, want) {
		t.Errorf("Covers = %v, want %v", got, want)
	}
	holds := out[2].Record.Body.(*shoal.ClaimBody).Holds
	if holds[0].Since != out[2].Record.HLC || holds[1].Since.WallMilli != 1 || !draft.Holds[0].Since.IsZero() {
		t.Errorf("Holds = %+v, draft %+v, want the zero Since stamped in a copy", holds, draft.Holds)
	}
	if m := out[3].Record.Body.(*shoal.MemberBody); m.HighestSeq != 11 || m.Role != shoal.RoleOperator {
		t.Errorf("removal of B = %+v, want an operator removed above 11", m)
	}
	if m := out[4].Record.Body.(*shoal.MemberBody); m.HighestSeq != out[4].Record.AuthorSeq {
		t.Errorf("removal of self = %+v, want it not to void itself", m)
	}
	d := a.d()
	if s, ok := d.Service("web"); !ok || s.Revision != rev(3, "A") || len(d.Conflicts) > 0 || len(s.Scale.Bases) != 1 || s.Replicas != 3 {
		t.Errorf("web = %+v, conflicts %v, want 3@A alone", s, d.Conflicts)
	}
	for _, id := range []shoal.PeerID{"A", "B"} {
		if p, ok := d.Peer(id); !ok || !p.Removed {
			t.Errorf("%s = %+v, want it removed", id, p)
		}
	}
}

func TestResolverGrowsVersion(t *testing.T) {
	r := NewResolver(cluster)
	s, _ := State{}.Add(abc()...)
	one := r.Resolve(s)
	if again := r.Resolve(s); again != one || r.Desired() != one || one.Version != 1 {
		t.Errorf("Resolve of the same state = version %d, want the same %d", again.Version, one.Version)
	}
	s, changed := s.Add(abc()...)
	if changed || r.Resolve(s) != one {
		t.Error("adding what is there changed the state")
	}
	s, changed = s.Add(at("A", 9, revise(rev(1, "A"))))
	if two := r.Resolve(s); !changed || two.Version != 2 || two.Digest == one.Digest {
		t.Errorf("Resolve of another state = version %d, digest equal %v", two.Version, two.Digest == one.Digest)
	}
}
