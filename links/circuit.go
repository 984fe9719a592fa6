// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// circuitVia is the address of whoever has a reservation on a relay:
// "/p2p/RELAY/p2p-circuit". Where the relay is stands in the relay's own record, so
// that this address stays true when the relay moves, and holds nothing to be judged.
func circuitVia(relay peer.ID) ma.Multiaddr {
	return ma.StringCast("/p2p/" + relay.String() + "/p2p-circuit") // of a valid ID
}

// relayOf returns the relay that an address leads through; false: it leads through none.
func relayOf(a ma.Multiaddr) (peer.ID, bool) {
	if a == nil {
		return "", false
	}
	if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err != nil {
		return "", false
	}
	before, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	text, err := before.ValueForProtocol(ma.P_P2P)
	if err != nil {
		return "", true
	}
	relay, err := peer.Decode(text)
	if err != nil {
		return "", true
	}
	return relay, true
}

// isPlainCircuit reports whether an address is a circuit as circuitVia writes it.
func isPlainCircuit(a ma.Multiaddr) bool {
	relay, ok := relayOf(a)
	return ok && relay != "" && a.Equal(circuitVia(relay))
}

func isCircuit(a ma.Multiaddr) bool {
	_, ok := relayOf(a)
	return ok
}

// withoutCircuits returns the addresses that lead straight to a peer.
func withoutCircuits(addrs []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(addrs), isCircuit)
}

func isRelayed(c network.Conn) bool { return isCircuit(c.RemoteMultiaddr()) }

// open returns the open connections to a peer, straight and relayed.
func (l *Links) open(p peer.ID) (straight, relayed []network.Conn) {
	for _, c := range l.host.Network().ConnsToPeer(p) {
		switch {
		case c.IsClosed():
		case isRelayed(c):
			relayed = append(relayed, c)
		default:
			straight = append(straight, c)
		}
	}
	return straight, relayed
}

// isStraight reports whether a peer is linked without a relay.
func (l *Links) isStraight(p peer.ID) bool {
	straight, _ := l.open(p)
	return len(straight) > 0
}
