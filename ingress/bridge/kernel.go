// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalnet/shoal"
)

// kernel is this machine as a host. It keeps nothing: the kernel knows.
type kernel struct{}

// hold puts the route and the rules in place. It looks before it writes, so that holding
// on changes nothing.
func (kernel) hold(n *shoal.Network, port uint16) error {
	route, err := routeTo(n)
	if err != nil {
		return err
	}
	if err := addRoute(route); err != nil {
		return fmt.Errorf("route to %s: %w", n.Virtual, permitted(err))
	}
	if port == 0 {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRedirect, permitted(err))
	}
	there, err := sweep(c, n)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRedirect, permitted(err))
	}
	if there && points(c, n, port) {
		return nil
	}
	table := tableOf(n)
	if there {
		c.DelTable(table)
	}
	addRules(c, table, n, port)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errNoRedirect, permitted(err))
	}
	return nil
}

// letGo removes the table and the route.
func (kernel) letGo(n *shoal.Network) error {
	return errors.Join(dropTable(n), dropRoute(n))
}

func dropTable(n *shoal.Network) error {
	c, err := nftables.New()
	if err != nil {
		return nil // there is no nftables, so there is no table
	}
	if there, err := sweep(c, n); err != nil || !there {
		return nil // as above
	}
	c.DelTable(tableOf(n))
	return c.Flush()
}

func dropRoute(n *shoal.Network) error {
	route, err := routeTo(n)
	if errors.Is(err, shoal.ErrNotFound) {
		return nil // it went with its bridge
	}
	if err != nil {
		return err
	}
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("route to %s: %w", n.Virtual, permitted(err))
	}
	return nil
}

// turnedAway reads the counter of the rule that refuses what comes from elsewhere.
func (kernel) turnedAway(n *shoal.Network) uint64 {
	c, err := nftables.New()
	if err != nil {
		return 0
	}
	table := tableOf(n)
	rules, err := c.GetRules(table, &nftables.Chain{Name: chainGuard, Table: table})
	if err != nil {
		return 0
	}
	var sum uint64
	for _, r := range rules {
		for _, e := range r.Exprs {
			if count, ok := e.(*expr.Counter); ok {
				sum += count.Packets
			}
		}
	}
	return sum
}

// routeTo is "local VIRTUAL dev BRIDGE": all of it is this machine's own.
func routeTo(n *shoal.Network) (*netlink.Route, error) {
	link, err := netlink.LinkByName(n.Bridge)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil, fmt.Errorf("bridge %s: %w", n.Bridge, shoal.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", n.Bridge, permitted(err))
	}
	return localRoute(link.Attrs().Index, n.Virtual), nil
}

// addRoute adds a route unless it is there. One of somebody else to the same place is
// left alone, and is shoal.ErrConflict.
func addRoute(r *netlink.Route) error {
	err := netlink.RouteAdd(r)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	there, err := netlink.RouteListFiltered(netlink.FAMILY_V4, r, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err != nil {
		return err
	}
	for _, t := range there {
		if t.LinkIndex != r.LinkIndex || t.Type != r.Type {
			return fmt.Errorf("%w: there is one by another interface", shoal.ErrConflict)
		}
	}
	return nil
}

func localRoute(link int, to netip.Prefix) *netlink.Route {
	return &netlink.Route{
		LinkIndex: link, Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)},
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Protocol: unix.RTPROT_STATIC,
	}
}

// sweep reports whether the network's table is there, and removes those of bridges that
// are gone: a daemon that was killed left them, and the next network may get the range.
func sweep(c *nftables.Conn, n *shoal.Network) (bool, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, err
	}
	links, err := net.Interfaces()
	if err != nil {
		return false, err
	}
	there := false
	for _, t := range tables {
		bridge, ours := strings.CutPrefix(t.Name, tablePrefix)
		switch {
		case !ours:
		case bridge == n.Bridge:
			there = true
		case !slices.ContainsFunc(links, func(l net.Interface) bool { return l.Name == bridge }):
			c.DelTable(t)
		}
	}
	return there, c.Flush()
}

// permitted turns the kernel's refusal into what to do about it.
func permitted(err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	return &shoal.AdviceError{
		Err:    fmt.Errorf("%w: %w", shoal.ErrRefused, err),
		Advice: "let shoald have CAP_NET_ADMIN (CapabilityBoundingSet= of its unit); without it published ports work, and names do not",
	}
}

// Taken returns the IPv4 ranges that this machine's addresses and routes use, in all
// routing tables, for shoal.Networks.EnsureNetwork.
func Taken() ([]netip.Prefix, error) {
	var out []netip.Prefix
	add := func(n *net.IPNet) {
		if n == nil {
			return
		}
		bits, _ := n.Mask.Size()
		if a, ok := netip.AddrFromSlice(n.IP); ok {
			out = append(out, netip.PrefixFrom(a.Unmap(), bits).Masked())
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		add(a.IPNet)
		add(a.Peer)
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		add(r.Dst)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}
