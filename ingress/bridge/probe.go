// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalnet/shoal"
)

// Capability is one thing that a machine can do for the networks of services, or not.
type Capability struct {
	What   string // "virtual addresses"
	Needed bool   // without it there are no networks of services at all
	Works  bool
	Why    string // what was tried, and what came of it
	Err    error  // of what was tried; nil if it works, or nothing was
}

// The addresses of the probe are this machine's own anyway.
var (
	probeRange = netip.MustParsePrefix("127.213.255.254/31")
	probeNet   = shoal.Network{Bridge: "shoal-probe", Virtual: probeRange}
)

// bridgeFilter says whether packets on a bridge go through the rules for IP before they
// reach the machine. A choice of socket (TPROXY) that is made there does not last.
const bridgeFilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// Probe tries what a [Bridge] needs, and leaves nothing behind. It needs the same rights,
// and says so.
func Probe() []Capability {
	addresses := tell("virtual addresses", "a local route can be added", probeRoute())
	addresses.Needed = true
	return []Capability{
		addresses,
		tell("TCP on any port", "nftables can redirect", probeRules()),
		udp(os.ReadFile(bridgeFilter)),
	}
}

func tell(what, works string, err error) Capability {
	if err == nil {
		return Capability{What: what, Works: true, Why: works}
	}
	why := err.Error()
	if errors.Is(err, shoal.ErrRefused) {
		return Capability{What: what, Why: why, Err: err}
	}
	if what == "TCP on any port" {
		why += "; declared ports answer"
	}
	return Capability{What: what, Why: why, Err: err}
}

// udp never works: the one way is not taken even where it is open, so that a service
// answers alike on all machines.
func udp(raw []byte, err error) Capability {
	why := "declared ports answer; any port takes TPROXY, which other software can switch off at any time by " + bridgeFilter
	if err == nil && strings.TrimSpace(string(raw)) != "0" {
		why = "declared ports answer; any port takes TPROXY, which " + bridgeFilter + " = 1 defeats"
	}
	return Capability{What: "UDP on any port", Why: why}
}

// probeRoute adds a route on the loopback interface and removes it.
func probeRoute() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("interface lo: %w", permitted(err))
	}
	route := localRoute(lo.Attrs().Index, probeRange)
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("local route: %w", permitted(err))
	}
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the local route to %s: %w", probeRange, permitted(err))
	}
	return nil
}

// probeRules adds the rules and removes them in one transaction: the kernel checks all of
// it, and no packet ever meets them.
func probeRules() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", permitted(err))
	}
	table := tableOf(&probeNet)
	addRules(c, table, &probeNet, 1)
	c.DelTable(table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", permitted(err))
	}
	return nil
}
