// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// genEntry draws records that may be anything: contradicting, out of sequence, by
// strangers, two of one key.
var genEntry = rapid.Custom(func(t *rapid.T) Entry {
	peers := rapid.SampledFrom([]shoal.PeerID{"A", "B", "C", "P", "X"})
	author := rapid.SampledFrom([]shoal.PeerID{"A", "B", "C", "P", "X", cluster}).Draw(t, "author")
	id := rapid.Custom(func(t *rapid.T) shoal.RevisionID {
		return rev(rapid.Uint64Range(1, 4).Draw(t, "seq"), peers.Draw(t, "by"))
	})
	ids := rapid.SliceOfN(id, 0, 3)
	var b shoal.Body
	switch rapid.IntRange(0, 12).Draw(t, "kind") {
	case 0, 1:
		b = &shoal.MemberBody{
			Peer: peers.Draw(t, "peer"), Role: rapid.SampledFrom([]shoal.Role{shoal.RoleOperator, shoal.RolePeer, ""}).Draw(t, "role"),
			Removed: rapid.Bool().Draw(t, "removed"), HighestSeq: rapid.Uint64Range(0, 6).Draw(t, "highest"),
		}
	case 2, 3:
		replaces := ids.Draw(t, "replaces")
		seq := uint64(1)
		for _, r := range replaces {
			seq = max(seq, r.Seq+1)
		}
		b = revise(rev(seq, author), replaces...)
	case 4:
		b = gone(ids.Draw(t, "removes")...)
	case 5:
		b = &shoal.ScaleBody{
			Service: "web", Seq: rapid.Uint64Range(1, 5).Draw(t, "seq"), Base: base(4, rev(1, author)),
			Adds: []shoal.ScaleAdd{{Base: id.Draw(t, "base"), Delta: rapid.IntRange(-2, 2).Draw(t, "delta")}},
		}
	case 6:
		b = &shoal.ClaimBody{Peer: author, Service: "web", Holds: []shoal.Holding{{Slot: rapid.IntRange(0, 3).Draw(t, "slot")}}, Data: rapid.SampledFrom([][]int{nil, {1}, {0, 2}}).Draw(t, "data")}
	case 7:
		b = &shoal.MarkBody{
			Peer: peers.Draw(t, "peer"), Lifts: rapid.SampledFrom([][]string{nil, {"a"}}).Draw(t, "lifts"),
			Laid: []shoal.Mark{{ID: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "mark"), Drain: rapid.Bool().Draw(t, "drain")}},
			Edits: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) shoal.Edit {
				return shoal.Edit{
					Label: rapid.SampledFrom([]string{"", "zone"}).Draw(t, "label"), Value: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "value"),
					Gone: rapid.Bool().Draw(t, "gone"), Own: rapid.Bool().Draw(t, "own"), Seq: rapid.Uint64Range(1, 3).Draw(t, "edit"),
				}
			}), 0, 3).Draw(t, "edits"),
		}
	case 8:
		b = &shoal.PeerBody{Peer: author, Facts: shoal.PeerFacts{Name: "own", Labels: map[string]string{"zone": string(author)}}}
	case 9:
		b = &shoal.OpBody{Service: "web", Seq: rapid.Uint64Range(1, 3).Draw(t, "op"), Stopped: rapid.Bool().Draw(t, "stopped"), Of: id.Draw(t, "of")}
	case 10:
		replaces := ids.Draw(t, "replaces")
		b = name(author, rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "digest"), replaces...)
	case 11:
		replaces := ids.Draw(t, "replaces")
		b = wants(author, rapid.SampledFrom([]string{shoal.UpstreamNone, shoal.UpstreamPeersFirst}).Draw(t, "upstream"), replaces...)
	default:
		return Entry{Record: &shoal.Record{Schema: 1, Kind: "epoch", Name: "e", Author: author, AuthorSeq: rapid.Uint64Range(1, 6).Draw(t, "aseq")}, Pushed: true}
	}
	return entry(author, rapid.Uint64Range(1, 6).Draw(t, "aseq"), shoal.HLC{WallMilli: rapid.Int64Range(0, 3).Draw(t, "wall")}, b)
})

// genSet draws such records around a cluster that stands.
var genSet = rapid.Map(rapid.SliceOfN(genEntry, 0, 40), func(more []Entry) []Entry { return with(more...) })

// TestAnySet: whatever the records say, order, grouping and copies do not matter,
// the cache does not either, and the kept records alone come to the same.
func TestAnySet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := genSet.Draw(t, "records")
		whole, _ := State{}.Add(entries...)
		want := Resolve(whole, cluster)

		shuffled := rapid.Permutation(append(slices.Clone(entries), entries[:len(entries)/3]...)).Draw(t, "order")
		r := NewResolver(cluster)
		grown, parts := State{}, []State{{}, {}, {}}
		for i, e := range shuffled {
			grown, _ = grown.Add(e)
			r.Resolve(grown)
			parts[i%3], _ = parts[i%3].Add(e)
		}
		got := *r.Resolve(grown)
		got.Version = want.Version
		if diff := cmp.Diff(want, &got); diff != "" {
			t.Fatalf("in another order, one by one (-want +got):\n%s", diff)
		}
		x := parts[0].Merge(parts[1]).Merge(parts[2])
		y := parts[2].Merge(parts[1].Merge(parts[0])).Merge(parts[1])
		for name, s := range map[string]State{"merged": x, "merged otherwise": y} {
			if diff := cmp.Diff(want, Resolve(s, cluster)); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", name, diff)
			}
		}
		kept, _ := State{}.Add(r.Kept()...)
		if diff := cmp.Diff(want, Resolve(kept, cluster)); diff != "" {
			t.Fatalf("of the kept records (-want +got):\n%s", diff)
		}
		if len(entries) > 0 && len(whole.Entries()) > len(entries) {
			t.Fatalf("%d entries held of %d", len(whole.Entries()), len(entries))
		}
	})
}

// TestDigestTellsSetsApart: another record that counts, another digest.
func TestDigestTellsSetsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _ := State{}.Add(genSet.Draw(t, "records")...)
		b, changed := a.Add(genEntry.Draw(t, "one more"))
		x, y := Resolve(a, cluster), Resolve(b, cluster)
		if !changed && x.Digest != y.Digest {
			t.Fatal("nothing changed but the digest")
		}
		if x.Digest == y.Digest {
			y.Version = x.Version
			if diff := cmp.Diff(x, y); diff != "" {
				t.Fatalf("equal digests, different state:\n%s", diff)
			}
		}
	})
}

// past is what an author had seen of web's revisions when it wrote, as the model of
// the next test knows it.
type past map[shoal.RevisionID]bool

// TestHonestAuthors drives stores that deploy, scale, remove and sync at random, and
// compares the fold with a model that remembers all history: a revision stands
// unless somebody removed it, or replaced it, having seen it.
func TestHonestAuthors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pens := []*pen{newPen("A"), newPen("B"), newPen("C")}
		known := make([]past, len(pens))
		for i, p := range pens {
			p.state, _ = p.state.Add(abc()...)
			p.seq, known[i] = 9, past{}
		}
		all, beaten, dead, added := past{}, past{}, past{}, 0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "who")
			p := pens[i]
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				maps.Copy(beaten, known[i])
				id := deploy(p)
				known[i][id], all[id] = true, true
			case 2:
				if s, ok := p.d().Service("web"); ok {
					maps.Copy(dead, known[i])
					p.write(gone(append(slices.Clone(s.Heads), everRemoved(p)...)...))
				}
			case 3:
				added++
				addOne(p)
			case 4:
				j := (i + rapid.IntRange(1, 2).Draw(t, "from")) % 3
				p.learn(pens[j])
				maps.Copy(known[i], known[j])
			}
		}
		for _, p := range pens {
			pens[0].learn(p)
		}
		var want []shoal.RevisionID
		for id := range all {
			if !beaten[id] && !dead[id] {
				want = append(want, id)
			}
		}
		slices.SortFunc(want, shoal.RevisionID.Compare)
		d := pens[0].d()
		var got []shoal.RevisionID
		s, ok := d.Service("web")
		if ok {
			got = s.Heads
			if s.Revision != want[len(want)-1] || len(d.Conflicts) != len(want)-1 {
				t.Fatalf("current %v of %v with %d conflicts", s.Revision, want, len(d.Conflicts))
			}
			if s.Replicas != 3+added {
				t.Fatalf("Replicas = %d, want 3 + %d adds on all sides", s.Replicas, added)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("heads (-want +got):\n%s", diff)
		}
		if d.Void > 0 {
			t.Fatalf("Void = %d, want 0: everybody was honest", d.Void)
		}
		kept, _ := State{}.Add(pens[0].resolver.Kept()...)
		if again := Resolve(kept, cluster); again.Digest != d.Digest || !cmp.Equal(again.Services, d.Services) {
			t.Fatal("the kept records come to something else")
		}
	})
}

// TestHonestMarks drives stores that cordon, drain, lift and sync at random, and
// compares with a model that remembers all history: a mark is in force unless somebody
// lifted it, having seen it.
func TestHonestMarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pens := []*pen{newPen("A"), newPen("B"), newPen("C")}
		known := []map[string]bool{{}, {}, {}}
		all, lifted := map[string]bool{}, map[string]bool{}
		for _, p := range pens {
			p.state, _ = p.state.Add(abc()...)
			p.seq = 9
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "who")
			p := pens[i]
			peer, _ := p.d().Peer("P")
			body := &shoal.MarkBody{Peer: "P"}
			if mine := peer.By[p.id]; mine != nil {
				body.Laid, body.Lifts = slices.Clone(mine.Laid), slices.Clone(mine.Lifts)
			}
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				body.Laid = append(body.Laid, shoal.Mark{Drain: rapid.Bool().Draw(t, "drain")})
				id := fmt.Sprintf("%s/%d", p.id, p.seq+1)
				p.write(body)
				all[id], known[i][id] = true, true
			case 1:
				for _, m := range peer.Marks {
					body.Lifts = append(body.Lifts, m.ID)
				}
				p.write(body)
				maps.Copy(lifted, known[i])
			case 2:
				j := (i + rapid.IntRange(1, 2).Draw(t, "from")) % 3
				p.learn(pens[j])
				maps.Copy(known[i], known[j])
			}
		}
		for _, p := range pens {
			pens[0].learn(p)
		}
		maps.DeleteFunc(all, func(id string, _ bool) bool { return lifted[id] })
		got := map[string]bool{}
		peer, _ := pens[0].d().Peer("P")
		for _, m := range peer.Marks {
			got[m.ID] = true
		}
		if !maps.Equal(got, all) {
			t.Fatalf("marks in force = %v, want %v", got, all)
		}
	})
}

// deploy writes the next revision of web as the wish room does: it names the heads
// and what was removed.
func deploy(p *pen) shoal.RevisionID {
	var heads []shoal.RevisionID
	if s, ok := p.d().Service("web"); ok {
		heads = append(heads, s.Heads...)
	}
	heads = append(heads, everRemoved(p)...)
	id := rev(1, p.id)
	for _, h := range heads {
		id.Seq = max(id.Seq, h.Seq+1)
	}
	p.write(revise(id, heads...))
	return id
}

func everRemoved(p *pen) []shoal.RevisionID {
	for _, g := range p.d().Gone {
		return g.Removes
	}
	return nil
}

// addOne adds one replica to what the spec says.
func addOne(p *pen) {
	n := 1
	for _, e := range p.state.Entries() {
		if b, ok := e.Record.Body.(*shoal.ScaleBody); ok && e.Record.Author == p.id {
			n = max(n, b.Adds[0].Delta+1)
		}
	}
	p.write(&shoal.ScaleBody{Service: "web", Seq: 1, Adds: []shoal.ScaleAdd{{Delta: n}}})
}

// large is a cluster of 100 peers with 1,000 services and 10 claims each.
func large() State {
	entries := abc()
	for s := range 1000 {
		name := fmt.Sprintf("svc-%04d", s)
		r := revise(rev(1, "A"))
		r.Spec.Name = name
		entries = append(entries, at("A", uint64(10+s), r), at("B", uint64(10+s), &shoal.ScaleBody{Service: name, Seq: 1, Base: base(10, rev(1, "B"))}))
		for c := range 10 {
			id := shoal.PeerID(fmt.Sprintf("Peer%02d", (s+c)%100))
			if s < 100 && c == 0 {
				entries = append(entries, at("A", uint64(5000+s), admit(id, shoal.RolePeer)))
			}
			entries = append(entries, at(id, uint64(1+s), &shoal.ClaimBody{Peer: id, Service: name, Holds: []shoal.Holding{{Slot: c}}}))
		}
	}
	s, _ := State{}.Add(entries...)
	return s
}

// BenchmarkResolveOneClaim is what every change costs: one claim among 10,000.
func BenchmarkResolveOneClaim(b *testing.B) {
	s, r := large(), NewResolver(cluster)
	if d := r.Resolve(s); len(d.Claims) != 10000 || len(d.Services) != 1000 || d.Void != 0 {
		b.Fatalf("%d claims, %d services, %d void", len(d.Claims), len(d.Services), d.Void)
	}
	seq := uint64(100000)
	for b.Loop() {
		seq++
		s, _ = s.Add(at("Peer01", seq, &shoal.ClaimBody{Peer: "Peer01", Service: "svc-0500", Holds: []shoal.Holding{{Slot: 1}}}))
		r.Resolve(s)
	}
}

// BenchmarkResolveAll is what the first look, and a new member, cost.
func BenchmarkResolveAll(b *testing.B) {
	s := large()
	for b.Loop() {
		Resolve(s, cluster)
	}
}
