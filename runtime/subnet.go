// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/shoalnet/shoal"
)

// subnetBits cuts the pool. A /22 has 510 addresses for containers (the lower half
// without its first, and the gateway), and 511 virtual ones (the upper half without the
// broadcast address): a service takes one of those for itself and one for each slot, so
// that a network has room for a hundred services of four slots. The lower half is what
// one bridge carries well; the kernel's limit is 1,024 ports.
const subnetBits = 22

// defaultPool holds 64 networks. Every peer may use the same one, as its addresses leave
// no machine. It lies in 10.0.0.0/8 away from the ends, where people and clouds begin
// and end theirs, and outside of what engines take by themselves (172.17.0.0/16 and up,
// 192.168.0.0/16). What overlaps is passed over anyway.
var defaultPool = netip.MustParsePrefix("10.213.0.0/16")

// CheckPool returns a *shoal.InvalidError about the field if subnets cannot be cut from a
// range.
func CheckPool(field string, pool netip.Prefix) error {
	if pool.IsValid() && pool.Addr().Is4() && pool.Bits() <= subnetBits && pool.Bits() >= 8 && pool == pool.Masked() {
		return nil
	}
	return &shoal.InvalidError{Field: field, Why: fmt.Sprintf("must be an IPv4 range of 8 to %d bits like %s, got %s", subnetBits, defaultPool, pool)}
}

// freeSubnets yields the subnets of the pool that overlap nothing taken, lowest first.
func freeSubnets(pool netip.Prefix, taken []netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for n := range uint32(1) << (subnetBits - pool.Bits()) {
			s := netip.PrefixFrom(above(pool.Addr(), n<<(32-subnetBits)), subnetBits)
			if !slices.ContainsFunc(taken, overlaps(s)) && !yield(s) {
				return
			}
		}
	}
}

// noSubnet says that a pool has none that is free, and what to do.
func noSubnet(what string, pool netip.Prefix) error {
	return &shoal.AdviceError{
		Err:    fmt.Errorf("%s: %w in %s: this machine uses all of it", what, shoal.ErrNoSpace, pool),
		Advice: "give shoald another range (network.pool)",
	}
}

// overlaps ignores what is no address, or everybody's: a default route takes nothing.
func overlaps(s netip.Prefix) func(netip.Prefix) bool {
	return func(p netip.Prefix) bool {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.IsValid() && p.Bits() > 0 && p.Overlaps(s)
	}
}

// layOut says what is where in a subnet.
func layOut(subnet netip.Prefix) shoal.Network {
	half := subnet.Bits() + 1
	return shoal.Network{
		Subnet:     subnet,
		Gateway:    above(subnet.Addr(), 1),
		Containers: netip.PrefixFrom(subnet.Addr(), half),
		Virtual:    netip.PrefixFrom(above(subnet.Addr(), 1<<(32-half)), half),
	}
}

// above returns the IPv4 address n above a.
func above(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}
