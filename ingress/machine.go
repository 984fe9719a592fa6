// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"net"
	"net/netip"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
)

// machine is what the networks ask of this machine. It is safe for concurrent use.
type machine interface {
	// able says why names work for no network of this machine; nil: they do. It does not
	// change while the process runs.
	able() error
	// taken returns the ranges that the machine uses.
	taken() ([]netip.Prefix, error)
	// index tells two interfaces of one name apart; 0: there is none.
	index(device string) int
	// sockets takes port 53 of a network's gateway for what arrives on its bridge.
	// shoal.ErrConflict: somebody has it.
	sockets(ctx context.Context, n *shoal.Network) (net.PacketConn, net.Listener, error)
	// span is bridge.New.
	span(deps bridge.Deps) (span, error)
}

// span is a [bridge.Bridge].
type span interface {
	Run(ctx context.Context) error
	SetEndpoints(endpoints []bridge.Endpoint)
	Stats() bridge.Stats
}
