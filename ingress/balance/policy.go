// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// Policy says which of the replicas that may be picked is. "" is [P2C].
type Policy string

// The policies. Weights count for weighted, and for least-conn and p2c, which compare
// open connections a weight.
const (
	// RoundRobin takes the one that was picked longest ago.
	RoundRobin Policy = "rr"
	// Weighted takes each in proportion to its weight, and spreads the turns of a heavy
	// one over the cycle.
	Weighted Policy = "weighted"
	// LeastConn takes the one with the fewest open connections.
	LeastConn Policy = "least-conn"
	// LeastTime takes the one that connects and answers soonest, times its open
	// connections.
	LeastTime Policy = "least-time"
	// Hash takes the same one for the same client address while it is there and not full.
	Hash Policy = "hash"
	// Random takes any.
	Random Policy = "random"
	// P2C draws two and takes the one with fewer open connections. It is the default: it
	// needs no state that goes stale, does not send everybody to a newcomer at once as
	// least-conn does, and its fullest replica is nearly as good.
	P2C Policy = "p2c"
)

// Prefer says which replicas go before others, whatever the policy; farther ones are
// taken when no nearer one may be. "" is [PreferAny].
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

var (
	policies = []Policy{RoundRobin, Weighted, LeastConn, LeastTime, Hash, Random, P2C}
	prefers  = []Prefer{PreferLocal, PreferZone, PreferAny}
)

// ParsePolicy reads the word of x-shoal.lb; "" is p2c. *shoal.InvalidError: there is no
// such policy.
func ParsePolicy(word string) (Policy, error) { return parse("x-shoal.lb", word, P2C, policies) }

// ParsePrefer reads the word of x-shoal.prefer; "" is any. *shoal.InvalidError: there is
// no such preference.
func ParsePrefer(word string) (Prefer, error) {
	return parse("x-shoal.prefer", word, PreferAny, prefers)
}

func parse[T ~string](field, word string, standing T, all []T) (T, error) {
	if word == "" {
		return standing, nil
	}
	if slices.Contains(all, T(word)) {
		return T(word), nil
	}
	names := make([]string, len(all))
	for i, w := range all {
		names[i] = string(w)
	}
	return "", &shoal.InvalidError{Field: field, Why: fmt.Sprintf("must be %s, got %q", strings.Join(names, " or "), word)}
}
