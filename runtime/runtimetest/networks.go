// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/shoalnet/shoal"
)

// ensure makes a network that clean removes.
func (f *Fixture) ensure(t testing.TB, name string, taken ...netip.Prefix) shoal.Network {
	t.Helper()
	n, err := f.Engine.EnsureNetwork(t.Context(), name, taken)
	if err != nil {
		t.Fatalf("EnsureNetwork(%s) = %v", name, err)
	}
	return n
}

// on is Container on networks.
func (f *Fixture) on(nets ...shoal.Network) shoal.ContainerSpec {
	cs := f.Container(&f.Steady)
	cs.Networks, cs.DNS = nets, nets[0].Gateway
	return cs
}

// serviceNetworks wants one network per name, on a subnet of its own that is cut in two.
func serviceNetworks(t *testing.T, f *Fixture) {
	made := make([]shoal.Network, 4)
	var group sync.WaitGroup
	for i := range made {
		group.Go(func() {
			n, err := f.Engine.EnsureNetwork(t.Context(), "shop_default", nil)
			if err != nil {
				t.Errorf("EnsureNetwork %d = %v", i, err)
			}
			made[i] = n
		})
	}
	group.Wait()
	shop := made[0]
	if slices.ContainsFunc(made, func(n shoal.Network) bool { return n != shop }) {
		t.Errorf("EnsureNetwork of one name = %+v, want one network", made)
	}
	if shop.ID == "" || shop.Name != "shop_default" || shop.Bridge == "" || len(shop.Bridge) > 15 {
		t.Errorf("network = %+v, want an ID, its name, and an interface", shop)
	}
	s, c, v := shop.Subnet, shop.Containers, shop.Virtual
	halves := c.Bits() == s.Bits()+1 && v.Bits() == c.Bits() && s.Addr() == c.Addr() && s.Contains(v.Addr()) && !c.Overlaps(v)
	if !halves || !c.Contains(shop.Gateway) || c.Addr() == shop.Gateway {
		t.Errorf("network = %+v, want a lower half with the gateway, and an upper one", shop)
	}
	theirs := f.Network(t)
	back := f.ensure(t, "shop_back", v)
	for _, p := range []netip.Prefix{s, theirs.Subnet} {
		if back.Subnet.Overlaps(p) {
			t.Errorf("second network is on %s, which overlaps %s", back.Subnet, p)
		}
	}
	if other := f.ensure(t, "a", back.Virtual, netip.MustParsePrefix("0.0.0.0/0")); other.Subnet.Overlaps(back.Subnet) || other.Subnet.Overlaps(s) {
		t.Errorf("third network is on %s, which overlaps another", other.Subnet)
	}
	all, err := f.Engine.ListNetworks(t.Context())
	if err != nil || len(all) != 3 || all[0].Name != "a" || all[1] != back || all[2] != shop {
		t.Errorf("ListNetworks = %+v, %v; want a, shop_back and shop_default", all, err)
	}
	if err := f.Engine.RemoveNetwork(t.Context(), theirs.ID); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("RemoveNetwork of a foreign one = %v, want ErrRefused", err)
	}
	for range 2 {
		if err := f.Engine.RemoveNetwork(t.Context(), back.ID); err != nil {
			t.Errorf("RemoveNetwork = %v", err)
		}
	}
	if again := f.ensure(t, "shop_back", v); again.ID == back.ID {
		t.Error("a removed network has come back with its ID")
	}
}

// networksRefuse wants nothing made of what cannot be.
func networksRefuse(t *testing.T, f *Fixture) {
	for _, name := range []string{"", "../x", "a b", "-a", string(make([]byte, 200))} {
		_, err := f.Engine.EnsureNetwork(t.Context(), name, nil)
		if _, ok := errors.AsType[*shoal.InvalidError](err); !ok {
			t.Errorf("EnsureNetwork(%q) = %v, want an InvalidError", name, err)
		}
	}
	if _, err := f.Engine.EnsureNetwork(t.Context(), "full", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1")}); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("EnsureNetwork where all is taken = %v, want ErrNoSpace", err)
	}
	gone := f.ensure(t, "gone")
	if err := f.Engine.RemoveNetwork(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		on   shoal.Network
		want error
	}{{gone, shoal.ErrNotFound}, {f.Network(t), shoal.ErrRefused}} {
		if _, err := f.Engine.Create(t.Context(), f.on(tt.on)); !errors.Is(err, tt.want) {
			t.Errorf("Create on %s = %v, want %v", tt.on.Name, err, tt.want)
		}
	}
	if all, err := f.Engine.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("List = %d containers, %v; want none", len(all), err)
	}
}

// attached wants containers in the lower half of their first network, and a network kept
// as long as one is on it.
func attached(t *testing.T, f *Fixture) {
	back, front := f.ensure(t, "shop_back"), f.ensure(t, "shop_front")
	cs := f.on(front, back)
	id := f.create(t, cs)
	if again := f.create(t, cs); again != id {
		t.Errorf("Create again = %s, want %s", again, id)
	}
	busy := func(when string) {
		t.Helper()
		for _, n := range []shoal.Network{front, back} {
			if err := f.Engine.RemoveNetwork(t.Context(), n.ID); !errors.Is(err, shoal.ErrConflict) {
				t.Errorf("RemoveNetwork(%s) with a container %s = %v, want ErrConflict", n.Name, when, err)
			}
		}
	}
	busy("created")
	other := f.start(t, f.on(front))
	if err := f.Engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{front.Gateway.String(): true}
	for _, id := range []string{id, other} {
		c := f.must(t, id)
		a, err := netip.ParseAddr(c.Addr)
		if err != nil || !front.Containers.Contains(a) || seen[c.Addr] {
			t.Errorf("address = %q, want one of its own in %s", c.Addr, front.Containers)
		}
		seen[c.Addr] = true
	}
	busy("running")
	if err := f.Engine.Stop(t.Context(), id, "", 0); err != nil {
		t.Fatal(err)
	}
	busy("stopped")
	for _, id := range []string{id, other} {
		if err := f.Engine.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []shoal.Network{front, back} {
		if err := f.Engine.RemoveNetwork(t.Context(), n.ID); err != nil {
			t.Errorf("RemoveNetwork(%s) that nobody is on = %v", n.Name, err)
		}
	}
	none := f.on(front)
	spec := *none.Spec
	spec.Setup.NoNetwork = true
	none.Spec = &spec
	if c := f.must(t, f.create(t, none)); c.Addr != "" {
		t.Errorf("container without a network has the address %s", c.Addr)
	}
}

// cleanNetworks removes the networks that a case made.
func (f *Fixture) cleanNetworks(ctx context.Context, t testing.TB) {
	all, err := f.Engine.ListNetworks(ctx)
	if err != nil {
		t.Errorf("clean up: ListNetworks = %v", err)
	}
	for _, n := range all {
		if err := f.Engine.RemoveNetwork(ctx, n.ID); err != nil {
			t.Errorf("clean up: RemoveNetwork = %v", err)
		}
	}
}
