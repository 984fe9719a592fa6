// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster simulates a whole cluster in one process: the real libp2p, pubsub,
// CRDT, beats, placement and actors of every peer on a simulated network, in virtual
// time (testing/synctest), over the in-memory engine. Its tests play stories (join,
// deploy, scale, kill, split, heal) and check promises G1 to G9 of docs/promises.md
// at the end of each: "make sim SUITE=cluster".
//
// A seed gives the keys, the sizes and the choices of a story, so that it can be
// played again; how goroutines interleave it does not give. The package refuses to
// measure: virtual time costs nothing.
package cluster
