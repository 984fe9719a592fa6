//go:build integration

// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// foreignNetwork makes a network of somebody else, where the engine likes.
func foreignNetwork(t testing.TB) shoal.Network {
	t.Helper()
	raw, err := rawClient()
	if err != nil {
		t.Fatal(err)
	}
	name := "shoal-test-" + strings.ToLower(rand.Text())
	made, err := raw.NetworkCreate(t.Context(), name, network.CreateOptions{Driver: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := raw.NetworkRemove(context.WithoutCancel(t.Context()), made.ID); err != nil {
			t.Error(err)
		}
		raw.Close()
	})
	info, err := raw.NetworkInspect(t.Context(), made.ID, network.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return shoal.Network{ID: made.ID, Name: name, Subnet: netip.MustParsePrefix(info.IPAM.Config[0].Subnet)}
}

// ensured makes a network that is removed before the test's end, after its containers.
func ensured(t *testing.T, d *runtime.Docker, name string) shoal.Network {
	t.Helper()
	n, err := d.EnsureNetwork(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.RemoveNetwork(context.WithoutCancel(t.Context()), n.ID); err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestDockerNetworks looks at what the engine made: a bridge with the gateway on it, the
// resolver in the container, and both networks attached before it starts.
func TestDockerNetworks(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	front, back := ensured(t, d, "shop_front"), ensured(t, d, "shop_back")
	removeAll(t, d)
	ifi, err := net.InterfaceByName(front.Bridge)
	if err != nil {
		t.Fatalf("bridge %s: %v", front.Bridge, err)
	}
	addrs, err := ifi.Addrs()
	if want := netip.PrefixFrom(front.Gateway, front.Subnet.Bits()).String(); err != nil || len(addrs) == 0 || addrs[0].String() != want {
		t.Errorf("bridge has %v, %v; want %s", addrs, err, want)
	}
	cs := spec(1, func(s *shoal.Spec) { s.Image, s.Command = testImage, []string{"work"} })
	cs.Cluster, cs.Networks, cs.DNS = c, []shoal.Network{front, back}, front.Gateway
	id, err := d.Create(t.Context(), cs)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(created(t, id).NetworkSettings.Networks); n != 2 {
		t.Errorf("created container is on %d networks, want 2", n)
	}
	if err := d.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	info := created(t, id)
	if dns := info.HostConfig.DNS; len(dns) != 1 || dns[0] != front.Gateway.String() {
		t.Errorf("resolvers = %v, want %s", dns, front.Gateway)
	}
	for _, n := range []shoal.Network{front, back} {
		found := false
		for _, e := range info.NetworkSettings.Networks {
			a, err := netip.ParseAddr(e.IPAddress)
			found = found || e.NetworkID == n.ID && err == nil && n.Containers.Contains(a) && e.Gateway == n.Gateway.String()
		}
		if !found {
			t.Errorf("networks = %+v, want one in %s by %s", info.NetworkSettings.Networks, n.Containers, n.Gateway)
		}
	}
}

// TestDockerNetworkHalfConnected leaves a container as a daemon does that ended between
// the create and the connects.
func TestDockerNetworkHalfConnected(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	front, back := ensured(t, d, "shop_front"), ensured(t, d, "shop_back")
	removeAll(t, d)
	cs := spec(1, func(s *shoal.Spec) { s.Image, s.Command = testImage, []string{"work"} })
	cs.Cluster, cs.Networks = c, []shoal.Network{front}
	half, err := d.Create(t.Context(), cs)
	if err != nil {
		t.Fatal(err)
	}
	cs.Networks = []shoal.Network{front, back}
	if id, err := d.Create(t.Context(), cs); err != nil || id != half {
		t.Fatalf("Create again = %s, %v; want %s", id, err, half)
	}
	if n := len(created(t, half).NetworkSettings.Networks); n != 2 {
		t.Errorf("container is on %d networks, want 2", n)
	}
}

// TestDockerNetworksOutliveTheDaemon looks at them as the next daemon, as another peer of
// the same machine, and as another cluster's peer.
func TestDockerNetworksOutliveTheDaemon(t *testing.T) {
	c := newCluster()
	n := ensured(t, newDocker(t, runtime.DefaultHost, peer, c), "default")
	again := ensured(t, newDocker(t, runtime.DefaultHost, peer, c), "default")
	if again != n {
		t.Errorf("next daemon gets %+v, want %+v", again, n)
	}
	for _, d := range []*runtime.Docker{
		newDocker(t, runtime.DefaultHost, "12D3KooWPeerB", c), newDocker(t, runtime.DefaultHost, peer, newCluster()),
	} {
		if all, err := d.ListNetworks(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("stranger lists %+v, %v", all, err)
		}
		if other := ensured(t, d, "default"); other.ID == n.ID || other.Subnet.Overlaps(n.Subnet) {
			t.Errorf("stranger gets %+v, want another than %+v", other, n)
		}
	}
}
