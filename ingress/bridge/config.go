// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/shoalnet/shoal"
)

// Config bounds a [Bridge]. Zero means the default.
type Config struct {
	Conns             int           // connections handed out at a time; 8192
	ConnsPerContainer int           // of one container; a quarter of Conns
	Endpoints         int           // sockets; 1024
	Refresh           time.Duration // how often what others may have removed is put back, and what failed is tried again; 30s
}

// Validate names the first wrong field.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{{"connections", int64(c.Conns)}, {"connections per container", int64(c.ConnsPerContainer)}, {"endpoints", int64(c.Endpoints)}, {"refresh", int64(c.Refresh)}} {
		if f.value < 0 {
			return &shoal.InvalidError{Field: "bridge." + f.name, Why: fmt.Sprintf("must not be negative, got %d", f.value)}
		}
	}
	return nil
}

func (c *Config) defaults() {
	c.Conns = cmp.Or(c.Conns, 8192)
	c.ConnsPerContainer = cmp.Or(c.ConnsPerContainer, max(c.Conns/4, 1))
	c.Endpoints = cmp.Or(c.Endpoints, 1024)
	c.Refresh = cmp.Or(c.Refresh, 30*time.Second)
}

// Deps are what a [Bridge] works with. All but Held are needed.
type Deps struct {
	Network shoal.Network
	// Stream carries one connection, in a goroutine of its own; it is closed when Stream
	// returns. ctx ends with Run, which waits for it.
	Stream func(ctx context.Context, s Stream)
	// Packets serves one declared UDP endpoint, in a goroutine of its own, until Conn is
	// closed, which it is when the endpoint or ctx ends.
	Packets func(ctx context.Context, p Packets)
	// Held is called once all that containers send is handed out. nil: nobody minds.
	Held func()
	Log  *slog.Logger
}

// Stream is a connection of a container.
type Stream struct {
	Conn *net.TCPConn
	From netip.AddrPort // the container
	To   netip.AddrPort // the virtual address and port that it asked for
}

// Packets is a declared UDP endpoint.
type Packets struct {
	// Conn gives what containers of the network send, and no other; who else sends is
	// counted. What it sends comes from To.
	Conn net.PacketConn
	To   netip.AddrPort // the virtual address and port
}

// Endpoint is a port of a virtual address that a service has declared.
type Endpoint struct {
	Protocol string // "tcp" or "udp"
	Addr     netip.AddrPort
}

// String returns "tcp 10.213.2.7:80".
func (e Endpoint) String() string { return e.Protocol + " " + e.Addr.String() }

// refuse says why there can be no such endpoint on a network; nil if there can.
func (e Endpoint) refuse(n *shoal.Network) error {
	switch {
	case e.Protocol != "tcp" && e.Protocol != "udp":
		return &shoal.InvalidError{Field: "protocol", Why: fmt.Sprintf("must be tcp or udp, got %q", e.Protocol)}
	case e.Addr.Port() == 0:
		return &shoal.InvalidError{Field: "port", Why: "must be 1-65535, got 0"}
	case !isVirtual(n, e.Addr.Addr()):
		return &shoal.InvalidError{Field: "address", Why: fmt.Sprintf("must be a virtual one of %s, got %s", n.Virtual, e.Addr.Addr())}
	}
	return nil
}

// isVirtual reports whether a can stand for a service: it lies in the upper half and is
// not the broadcast address.
func isVirtual(n *shoal.Network, a netip.Addr) bool {
	return n.Virtual.Contains(a) && n.Virtual.Contains(a.Next())
}

// isContainer reports whether a can be a container's address. The gateway's is this
// machine's: what comes from there would be a loop.
func isContainer(n *shoal.Network, a netip.Addr) bool {
	return n.Containers.Contains(a) && a != n.Gateway
}

// checkNetwork refuses a network that could make this machine claim what is not its own.
func checkNetwork(n *shoal.Network) error {
	s := n.Subnet
	switch {
	case n.Bridge == "" || len(n.Bridge) > 15:
		return &shoal.InvalidError{Field: "network.bridge", Why: fmt.Sprintf("must be an interface's name, got %q", n.Bridge)}
	case !s.IsValid() || !s.Addr().Is4() || s.Bits() < 16 || s.Bits() > 29:
		return &shoal.InvalidError{Field: "network.subnet", Why: fmt.Sprintf("must be an IPv4 prefix of 16 to 29 bits, got %s", s)}
	case n.Virtual.Bits() <= s.Bits() || !s.Contains(n.Virtual.Addr()) || n.Virtual != n.Virtual.Masked():
		return &shoal.InvalidError{Field: "network.virtual", Why: fmt.Sprintf("must be a part of %s, got %s", s, n.Virtual)}
	case n.Containers.Overlaps(n.Virtual) || !s.Contains(n.Containers.Addr()) || !n.Containers.Contains(n.Gateway):
		return &shoal.InvalidError{Field: "network.containers", Why: fmt.Sprintf("must be another part of %s with the gateway, got %s and %s", s, n.Containers, n.Gateway)}
	}
	return nil
}
