// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package names

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// Suffix is what every full name ends in, as a name of DNS.
const Suffix = "shoal."

// Service is what a zone knows of a service in its network.
type Service struct {
	Name    string
	Project string       // "": none; then its full name has none either
	Aliases []string     // what else it is called in this network, single labels
	Ports   []shoal.Port // declared; Container and Protocol count
	Slots   []Slot       // wanted ones, in any order
}

// Slot is one slot of a service.
type Slot struct {
	Index int
	Ready bool // a ready replica fills it
}

// Network is a snapshot of one network of containers. NewZone does not keep its slices.
type Network struct {
	Range     netip.Prefix // of the virtual addresses, as given to Allocate
	Services  []Service
	Addresses Addresses
}

// Clash is a short name or alias that several services want. The first has it; the
// others are reached by their full names.
type Clash struct {
	Name   string
	Holder string   // full name
	Others []string // full names, sorted
}

// Zone is what the names of one network mean. It never changes; read it from anywhere.
type Zone struct {
	ranges   netip.Prefix
	known    map[string]*service // by "web", "web.shop", alias
	projects map[string]bool
	reverse  map[netip.Addr]string // full name of a service or slot
	clashes  []Clash
}

// service is a Service with its addresses looked up.
type service struct {
	full  string
	addr  netip.Addr // zero: the range was full
	ports []shoal.Port
	slots []slot // sorted by index
}

type slot struct {
	index int
	ready bool
	full  string
	addr  netip.Addr // zero: the range was full
}

// FullName returns the full name of a service: "web.shop.shoal.".
func FullName(service, project string) string {
	if project == "" {
		return strings.ToLower(service) + "." + Suffix
	}
	return strings.ToLower(service+"."+project) + "." + Suffix
}

// SlotName returns the full name of a slot of a service: "3.web.shop.shoal.".
func SlotName(service, project string, index int) string {
	return fmt.Sprintf("%d.%s", index, FullName(service, project))
}

// Wanted returns the names that need an address, for Allocate: those of all services, in
// order, before those of slots, lowest slots first. So a range that is too small for all
// still has the service names, which are what most ask for.
func Wanted(services []Service) []string {
	var whole []string
	bySlot := map[int][]string{}
	for _, s := range services {
		whole = append(whole, FullName(s.Name, s.Project))
		for _, sl := range s.Slots {
			bySlot[sl.Index] = append(bySlot[sl.Index], SlotName(s.Name, s.Project, sl.Index))
		}
	}
	slices.Sort(whole)
	for _, i := range sorted(bySlot) {
		slices.Sort(bySlot[i])
		whole = append(whole, bySlot[i]...)
	}
	return whole
}

func sorted[V any](m map[int]V) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// NewZone makes a zone of a snapshot. What cannot be served, as a second service of one
// full name, is left out: one bad service never takes the names of another.
func NewZone(n Network) *Zone {
	z := &Zone{
		ranges: n.Range.Masked(), known: map[string]*service{},
		projects: map[string]bool{}, reverse: map[netip.Addr]string{},
	}
	services := slices.Clone(n.Services)
	slices.SortStableFunc(services, func(a, b Service) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Project, b.Project))
	})
	services = slices.CompactFunc(services, func(a, b Service) bool {
		return FullName(a.Name, a.Project) == FullName(b.Name, b.Project)
	})
	made := make([]*service, len(services))
	wants := map[string][]*service{}
	for i, s := range services {
		made[i] = z.add(s, n.Addresses)
		wants[strings.ToLower(s.Name)] = append(wants[strings.ToLower(s.Name)], made[i])
	}
	for i, s := range services {
		for _, alias := range s.Aliases {
			alias = strings.ToLower(alias)
			if !slices.Contains(wants[alias], made[i]) && !strings.Contains(alias, ".") {
				wants[alias] = append(wants[alias], made[i])
			}
		}
	}
	z.settle(wants)
	return z
}

// add enters a service under its full name.
func (z *Zone) add(s Service, held Addresses) *service {
	full := FullName(s.Name, s.Project)
	out := &service{full: full, addr: held.Of(full), ports: declared(s.Ports)}
	z.name(out.addr, full)
	for _, sl := range s.Slots {
		name := SlotName(s.Name, s.Project, sl.Index)
		out.slots = append(out.slots, slot{index: sl.Index, ready: sl.Ready, full: name, addr: held.Of(name)})
		z.name(held.Of(name), name)
	}
	slices.SortStableFunc(out.slots, func(a, b slot) int { return cmp.Compare(a.index, b.index) })
	out.slots = slices.CompactFunc(out.slots, func(a, b slot) bool { return a.index == b.index })
	if s.Project != "" {
		z.projects[strings.ToLower(s.Project)] = true
		z.known[strings.TrimSuffix(full, "."+Suffix)] = out
	}
	return out
}

func (z *Zone) name(a netip.Addr, full string) {
	if a.IsValid() {
		z.reverse[a] = full
	}
}

// settle gives every short name to the first who wants it.
func (z *Zone) settle(wants map[string][]*service) {
	for name, by := range wants {
		z.known[name] = by[0]
		if len(by) == 1 {
			continue
		}
		c := Clash{Name: name, Holder: by[0].full}
		for _, s := range by[1:] {
			c.Others = append(c.Others, s.full)
		}
		slices.Sort(c.Others)
		z.clashes = append(z.clashes, c)
	}
	slices.SortFunc(z.clashes, func(a, b Clash) int { return strings.Compare(a.Name, b.Name) })
}

// declared returns the ports without repetitions, sorted.
func declared(ports []shoal.Port) []shoal.Port {
	out := make([]shoal.Port, len(ports))
	for i, p := range ports {
		out[i] = shoal.Port{Container: p.Container, Protocol: strings.ToLower(p.Protocol)}
	}
	slices.SortFunc(out, func(a, b shoal.Port) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), strings.Compare(a.Protocol, b.Protocol))
	})
	return slices.Compact(out)
}

// Clashes returns the short names that more than one service wants, sorted by name.
func (z *Zone) Clashes() []Clash { return slices.Clone(z.clashes) }
