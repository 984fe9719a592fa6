// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// metadataV6 is where one large provider serves instance metadata over IPv6; the
// IPv4 ones lie in 169.254.0.0/16.
var metadataV6 = net.ParseIP("fd00:ec2::254")

// dialable reports whether a peer may be dialled at a. Records are written by
// others: an address in one must not make us talk to services of our own machine
// (unless we live on loopback ourselves) or of its provider (FAILURES 2.50). A circuit
// names a relay and no place; the gate asks whether that is a member.
func dialable(a ma.Multiaddr, loopback bool) bool {
	if isCircuit(a) {
		return isPlainCircuit(a)
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return isDNS(a) // its answer is judged when it is there
	}
	switch {
	case ip.IsLoopback():
		return loopback
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(), ip.Equal(metadataV6), ip.Equal(net.IPv4bcast):
		return false
	}
	return true
}

func isDNS(a ma.Multiaddr) bool {
	first, _ := ma.SplitFirst(a)
	if first == nil {
		return false
	}
	switch first.Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return true
	}
	return false
}

// pick returns at most limit dialable addresses of the texts, each once, in order.
func pick(loopback bool, limit int, lists ...[]ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, list := range lists {
		for _, a := range list {
			if len(out) < limit && a != nil && dialable(a, loopback) && !ma.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// parseAddrs reads multiaddresses and drops what is none; at most 64 texts are looked at.
func parseAddrs(texts []string) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, min(len(texts), maxAddrs))
	for _, t := range texts[:min(len(texts), 64)] {
		if a, err := ma.NewMultiaddr(t); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func addrTexts(addrs []ma.Multiaddr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// places names addresses for people, each host and port once: "192.0.2.1:4710".
func places(addrs []ma.Multiaddr) string {
	var out []string
	for _, a := range addrs {
		where := a.String()
		if _, plain, err := manet.DialArgs(a); err == nil {
			where = plain
		}
		if !slices.Contains(out, where) {
			out = append(out, where)
		}
	}
	return strings.Join(out, ", ")
}

// quicDelay is how long QUIC waits for TCP: bytes go faster over TCP and TLS
// (FACTS section 3: 630-690 against 380 MB/s).
const quicDelay = 300 * time.Millisecond

// tcpStep spreads many TCP addresses of one peer a little.
const tcpStep = 25 * time.Millisecond

// relayDelay is how long a circuit waits for the straight ways: a handshake over half
// the world takes two or three round trips of 0.3 s. When all of them were refused it
// is dialled at once.
const relayDelay = time.Second

// preferTCP ranks addresses for dialling, circuits last, and drops all above 16.
func preferTCP(all []ma.Multiaddr) []network.AddrDelay {
	addrs := withoutCircuits(all)
	out := make([]network.AddrDelay, 0, min(len(all), maxAddrs))
	tcp := 0
	for _, a := range addrs {
		if _, err := a.ValueForProtocol(ma.P_TCP); err == nil && len(out) < maxAddrs {
			out = append(out, network.AddrDelay{Addr: a, Delay: time.Duration(tcp) * tcpStep})
			tcp++
		}
	}
	wait := time.Duration(0)
	if tcp > 0 {
		wait = quicDelay
	}
	for _, a := range addrs {
		if _, err := a.ValueForProtocol(ma.P_TCP); err != nil && len(out) < maxAddrs {
			out = append(out, network.AddrDelay{Addr: a, Delay: wait})
		}
	}
	wait = 0
	if len(out) > 0 {
		wait = relayDelay
	}
	for _, a := range all {
		if isCircuit(a) && len(out) < maxAddrs+maxRelays {
			out = append(out, network.AddrDelay{Addr: a, Delay: wait})
		}
	}
	return out
}
