// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package fold turns a set of records into the desired state: the same set gives
// the same [shoal.Desired] on every peer, in whatever order, grouping and number
// of copies the records came (DESIGN.md section 3). It is pure.
//
// A [State] is the set; [State.Add] and [State.Merge] grow it, commutative,
// associative and idempotent. A [Resolver] judges it: who may write, which of a
// key's versions counts, what is current. [Resolve] does the same without a cache.
//
// It refuses to read time, to verify signatures (that was done at intake), and to
// order wishes by anything but causality and peer IDs.
package fold

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/shoalnet/shoal"
)

// Entry is a record with what the fold carries along for it.
type Entry struct {
	Record   *shoal.Record // read-only from now on
	Envelope []byte        // proto.EncodeRecord of it: Service.Record and snapshots
	// Pushed says that the record was written here or came over a live link, not by
	// a sync (Service.Fresh). Each peer has its own word; it is not in the digest,
	// and the first word for a record stays.
	Pushed bool
}

// State is a set of records, an immutable value: Add and Merge return another one
// and share what did not change. The zero State is empty.
//
// It keeps, per logical key, the newest record by (AuthorSeq, content hash). Of the
// kinds that operators write it keeps the older versions too: a removal that
// arrives later may void the newest, and then the one before it counts again.
type State struct {
	topics []*topic // sorted by key
}

// item is an entry and the hash of all its content.
type item struct {
	Entry
	hash shoal.Digest
}

// topic holds all items about one thing; it is never written to once it is part of
// a State, so its pointer stands for its content.
type topic struct {
	key   topicKey
	items []*item // sorted by compareItems: versions of one logical key newest first
}

// class sorts topics by how they are judged.
type class int

const (
	classMembers class = iota // one topic: all member records
	classPeer                 // facts and marks of one peer
	classService              // revisions, scale, gone and claims of one service
	classInvite
	classImage   // one name
	classPolicy  // of the cluster
	classUnknown // of a kind, or a schema, that this version does not know
)

type topicKey struct {
	class class
	name  string
}

func (k topicKey) compare(o topicKey) int {
	return cmp.Or(cmp.Compare(k.class, o.class), cmp.Compare(k.name, o.name))
}

// Add returns the state with these records, and whether it differs. Records it
// holds already, or holds something newer for and needs no history of, change
// nothing. Entries without a record are ignored.
func (s State) Add(entries ...Entry) (State, bool) {
	items := make([]*item, 0, len(entries))
	for _, e := range entries {
		if e.Record != nil {
			items = append(items, &item{Entry: e, hash: contentHash(e.Record)})
		}
	}
	return s.add(items)
}

// Merge returns the union of both states.
func (s State) Merge(o State) State {
	var items []*item
	for _, t := range o.topics {
		items = append(items, t.items...)
	}
	out, _ := s.add(items)
	return out
}

func (s State) add(items []*item) (State, bool) {
	slices.SortStableFunc(items, func(a, b *item) int { return topicOf(a.Record).compare(topicOf(b.Record)) })
	topics, changed := s.topics, false
	var fresh []*topic
	for len(items) > 0 {
		key := topicOf(items[0].Record)
		n := 1
		for n < len(items) && topicOf(items[n].Record) == key {
			n++
		}
		at, found := findTopic(s.topics, key)
		var old []*item
		if found {
			old = s.topics[at].items
		}
		if now := mergeItems(old, items[:n]); !slices.Equal(old, now) {
			if !changed {
				topics, changed = slices.Clone(s.topics), true
			}
			if found {
				topics[at] = &topic{key: key, items: now}
			} else {
				fresh = append(fresh, &topic{key: key, items: now})
			}
		}
		items = items[n:]
	}
	if len(fresh) > 0 {
		topics = append(topics, fresh...)
		slices.SortFunc(topics, func(a, b *topic) int { return a.key.compare(b.key) })
	}
	return State{topics: topics}, changed
}

// Entries returns all records held, in no order that means anything but always the
// same for the same set.
func (s State) Entries() []Entry {
	var out []Entry
	for _, t := range s.topics {
		for _, it := range t.items {
			out = append(out, it.Entry)
		}
	}
	return out
}

// HighestSeq returns the highest AuthorSeq held of an author, 0 if none.
func (s State) HighestSeq(author shoal.PeerID) uint64 {
	high := uint64(0)
	for _, t := range s.topics {
		for _, it := range t.items {
			if it.Record.Author == author {
				high = max(high, it.Record.AuthorSeq)
			}
		}
	}
	return high
}

func findTopic(topics []*topic, key topicKey) (int, bool) {
	return slices.BinarySearchFunc(topics, key, func(t *topic, k topicKey) int { return t.key.compare(k) })
}

// find returns the topic with this key, nil if there is none.
func (s State) find(key topicKey) *topic {
	if at, ok := findTopic(s.topics, key); ok {
		return s.topics[at]
	}
	return nil
}

// mergeItems returns the sorted union without what need not be kept. Of equal
// records the old one stays.
func mergeItems(old, more []*item) []*item {
	all := slices.Concat(old, more)
	slices.SortStableFunc(all, compareItems)
	all = slices.CompactFunc(all, func(a, b *item) bool { return compareItems(a, b) == 0 })
	return slices.CompactFunc(all, func(a, b *item) bool { return sameKey(a, b) && !keepsHistory(a.Record) })
}

// keepsHistory reports whether older versions of a record are kept: of what
// operators write, not of what peers write about themselves nor of unknown kinds.
func keepsHistory(r *shoal.Record) bool {
	return understood(r) && r.Kind != shoal.KindClaim && r.Kind != shoal.KindPeer
}

// compareItems sorts by logical key, then newest first.
func compareItems(a, b *item) int {
	x, y := a.Record, b.Record
	return cmp.Or(
		cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Author, y.Author),
		cmp.Compare(y.AuthorSeq, x.AuthorSeq), slices.Compare(b.hash[:], a.hash[:]),
	)
}

func sameKey(a, b *item) bool {
	x, y := a.Record, b.Record
	return x.Kind == y.Kind && x.Name == y.Name && x.Author == y.Author
}

// understood reports whether this version can judge a record.
func understood(r *shoal.Record) bool { return r.Body != nil && r.Body.Kind() == r.Kind }

func topicOf(r *shoal.Record) topicKey {
	if !understood(r) {
		return topicKey{classUnknown, string(r.Kind) + "/" + r.Name}
	}
	switch r.Kind {
	case shoal.KindMember:
		return topicKey{class: classMembers}
	case shoal.KindPeer, shoal.KindMark:
		return topicKey{classPeer, r.Name}
	case shoal.KindInvite:
		return topicKey{classInvite, r.Name}
	case shoal.KindImage:
		return topicKey{classImage, r.Name}
	case shoal.KindPolicy:
		return topicKey{classPolicy, r.Name}
	case shoal.KindService, shoal.KindScale, shoal.KindGone, shoal.KindClaim, shoal.KindOp, shoal.KindRollout:
		return topicKey{classService, r.Name}
	default:
		return topicKey{classUnknown, string(r.Kind) + "/" + r.Name}
	}
}

// contentHash is the SHA-256 of everything that makes a record: its key, schema,
// HLC, body and signature, each variable part behind its length. Two records that
// an author signed for one key differ in it, whatever they differ in.
func contentHash(r *shoal.Record) shoal.Digest {
	b := make([]byte, 0, 256+len(r.Raw))
	for _, part := range [][]byte{[]byte(r.Key()), r.Raw, r.Signature} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	b = binary.BigEndian.AppendUint32(b, r.Schema)
	b = binary.BigEndian.AppendUint64(b, uint64(r.HLC.WallMilli))
	b = binary.BigEndian.AppendUint32(b, r.HLC.Counter)
	return sha256.Sum256(b)
}
