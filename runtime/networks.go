// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// LabelNetwork is on networks beside LabelCluster and LabelPeer: the network's name in
// the cluster. The peer is there because peers may share a machine and its engine, and
// each answers for its own virtual addresses.
const LabelNetwork = LabelPrefix + "network"

// subnetTries bounds how many subnets the engine may refuse. What it refuses beyond the
// lists that we looked at is a race with somebody else, or an interface that it alone sees.
const subnetTries = 8

// EnsureNetwork implements [shoal.Networks]. It makes one network at a time.
func (d *Docker) EnsureNetwork(ctx context.Context, name string, taken []netip.Prefix) (shoal.Network, error) {
	if err := shoal.CheckNetworkName("networks", name); err != nil {
		return shoal.Network{}, err
	}
	what := "make network " + name
	select {
	case d.making <- struct{}{}:
		defer func() { <-d.making }()
	case <-ctx.Done():
		return shoal.Network{}, fmt.Errorf("%s: %w", what, ctx.Err())
	}
	there, err := d.allNetworks(ctx, what)
	if err != nil {
		return shoal.Network{}, err
	}
	if n, ok := oldest(there, func(n *network.Summary) bool { return d.ourNetwork(n) && n.Labels[LabelNetwork] == name }); ok {
		return networkFrom(n)
	}
	taken = slices.Clone(taken)
	for i := range there {
		taken = append(taken, rangesOf(&there[i])...)
	}
	return d.makeNetwork(ctx, what, name, taken)
}

// makeNetwork makes a network on the first free subnet that the engine takes.
func (d *Docker) makeNetwork(ctx context.Context, what, name string, taken []netip.Prefix) (shoal.Network, error) {
	tries := 0
	var refused error
	for subnet := range freeSubnets(d.cfg.Pool, taken) {
		n := layOut(subnet)
		id, err := call(ctx, d, d.cfg.Slow, what, func(ctx context.Context, c *client.Client) (string, error) {
			made, err := c.NetworkCreate(ctx, d.networkName(name), d.networkOptions(name, &n))
			if cerrdefs.IsPermissionDenied(err) { // "Pool overlaps with other one on this address space"
				return "", &overlapError{subnet: subnet, engine: err}
			}
			return made.ID, err
		})
		if _, ok := errors.AsType[*overlapError](err); ok {
			refused = err
			if tries++; tries == subnetTries {
				return shoal.Network{}, fmt.Errorf("%w: %w", shoal.ErrNoSpace, refused)
			}
			continue
		}
		if err != nil {
			return shoal.Network{}, err
		}
		n.ID, n.Name, n.Bridge = id, name, bridgeOf(id, nil)
		return n, nil
	}
	if refused != nil {
		return shoal.Network{}, fmt.Errorf("%w: %w", shoal.ErrNoSpace, refused)
	}
	return shoal.Network{}, noSubnet(what, d.cfg.Pool)
}

// networkOptions is a bridge as the engine makes them (its MTU, containers that may talk
// to each other), with the lower half of the subnet for the containers.
func (d *Docker) networkOptions(name string, n *shoal.Network) network.CreateOptions {
	return network.CreateOptions{
		Driver: "bridge",
		IPAM: &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{
			Subnet: n.Subnet.String(), IPRange: n.Containers.String(), Gateway: n.Gateway.String(),
		}}},
		Labels: map[string]string{LabelCluster: string(d.cfg.Cluster), LabelPeer: string(d.cfg.Peer), LabelNetwork: name},
	}
}

// networkName is what people see in the engine. The labels decide; it only must not be
// another cluster's or peer's.
func (d *Docker) networkName(name string) string {
	return "shoal-" + d.cfg.Cluster.Short() + "-" + d.cfg.Peer.Short() + "-" + name
}

// ListNetworks implements [shoal.Networks]. One whose shape is not ours is left out.
func (d *Docker) ListNetworks(ctx context.Context) ([]shoal.Network, error) {
	all, err := d.allNetworks(ctx, "list networks")
	if err != nil {
		return nil, err
	}
	var out []shoal.Network
	for i := range all {
		if !d.ourNetwork(&all[i]) {
			continue
		}
		n, err := networkFrom(&all[i])
		if err != nil {
			d.log.Debug("network is left out", "network", all[i].Name, "why", err)
			continue
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b shoal.Network) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// RemoveNetwork implements [shoal.Networks]. The engine itself minds only containers that
// run; one that could not be started again would be worse.
func (d *Docker) RemoveNetwork(ctx context.Context, id string) error {
	what := "remove network " + short(id)
	all, err := d.allNetworks(ctx, what)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(n network.Summary) bool { return n.ID == id })
	switch {
	case i < 0:
		return nil
	case !d.ourNetwork(&all[i]):
		return fmt.Errorf("%s: not a network of this peer: %w", what, shoal.ErrRefused)
	}
	// One that never ran is on the network by name only (seen with Engine 20.10).
	on := filters.NewArgs(filters.Arg("network", id), filters.Arg("network", all[i].Name))
	users, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]container.Summary, error) {
		return c.ContainerList(ctx, container.ListOptions{All: true, Filters: on})
	})
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return networkInUse(what, all[i].Labels[LabelNetwork], len(users))
	}
	return d.do(ctx, d.cfg.Slow, what, func(ctx context.Context, c *client.Client) error {
		err := c.NetworkRemove(ctx, id)
		switch {
		case cerrdefs.IsNotFound(err):
			return nil
		case cerrdefs.IsPermissionDenied(err): // "has active endpoints": one came meanwhile
			return fmt.Errorf("%w: %w", shoal.ErrConflict, err)
		}
		return err
	})
}

func networkInUse(what, name string, users int) error {
	return fmt.Errorf("%s: %w: %d containers are on network %s", what, shoal.ErrConflict, users, name)
}

// attachable refuses networks that are not there, or not ours.
func (d *Docker) attachable(ctx context.Context, what string, nets []shoal.Network) error {
	if len(nets) == 0 {
		return nil
	}
	all, err := d.allNetworks(ctx, what)
	if err != nil {
		return err
	}
	for _, n := range nets {
		i := slices.IndexFunc(all, func(s network.Summary) bool { return s.ID == n.ID })
		switch {
		case i < 0:
			return fmt.Errorf("%s: network %s: %w", what, n.Name, shoal.ErrNotFound)
		case !d.ourNetwork(&all[i]):
			return fmt.Errorf("%s: network %s is not one of this peer: %w", what, n.Name, shoal.ErrRefused)
		}
	}
	return nil
}

// connectAll puts a container that was just made on its other networks, or removes it
// again.
func (d *Docker) connectAll(ctx context.Context, what, id string, others []shoal.Network) error {
	for i := range others {
		err := d.connectTo(ctx, what, id, &others[i])
		if err == nil {
			continue
		}
		cleanup := d.do(context.WithoutCancel(ctx), d.cfg.Slow, what, func(ctx context.Context, c *client.Client) error {
			return c.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		})
		return errors.Join(err, cleanup)
	}
	return nil
}

// connectTo puts a container on one more network. Engines take several at create only
// from API 1.44 on; this works with all.
func (d *Docker) connectTo(ctx context.Context, what, id string, n *shoal.Network) error {
	return d.do(ctx, d.cfg.Slow, what+" on network "+n.Name, func(ctx context.Context, c *client.Client) error {
		return c.NetworkConnect(ctx, n.ID, id, nil)
	})
}

func (d *Docker) allNetworks(ctx context.Context, what string) ([]network.Summary, error) {
	return call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]network.Summary, error) {
		return c.NetworkList(ctx, network.ListOptions{})
	})
}

func (d *Docker) ourNetwork(n *network.Summary) bool {
	return n.Labels[LabelCluster] == string(d.cfg.Cluster) && n.Labels[LabelPeer] == string(d.cfg.Peer) && n.Labels[LabelNetwork] != ""
}

// oldest returns the first made of those that are meant. Two of one name are there only
// if two daemons made them at a time; both then agree on one.
func oldest(all []network.Summary, meant func(*network.Summary) bool) (*network.Summary, bool) {
	var out *network.Summary
	for i := range all {
		n := &all[i]
		if meant(n) && (out == nil || cmp.Or(n.Created.Compare(out.Created), cmp.Compare(n.ID, out.ID)) < 0) {
			out = n
		}
	}
	return out, out != nil
}

// rangesOf returns what a network of the engine takes.
func rangesOf(n *network.Summary) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range n.IPAM.Config {
		if p, err := netip.ParsePrefix(c.Subnet); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// networkFrom reads a network of ours back.
func networkFrom(n *network.Summary) (shoal.Network, error) {
	name := n.Labels[LabelNetwork]
	wrong := func(why string) (shoal.Network, error) {
		return shoal.Network{}, fmt.Errorf("network %s (%s): %w: %s; remove it, it is made anew", name, n.Name, shoal.ErrConflict, why)
	}
	if n.Driver != "bridge" || len(n.IPAM.Config) != 1 {
		return wrong("is no bridge with one subnet")
	}
	c := n.IPAM.Config[0]
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet.Bits() > 29 {
		return wrong("has the subnet " + c.Subnet)
	}
	out := layOut(subnet)
	if c.IPRange != out.Containers.String() || c.Gateway != out.Gateway.String() {
		return wrong(fmt.Sprintf("gives out %q with gateway %s, want %s and %s", c.IPRange, c.Gateway, out.Containers, out.Gateway))
	}
	out.ID, out.Name, out.Bridge = n.ID, name, bridgeOf(n.ID, n.Options)
	return out, nil
}

// bridgeOf returns the interface of a network: the engine names it after the ID unless
// it is told otherwise.
func bridgeOf(id string, options map[string]string) string {
	return cmp.Or(options["com.docker.network.bridge.name"], "br-"+short(id))
}

// overlapError is an engine's refusal of a subnet.
type overlapError struct {
	subnet netip.Prefix
	engine error
}

// Error says which subnet and why.
func (e *overlapError) Error() string {
	return fmt.Sprintf("the engine refuses subnet %s: %v", e.subnet, e.engine)
}
