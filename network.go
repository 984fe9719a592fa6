// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"context"
	"net/netip"
)

// Network is a network of services on one peer: one bridge of its engine. Its
// addresses mean something on that peer only, and nothing about them is agreed on in
// the cluster. All are IPv4.
type Network struct {
	ID         string // the engine's
	Name       string // the cluster's: "shop_default"
	Bridge     string // the interface on the machine
	Subnet     netip.Prefix
	Gateway    netip.Addr   // the machine's own address on the bridge
	Containers netip.Prefix // lower half of Subnet: what the engine gives out; holds the Gateway
	Virtual    netip.Prefix // upper half of Subnet: no container's; its last address is the broadcast address
}

// Networks makes the networks that this peer's containers are on. It sees only those
// that carry this peer's cluster and peer labels. Deadlines and ErrEngineDown are
// as in [Engine]. Safe for concurrent use.
type Networks interface {
	// EnsureNetwork returns the network with that name, and makes it if there is none:
	// on the first subnet of the pool that overlaps neither taken, which is what the
	// machine uses beside its engine, nor a network of the engine. An *InvalidError: no
	// such name can be. ErrNoSpace: no subnet is free. ErrConflict: the network is there
	// in a shape that is not ours.
	EnsureNetwork(ctx context.Context, name string, taken []netip.Prefix) (Network, error)
	// ListNetworks returns all our networks, sorted by name.
	ListNetworks(ctx context.Context) ([]Network, error)
	// RemoveNetwork removes one by ID. Absent is no error. ErrConflict: a container, in
	// any state, is on it. ErrRefused: it is not ours.
	RemoveNetwork(ctx context.Context, id string) error
}
