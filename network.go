// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// Network is a network of services on one peer: one bridge of its engine. Its
// addresses mean something on that peer only, and nothing about them is agreed on in
// the cluster. All are IPv4.
type Network struct {
	ID         string // the engine's
	Name       string // the cluster's: "shop_default"
	Bridge     string // the interface on the machine
	Subnet     netip.Prefix
	Gateway    netip.Addr   // the machine's own address on the bridge
	Containers netip.Prefix // lower half of Subnet: what the engine gives out; holds the Gateway
	Virtual    netip.Prefix // upper half of Subnet: no container's; its last address is the broadcast address
}

// Networks makes the networks that this peer's containers are on. It sees only those
// that carry this peer's cluster and peer labels. Deadlines and ErrEngineDown are
// as in [Engine]. Safe for concurrent use.
type Networks interface {
	// EnsureNetwork returns the network with that name, and makes it if there is none:
	// on the first subnet of the pool that overlaps neither taken, which is what the
	// machine uses beside its engine, nor a network of the engine. An *InvalidError: no
	// such name can be. ErrNoSpace: no subnet is free. ErrConflict: the network is there
	// in a shape that is not ours.
	EnsureNetwork(ctx context.Context, name string, taken []netip.Prefix) (Network, error)
	// ListNetworks returns all our networks, sorted by name.
	ListNetworks(ctx context.Context) ([]Network, error)
	// RemoveNetwork removes one by ID. Absent is no error. ErrConflict: a container, in
	// any state, is on it. ErrRefused: it is not ours.
	RemoveNetwork(ctx context.Context, id string) error
}

// Attacher makes the networks of a replica ready on this peer before its container is
// created. Safe for concurrent use.
type Attacher interface {
	// Attach returns the networks that a spec names as they are on this peer, in its
	// order, and makes those that are missing; and who answers the DNS questions of its
	// containers, the zero value if names do not work here. Errors are those of
	// Networks.EnsureNetwork.
	Attach(ctx context.Context, spec *Spec) ([]Network, netip.Addr, error)
}

// Attachment is a network that a service is on, and what it is called there.
type Attachment struct {
	Network string   // the cluster's name for it: "shop_default"
	Aliases []string // beside the service's own name: labels of DNS
}

// networkPattern are the names that an engine, a label and a DNS zone can all carry.
var networkPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// CheckNetworkName reports whether a network can have that name.
func CheckNetworkName(field, name string) error {
	if !networkPattern.MatchString(name) {
		return invalid(field, "must be up to 128 letters, digits, _ . and -, got %.140q", name)
	}
	return nil
}

// maxAttachments is the most networks a service may be on: each is an interface in every
// replica.
const maxAttachments = 16

// Attachments returns the networks that the service is on, the first first: those that it
// names, else the default network of its project ("shop_default"; "default" without a
// project). With the machine's own network, or without any, it is on none.
func (s *Spec) Attachments() []Attachment {
	switch {
	case s.Setup.HostNetwork || s.Setup.NoNetwork:
		return nil
	case len(s.Networks) > 0:
		return s.Networks
	case s.Project != "":
		return []Attachment{{Network: s.Project + "_default"}}
	}
	return []Attachment{{Network: "default"}}
}

// SharesNetwork reports whether both services are on one network, so that their replicas
// may reach each other.
func (s *Spec) SharesNetwork(o *Spec) bool {
	theirs := o.Attachments()
	return slices.ContainsFunc(s.Attachments(), func(a Attachment) bool {
		return slices.ContainsFunc(theirs, func(b Attachment) bool { return a.Network == b.Network })
	})
}

// NetworkNames returns the short names that containers on a network may ask for, each with
// the services that want it; the first of them has it. A service's name goes before an
// alias, and of several with one alias the first by name has it (package ingress/names).
func NetworkNames(network string, services []Service) map[string][]string {
	out := map[string][]string{}
	var on []*Spec
	var aliases [][]string // by the same index
	for i := range services {
		s := &services[i].Spec
		at := s.Attachments()
		if j := slices.IndexFunc(at, func(a Attachment) bool { return a.Network == network }); j >= 0 {
			on, aliases = append(on, s), append(aliases, at[j].Aliases)
			out[s.Name] = []string{s.Name}
		}
	}
	wanted := map[string][]string{}
	for i, s := range on {
		for _, alias := range aliases[i] {
			if alias != s.Name {
				wanted[alias] = append(wanted[alias], s.Name)
			}
		}
	}
	for alias, by := range wanted {
		slices.Sort(by)
		out[alias] = append(out[alias], by...)
	}
	return out
}

func (s *Spec) checkNetworks() error {
	if len(s.Networks) == 0 {
		return nil
	}
	if s.Setup.HostNetwork || s.Setup.NoNetwork {
		return invalid("networks", "cannot be joined with network_mode host or none; remove one of the two")
	}
	if len(s.Networks) > maxAttachments {
		return invalid("networks", "has %d entries, at most %d are allowed", len(s.Networks), maxAttachments)
	}
	for i, a := range s.Networks {
		field := fmt.Sprintf("networks[%d]", i)
		if err := CheckNetworkName(field, a.Network); err != nil {
			return err
		}
		if slices.ContainsFunc(s.Networks[:i], func(b Attachment) bool { return b.Network == a.Network }) {
			return invalid(field, "is %q for the second time", a.Network)
		}
		if err := CheckAliases(field+".aliases", a.Aliases); err != nil {
			return err
		}
	}
	return nil
}
