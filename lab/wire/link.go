// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"time"
)

// Pair names a directed link: from one host to another on a segment.
type Pair struct{ Segment, From, To string }

func (p Pair) String() string { return p.From + " -> " + p.To + " on " + p.Segment }

// Link is what a pair has between it, one way. The zero one is a wire without length.
type Link struct {
	Delay  time.Duration
	Jitter time.Duration // added or taken away, evenly spread, at most Delay
	Loss   float64       // share of packets lost, 0 to 1
	Rate   int64         // bits a second; 0: no bound
	Cut    bool          // nothing passes
}

// Bounds of a link.
const (
	MaxDelay = time.Minute
	MinRate  = 8000 // a 1,500 byte packet in 1.5 s
)

// Validate says what is wrong with a link.
func (l Link) Validate() error {
	switch {
	case l.Delay < 0 || l.Delay > MaxDelay:
		return fmt.Errorf("delay must be 0s-%s, got %s", MaxDelay, l.Delay)
	case l.Jitter < 0 || l.Jitter > l.Delay:
		return fmt.Errorf("jitter must be 0s to the delay (%s), got %s", l.Delay, l.Jitter)
	case !(l.Loss >= 0 && l.Loss <= 1): // not a number is neither
		return fmt.Errorf("loss must be 0-1, got %g", l.Loss)
	case l.Rate != 0 && l.Rate < MinRate:
		return fmt.Errorf("rate must be at least %d bit/s, or 0 for none, got %d", MinRate, l.Rate)
	}
	return nil
}

// countsPackets says that the link acts on packets as a wire carries them, so that a
// sender must not hand over 64 KiB at once.
func (l Link) countsPackets() bool { return l.Loss > 0 || l.Rate > 0 }

// Counters are what became of the frames of a pair.
type Counters struct {
	Packets, Bytes uint64        // delivered
	Lost           uint64        // by the link's loss
	Cut            uint64        // by the link's cut
	Overflowed     uint64        // no room in the link's or the card's queue
	LateSum        time.Duration // by which delivered ones came later than they should, all of them
	LateMax        time.Duration
}
