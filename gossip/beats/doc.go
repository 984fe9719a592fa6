// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package beats knows who is alive and what everybody does right now (DESIGN.md
// section 5).
//
// Every peer sends a signed beat each interval, and at once when what it has to
// tell about itself changed: a small header, and the changed parts of its
// [shoal.PeerState]. Beats travel by a flood-published topic; whatever gets lost
// is pulled over a direct stream (/shoal/beat/1), from the peer itself or from
// anybody who knows more. Nothing of it is ever written to disk.
//
// A [Tracker] keeps what was heard, forms this peer's own opinion of who is alive
// (the pure function step in liveness.go) and joins it with the folded records
// into views: it is the house's [shoal.Views] and [shoal.Beacon]. Make one with
// [New], start it with [Tracker.Run].
//
// It refuses to call anybody dead by somebody else's word or without a failed ping
// of its own, to compare clocks of two peers, to let a replayed beat of an older
// boot or sequence number revive anybody, and to apply a change to a state it does
// not have.
package beats
