// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bridge

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalnet/shoal"
)

// Each bridge has a table of its own, so that peers who share a machine do not know of
// each other, and a table whose bridge is gone is known to be nobody's.
const (
	tablePrefix = "shoal_"
	chainCatch  = "catch"
	chainGuard  = "guard"
)

// beforeEngine is just before the engine's own translation of addresses (-100), which
// takes every local address for one that its published ports answer on.
const beforeEngine = -110

func tableOf(n *shoal.Network) *nftables.Table {
	return &nftables.Table{Name: tablePrefix + n.Bridge, Family: nftables.TableFamilyIPv4}
}

// addRules adds the table, as nft would write it:
//
//	chain catch { type nat hook prerouting priority -110
//	    iifname BRIDGE ip daddr VIRTUAL ip protocol tcp redirect to :PORT
//	    iifname BRIDGE ip daddr VIRTUAL ip protocol udp dnat to ip daddr }
//	chain guard { type filter hook input priority 0
//	    iifname != BRIDGE iifname != lo ip daddr VIRTUAL counter reject }
//
// The machine itself is let through, to where nothing listens for it: the refusal of its
// own packet would be refused in turn.
// The translation of UDP to what it is already keeps the engine's from its packets.
func addRules(c *nftables.Conn, table *nftables.Table, n *shoal.Network, port uint16) {
	c.AddTable(table)
	catch := c.AddChain(&nftables.Chain{
		Name: chainCatch, Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(beforeEngine),
	})
	to := destinedFor(n.Virtual)
	c.AddRule(&nftables.Rule{Table: table, Chain: catch, Exprs: join(
		fromDevice(expr.CmpOpEq, n.Bridge), to, ofProtocol(unix.IPPROTO_TCP),
		[]expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)}, &expr.Redir{RegisterProtoMin: 1}},
	)})
	c.AddRule(&nftables.Rule{Table: table, Chain: catch, Exprs: join(
		fromDevice(expr.CmpOpEq, n.Bridge), to, ofProtocol(unix.IPPROTO_UDP),
		[]expr.Any{destination(), &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}},
	)})
	guard := c.AddChain(&nftables.Chain{
		Name: chainGuard, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	const portUnreachable = 3 // of ICMP, RFC 792
	c.AddRule(&nftables.Rule{Table: table, Chain: guard, Exprs: join(
		fromDevice(expr.CmpOpNeq, n.Bridge), fromDevice(expr.CmpOpNeq, "lo"), to,
		[]expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable}},
	)})
}

// points reports whether a network's table is whole and redirects to port.
func points(c *nftables.Conn, n *shoal.Network, port uint16) bool {
	table := tableOf(n)
	catch, err := c.GetRules(table, &nftables.Chain{Name: chainCatch, Table: table})
	if err != nil || len(catch) != 2 {
		return false
	}
	guard, err := c.GetRules(table, &nftables.Chain{Name: chainGuard, Table: table})
	if err != nil || len(guard) != 1 {
		return false
	}
	want := binaryutil.BigEndian.PutUint16(port)
	for _, e := range catch[0].Exprs {
		if i, ok := e.(*expr.Immediate); ok && bytes.HasPrefix(i.Data, want) {
			return true
		}
	}
	return false
}

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func fromDevice(op expr.CmpOp, device string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

func ofProtocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}}}
}

// destination loads the address that a packet is for.
func destination() expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
}

func destinedFor(p netip.Prefix) []expr.Any {
	return []expr.Any{
		destination(),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}
