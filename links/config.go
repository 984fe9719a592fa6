// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	libp2pconfig "github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoalnet/shoal"
)

// The protocols of this room.
const (
	ProtocolJoin protocol.ID = "/shoal/join/1"
	ProtocolLogs protocol.ID = "/shoal/logs/1"
	ProtocolPing protocol.ID = "/shoal/ping/1"
	ProtocolExec protocol.ID = "/shoal/exec/1"
	// ProtocolCopy moves files into and out of a replica.
	ProtocolCopy protocol.ID = "/shoal/copy/1"
	// ProtocolUsage asks a holder what its replicas use.
	ProtocolUsage protocol.ID = "/shoal/usage/1"
	// ProtocolWords asks a holder what replicas that failed had said.
	ProtocolWords protocol.ID = "/shoal/words/1"
	// ProtocolDoctor asks a member what it finds on its own machine.
	ProtocolDoctor protocol.ID = "/shoal/doctor/1"
	// ProtocolRemoved tells a peer that it was removed from the cluster.
	ProtocolRemoved protocol.ID = "/shoal/removed/1"
)

// Config is how a peer is reached and reaches others.
type Config struct {
	// Listen: "host:port" (TCP and QUIC on that port) or multiaddresses. Loopback
	// addresses are dialled only if one of these is a loopback address.
	Listen []string
	// Advertise replaces the addresses told to others, in the same form; empty: what
	// the peer listens on.
	Advertise []string
	// Version of the daemon, for the user agent.
	Version string
	// MDNS looks for addresses of known members on the local network.
	MDNS bool
	// UPnP asks the router to forward the port (UPnP or NAT-PMP), if the peer listens on
	// a private address that is no loopback one.
	UPnP bool
	// Relay says whether this peer carries connections between members that cannot
	// reach each other: "on", "off" or "auto" (also ""), once it is seen that members
	// from elsewhere reach it. Never on loopback, unless it is "on".
	Relay string
	// Host, if set, is used as it is and never closed: for simulation. It listens
	// already, and Listen and Advertise are ignored. Its key is the identity's.
	Host host.Host

	DialTimeout time.Duration // one attempt on one peer, all its addresses
	DialMin     time.Duration // first pause after a failure, doubled by each further one
	DialMax     time.Duration // longest pause
	PingTimeout time.Duration // answer to a ping on a fresh stream; handshake of a forced connection
	FullMesh    int           // up to so many members every peer links to every other
	Degree      int           // links each peer opens by itself in larger clusters

	noWay func(peer.ID) bool       // for tests: see gate
	nat   libp2pconfig.NATManagerC // for tests: the router; nil: the one that is found
}

// LAN returns the profile of one local network (DESIGN section 5: ping within 1 s).
func LAN() Config {
	return Config{
		Listen: []string{"0.0.0.0:4801"}, DialTimeout: 3 * time.Second,
		DialMin: 100 * time.Millisecond, DialMax: 5 * time.Second, PingTimeout: time.Second,
		FullMesh: 50, Degree: 20, UPnP: true,
	}
}

// WAN returns the profile of peers far apart, over lossy links.
func WAN() Config {
	c := LAN()
	c.DialTimeout, c.DialMin, c.DialMax, c.PingTimeout = 10*time.Second, 500*time.Millisecond, 30*time.Second, 3*time.Second
	return c
}

// Sim returns the profile of the simulation; its host is injected.
func Sim() Config {
	c := LAN()
	c.Listen, c.UPnP, c.Relay = nil, false, relayOff
	return c
}

// Validate returns a *shoal.InvalidError for the first field that cannot be used.
func (c *Config) Validate() error {
	if c.Host == nil && len(c.Listen) == 0 {
		return &shoal.InvalidError{Field: "listen", Why: "must name at least one address"}
	}
	if _, err := c.listenAddrs(); err != nil {
		return err
	}
	if _, err := expandAddrs("advertise", c.Advertise); err != nil {
		return err
	}
	if !slices.Contains([]string{"", relayAuto, relayOn, relayOff}, c.Relay) {
		return &shoal.InvalidError{Field: "relay", Why: fmt.Sprintf("must be auto, on or off, got %q", c.Relay)}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"dial timeout", c.DialTimeout}, {"dial min", c.DialMin}, {"dial max", c.DialMax}, {"ping timeout", c.PingTimeout}} {
		if d.value <= 0 {
			return &shoal.InvalidError{Field: d.field, Why: fmt.Sprintf("must be above 0, got %s", d.value)}
		}
	}
	if c.DialMax < c.DialMin {
		return &shoal.InvalidError{Field: "dial max", Why: "must not be below dial min"}
	}
	if c.FullMesh < 1 || c.Degree < 1 {
		return &shoal.InvalidError{Field: "full mesh, degree", Why: "must be at least 1"}
	}
	return nil
}

// mapsPort reports whether to ask a router to forward the port: behind one a peer
// listens on a private address, or on every address.
func (c *Config) mapsPort(listen []ma.Multiaddr) bool {
	return c.UPnP && slices.ContainsFunc(listen, func(a ma.Multiaddr) bool {
		ip, err := manet.ToIP(a)
		return err == nil && !ip.IsLoopback() && (ip.IsPrivate() || ip.IsUnspecified())
	})
}

func (c *Config) listenAddrs() ([]ma.Multiaddr, error) { return expandAddrs("listen", c.Listen) }

// expandAddrs turns "host:port" into a TCP and a QUIC address each.
func expandAddrs(field string, texts []string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for i, text := range texts {
		forms := []string{text}
		if !strings.HasPrefix(text, "/") {
			host, port, err := net.SplitHostPort(text)
			if err != nil {
				return nil, &shoal.InvalidError{Field: fmt.Sprintf("%s[%d]", field, i), Why: fmt.Sprintf("%q is not host:port", text)}
			}
			forms = formsOf(host, port)
		}
		for _, f := range forms {
			a, err := ma.NewMultiaddr(f)
			if err != nil {
				return nil, &shoal.InvalidError{Field: fmt.Sprintf("%s[%d]", field, i), Why: fmt.Sprintf("%q is no address", text)}
			}
			out = append(out, a)
		}
	}
	return out, nil
}

func formsOf(host, port string) []string {
	kind := "dns"
	switch ip := net.ParseIP(host); {
	case host == "":
		kind, host = "ip4", "0.0.0.0"
	case ip != nil && ip.To4() != nil:
		kind = "ip4"
	case ip != nil:
		kind = "ip6"
	}
	base := "/" + kind + "/" + host
	return []string{base + "/tcp/" + port, base + "/udp/" + port + "/quic-v1"}
}

// anyLoopback reports whether one of addrs is a loopback address. The unspecified
// address does not count: who listens everywhere still never dials itself.
func anyLoopback(addrs []ma.Multiaddr) bool {
	return slices.ContainsFunc(addrs, manet.IsIPLoopback)
}
