// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"time"

	"github.com/ipfs/go-cid"

	"github.com/shoalnet/shoal"
)

const (
	// Limits of the blocks that wait for parents; more are dropped, a sync brings them.
	maxOrphans     = 512
	maxOrphanBytes = 8 << 20
	// senderShare of them may be one sender's, so that nobody takes the room of all.
	senderShare = 4
	// orphanLife is how long a block waits before it is forgotten; by then its sender
	// was asked many times, or is gone.
	orphanLife = 60 * time.Second
)

// incoming is a judged block and how it came.
type incoming struct {
	*block
	from   shoal.PeerID
	pushed bool
}

// orphans are pushed blocks that overtook their parents. Writer goroutine only.
type orphans struct {
	byCID   map[cid.Cid]*orphan
	waiting map[cid.Cid][]cid.Cid // by the parent they wait for
	bytes   int
	from    map[shoal.PeerID]pile
}

// pile is what waits of one sender.
type pile struct{ blocks, bytes int }

type orphan struct {
	incoming
	parent cid.Cid
	since  time.Duration
}

func newOrphans() *orphans {
	o := &orphans{}
	o.clear()
	return o
}

func (o *orphans) clear() {
	o.byCID, o.waiting, o.bytes, o.from = map[cid.Cid]*orphan{}, map[cid.Cid][]cid.Cid{}, 0, map[shoal.PeerID]pile{}
}

func (o *orphans) len() int { return len(o.byCID) }

// add lets a block wait for a parent, and reports whether there is room for it.
func (o *orphans) add(in incoming, parent cid.Cid, now time.Duration) bool {
	if o.byCID[in.cid] != nil {
		return true
	}
	at := o.from[in.from]
	if len(o.byCID) >= maxOrphans || o.bytes+len(in.data) > maxOrphanBytes ||
		at.blocks >= maxOrphans/senderShare || at.bytes+len(in.data) > maxOrphanBytes/senderShare {
		return false
	}
	o.byCID[in.cid] = &orphan{in, parent, now}
	o.waiting[parent] = append(o.waiting[parent], in.cid)
	o.bytes += len(in.data)
	o.from[in.from] = pile{at.blocks + 1, at.bytes + len(in.data)}
	return true
}

// remove forgets a block and reports whether it waited.
func (o *orphans) remove(c cid.Cid) bool {
	at := o.byCID[c]
	if at == nil {
		return false
	}
	delete(o.byCID, c)
	o.bytes -= len(at.data)
	left := o.from[at.from]
	if left = (pile{left.blocks - 1, left.bytes - len(at.data)}); left.blocks == 0 {
		delete(o.from, at.from)
	} else {
		o.from[at.from] = left
	}
	var others []cid.Cid
	for _, w := range o.waiting[at.parent] {
		if w != c {
			others = append(others, w)
		}
	}
	if o.waiting[at.parent] = others; len(others) == 0 {
		delete(o.waiting, at.parent)
	}
	return true
}

// waitingFor takes out the blocks that waited for a parent.
func (o *orphans) waitingFor(parent cid.Cid) []incoming {
	var out []incoming
	for _, c := range append([]cid.Cid(nil), o.waiting[parent]...) {
		out = append(out, o.byCID[c].incoming)
		o.remove(c)
	}
	return out
}

// overdue returns blocks that waited too long, one per sender, and forgets those that
// waited for very long.
func (o *orphans) overdue(now, delay time.Duration) []incoming {
	var out []incoming
	seen := map[shoal.PeerID]bool{}
	for c, at := range o.byCID {
		switch age := now - at.since; {
		case age > orphanLife:
			o.remove(c)
		case age >= delay && !seen[at.from]:
			seen[at.from] = true
			out = append(out, at.incoming)
		}
	}
	return out
}
