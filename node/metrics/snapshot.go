// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/shoalnet/shoal"
)

// Snapshot is what a peer knows at one moment. Nobody writes to it any more.
type Snapshot struct {
	Status shoal.MemberStatus
	View   *shoal.View              // nil outside a cluster; so is all that follows
	Links  map[shoal.PeerID]Link    // how the other members are reached
	Reach  map[string]shoal.Traffic // what was carried for clients of this peer, by service
	Served *shoal.Traffic           // what was carried for other peers; nil: nothing is carried
	Ports  []shoal.PortState        // those that are published
	Images *Images                  // nil: none are moved

	Rollouts map[string]shoal.RolloutReport // of all services
	Scaling  map[string]shoal.Scaling       // of those that this peer watches the load of
}

// Link is how a member is reached.
type Link struct {
	Path      string        // direct, punched or relayed; "": there is no link
	By        shoal.PeerID  // the relay
	Transport string        // tcp or quic, to the relay if there is one
	RTT       time.Duration // of the last ping that was answered; 0: none was
	Pings     int           // of the last 20
	Lost      int           // of those
}

// Images is the room that images take here, and what was moved, in bytes.
type Images struct {
	Used, Limit int64 // Limit 0: none
	FromMembers int64
	FromOutside int64
	ToMembers   int64
	Refused     map[string]uint64 // messages of members, by reason
}
