// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package brake says from a view what is at fault where replicas fail: the application,
// a machine, an engine's version, or something that all share.
//
//	verdicts, memory, wake := brake.Look(view, memory, now)
//	v, slowed := verdicts.Of("web", revision)
//	v, bad := verdicts.At(self)
//
// Every peer looks with its own view and clock, and acts on what is its own: it restarts
// replicas of a braked revision slowly, and takes no new slots while it is itself at
// fault. Peers that see the same say the same.
//
// What fails on most of its holders is the application's fault: elsewhere it would fail
// as well. Unrelated services that fail on one machine, and do well elsewhere or run only
// there, have that machine in common. Where most that was fine fails on most machines,
// what they all use is at fault, and neither moving nor undoing anything helps.
//
// The package refuses to act, and to blame anybody for one failure: two holders at least
// make an application's fault, three unrelated services a machine's.
package brake
