// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package actors carries out this peer's part of the plan: it turns views into
// claims, and claims into running containers.
//
//	peer (root)            takes views, calls placement.Decide, writes claims
//	  service ...          per service this peer holds or still stops something of
//	    replica ...        per replica: one container's life, lifecycle.Step
//
// An actor is a thin shell: message in, pure step, effects out. It never blocks:
// every call to the store, the engine or another peer runs in a goroutine of its
// own, and its result comes back as a message. What an actor knows is always
// rebuilt from the view and from what the engine lists, so an actor that panics is
// replaced after a short back-off and touches nothing else; a watchdog replaces
// those that stop answering.
//
// A claim has its image made available at once, also while its replica may not start
// yet. An older replica of the slot that runs here runs on until then: what cannot be
// had stops nothing.
//
// Make a [System] with [New], and call [System.Run] once; it returns after
// everything it started has ended. Containers outlive it, and are adopted by the
// next Run. Only [System.Leave] takes them down.
//
// The package refuses to decide who holds a slot (placement does), to talk to other
// peers (the store and the beats do), and to touch a container whose service it has
// no word about.
package actors
