// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"errors"
	"strings"
)

// Reason says why a connection was not carried, or not to its end.
type Reason uint8

// The reasons. Up to Invalid they are also what a holder answers.
const (
	NotHere      Reason = iota + 1 // the holder has no such replica
	NotReady                       // the replica is not ready, or being released
	NotPublished                   // the service does not publish the port
	NotAllowed                     // the port is not for who asks
	Unreachable                    // the container does not take the connection
	Busy                           // the holder carries as much as it may
	Invalid                        // the request makes no sense
	NoReplica                      // there is none that may be tried
	LinkDown                       // the holder does not answer
	ClientBroke                    // the client reset an open connection
	ReplicaBroke                   // the replica did, or the link to its holder
	TooMany                        // connections or flows
	Dropped                        // a datagram, for a queue was full
	Ended                          // this peer stops
	Silent                         // for longer than Config.Idle
	reasons                        // how many there are, and one
)

var reasonText = [reasons]string{
	NotHere: "not here", NotReady: "not ready", NotPublished: "port not published", NotAllowed: "not allowed",
	Unreachable: "container unreachable", Busy: "holder busy", Invalid: "invalid request", NoReplica: "no replica",
	LinkDown: "holder unreachable", ClientBroke: "client broke", ReplicaBroke: "replica broke", TooMany: "too many",
	Dropped: "dropped", Ended: "peer stops", Silent: "silent",
}

// String returns two or three words.
func (r Reason) String() string {
	if r == 0 || r >= reasons {
		return "unknown"
	}
	return reasonText[r]
}

// Refusal is an error with a reason that is counted.
type Refusal struct {
	Reason Reason
	Text   string // more, for people; may be ""
	cause  error
}

// Error returns "REASON: TEXT".
func (r *Refusal) Error() string {
	if r.Text == "" {
		return r.Reason.String()
	}
	return r.Reason.String() + ": " + r.Text
}

// Unwrap returns the cause; nil if there is none.
func (r *Refusal) Unwrap() error { return r.cause }

// because gives err a reason unless it has one.
func because(reason Reason, err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	return &Refusal{Reason: reason, Text: err.Error(), cause: err}
}

// clip bounds text of others, and of errors that quote them.
func clip(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
