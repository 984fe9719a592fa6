// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package placement decides who holds which slot, as a pure function of a view.
//
// Every peer calls [Decide] with its own view and memory and gets the part of the
// plan that is its own: slots to claim, slots to let go, replicas it may start,
// peers to pull from first, and when to ask again. Equal views give equal plans,
// so no peer has to ask another. [Propose] is the same schedule computed once, by
// the peer that accepts a wish: advice that keeps everybody in step while claims
// still travel. [Explain] says for each peer why it could or could not.
//
// The algorithm is "Q" of PLACEMENT.md; placement/DESIGN.md says why it has the
// shape it has and what was measured. lab/des runs this very package in a
// discrete-event model.
//
// The package refuses to read a clock, to draw random numbers, to log, to depend
// on the order of a map, and to compare the clocks of two peers.
package placement
