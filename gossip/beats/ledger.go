// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Bounds of what is kept of one peer.
const (
	maxChain  = 128     // packets since the newest full one
	maxBytes  = 4 << 20 // of those packets: a full one and changes
	maxEarly  = 4       // changes that came before what they build on
	noVersion = 0
)

// heardBeat is a packet with the own monotonic time it counts as heard at.
type heardBeat struct {
	*beat
	heard time.Duration
}

// ledger is what one peer told about itself in its present boot: the state, and
// the signed packets it was made from, so that it can be proven to others. It is a
// value; its slices are never written to once they are in it.
type ledger struct {
	version uint64           // of state; 0: nothing told in this boot
	newest  uint64           // highest version any header named
	state   *shoal.PeerState // nil: never heard; from an earlier boot while version is 0
	chain   []heardBeat      // the newest full packet and the changes after it; nil: cannot be proven
	early   []heardBeat      // changes that build on a version we lack
	last    heardBeat        // the newest header
	rival   *beat            // newest header of a second life with the same boot counter
}

// reborn forgets the proofs of an earlier boot. The state stays what was last told
// until the new life tells another.
func (l ledger) reborn() ledger { return ledger{state: l.state, rival: l.rival} }

// gap reports whether the peer has told something that we do not have.
func (l ledger) gap() bool { return l.version < l.newest }

// add takes the state part of an authentic packet of the peer's present boot, in
// whatever order packets come. changed: the state is another one now.
func (l ledger) add(b heardBeat) (out ledger, changed bool) {
	l.newest = max(l.newest, b.version)
	if !b.carries() || b.version <= l.version {
		return l, false
	}
	if !b.full && (b.base != l.version || l.version == noVersion) {
		if len(l.early) < maxEarly {
			l.early = append(slices.Clip(l.early), b)
		}
		return l, false
	}
	l = l.take(b)
	for again := true; again; { // what waited for this one
		again = false
		for _, e := range l.early {
			if e.base == l.version && e.version > l.version {
				l, again = l.take(e), true
			}
		}
	}
	l.early = slices.DeleteFunc(slices.Clone(l.early), func(e heardBeat) bool { return e.version <= l.version })
	return l, true
}

// take applies a packet that fits.
func (l ledger) take(b heardBeat) ledger {
	state := l.state
	if state == nil {
		state = &shoal.PeerState{}
	}
	l.state, l.version = b.changes.apply(state, b.full), b.version
	if b.full {
		l.chain = []heardBeat{b}
		return l
	}
	if l.chain == nil {
		return l
	}
	l.chain = append(slices.Clip(l.chain), b)
	if len(l.chain) > maxChain || l.size() > maxBytes {
		l.chain = nil // whoever lacks it asks the peer itself
	}
	return l
}

// size returns the bytes of the chain.
func (l ledger) size() int {
	n := 0
	for _, b := range l.chain {
		n += len(b.raw)
	}
	return n
}

// since returns the packets that bring somebody who has this version (0: nothing)
// to what we know: the changes, or the full one and the changes, and the newest
// header. Sorted as they were sent.
func (l ledger) since(version uint64) []heardBeat {
	var out []heardBeat
	if version < l.version && len(l.chain) > 0 {
		i := slices.IndexFunc(l.chain, func(b heardBeat) bool { return !b.full && b.base == version })
		if version == noVersion || i < 0 {
			i = 0
		}
		out = append(out, l.chain[i:]...)
	}
	if l.last.beat != nil && (len(out) == 0 || out[len(out)-1].seq < l.last.seq) {
		out = append(out, l.last)
	}
	return out
}
