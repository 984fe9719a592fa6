// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import "sync/atomic"

// Reason is why a question was not answered as asked.
type Reason int

// The reasons.
const (
	Stranger    Reason = iota // the client is not of this network; dropped
	Flood                     // the client asks too often; dropped
	Malformed                 // not a DNS question; dropped, or FORMERR where it has a header
	Unsupported               // another operation, class or version, or a zone transfer; refused
	Busy                      // too many questions under way or connections open; SERVFAIL or closed
	Loop                      // our own question came back; SERVFAIL
	Unresolved                // no resolver of the machine answered; SERVFAIL
	Slow                      // a connection that sent no whole question in time; closed
	reasons
)

var reasonNames = [reasons]string{"stranger", "flood", "malformed", "unsupported", "busy", "loop", "unresolved", "slow"}

// String returns the lower-case name.
func (r Reason) String() string {
	if r < 0 || r >= reasons {
		return "unknown"
	}
	return reasonNames[r]
}

// Stats counts since the server was made.
type Stats struct {
	Asked     uint64 // messages and refused connections
	Ours      uint64 // answered from the zone
	Forwarded uint64 // answered by one of the machine's resolvers
	Refused   map[Reason]uint64
}

// counters are Stats in the making.
type counters struct {
	asked, ours, forwarded atomic.Uint64
	refused                [reasons]atomic.Uint64
}

func (c *counters) refuse(r Reason) { c.refused[r].Add(1) }

func (c *counters) stats() Stats {
	s := Stats{Asked: c.asked.Load(), Ours: c.ours.Load(), Forwarded: c.forwarded.Load(), Refused: map[Reason]uint64{}}
	for r := range reasons {
		if n := c.refused[r].Load(); n > 0 {
			s.Refused[r] = n
		}
	}
	return s
}
