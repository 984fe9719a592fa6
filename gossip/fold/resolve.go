// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// Resolve judges a state: what the records it holds come to, for a cluster with
// this key. It is a pure function of the set (but for Service.Fresh, which follows
// Entry.Pushed). Version is 1.
func Resolve(s State, cluster shoal.PeerID) *shoal.Desired {
	return NewResolver(cluster).Resolve(s)
}

// Resolver is Resolve with a cache: a topic is judged again only if one of its
// records, or any member record, changed. It gives what [Resolve] gives, but for
// Version, which grows by one with every state that differs from the one before.
// One goroutine at a time.
type Resolver struct {
	cluster   shoal.PeerID
	state     State
	members   *topic // what authority was made of
	authority *authority
	verdicts  map[topicKey]*verdict
	desired   *shoal.Desired
}

// NewResolver returns a resolver that has seen no record.
func NewResolver(cluster shoal.PeerID) *Resolver {
	r := &Resolver{cluster: cluster, authority: newAuthority(nil, cluster), verdicts: map[topicKey]*verdict{}}
	r.desired = r.assemble(0)
	return r
}

// verdict is what one topic comes to under one authority. It is immutable.
type verdict struct {
	topic     *topic
	authority *authority

	kept                []*item // newest and counting version of each logical key
	sum                 total
	live, void, unknown int

	service   *serviceVerdict
	peer      *shoal.Peer // what peer and mark records say of one
	invite    *shoal.Invite
	image     *shoal.Image
	policy    *shoal.Policy
	clash     *shoal.Conflict    // of the image
	seenRevs  []shoal.RevisionID // newest valid revision of each author, or body of the image or the policy
	seenBases []shoal.RevisionID // newest base of each author
}

// Resolve returns what the state comes to. The same state gives the same pointer.
func (r *Resolver) Resolve(s State) *shoal.Desired {
	if slices.Equal(s.topics, r.state.topics) {
		return r.desired
	}
	r.state = s
	if members := s.find(topicKey{class: classMembers}); members != r.members {
		r.members, r.authority = members, newAuthority(members, r.cluster)
	}
	for _, t := range s.topics {
		if v := r.verdicts[t.key]; v == nil || v.topic != t || v.authority != r.authority {
			r.verdicts[t.key] = judge(t, r.authority)
		}
	}
	r.desired = r.assemble(r.desired.Version + 1)
	return r.desired
}

// Desired returns what the last resolved state came to; never nil.
func (r *Resolver) Desired() *shoal.Desired { return r.desired }

// Kept returns the records that make the digest: of each logical key the newest,
// and the one that counts if that is an older one; and all member records. A state
// of these alone resolves to the same as the state they came from. What is not
// kept is history.
func (r *Resolver) Kept() []Entry {
	var out []Entry
	for _, t := range r.state.topics {
		for _, it := range r.verdicts[t.key].kept {
			out = append(out, it.Entry)
		}
	}
	return out
}

// assemble joins all verdicts.
func (r *Resolver) assemble(version uint64) *shoal.Desired {
	d := &shoal.Desired{Version: version, GoneScale: map[string]shoal.ScaleState{}}
	var sum total
	for _, t := range r.state.topics {
		v := r.verdicts[t.key]
		sum = sum.plus(v.sum)
		d.Live, d.Void, d.Unknown = d.Live+v.live, d.Void+v.void, d.Unknown+v.unknown
		if v.invite != nil {
			d.Invites = append(d.Invites, *v.invite)
		}
		if v.image != nil {
			d.Images = append(d.Images, *v.image)
		}
		if v.policy != nil {
			d.Policy = *v.policy
		}
		if v.clash != nil {
			d.Conflicts = append(d.Conflicts, *v.clash)
		}
		if v.service != nil {
			v.service.addTo(d)
		}
	}
	d.Services = shoal.AddPre(d.Services)
	for _, id := range r.authority.ids {
		m := r.authority.members[id]
		p := shoal.Peer{ID: id, Role: m.role, Admission: m.by}
		if m.removed != nil {
			p.Removed, p.Removal = true, m.removed.Envelope
		}
		if v := r.verdicts[topicKey{classPeer, string(id)}]; v != nil {
			v.addTo(&p)
		}
		d.Peers = append(d.Peers, p)
	}
	d.Conflicts = append(d.Conflicts, portConflicts(d)...)
	// Topics are sorted by what keys say, which writes some characters otherwise.
	slices.SortFunc(d.Images, func(a, b shoal.Image) int { return strings.Compare(a.Image, b.Image) })
	d.Digest = sum.digest()
	return d
}

// version is the choice among what one author wrote under one logical key.
type version struct {
	newest *item
	counts *item // nil: all of it is void
}

// judge decides what a topic comes to.
func judge(t *topic, a *authority) *verdict {
	v := &verdict{topic: t, authority: a}
	if t.key.class == classUnknown {
		v.countUnknown(t, a)
		return v
	}
	versions := choose(t, a)
	v.keepOf(t, versions)
	for _, ver := range versions {
		if ver.counts != nil {
			v.live++
		}
		if !a.may(ver.newest) || !wellFormed(ver.newest.Record) {
			v.void++
		}
	}
	switch t.key.class {
	case classPeer:
		v.judgePeer(versions)
	case classService:
		v.judgeService(versions)
	case classInvite:
		v.judgeInvite(t.key.name, versions)
	case classImage:
		v.judgeImage(versions)
	case classPolicy:
		v.judgePolicy(versions)
	case classMembers, classUnknown:
	}
	return v
}

// choose picks per logical key the newest version that may count; of what
// replaces others, the one with the highest sequence, so that an author whose store was
// lost cannot make what others built on its lost revisions unknown again.
func choose(t *topic, a *authority) []version {
	var out []version
	for _, it := range t.items {
		if len(out) == 0 || !sameKey(out[len(out)-1].newest, it) {
			out = append(out, version{newest: it})
		}
		ver := &out[len(out)-1]
		if !a.may(it) || !wellFormed(it.Record) {
			continue
		}
		if ver.counts == nil || successor(it).id.Seq > successor(ver.counts).id.Seq {
			ver.counts = it
		}
	}
	return out
}

// countUnknown counts the records of a topic that this version cannot read.
func (v *verdict) countUnknown(t *topic, a *authority) {
	for _, it := range t.items { // no history is kept of these
		v.keep(it)
		if m := a.members[it.Record.Author]; m != nil && it.Record.AuthorSeq <= m.cap {
			v.unknown++
		} else {
			v.void++
		}
	}
}

// keepOf keeps the newest and the counting version of each logical key; of member
// records all, since with a cap half applied an older one may have counted.
func (v *verdict) keepOf(t *topic, versions []version) {
	if t.key.class == classMembers {
		for _, it := range t.items {
			v.keep(it)
		}
		return
	}
	for _, ver := range versions {
		v.keep(ver.newest)
		if ver.counts != nil && ver.counts != ver.newest {
			v.keep(ver.counts)
		}
	}
}

func (v *verdict) keep(it *item) {
	v.kept = append(v.kept, it)
	v.sum = v.sum.plus(totalOf(it.hash))
}

// judgeInvite joins what all authors say of an invite. The issuer is the one that
// gave it a role and a key, of several the lowest by ID; without one there is none.
func (v *verdict) judgeInvite(id string, versions []version) {
	out := shoal.Invite{ID: id}
	for _, ver := range versions {
		if ver.counts == nil {
			continue
		}
		b := ver.counts.Record.Body.(*shoal.InviteBody)
		if out.Issuer == "" && b.Role != "" && len(b.PublicKey) > 0 {
			out.Issuer, out.Role, out.PublicKey = ver.counts.Record.Author, b.Role, b.PublicKey
			out.ExpiresAt, out.Uses = b.ExpiresAt, b.Uses
		}
		out.RedeemedBy = append(out.RedeemedBy, b.RedeemedBy...)
		out.Revoked = out.Revoked || b.Revoked
	}
	slices.Sort(out.RedeemedBy)
	out.RedeemedBy = slices.Compact(out.RedeemedBy)
	if out.Issuer != "" {
		v.invite = &out
	}
}

// total is a sum of content hashes modulo 2^256, least significant word first: the
// same for the same set whatever the order, and updated by one addition. (Finding
// two sets with one sum is a generalised birthday problem, so it tells honest peers
// that they agree; what a record says is guarded by its signature.)
type total [4]uint64

func totalOf(d shoal.Digest) total {
	var t total
	for i := range t {
		t[i] = binary.BigEndian.Uint64(d[24-8*i:])
	}
	return t
}

func (t total) plus(o total) total {
	var carry uint64
	for i := range t {
		t[i], carry = bits.Add64(t[i], o[i], carry)
	}
	return t
}

func (t total) digest() shoal.Digest {
	var d shoal.Digest
	for i := range t {
		binary.BigEndian.PutUint64(d[24-8*i:], t[i])
	}
	return d
}

// Complete fills in what only the store knows of a draft that this author is about
// to write under this sequence number, and returns a copy:
//
//   - a revision, a body of an image and one of the policy replace, and a scale base
//     covers, also the newest known one of every author, so that each author's newest
//     body alone tells all that it reaches (its sequence stays what the draft says);
//   - a holding without a Since gets this record's time, a mark without an ID this
//     record's name;
//   - a removal without HighestSeq voids nothing that counts by now, and carries the
//     role the peer had.
func (r *Resolver) Complete(draft shoal.Body, as shoal.Stamp, seq uint64) shoal.Body {
	switch b := draft.(type) {
	case *shoal.RevisionBody:
		c := *b
		if v := r.verdicts[topicKey{classService, b.Spec.Name}]; v != nil {
			c.Replaces = below(b.Revision.Seq, b.Replaces, v.seenRevs)
		}
		return &c
	case *shoal.ImageBody:
		c := *b
		if v := r.verdicts[topicKey{classImage, b.About()}]; v != nil {
			c.Replaces = below(b.ID.Seq, b.Replaces, v.seenRevs)
		}
		return &c
	case *shoal.PolicyBody:
		c := *b
		if v := r.verdicts[topicKey{classPolicy, b.About()}]; v != nil {
			c.Replaces = below(b.ID.Seq, b.Replaces, v.seenRevs)
		}
		return &c
	case *shoal.ScaleBody:
		c := *b
		if v := r.verdicts[topicKey{classService, b.Service}]; v != nil && b.Base != nil {
			base := *b.Base
			base.Covers = below(base.ID.Seq, base.Covers, v.seenBases)
			c.Base = &base
		}
		return &c
	case *shoal.ClaimBody:
		c := *b
		c.Holds = slices.Clone(b.Holds)
		for i := range c.Holds {
			if c.Holds[i].Since.IsZero() {
				c.Holds[i].Since = as.HLC
			}
		}
		return &c
	case *shoal.MarkBody:
		c := *b
		c.Laid = slices.Clone(b.Laid)
		for i := range c.Laid {
			if c.Laid[i].ID == "" {
				c.Laid[i].ID = fmt.Sprintf("%s/%d", as.Author, seq)
			}
		}
		return &c
	case *shoal.MemberBody:
		c := *b
		if m := r.authority.members[b.Peer]; m != nil && b.Removed {
			c.Role = cmp.Or(b.Role, m.role)
			if b.HighestSeq == 0 {
				c.HighestSeq = min(m.cap, r.state.HighestSeq(b.Peer))
			}
		}
		if c.Removed && c.Peer == as.Author {
			c.HighestSeq = max(c.HighestSeq, seq) // or it would void itself
		}
		return &c
	default:
		return draft
	}
}

// below joins references and adds those seen whose sequence is lower than seq.
func below(seq uint64, refs, seen []shoal.RevisionID) []shoal.RevisionID {
	out := slices.Clone(refs)
	for _, id := range seen {
		if id.Seq < seq && !reaches(refs, id) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, shoal.RevisionID.Compare)
	return slices.Compact(out)
}
