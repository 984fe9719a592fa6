// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package shoal holds the nouns of the house and the ports between its rooms.
//
// Every peer holds the whole desired state, computes the same plan from it and
// carries out only its own part. What users wish for, and what peers claim, are
// records: signed, durable, written by exactly one author each (see [Record] and
// [Desired]). What peers are and run right now is observed: a [PeerState] on a
// signed beat, a hint that expires (see [Life]). A [View] joins both into the one
// immutable value that every decision is made from.
//
// The package imports the standard library only and does no I/O; it refuses to
// know how records travel, how containers run, or what the time is.
package shoal
