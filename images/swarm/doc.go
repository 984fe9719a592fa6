// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package swarm is the scheduler of one blob between peers, as a pure value.
//
// A [Swarm] is what one peer knows about one blob: the chunks it has, who is connected
// and has what, what it asked of whom, who asks it, what it sends. [Swarm.Step] takes an
// [Event] and returns the [Request]s that the shell, which owns the streams, the disk and
// the clock, has to carry out:
//
//	s, err := swarm.New(swarm.Defaults(seed), chunks, have)
//	for e := range events {
//		for _, r := range s.Step(e) { ... }
//	}
//
// A peer asks another for one chunk at a time, many asks at a time. While there are chunks
// that no other downloader has it leaves the choice to the uploader, which picks the one
// that the fewest have or are being sent; the others it asks for by name, each of one peer.
// Asks queue at the uploader; nobody is told to come again. DESIGN.md says why.
//
// The package refuses to do anything itself: no clock, no I/O, no log, no random. It does
// not verify chunks, limit rates or find peers. Equal events give equal requests.
package swarm
