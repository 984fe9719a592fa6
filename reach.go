// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import "strconv"

// LB says which of the replicas that may be taken serves a connection. "" is LBP2C.
type LB string

// The policies. Weights count for weighted, and for least-conn and p2c, which compare
// open connections a weight.
const (
	// LBRoundRobin takes the one that was taken longest ago.
	LBRoundRobin LB = "rr"
	// LBWeighted takes each in proportion to its weight, and spreads the turns of a heavy
	// one over the cycle.
	LBWeighted LB = "weighted"
	// LBLeastConn takes the one with the fewest open connections.
	LBLeastConn LB = "least-conn"
	// LBLeastTime takes the one that connects and answers soonest, times its open
	// connections.
	LBLeastTime LB = "least-time"
	// LBHash takes the same one for the same client address while it is there and not full.
	LBHash LB = "hash"
	// LBRandom takes any.
	LBRandom LB = "random"
	// LBP2C draws two and takes the one with fewer open connections. It is the default: it
	// needs no state that goes stale, does not send everybody to a newcomer at once as
	// least-conn does, and its fullest replica is nearly as good.
	LBP2C LB = "p2c"
)

// Prefer says which replicas go before others, whatever the policy; farther ones are
// taken when no nearer one may be. "" is PreferAny.
type Prefer string

// The preferences.
const (
	// PreferLocal: those on this peer, then those in its zone, then any.
	PreferLocal Prefer = "local"
	// PreferZone: those in this peer's zone, itself included, then any. Peers that name
	// no zone are one zone, as in placement.
	PreferZone Prefer = "zone"
	// PreferAny: all alike. It is the default: placement does not know where clients are,
	// so a preference loads a replica by how many clients are near it, and one near most
	// of them drowns while others idle. Who knows better asks for it; least-time finds
	// distance by measuring.
	PreferAny Prefer = "any"
)

func (s *Spec) checkReach() error {
	switch s.LB {
	case "", LBRoundRobin, LBWeighted, LBLeastConn, LBLeastTime, LBHash, LBRandom, LBP2C:
	default:
		return oneOf("lb", s.LB, LBP2C, LBRoundRobin, LBWeighted, LBLeastConn, LBLeastTime, LBHash, LBRandom)
	}
	switch s.Prefer {
	case "", PreferLocal, PreferZone, PreferAny:
	default:
		return oneOf("prefer", s.Prefer, PreferLocal, PreferZone, PreferAny)
	}
	for i, p := range s.Ports {
		if s.ProxyProtocol && p.IsIngress() && p.Protocol == "udp" {
			return &InvalidError{Field: "proxy_protocol", Why: "is for tcp, and ports[" + strconv.Itoa(i) + "] is udp"}
		}
	}
	return nil
}

// IsIngress reports whether the port answers on every peer; else the engine publishes it
// on the peer that holds a replica.
func (p Port) IsIngress() bool { return p.Published != 0 && !p.Host }

// IsHost reports whether the port takes a fixed one of the peer that holds a replica.
func (p Port) IsHost() bool { return p.Published != 0 && p.Host }
