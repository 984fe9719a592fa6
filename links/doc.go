// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package links is how a peer knows who it is and reaches the others: its identity
// on disk, admission chains, the libp2p host, who may connect, the dial loop, tokens
// and the join protocol, and the direct streams between peers (logs, exec, copy, ping).
//
// Members that cannot reach each other are linked through one that both reach, and
// straight as soon as that is possible (relay.go, reserve.go, punch.go, better.go).
//
// [OpenIdentity] comes first, then [New]; [Links.SetMembers] follows the folded
// records, [Links.Run] listens, dials and serves until its context ends. Rooms that
// need the network take [Links.Host], whose streams are members only.
//
// The package refuses to send commands to peers, to admit anybody but members
// (strangers reach the join protocol only, and only while an invite is open), to relay
// for anybody but members, to let anybody join through a relay, and to
// judge whether a peer is alive: it connects and pings, others decide.
package links
