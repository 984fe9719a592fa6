// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/network"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

func prefixes(of ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range of {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestFreeSubnets(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pool  string
		taken []netip.Prefix
		first string // "": none
		count int
	}{
		{"nothing taken", "10.213.0.0/16", nil, "10.213.0.0/22", 64},
		{"a host in the first", "10.213.0.0/16", prefixes("10.213.3.255/32"), "10.213.4.0/22", 63},
		{"a wider one", "10.213.0.0/16", prefixes("10.213.0.0/17"), "10.213.128.0/22", 32},
		{"all", "10.213.0.0/16", prefixes("10.0.0.0/8"), "", 0},
		{"a default route takes nothing", "10.213.0.0/16", prefixes("0.0.0.0/0", "::/0"), "10.213.0.0/22", 64},
		{"IPv6, and one that holds IPv4", "10.213.0.0/16", prefixes("fd00::/8", "::ffff:10.213.0.0/118"), "10.213.4.0/22", 63},
		{"no prefix", "10.213.0.0/16", []netip.Prefix{{}}, "10.213.0.0/22", 64},
		{"neighbours", "192.168.4.0/22", prefixes("192.168.0.0/22", "192.168.8.0/22"), "192.168.4.0/22", 1},
		{"the pool's end", "255.255.252.0/22", nil, "255.255.252.0/22", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := slices.Collect(freeSubnets(netip.MustParsePrefix(tt.pool), tt.taken))
			if len(got) != tt.count {
				t.Errorf("%d subnets, want %d", len(got), tt.count)
			}
			if tt.first != "" && (len(got) == 0 || got[0].String() != tt.first) {
				t.Errorf("subnets = %v, want %s first", got, tt.first)
			}
		})
	}
}

func TestFreeSubnetsOverlapNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		taken := rapid.SliceOf(rapid.Custom(func(t *rapid.T) netip.Prefix {
			a := netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c"), rapid.Byte().Draw(t, "d")})
			return netip.PrefixFrom(a, rapid.IntRange(9, 32).Draw(t, "bits"))
		})).Draw(t, "taken")
		pool := netip.MustParsePrefix("10.0.0.0/12")
		var before netip.Prefix
		for s := range freeSubnets(pool, taken) {
			if s.Bits() != subnetBits || s != s.Masked() || !pool.Overlaps(s) || before.IsValid() && before.Overlaps(s) {
				t.Fatalf("subnet %s after %s is none of the pool's", s, before)
			}
			before = s
			for _, p := range taken {
				if p.Overlaps(s) {
					t.Fatalf("subnet %s overlaps %s", s, p)
				}
			}
		}
	})
}

func TestLayOut(t *testing.T) {
	got := layOut(netip.MustParsePrefix("10.213.4.0/22"))
	want := shoal.Network{
		Subnet: netip.MustParsePrefix("10.213.4.0/22"), Gateway: netip.MustParseAddr("10.213.4.1"),
		Containers: netip.MustParsePrefix("10.213.4.0/23"), Virtual: netip.MustParsePrefix("10.213.6.0/23"),
	}
	if got != want {
		t.Errorf("layOut = %+v, want %+v", got, want)
	}
}

func TestPoolIsChecked(t *testing.T) {
	for _, bad := range []string{"10.213.0.1/16", "10.213.0.0/23", "10.0.0.0/7", "fd00::/16", "0.0.0.0/0"} {
		cfg := Config{Cluster: "c", Peer: "p", Pool: netip.MustParsePrefix(bad)}
		var invalid *shoal.InvalidError
		if err := cfg.Validate(); !errors.As(err, &invalid) || invalid.Field != "runtime.pool" {
			t.Errorf("Validate with the pool %s = %v, want it refused", bad, err)
		}
	}
	cfg := Config{Cluster: "c", Peer: "p", Pool: netip.MustParsePrefix("172.20.0.0/16")}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestNetworkFromRefusesOtherShapes(t *testing.T) {
	good := func() *network.Summary {
		return &network.Summary{
			ID: "0123456789abcdef", Name: "shoal-c-p-shop", Driver: "bridge", Labels: map[string]string{LabelNetwork: "shop"},
			IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.213.0.0/22", IPRange: "10.213.0.0/23", Gateway: "10.213.0.1"}}},
		}
	}
	n, err := networkFrom(good())
	if err != nil || n.Name != "shop" || n.Bridge != "br-0123456789ab" || n.Virtual.String() != "10.213.2.0/23" {
		t.Fatalf("networkFrom = %+v, %v", n, err)
	}
	named := good()
	named.Options = map[string]string{"com.docker.network.bridge.name": "shop0"}
	if n, err := networkFrom(named); err != nil || n.Bridge != "shop0" {
		t.Errorf("networkFrom with a name of its own = %+v, %v", n, err)
	}
	for what, spoil := range map[string]func(*network.Summary){
		"driver":        func(n *network.Summary) { n.Driver = "macvlan" },
		"no subnet":     func(n *network.Summary) { n.IPAM.Config = nil },
		"not one":       func(n *network.Summary) { n.IPAM.Config[0].Subnet = "all" },
		"IPv6":          func(n *network.Summary) { n.IPAM.Config[0].Subnet = "fd00::/64" },
		"no room":       func(n *network.Summary) { n.IPAM.Config[0].Subnet = "10.213.0.0/30" },
		"all of it":     func(n *network.Summary) { n.IPAM.Config[0].IPRange = "" },
		"other gateway": func(n *network.Summary) { n.IPAM.Config[0].Gateway = "10.213.2.1" },
	} {
		n := good()
		spoil(n)
		if got, err := networkFrom(n); !errors.Is(err, shoal.ErrConflict) {
			t.Errorf("networkFrom with %s spoilt = %+v, %v; want ErrConflict", what, got, err)
		}
	}
}
