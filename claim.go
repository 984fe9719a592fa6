// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

// Claim says "I hold this slot". Claims by several holders of one slot are
// settled by placement.Winner.
type Claim struct {
	Holder   PeerID
	Service  string
	Slot     int
	Replica  ReplicaID
	Revision RevisionID
	Since    HLC // when the holder first claimed this slot; ties only
	// Outcome is what its runs came to so far, of a service that runs to completion; nil:
	// nothing yet. Once it is over it counts for good, also if its holder is removed.
	Outcome *JobOutcome
}

// Release says that a holder let a slot go. YieldTo names the winner it yielded
// to, which counts as word that the winner lives; "" when there is none.
type Release struct {
	Holder  PeerID
	Service string
	Slot    int
	Replica ReplicaID
	YieldTo PeerID
}

// Home says that a slot's data lies on a peer: the slot ran there, and was let go or
// changed since, or the peer was removed. Who claims a slot has its data by that.
type Home struct {
	Peer    PeerID
	Service string
	Slot    int
}
