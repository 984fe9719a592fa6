// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
	"github.com/shoalnet/shoal/ingress/carry"
	"github.com/shoalnet/shoal/ingress/plan"
)

// Config is what the machine's owner decides.
type Config struct {
	// Publish is the address that published ports answer on; the zero value: every one.
	Publish netip.Addr
	// NoNames: containers get no names of services from here. They still are on networks of
	// their own.
	NoNames bool
	// Resolvers is the file that names the machine's resolvers, for all other names.
	Resolvers string
	Carry     carry.Config
}

// Defaults answers on every address, and names.
func Defaults() Config { return Config{Resolvers: "/etc/resolv.conf", Carry: carry.Defaults()} }

// Deps are what a Room works with. All but the last three are needed.
type Deps struct {
	Self  shoal.PeerID
	Views shoal.Views
	Host  host.Host
	Clock shoal.Clock
	Log   *slog.Logger
	// Handle registers a stream handler for members only.
	Handle func(protocol.ID, network.StreamHandler)
	// Path says how a peer is connected, for people: "direct", "relayed by osaka".
	Path func(shoal.PeerID) string
	// Networks makes the networks of services; nil: there are none, and no names.
	Networks shoal.Networks
	// Apart reports whether this machine does not reach the containers of its engine; nil:
	// it does.
	Apart func(context.Context) (bool, error)
	// Ready is closed once the view knows what this peer knew when it last ran: before,
	// names would be absent that are not. nil: at once.
	Ready <-chan struct{}
	// Tell takes what this peer carries to autoscaled services, when that has changed; nil:
	// nobody wants to know, and services that sleep are not woken.
	Tell func([]shoal.Carried)
}

// Room is how services are reached on this peer. It implements shoal.Reach and is safe
// for concurrent use.
type Room struct {
	cfg     Config
	deps    Deps
	carrier *carry.Carrier
	named   *carry.Carrier // for what containers send to names
	// networks is nil where the engine makes none.
	networks *networks
	came     chan struct{} // holds one: somebody waits for a service that sleeps

	mu       sync.Mutex // guards what follows
	services map[serviceKey]*service
	doors    map[doorKey]*door
}

var (
	_ shoal.Reach    = (*Room)(nil)
	_ shoal.Attacher = (*Room)(nil)
)

// serviceKey names a port of a service in its containers: one that nobody listens on must
// not speak against the others. Port 0 is for whoever asks for any, so that who tries all of
// them does not make as many entries. What comes by name is counted apart.
type serviceKey struct {
	name    string
	port    uint16
	isNamed bool
}

// service is what connections to one port of a service share, with the last snapshot of
// its replicas.
type service struct {
	*carry.Service
	last balance.Snapshot
	uses int // by name, now: it is kept for these, as they may be there to stay
}

// New returns a Room that does nothing before Run. *shoal.InvalidError: a limit makes no
// sense.
func New(cfg Config, deps Deps) (*Room, error) {
	r := &Room{cfg: cfg, deps: deps, services: map[serviceKey]*service{}, doors: map[doorKey]*door{}, came: make(chan struct{}, 1)}
	carried := carry.Deps{Self: deps.Self, Targets: targets{r}, Open: r.open, Clock: deps.Clock, Log: deps.Log, Wake: r.wakes}
	var err error
	if r.carrier, err = carry.New(cfg.Carry, carried); err != nil {
		return nil, fmt.Errorf("carry connections: %w", err)
	}
	if r.named, err = carry.New(byName(cfg.Carry), carried); err != nil {
		return nil, fmt.Errorf("carry connections by name: %w", err)
	}
	if deps.Networks != nil {
		if r.networks, err = newNetworks(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// byName lowers the bounds of a listener, as there is one for each declared UDP port of
// each address, and all of them for any container.
func byName(c carry.Config) carry.Config {
	c.Flows, c.FlowsPerClient, c.FlowBytes = min(c.Flows, 2048), min(c.FlowsPerClient, 256), min(c.FlowBytes, 4<<20)
	return c
}

// Pace of following the view.
const (
	gather = 10 * time.Millisecond // changes of the view come in bursts; far below the 300 ms in which all balancers know of a replica
	again  = 3 * time.Second       // a port that could not be taken is tried again
)

// Run answers on ports, and serves other peers, until ctx ends; it returns after all that
// it started has ended.
func (r *Room) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	if r.networks != nil {
		serving.Go(func() { r.networks.run(ctx) })
	}
	if r.deps.Tell != nil {
		serving.Go(func() { r.tellCarried(ctx) })
	}
	r.deps.Handle(carry.Protocol, func(s network.Stream) { r.carrier.Serve(ctx, s) })
	retry := time.NewTicker(again)
	defer retry.Stop()
	for {
		changed := r.deps.Views.Changed()
		r.follow(ctx, &serving)
		select {
		case <-changed:
			if !rest(ctx, gather) {
				return nil
			}
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// rest waits. false: ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// follow makes what this peer answers on what the view says.
func (r *Room) follow(ctx context.Context, serving *sync.WaitGroup) {
	v := r.deps.Views.View()
	if v == nil {
		return
	}
	if r.networks != nil {
		r.networks.follow()
	}
	wanted := map[doorKey]plan.Listener{}
	for _, l := range plan.Listeners(v) {
		wanted[doorKey{l.Port, l.Protocol}] = l
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, d := range r.doors {
		if l, ok := wanted[key]; !ok || !d.leadsTo(l) {
			d.close()
			delete(r.doors, key)
		}
	}
	for key, l := range wanted {
		d := r.doors[key]
		if d == nil {
			d = &door{}
			r.doors[key] = d
		}
		d.PublishedPort = l.PublishedPort
		r.service(doorService(l.Service, l.Target))
		if !d.isOpen() {
			r.openDoor(ctx, d, serving)
		}
	}
	for key, s := range r.services {
		if !isDeclared(v, key) && s.uses == 0 {
			delete(r.services, key) // its connections go on until its replicas stop
			continue
		}
		s.update(plan.Backends(v, key.name))
	}
}

// isDeclared reports whether a service is still there, and declares the port if it is kept
// for that.
func isDeclared(v *shoal.View, key serviceKey) bool {
	s, ok := v.Service(key.name)
	return ok && (!key.isNamed || key.port == 0 ||
		slices.ContainsFunc(s.Spec.Ports, func(p shoal.Port) bool { return p.Container == key.port }))
}

// use returns what connections by name to a port of a service share, and what to call when
// one is over.
func (r *Room) use(key serviceKey) (*carry.Service, func()) {
	v := r.deps.Views.View()
	r.mu.Lock()
	defer r.mu.Unlock()
	s, isNew := r.services[key], false
	if s == nil {
		s, isNew = r.service(key), true
	}
	if isNew && v != nil {
		s.update(plan.Backends(v, key.name))
	}
	s.uses++
	return s.Service, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.uses--
	}
}

// doorService names what a published port leads to.
func doorService(name string, target uint16) serviceKey { return serviceKey{name: name, port: target} }

// service returns what connections to a port of a service share. The caller holds mu.
func (r *Room) service(key serviceKey) *service {
	s := r.services[key]
	if s == nil {
		seed := fnv.New64a()
		_, _ = fmt.Fprintf(seed, "%s/%s/%d", r.deps.Self, key.name, key.port) // it never fails
		s = &service{Service: carry.NewService(key.name, seed.Sum64())}
		r.services[key] = s
	}
	return s
}

// update takes a snapshot, unless it is the last one: putting a table in order costs more
// than the comparison.
func (s *service) update(now balance.Snapshot) {
	if reflect.DeepEqual(s.last, now) {
		return
	}
	s.last = now
	s.Update(now)
}

// open opens a stream to a holder.
func (r *Room) open(ctx context.Context, holder shoal.PeerID) (network.Stream, error) {
	id, err := peer.Decode(string(holder))
	if err != nil {
		return nil, fmt.Errorf("peer %q: %w", holder, err)
	}
	return r.deps.Host.NewStream(ctx, id, carry.Protocol)
}
