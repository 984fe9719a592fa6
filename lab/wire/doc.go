// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire is the lab's switch: it moves Ethernet frames between the network cards
// of hosts and puts distance between them. Cards are on segments; a frame for one card
// goes there, one for all goes to every card of the segment, each copy on its own link.
// A link is directed and belongs to a pair of names, not to cards: a host that reboots
// finds its links as they were, and may be given new ones while frames are on their way.
//
//	s := wire.New(wire.Config{Seed: 1})
//	port, err := s.Attach("outside", "tokyo", mac, card)
//	err = s.SetLink(wire.Pair{Segment: "outside", From: "tokyo", To: "paris"}, wire.Link{Delay: 110 * time.Millisecond})
//
// What becomes of a frame is decided by [course], which is pure and draws from a seed of
// the pair: the same frames at the same times meet the same fate. Frames of a pair never
// overtake each other while their link stays. All that is on its way is bounded, and what finds no room is
// dropped and counted.
//
// The switch knows nothing of IP, and refuses nothing but frames that are none.
package wire
