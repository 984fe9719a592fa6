// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// twinNetwork is a network of the twin; Twin.mu guards it.
type twinNetwork struct {
	shoal.Network
	foreign bool
}

// EnsureNetwork implements [shoal.Networks].
func (t *Twin) EnsureNetwork(ctx context.Context, name string, taken []netip.Prefix) (shoal.Network, error) {
	if err := shoal.CheckNetworkName("networks", name); err != nil {
		return shoal.Network{}, err
	}
	what := "make network " + name
	if err := t.enter(ctx, what, func(l Latency) time.Duration { return l.Call }); err != nil {
		return shoal.Network{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	taken = slices.Clone(taken)
	for _, n := range t.networks {
		if !n.foreign && n.Name == name {
			return n.Network, nil
		}
		taken = append(taken, n.Subnet)
	}
	for subnet := range freeSubnets(t.cfg.Pool, taken) {
		return t.addNetwork(name, subnet, false), nil
	}
	return shoal.Network{}, noSubnet(what, t.cfg.Pool)
}

// addNetwork makes a network. Callers hold t.mu.
func (t *Twin) addNetwork(name string, subnet netip.Prefix, foreign bool) shoal.Network {
	n := layOut(subnet)
	n.ID, n.Name = t.newID(), name
	n.Bridge = "br-" + n.ID[len(n.ID)-12:] // its IDs differ at the end
	t.networks[n.ID] = &twinNetwork{Network: n, foreign: foreign}
	return n
}

// AddForeignNetwork makes a network that is not ours and returns it.
func (t *Twin) AddForeignNetwork(name string, subnet netip.Prefix) shoal.Network {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addNetwork(name, subnet, true)
}

// ListNetworks implements [shoal.Networks].
func (t *Twin) ListNetworks(ctx context.Context) ([]shoal.Network, error) {
	if err := t.enter(ctx, "list networks", func(l Latency) time.Duration { return l.Call }); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []shoal.Network
	for _, n := range t.networks {
		if !n.foreign {
			out = append(out, n.Network)
		}
	}
	slices.SortFunc(out, func(a, b shoal.Network) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// RemoveNetwork implements [shoal.Networks].
func (t *Twin) RemoveNetwork(ctx context.Context, id string) error {
	what := "remove network " + short(id)
	if err := t.enter(ctx, what, func(l Latency) time.Duration { return l.Remove }); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.networks[id]
	switch {
	case n == nil:
		return nil
	case n.foreign:
		return fmt.Errorf("%s: not a network of this peer: %w", what, shoal.ErrRefused)
	}
	users := 0
	for _, c := range t.containers {
		if slices.ContainsFunc(c.spec.Networks, func(on shoal.Network) bool { return on.ID == id }) {
			users++
		}
	}
	if users > 0 {
		return networkInUse(what, n.Name, users)
	}
	delete(t.networks, id)
	return nil
}

// attachable refuses networks that are not there, or not ours, and forgets those that a
// container has no use for. Callers hold t.mu.
func (t *Twin) attachable(spec *shoal.ContainerSpec) error {
	if !networkOf(&spec.Spec.Setup).IsBridge() {
		spec.Networks = nil
	}
	for _, on := range spec.Networks {
		switch n := t.networks[on.ID]; {
		case n == nil:
			return fmt.Errorf("network %s: %w", on.Name, shoal.ErrNotFound)
		case n.foreign:
			return fmt.Errorf("network %s is not one of this peer: %w", on.Name, shoal.ErrRefused)
		}
	}
	return nil
}

// address gives a container the lowest free address of each network. Callers hold t.mu.
func (t *Twin) address(nets []shoal.Network) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, n := range nets {
		taken := map[netip.Addr]bool{n.Gateway: true}
		for _, c := range t.containers {
			for _, a := range c.addrs {
				taken[a] = true
			}
		}
		a := n.Containers.Addr().Next() // the first is the subnet's own
		for ; taken[a]; a = a.Next() {
		}
		if !n.Containers.Contains(a) {
			return nil, fmt.Errorf("network %s: no available IPv4 addresses in %s", n.Name, n.Containers)
		}
		out = append(out, a)
	}
	return out, nil
}
