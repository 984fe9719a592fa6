// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

// Snapshot is one service as one peer sees it: how it is to be balanced, and its
// replicas in any order.
type Snapshot struct {
	Policy   shoal.LB
	Prefer   shoal.Prefer
	Self     shoal.PeerID // this peer
	Zone     string       // of this peer
	Backends []Backend    // of one named twice the first counts
}

// Backend is a replica that may serve, by what its holder says. The zero value is not
// eligible.
type Backend struct {
	Replica shoal.ReplicaID
	Slot    int
	Holder  shoal.PeerID
	Zone    string // of the holder

	Ready     bool
	Why       string        // it is not ready, for people: "starting"; "" if nothing is known
	Alive     bool          // the holder is, in this peer's opinion
	Heard     time.Duration // when the holder last was, by this peer's clock; below 0: not since it started
	Releasing bool          // it drains: its connections go on and it gets no new ones

	Weight int // relative to the others, 1 to 1,000; 0 counts as 1
}

// maxWeight bounds the length of a cycle, and keeps sums of weights far from overflow.
const maxWeight = 1000

func (b *Backend) eligible() bool { return b.Ready && b.Alive && !b.Releasing }

// barred says why b is not eligible, "" if it is. A holder that is not heard comes
// first: what it said of its replica is as old.
func (b *Backend) barred(now time.Duration) string {
	switch {
	case !b.Alive && b.Heard < 0:
		return "holder not heard since this peer's start"
	case !b.Alive:
		return fmt.Sprintf("holder not heard for %s", (now - b.Heard).Round(time.Second))
	case b.Releasing:
		return "releasing"
	case !b.Ready && b.Why == "":
		return "not ready"
	case !b.Ready:
		return "not ready: " + b.Why
	}
	return ""
}

// tier is how near b is as far as the snapshot prefers it, 0 the nearest.
func (s *Snapshot) tier(b *Backend) int {
	switch {
	case s.Prefer == shoal.PreferLocal && b.Holder == s.Self:
		return 0
	case s.Prefer == shoal.PreferLocal && b.Zone == s.Zone:
		return 1
	case s.Prefer == shoal.PreferZone && (b.Holder == s.Self || b.Zone == s.Zone):
		return 0
	case s.Prefer == shoal.PreferLocal || s.Prefer == shoal.PreferZone:
		return 2
	}
	return 0
}

// tiers is how many there are at most.
const tiers = 3
