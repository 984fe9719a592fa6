// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/names/resolver"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Times of networks.
const (
	// moment is how long a replica waits for the names of its first network: it keeps the
	// resolver that it is created with. They come in milliseconds, or something is wrong.
	moment = time.Second
	// unusedFor is how long nobody may have wanted a network before it is removed. It must
	// be longer than a create takes, which begins with Attach.
	unusedFor = time.Minute
)

// networks are those of this peer, with a lane for each.
type networks struct {
	room    *Room
	machine machine
	forward *resolver.Forwarder
	turn    chan struct{} // holds one while networks are looked for, made or removed
	poke    chan struct{} // holds one when a lane waits to be run
	own     atomic.Pointer[[]shoal.Network]

	following sync.Mutex // held while lanes take a view, so that none takes an older one after it

	mu       sync.Mutex       // guards what follows
	lanes    map[string]*lane // by the network's name
	surveyed bool             // the engine has said which networks there are
	closed   bool             // this peer leaves: nothing is attached any more
}

func newNetworks(r *Room) (*networks, error) {
	n := &networks{
		room: r, machine: thisMachine(), turn: make(chan struct{}, 1), poke: make(chan struct{}, 1), lanes: map[string]*lane{},
	}
	var err error
	n.forward, err = resolver.NewForwarder(resolver.Defaults(), resolver.Outside{Log: r.deps.Log, Path: r.cfg.Resolvers, Own: n.isOwn})
	if err != nil {
		return nil, fmt.Errorf("ask for names: %w", err)
	}
	return n, nil
}

// isOwn reports whether an address is one of this peer's networks that we answer for.
func (n *networks) isOwn(a netip.Addr) bool {
	all := n.own.Load()
	return all != nil && slices.ContainsFunc(*all, func(n shoal.Network) bool { return a == n.Gateway || n.Virtual.Contains(a) })
}

// able says why names work for no network of this peer; nil: they do.
func (n *networks) able(ctx context.Context) error {
	if n.room.cfg.NoNames {
		return errNamesOff
	}
	if err := n.machine.able(); err != nil {
		return err
	}
	if n.room.deps.Apart == nil {
		return nil
	}
	apart, err := n.room.deps.Apart(ctx)
	if err == nil && apart {
		err = errApart
	}
	return err
}

var (
	errNamesOff = errors.New("the owner of this machine switched names off (network.names)")
	errApart    = errors.New("the engine is rootless, or in a machine of its own: this one does not reach its containers")
)

// Attach implements shoal.Attacher.
func (r *Room) Attach(ctx context.Context, spec *shoal.Spec) ([]shoal.Network, netip.Addr, error) {
	wanted := spec.Attachments()
	if r.networks == nil || len(wanted) == 0 {
		return nil, netip.Addr{}, nil
	}
	var out []shoal.Network
	var first *lane
	for _, a := range wanted {
		l, err := r.networks.ensure(ctx, a.Network)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		first = cmp.Or(first, l)
		out = append(out, l.network)
	}
	if !first.works(ctx) {
		return out, netip.Addr{}, nil
	}
	return out, first.network.Gateway, nil
}

// enter waits for the turn; leave ends it.
func (n *networks) enter(ctx context.Context) error {
	select {
	case n.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *networks) leave() { <-n.turn }

// ensure returns the lane of a network, which it makes if there is none.
func (n *networks) ensure(ctx context.Context, name string) (*lane, error) {
	if err := n.enter(ctx); err != nil {
		return nil, fmt.Errorf("attach to network %s: %w", name, err)
	}
	defer n.leave()
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("attach to network %s: this peer leaves: %w", name, shoal.ErrRefused)
	}
	used, err := n.machine.taken()
	if err != nil {
		return nil, fmt.Errorf("attach to network %s: %w", name, err)
	}
	network, err := n.room.deps.Networks.EnsureNetwork(ctx, name, used)
	if err != nil {
		return nil, err
	}
	return n.put(network), nil
}

// put returns the lane of a network as it is now. One of another network of that name,
// which the engine has no more, ends first. The caller has the turn.
func (n *networks) put(network shoal.Network) *lane {
	n.mu.Lock()
	l := n.lanes[network.Name]
	if l != nil && l.network != network {
		n.mu.Unlock()
		n.drop(l)
		n.mu.Lock()
		l = nil
	}
	if l == nil {
		l = newLane(n, network)
		n.lanes[network.Name] = l
		n.listOwn()
	}
	l.wanted = n.room.deps.Clock.Mono()
	n.mu.Unlock()
	n.follow()
	select {
	case n.poke <- struct{}{}:
	default:
	}
	return l
}

// drop ends a lane; when it returns nothing of it is left on the machine. The caller has
// the turn.
func (n *networks) drop(l *lane) {
	n.mu.Lock()
	delete(n.lanes, l.network.Name)
	n.listOwn()
	cancel := l.cancel
	n.mu.Unlock()
	if cancel != nil {
		cancel()
		<-l.ended
	}
}

// listOwn says anew which networks are ours. The caller holds mu.
func (n *networks) listOwn() {
	var own []shoal.Network
	for _, l := range n.lanes {
		own = append(own, l.network)
	}
	n.own.Store(&own)
}

// all returns the lanes by name.
func (n *networks) all() []*lane {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*lane, 0, len(n.lanes))
	for _, l := range n.lanes {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *lane) int { return cmp.Compare(a.network.Name, b.network.Name) })
	return out
}

// run keeps the networks until ctx ends, and returns after all lanes have ended. The
// networks stay: containers run on.
func (n *networks) run(ctx context.Context) {
	if n.room.deps.Ready != nil {
		select {
		case <-n.room.deps.Ready: // before, the view knows no service, and all names would be absent
		case <-ctx.Done():
			return
		}
	}
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { _ = n.forward.Run(ctx) }) // it ends with ctx only
	group.Go(func() { n.tend(ctx) })
	for {
		n.begin(ctx, &group)
		select {
		case <-n.poke:
		case <-ctx.Done():
			return
		}
	}
}

// begin runs the lanes that wait for it.
func (n *networks) begin(ctx context.Context, group *sync.WaitGroup) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.lanes {
		if l.cancel == nil {
			within, cancel := context.WithCancel(ctx)
			l.cancel = cancel
			group.Go(func() {
				defer cancel()
				l.run(within)
			})
		}
	}
}

// tend takes up the networks that the engine has, and removes those that nobody wants.
func (n *networks) tend(ctx context.Context) {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		if n.isInDoubt() {
			if err := n.survey(ctx); err != nil && ctx.Err() == nil {
				n.room.deps.Log.Debug("networks are not known yet", logkey.Err, err)
			}
		}
		n.tidy(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// isInDoubt reports whether the engine has to be asked: at first, and while a lane is in
// trouble, as somebody else may have removed its network.
func (n *networks) isInDoubt() bool {
	for _, l := range n.all() {
		if st := l.state(); st.trouble != nil && !st.isUnable {
			return true
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.surveyed
}

// survey has a lane for each network that the engine has, and for no other.
func (n *networks) survey(ctx context.Context) error {
	if err := n.enter(ctx); err != nil {
		return err
	}
	defer n.leave()
	there, err := n.room.deps.Networks.ListNetworks(ctx)
	if err != nil {
		return err
	}
	for _, l := range n.all() {
		if !slices.Contains(there, l.network) {
			n.room.deps.Log.Warn("network is gone from the engine", "network", l.network.Name)
			n.drop(l)
		}
	}
	for _, network := range there {
		n.mu.Lock()
		known := n.lanes[network.Name] != nil || n.closed
		n.mu.Unlock()
		if !known {
			n.put(network)
		}
	}
	n.mu.Lock()
	n.surveyed = true
	n.mu.Unlock()
	return nil
}
