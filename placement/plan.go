// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement/brake"
)

// Plan is what one peer should do now, as a value. The peer actor carries it out:
// it writes Claims and Releases in one block, then hands each service its part.
type Plan struct {
	// Claims to make or change, sorted by (service, slot).
	Claims []NewClaim
	// Releases of slots this peer holds, sorted by (service, slot). A released
	// replica is stopped after the block is on disk.
	Releases []Drop
	// Start holds the replicas this peer claims and may start or keep running: past
	// the hold-off, current. A claimed replica not in it waits. Sorted.
	Start []shoal.ReplicaID
	// Pulls asks for proof of freshness from these peers ("" = two random others)
	// before the next decision acts; the shell calls Memory.Pulled on success.
	Pulls []shoal.PeerID
	// Wake is when (own monotonic clock) the same view may give another plan; 0: never.
	Wake time.Duration
	// Brakes say what is at fault where replicas fail: the shell restarts those of a braked
	// revision slowly, and tells on its beats that this peer takes no new slots if it is.
	Brakes brake.Verdicts
	// Reasons explain every claim, release and wait, sorted by (service, slot).
	Reasons []Reason
}

// NewClaim is a slot to claim. The shell mints the replica identity unless Reuse
// names one this peer already holds (which gets a new slot and keeps running).
type NewClaim struct {
	Service  string
	Slot     int
	Revision shoal.RevisionID
	Reuse    shoal.ReplicaID // zero: mint one
	Replaces shoal.ReplicaID // zero, or this peer's replica of an older revision in the same slot
	// LeavesSlot and YieldTo are set with Reuse only: the slot the replica has had so
	// far and who won it. The block must record a Release of that slot with YieldTo;
	// nothing is stopped, and no Drop is listed for it. With LeavesSlot == Slot nothing
	// is released: the replica goes on at Revision, which makes the same container; or, if
	// Replaces names the one that could not take over, the slot goes back to a replica of
	// an older revision that still fills it.
	LeavesSlot int
	YieldTo    shoal.PeerID
	// Data says that the slot's data is here already: the record must list the slot
	// in ClaimBody.Data.
	Data bool
	// Outcome is what the runs of other holders of the slot came to, of a job: its attempts
	// count on. With Reuse it is nil: what the replica's own runs came to stays.
	Outcome *shoal.JobOutcome
}

// Drop is a slot to let go.
type Drop struct {
	Service string
	Slot    int
	Replica shoal.ReplicaID
	YieldTo shoal.PeerID // the winner, "" if there is none
	// Data says that the slot's data stays here and makes this peer its home: the
	// record must list the slot in ClaimBody.Data, and must not if false.
	Data bool
}

// Reason is one sentence about one slot, for explain and the log.
type Reason struct {
	Service string
	Slot    int // -1: the whole service
	Peer    shoal.PeerID
	Text    string
}
