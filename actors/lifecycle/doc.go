// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package lifecycle is the life of one replica as a pure function.
//
// [Step] takes a [State] and an [Event] and returns the next state and the effects
// it asks the outside for. One call makes at most one transition between phases,
// and within one attempt a phase never goes backwards (see [Rank]):
//
//	Pending > Pulling > Creating > Starting > Running > Ready > Stopping > Failed, Lost > Stopped
//
// The image is made available as soon as the replica is known, whether or not it may
// start yet: that takes longest, and an older replica may fill the slot meanwhile.
//
// A container that ends, fails its health check or vanishes begins a new attempt
// after a back-off, by the restart policy; that of a job, until it has ended well, was
// tried often enough or took too long ([State].Outcome). At most one operation on the engine is
// in flight at any time ([State].Op), and each is answered by exactly one
// [EventDone] or [EventFail]. After [EffectEnd] nothing is asked for again.
//
// The package refuses to do anything itself: no clock, no I/O, no log. Time and
// the seed of the jitter are parameters; equal inputs give equal outputs.
package lifecycle
