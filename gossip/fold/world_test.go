// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

const cluster = shoal.PeerID("ClusterKey")

// pen writes records as one author into a state of its own, as a store does.
type pen struct {
	id       shoal.PeerID
	seq      uint64
	wall     int64
	state    State
	resolver *Resolver
}

func newPen(id shoal.PeerID) *pen { return &pen{id: id, resolver: NewResolver(cluster)} }

// d returns what the pen's state comes to.
func (p *pen) d() *shoal.Desired { return p.resolver.Resolve(p.state) }

// write completes bodies and adds them to the pen's state.
func (p *pen) write(bodies ...shoal.Body) []Entry {
	var out []Entry
	p.wall++
	for _, b := range bodies {
		p.d()
		p.seq++
		as := shoal.Stamp{Author: p.id, HLC: shoal.HLC{WallMilli: p.wall}}
		e := entry(p.id, p.seq, as.HLC, p.resolver.Complete(b, as, p.seq))
		p.state, _ = p.state.Add(e)
		out = append(out, e)
	}
	return out
}

// learn merges what another pen knows.
func (p *pen) learn(o *pen) {
	p.state = p.state.Merge(o.state)
	p.wall = max(p.wall, o.wall)
}

// entry makes a record; its body's JSON stands for the encoding.
func entry(author shoal.PeerID, seq uint64, at shoal.HLC, b shoal.Body) Entry {
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	r := &shoal.Record{
		Schema: shoal.Schema, Kind: b.Kind(), Name: b.About(), Author: author, AuthorSeq: seq, HLC: at, Raw: raw, Body: b,
	}
	return Entry{Record: r, Envelope: []byte(r.Key()), Pushed: true}
}

// at makes a record at a time that does not matter.
func at(author shoal.PeerID, seq uint64, b shoal.Body) Entry {
	return entry(author, seq, shoal.HLC{WallMilli: int64(seq)}, b)
}

func admit(id shoal.PeerID, role shoal.Role) *shoal.MemberBody {
	return &shoal.MemberBody{Peer: id, Role: role}
}

func removal(id shoal.PeerID, highest uint64) *shoal.MemberBody {
	return &shoal.MemberBody{Peer: id, Role: shoal.RoleOperator, Removed: true, HighestSeq: highest}
}

func rev(seq uint64, author shoal.PeerID) shoal.RevisionID {
	return shoal.RevisionID{Seq: seq, Author: author}
}

// revise is revision id of service web, whose image tells who wrote it.
func revise(id shoal.RevisionID, replaces ...shoal.RevisionID) *shoal.RevisionBody {
	return &shoal.RevisionBody{
		Revision: id, Replaces: replaces,
		Spec: shoal.Spec{Name: "web", Image: id.String(), Mode: shoal.ModeReplicated, Replicas: 3},
	}
}

func gone(removes ...shoal.RevisionID) *shoal.GoneBody {
	return &shoal.GoneBody{Service: "web", Removes: removes}
}

// abc is a cluster of three operators A, B and C, and a peer P, admitted in a chain.
func abc() []Entry {
	return []Entry{
		at(cluster, 1, admit("A", shoal.RoleOperator)),
		at("A", 1, admit("B", shoal.RoleOperator)),
		at("B", 1, admit("C", shoal.RoleOperator)),
		at("A", 2, admit("P", shoal.RolePeer)),
	}
}

// fold resolves the entries in several orders and groupings, all of which must give
// the same.
func fold(t *testing.T, entries ...Entry) *shoal.Desired {
	t.Helper()
	state, _ := State{}.Add(entries...)
	want := Resolve(state, cluster)
	backwards := slices.Clone(entries)
	slices.Reverse(backwards)
	one := State{}
	for _, e := range backwards {
		one, _ = one.Add(e)
		one, _ = one.Add(e, e)
	}
	left, _ := State{}.Add(entries[:len(entries)/2]...)
	right, _ := State{}.Add(entries[len(entries)/2:]...)
	for name, s := range map[string]State{"backwards": one, "merged": right.Merge(left)} {
		if diff := cmp.Diff(want, Resolve(s, cluster)); diff != "" {
			t.Fatalf("%s: Resolve differs (-want +got):\n%s", name, diff)
		}
	}
	return want
}

// with returns the three operators' admissions and more.
func with(more ...Entry) []Entry { return append(abc(), more...) }

// image returns the image of web, "" if there is no web.
func image(d *shoal.Desired) string {
	if s, ok := d.Service("web"); ok {
		return s.Spec.Image
	}
	return ""
}
