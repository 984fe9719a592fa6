// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
	"github.com/shoalnet/shoal/ingress/carry"
	"github.com/shoalnet/shoal/ingress/names"
	"github.com/shoalnet/shoal/ingress/plan"
)

// quarantine is how long the address of a name that is gone stands for nothing: twice what
// a client may keep it.
const quarantine = 2 * names.ServiceTTL * time.Second

// meaning is what a virtual address stands for.
type meaning struct {
	service string
	slot    int                  // -1: the service
	ports   map[carriedPort]bool // declared ones
}

type carriedPort struct {
	port     uint16
	protocol string
}

// guests are the networks beyond the first that containers of a network are on.
type guests struct {
	known map[netip.Addr][]*lane // by the container's address on the first
	// others is for who is not known yet: an address is, some beats after its container
	// asks for the first name. It has each network that one who is here first may be on; to
	// know a name there is not to reach it.
	others []*lane
}

// follow makes what all lanes answer what the view says.
func (n *networks) follow() {
	n.following.Lock()
	defer n.following.Unlock()
	v, lanes := n.room.deps.Views.View(), n.all()
	if v == nil || len(lanes) == 0 {
		return
	}
	now := n.room.deps.Clock.Mono()
	byNetwork := make(map[string][]names.Service, len(lanes))
	for _, l := range lanes {
		byNetwork[l.network.Name] = nil
	}
	for i := range v.Services() {
		s := &v.Services()[i]
		for _, a := range s.Spec.Attachments() {
			if in, ok := byNetwork[a.Network]; ok {
				byNetwork[a.Network] = append(in, named(v, s, a.Aliases))
			}
		}
	}
	for _, l := range lanes {
		l.update(byNetwork[l.network.Name], now)
		l.guests.Store(guestsOf(v, l, lanes))
	}
}

// named is a service as names takes it.
func named(v *shoal.View, s *shoal.Service, aliases []string) names.Service {
	out := names.Service{Name: s.Spec.Name, Project: s.Spec.Project, Aliases: aliases}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, shoal.Port{Container: p.Container, Protocol: cmp.Or(p.Protocol, "tcp")})
	}
	ready := map[int]bool{}
	for _, b := range plan.Backends(v, s.Spec.Name).Backends {
		ready[b.Slot] = ready[b.Slot] || b.Ready && b.Alive && !b.Releasing
	}
	if !s.Spec.Mode.IsGlobal() {
		for i := range s.Wanted() {
			out.Slots = append(out.Slots, names.Slot{Index: i, Ready: ready[i]})
		}
		return out
	}
	for _, i := range slices.Sorted(maps.Keys(ready)) {
		out.Slots = append(out.Slots, names.Slot{Index: i, Ready: ready[i]})
	}
	return out
}

// update makes the zone anew if its services changed, or some have no address yet: those
// of names that are gone come free by and by.
func (l *lane) update(services []names.Service, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reflect.DeepEqual(services, l.made) && l.full == nil {
		return
	}
	held, err := names.Allocate(l.network.Virtual, names.Wanted(services), l.held, now, quarantine)
	l.full, l.made, l.services = err, services, len(services)
	if held == nil { // the engine's network has no such range
		return
	}
	l.held = held
	zone := names.NewZone(names.Network{Range: l.network.Virtual, Services: services, Addresses: held})
	meant := map[netip.Addr]meaning{}
	l.endpoints = nil
	for i := range services {
		l.declare(&services[i], meant)
	}
	l.meant.Store(&meant)
	l.zone.Store(zone)
	if l.server != nil {
		l.server.SetZone(zone)
		l.span.SetEndpoints(l.endpoints)
	}
}

// declare enters the addresses of a service and its slots. The caller holds mu.
func (l *lane) declare(s *names.Service, meant map[netip.Addr]meaning) {
	ports := make(map[carriedPort]bool, len(s.Ports))
	for _, p := range s.Ports {
		ports[carriedPort{p.Container, p.Protocol}] = true
	}
	enter := func(name string, slot int) {
		a := l.held.Of(name)
		if !a.IsValid() {
			return
		}
		meant[a] = meaning{service: s.Name, slot: slot, ports: ports}
		for p := range ports {
			l.endpoints = append(l.endpoints, bridge.Endpoint{Protocol: p.protocol, Addr: netip.AddrPortFrom(a, p.port)})
		}
	}
	enter(names.FullName(s.Name, s.Project), -1)
	for _, slot := range s.Slots {
		enter(names.SlotName(s.Name, s.Project, slot.Index), slot.Index)
	}
}

// guestsOf says on which further networks the containers of a network are.
func guestsOf(v *shoal.View, first *lane, lanes []*lane) *guests {
	out := &guests{known: map[netip.Addr][]*lane{}}
	beyond := func(s *shoal.Service) (all []*lane, isFirst bool) {
		on := s.Spec.Attachments()
		if len(on) == 0 || on[0].Network != first.network.Name {
			return nil, false
		}
		for _, a := range on[1:] {
			if i := slices.IndexFunc(lanes, func(l *lane) bool { return l.network.Name == a.Network }); i >= 0 {
				all = append(all, lanes[i])
			}
		}
		return all, true
	}
	for i := range v.Services() {
		all, _ := beyond(&v.Services()[i])
		for _, l := range all {
			if !slices.Contains(out.others, l) {
				out.others = append(out.others, l)
			}
		}
	}
	st := v.State(v.Self())
	if st == nil {
		return out
	}
	for i := range st.Replicas {
		r := &st.Replicas[i]
		s, ok := v.Service(r.Service)
		a, err := netip.ParseAddr(r.Addr)
		if !ok || err != nil || s.Revision != r.Revision {
			continue
		}
		if all, isFirst := beyond(s); isFirst {
			out.known[a] = all
		}
	}
	return out
}

// beyond returns the zones of the other networks that a client is on.
func (l *lane) beyond(client netip.Addr) []*names.Zone {
	g := l.guests.Load()
	lanes, ok := g.known[client]
	if !ok {
		lanes = g.others
	}
	out := make([]*names.Zone, len(lanes))
	for i, other := range lanes {
		out[i] = other.zone.Load()
	}
	return out
}

// dest is where a connection to a virtual address is carried.
type dest struct {
	carry.Dest
	end func() // says that nothing is carried any more
}

// destOf returns where a port of a virtual address leads; false: nowhere.
func (l *lane) destOf(to netip.AddrPort, protocol string) (dest, bool) {
	m, ok := (*l.meant.Load())[to.Addr()]
	if !ok {
		return dest{}, false
	}
	key := serviceKey{name: m.service, isNamed: true}
	isDeclared := m.ports[carriedPort{to.Port(), protocol}]
	if isDeclared {
		key.port = to.Port()
	}
	s, end := l.networks.room.use(key)
	return dest{
		Dest: carry.Dest{Service: s, Port: to.Port(), Via: carry.ViaName, OfSlot: m.slot >= 0, Slot: max(m.slot, 0), IsGuess: !isDeclared},
		end:  end,
	}, true
}
