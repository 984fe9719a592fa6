// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Table is one service on one peer: its replicas, and what this peer counted and
// measured of each. It is not for concurrent use.
type Table struct {
	rand   random
	seed   uint64
	policy shoal.LB

	entries  map[shoal.ReplicaID]*entry
	eligible []*entry   // by tier, then in this peer's own order
	ends     [tiers]int // of the tiers in eligible
	refusing int        // entries with refusals
	turn     uint64     // of the last pick
	scratch  []*entry
}

// entry is a replica and what is known of it here.
type entry struct {
	Backend
	listed           bool   // in the last snapshot; else it stays until its connections are closed
	tier             int    // if it is eligible
	order            uint64 // this peer's own order
	slotHash, idHash uint64

	open    int
	turn    uint64 // of its last pick, 0 before
	current int64  // its credit under weighted

	connect, first average

	refusals int           // in a row
	until    time.Duration // left out
	trial    bool          // the wait is over and one connection is under way to see
}

// New returns a table without replicas, from which nothing can be picked. The seed
// drives all draws, and orders equal replicas; it should differ from peer to peer, or
// all begin with the same replica.
func New(seed uint64) *Table {
	return &Table{rand: random{seed}, seed: seed, entries: map[shoal.ReplicaID]*entry{}}
}

// Update takes a new snapshot in place of the one before. What was counted and measured
// of a replica stays while it is named, and while it has open connections; refusals are
// forgotten of one that becomes eligible, for its holder's word is newer.
func (t *Table) Update(s Snapshot) {
	t.policy = s.Policy
	for _, e := range t.entries {
		e.listed = false
	}
	t.eligible = t.eligible[:0]
	for i := range s.Backends {
		b := &s.Backends[i]
		e := t.entry(b.Replica)
		if e.listed {
			continue
		}
		if b.eligible() {
			if !e.eligible() {
				t.pardon(e)
			}
			e.tier = s.tier(b)
			t.eligible = append(t.eligible, e)
		}
		e.Backend, e.listed = *b, true
		e.Weight = min(max(b.Weight, 1), maxWeight)
		e.slotHash = mix(uint64(b.Slot) + 1)
	}
	for _, e := range t.entries {
		if !e.listed {
			e.Ready = false // nobody says so any more
		}
		t.drop(e)
	}
	t.arrange()
}

// arrange sorts the eligible into their tiers.
func (t *Table) arrange() {
	slices.SortFunc(t.eligible, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.tier, b.tier), cmp.Compare(a.order, b.order), slices.Compare(a.Replica[:], b.Replica[:]))
	})
	t.ends = [tiers]int{}
	for _, e := range t.eligible {
		t.ends[e.tier]++
	}
	for i := 1; i < tiers; i++ {
		t.ends[i] += t.ends[i-1]
	}
}

func (t *Table) entry(id shoal.ReplicaID) *entry {
	e := t.entries[id]
	if e == nil {
		e = &entry{idHash: mix(binary.BigEndian.Uint64(id[:8]) ^ mix(binary.BigEndian.Uint64(id[8:])))}
		e.order = mix(t.seed ^ e.idHash)
		t.entries[id] = e
	}
	return e
}

// drop forgets a replica that is gone, once nothing of it is open.
func (t *Table) drop(e *entry) {
	if !e.listed && e.open == 0 {
		t.pardon(e)
		delete(t.entries, e.Replica)
	}
}
