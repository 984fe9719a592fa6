// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package gossip replicates records: the signed facts of which gossip/fold makes the
// desired state that every peer holds whole.
//
// [Store] is the real one: go-ds-crdt's Merkle-DAG on pebble (or in memory), guarded
// by an intake that verifies every block, pushed over a gossipsub topic, and pulled
// over one bulk stream where pushes were missed. [New] it with a [Config] from [LAN],
// [WAN] or [Sim], [NewPubSub] for its topic, and Run it; Update writes, Desired and
// Changed read. [Memory] is its twin for tests and simulation; both pass
// gossip/gossiptest. gossip/beats tells who is alive.
//
// It refuses to let a block in that is not complete and signed by admitted authors,
// to decide by time or order of arrival whose record counts or what a block is, to delete anything, to
// send commands over a topic, and to write to disk while nothing changes. DESIGN.md
// beside this file says why it is built this way.
package gossip
