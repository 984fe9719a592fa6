// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package balance chooses the replica that a new connection to a service goes to, as a
// pure value.
//
// A [Table] is one service as one peer sees it. [Table.Update] gives it the replicas that
// there are and what their holders say of them; [Table.Pick] takes one for a client; what
// became of that goes back in by events:
//
//	t := balance.New(seed)
//	t.Update(snapshot)
//	var tried []shoal.ReplicaID
//	for len(tried) < most {
//		b, ok := t.Pick(client, tried, now)
//		if !ok {
//			break // nobody is left to try
//		}
//		... dial b ...
//		t.Connected(b.Replica, took, now) // then FirstByte, and Closed at the end
//		t.Refused(b.Replica, now)         // or this: no byte went out, so try another
//		tried = append(tried, b.Replica)
//	}
//
// Who may be picked is decided in three steps. Only a ready replica of a living holder
// that is not being released is eligible, ever. Of those, one that refused connections is
// left out for a while that grows, unless all are: then the one whose wait ends first is
// tried rather than none. Of what remains the nearest tier that [shoal.Prefer] asks for is
// taken, and in it the [shoal.LB] chooses. [Table.Usable] says it in words.
//
// Peers do not agree on any of this: each counts its own connections and measures its own
// distances. Only hash gives the same answer on all peers that see the same replicas,
// while none of these is full.
//
// The package refuses to do anything itself: no clock, no dial, no log, and no randomness
// but that of the seed. Equal seeds, snapshots and events give equal picks.
package balance
