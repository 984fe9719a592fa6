// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package runtime runs containers: [Docker] on a Docker Engine (API 1.41 and up,
// negotiated), and [Twin], an in-memory engine with failure knobs, for simulation.
// Both implement shoal.Engine, shoal.Machine, shoal.Console, shoal.ImageStore and
// shoal.Networks, and both pass the contract suite runtimetest; [Puller] is shoal.Puller for a peer without
// a registry of its own: it says which images an engine already holds.
//
// A container belongs to a replica and carries labels that say so, the signed
// record of its revision included, so that a daemon that restarts adopts what runs,
// untouched. Which slot the replica fills is the claim's word, never a label's.
//
// What a container would do to the machine beyond its own confines is judged at
// Create, the last gate, by the rules of the machine's owner (Config.Rules), with
// every link in a path followed. Named volumes carry the cluster's label; a volume
// without it is not ours, and none that has a name is ever removed.
//
// A network of services is a bridge of the engine, with labels as containers have them:
// the engine gives out the lower half of its subnet, and never learns of the upper one.
// One that is there already is used again, whatever the pool says now; a network without
// the labels is neither attached to nor removed, and none goes while a container is on it.
//
// Every call has a deadline of its own; an engine that is absent or does not answer
// is shoal.ErrEngineDown. The package refuses to touch a container that does not
// carry its cluster's and its peer's label, to let users set labels under
// "net.shoal.", and to let an engine ask any registry but the one that it is told, by
// its address on this machine: an image that is not there when a container is made is
// shoal.ErrNotFound. It decides nothing: it never restarts, replaces or cleans up by itself.
package runtime
