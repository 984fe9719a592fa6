// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalnet/shoal/lab/wire"
)

// Outside is the segment where routers, and hosts behind none, have their cards.
const Outside = "outside"

// Bounds of a topology. Hosts and routers each have room in a /24.
const (
	MaxHosts   = 50
	MaxRouters = 20
	maxRules   = 500
)

// Topology is a lab's hosts and what is between them.
type Topology struct {
	Network netip.Prefix // a /24 of it is a segment: the first is outside, then one for each router
	Disk    Disk
	Routers []Router
	Hosts   []Host
	Default wire.Link // between any two on a segment whom no rule names
	Rules   []Rule    // in order; each changes what it names and nothing else
}

// Disk says how large the disks of each host are, in bytes. They take that much room
// only when they are full.
type Disk struct{ State, Engine int64 }

// Router is a home router: hosts behind it reach the outside under its address, and are
// not reached from there unless they have sent first.
type Router struct{ Name, Zone string }

// Host is a host with an engine and a daemon.
type Host struct {
	Name, Zone string            // the zone becomes the label "zone"
	Labels     map[string]string // of the peer
	Behind     string            // a router's name, or ""
}

// Rule says what is between those whom two selectors name: a host, a router,
// "zone:NAME", or "*".
type Rule struct {
	From, To string
	OneWay   bool // not back
	Change   Change
	Line     int // in the file; 0: it is from none
}

// Place is where a card is.
type Place struct {
	Segment string
	Addr    netip.Prefix
	Gateway netip.Addr // of a host behind a router; the zero one: none
	MAC     net.HardwareAddr
}

// First of the last bytes of addresses.
const (
	firstHost   = 11
	firstRouter = 201 // outside; on its own segment it is .1
)

// Place returns where a host's card is, or a router's card outside.
func (t *Topology) Place(name string) (Place, bool) {
	outside := 0
	behind := map[string]int{}
	for i := range t.Hosts {
		h := &t.Hosts[i]
		if h.Name == name {
			if h.Behind == "" {
				return t.place(Outside, 0, firstHost+outside), true
			}
			p := t.place(h.Behind, 1+t.router(h.Behind), firstHost+behind[h.Behind])
			p.Gateway = t.place(h.Behind, 1+t.router(h.Behind), 1).Addr.Addr()
			return p, true
		}
		if h.Behind == "" {
			outside++
		}
		behind[h.Behind]++
	}
	if i := t.router(name); i >= 0 {
		return t.place(Outside, 0, firstRouter+i), true
	}
	return Place{}, false
}

// LANPlace returns where a router's card is on the segment behind it.
func (t *Topology) LANPlace(router string) (Place, bool) {
	i := t.router(router)
	if i < 0 {
		return Place{}, false
	}
	return t.place(router, 1+i, 1), true
}

func (t *Topology) router(name string) int {
	return slices.IndexFunc(t.Routers, func(r Router) bool { return r.Name == name })
}

func (t *Topology) host(name string) *Host {
	i := slices.IndexFunc(t.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Hosts[i]
}

func (t *Topology) place(segment string, number, last int) Place {
	a := t.Network.Addr().As4()
	n := int(a[1])<<8 + int(a[2]) + number
	a[1], a[2], a[3] = byte(n>>8), byte(n), byte(last)
	return Place{
		Segment: segment, Addr: netip.PrefixFrom(netip.AddrFrom4(a), 24),
		// The second bit says that nobody sold it (IEEE 802-2014, 8.2).
		MAC: net.HardwareAddr{0x02, 0x53, a[0], a[1], a[2], a[3]},
	}
}

// cards lists who has a card on each segment.
func (t *Topology) cards() map[string][]string {
	out := map[string][]string{}
	for _, r := range t.Routers {
		out[Outside] = append(out[Outside], r.Name)
		out[r.Name] = append(out[r.Name], r.Name)
	}
	for i := range t.Hosts {
		on := Outside
		if t.Hosts[i].Behind != "" {
			on = t.Hosts[i].Behind
		}
		out[on] = append(out[on], t.Hosts[i].Name)
	}
	return out
}

// names are all hosts and routers.
func (t *Topology) names() []string {
	var out []string
	for i := range t.Hosts {
		out = append(out, t.Hosts[i].Name)
	}
	for _, r := range t.Routers {
		out = append(out, r.Name)
	}
	return out
}

func (t *Topology) unknown(name string) error {
	return fmt.Errorf("there is no host or router %q; there are %s", name, strings.Join(t.names(), ", "))
}

// AskError says that what is asked of a topology, or of a lab, makes no sense, whatever
// state that is in.
type AskError struct{ Err error }

// Error implements error.
func (e *AskError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *AskError) Unwrap() error { return e.Err }

// Between returns the link from a to b, which are two hosts or routers on one segment.
// What is behind a router shares the router's links outside, so those are named by the
// router; an error says so, or which names there are.
func (t *Topology) Between(a, b string) (wire.Pair, error) {
	for _, name := range []string{a, b} {
		if !slices.Contains(t.names(), name) {
			return wire.Pair{}, t.unknown(name)
		}
	}
	if a == b {
		return wire.Pair{}, fmt.Errorf("%s has no link to itself", a)
	}
	for segment, on := range t.cards() {
		if slices.Contains(on, a) && slices.Contains(on, b) {
			return wire.Pair{Segment: segment, From: a, To: b}, nil
		}
	}
	for _, name := range []string{a, b} {
		if h := t.host(name); h != nil && h.Behind != "" {
			return wire.Pair{}, fmt.Errorf("%s is behind the router %s, whose links outside are for all behind it; name %s", name, h.Behind, h.Behind)
		}
	}
	return wire.Pair{}, fmt.Errorf("there is no link between %s and %s", a, b)
}

// goodName is a host name's part (RFC 1123), in small letters.
var goodName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate says what is wrong with a topology.
func (t *Topology) Validate() error {
	switch {
	case len(t.Hosts) == 0:
		return errors.New("a lab has at least one host")
	case len(t.Hosts) > MaxHosts:
		return fmt.Errorf("a lab has at most %d hosts, got %d", MaxHosts, len(t.Hosts))
	case len(t.Routers) > MaxRouters:
		return fmt.Errorf("a lab has at most %d routers, got %d", MaxRouters, len(t.Routers))
	case len(t.Rules) > maxRules:
		return fmt.Errorf("a lab has at most %d rules for links, got %d", maxRules, len(t.Rules))
	}
	if err := t.checkNames(); err != nil {
		return err
	}
	if err := t.checkNetwork(); err != nil {
		return err
	}
	if t.Disk.State < minDisk || t.Disk.Engine < minDisk {
		return fmt.Errorf("disks have at least %d bytes, got %d and %d", minDisk, t.Disk.State, t.Disk.Engine)
	}
	if err := t.Default.Validate(); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	for i := range t.Rules {
		if err := t.checkRule(&t.Rules[i]); err != nil {
			return err
		}
	}
	return t.checkLinks()
}

func (t *Topology) checkNames() error {
	for _, name := range t.names() {
		if err := t.checkName(name); err != nil {
			return err
		}
	}
	for i := range t.Hosts {
		if err := errors.Join(t.checkBehind(&t.Hosts[i]), checkZone(t.Hosts[i].Zone)); err != nil {
			return err
		}
	}
	for _, r := range t.Routers {
		if err := checkZone(r.Zone); err != nil {
			return err
		}
	}
	return nil
}

func (t *Topology) checkBehind(h *Host) error {
	if h.Behind != "" && t.router(h.Behind) < 0 {
		return fmt.Errorf("%s is behind %q, but there is no such router", h.Name, h.Behind)
	}
	return nil
}

func checkZone(zone string) error {
	if zone != "" && !goodName.MatchString(zone) {
		return fmt.Errorf("%q is no zone: small letters, digits and dashes, at most 63", zone)
	}
	return nil
}

// checkName says what is wrong with the name of a host or router of the topology.
func (t *Topology) checkName(name string) error {
	count := 0
	for _, n := range append(t.names(), Outside, "localhost") {
		if n == name {
			count++
		}
	}
	switch {
	case !goodName.MatchString(name):
		return fmt.Errorf("%q is no host name: small letters, digits and dashes, at most 63", name)
	case count > 1:
		return fmt.Errorf("the name %s is taken", name)
	}
	return nil
}

func (t *Topology) checkNetwork() error {
	segments := 1 + len(t.Routers)
	switch n := t.Network; {
	case !n.IsValid() || !n.Addr().Is4() || !n.Addr().IsPrivate():
		return fmt.Errorf("the network must be private IPv4 addresses like %s, got %s", defaultNetwork, n)
	case n != n.Masked():
		return fmt.Errorf("the network %s does not begin there; it is %s", n, n.Masked())
	case n.Bits() < 8 || n.Bits() > 24 || segments > 1<<(24-n.Bits()):
		return fmt.Errorf("the network %s has no room for %d segments of 254 addresses; a /16 has", n, segments)
	}
	return nil
}
