// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package bridge

import "sync/atomic"

// Reason is why something was not handed out.
type Reason int

// The reasons.
const (
	Stranger Reason = iota // no container of this network sent it
	Astray                 // it was for no virtual address: somebody dialled the listener itself
	Busy                   // too many connections are handed out, in all or to this container
	reasons
	admitted Reason = -1
)

var reasonNames = [reasons]string{"stranger", "astray", "busy"}

// String returns the lower-case name.
func (r Reason) String() string {
	if r < 0 || r >= reasons {
		return "unknown"
	}
	return reasonNames[r]
}

// Stats is where a bridge stands, and what it counted since it was made.
type Stats struct {
	Redirects  bool   // any TCP port answers, not only the declared ones
	Streams    uint64 // handed out
	Datagrams  uint64 // read by who serves the endpoints
	Refused    map[Reason]uint64
	TurnedAway uint64             // packets from other interfaces that the kernel refused, since Run began
	Failed     map[Endpoint]error // declared, and not open
}

type counters struct {
	streams, datagrams atomic.Uint64
	refused            [reasons]atomic.Uint64
}

func (c *counters) refuse(r Reason) { c.refused[r].Add(1) }
