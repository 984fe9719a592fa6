// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// TestTwinAddresses wants the same addresses in every run of a simulation, and one of
// somebody who left given out again.
func TestTwinAddresses(t *testing.T) {
	twin := newTwin()
	front, err := twin.EnsureNetwork(t.Context(), "front", nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := twin.EnsureNetwork(t.Context(), "back", nil)
	if err != nil || back.Subnet.String() != "10.213.4.0/22" {
		t.Fatalf("second network = %+v, %v; want it on 10.213.4.0/22", back, err)
	}
	addr := func(id string) string {
		t.Helper()
		all, err := twin.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if c.ID == id {
				return c.Addr
			}
		}
		return "absent"
	}
	on := func(n byte, nets ...shoal.Network) string {
		cs := spec(n, nil)
		cs.Networks = nets
		return run(t, twin, cs)
	}
	first, second, both := on(1, front), on(2, front), on(3, back, front)
	for id, want := range map[string]string{first: "10.213.0.2", second: "10.213.0.3", both: "10.213.4.2"} {
		if got := addr(id); got != want {
			t.Errorf("address = %s, want %s", got, want)
		}
	}
	if err := twin.Stop(t.Context(), first, "", time.Second); err != nil {
		t.Fatal(err)
	}
	if got := addr(on(4, front)); got != "10.213.0.2" {
		t.Errorf("address after one stopped = %s, want its", got)
	}
	if got := addr(on(5, front)); got != "10.213.0.5" {
		t.Errorf("next address = %s, want 10.213.0.5, beside the one that is on two networks", got)
	}
}

// TestTwinNetworkFull fills a network of the smallest pool.
func TestTwinNetworkFull(t *testing.T) {
	twin := runtime.NewTwin(runtime.TwinConfig{
		Cluster: cluster, Peer: peer, Images: []string{"hello:1"}, Pool: netip.MustParsePrefix("192.168.4.0/22"),
	}, shoal.NewSystemClock())
	n, err := twin.EnsureNetwork(t.Context(), "only", nil)
	if err != nil || n.Gateway.String() != "192.168.4.1" {
		t.Fatalf("network = %+v, %v; want it in the pool", n, err)
	}
	for i := range 511 {
		cs := spec(1, nil)
		cs.Replica = shoal.ReplicaID{byte(i), byte(i >> 8), 1}
		cs.Networks = []shoal.Network{n}
		id, err := twin.Create(t.Context(), cs)
		if err != nil {
			t.Fatal(err)
		}
		err = twin.Start(t.Context(), id)
		if full := err != nil && strings.Contains(err.Error(), "no available IPv4 addresses"); full != (i == 510) {
			t.Fatalf("Start of container %d = %v, want room for 510", i+1, err)
		}
	}
}
