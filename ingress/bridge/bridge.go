// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// host is what a bridge asks of the machine.
type host interface {
	// hold puts the route and, with a port, the rules in place; what is there stays. An
	// error that is errNoRedirect is about the rules only.
	hold(n *shoal.Network, port uint16) error
	// letGo removes both. What is not there is no error.
	letGo(n *shoal.Network) error
	// turnedAway is how many packets from elsewhere the rules have refused.
	turnedAway(n *shoal.Network) uint64
}

// errNoRedirect: the kernel has no nftables, or none that can redirect.
var errNoRedirect = errors.New("no redirect by nftables")

// Bridge answers for the virtual addresses of one network. It is safe for concurrent use.
type Bridge struct {
	cfg     Config
	deps    Deps
	network *shoal.Network
	host    host
	count   counters
	changed chan struct{} // holds one when endpoints has changed

	mu        sync.Mutex // guards what follows
	endpoints []Endpoint
	failed    map[Endpoint]error
	redirects bool
	conns     int // handed out
	byClient  map[netip.Addr]int
}

// New returns a bridge that does nothing yet. A wrong configuration or network is a
// *shoal.InvalidError.
func New(cfg Config, deps Deps) (*Bridge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := checkNetwork(&deps.Network); err != nil {
		return nil, err
	}
	cfg.defaults()
	b := &Bridge{
		cfg: cfg, deps: deps, host: kernel{},
		changed: make(chan struct{}, 1), byClient: make(map[netip.Addr]int),
	}
	b.network = &b.deps.Network
	return b, nil
}

// SetEndpoints says which ports are declared from now on. Those that stay are not
// touched, nor are connections of those that go. What cannot be opened is in [Stats].
func (b *Bridge) SetEndpoints(endpoints []Endpoint) {
	endpoints = slices.Clone(endpoints)
	slices.SortFunc(endpoints, func(x, y Endpoint) int { return cmp.Or(cmp.Compare(x.Protocol, y.Protocol), x.Addr.Compare(y.Addr)) })
	b.mu.Lock()
	b.endpoints = slices.Compact(endpoints)
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// Run holds the virtual addresses until ctx ends, and returns after all that it handed
// out has come back. Without the right to it, the error is a *shoal.AdviceError that
// wraps shoal.ErrRefused; an absent bridge is shoal.ErrNotFound. One Run at a time.
func (b *Bridge) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	open := make(map[Endpoint]io.Closer)
	var any io.Closer
	var port uint16
	defer func() {
		cancel()
		for _, c := range open {
			_ = c.Close() // it is gone either way
		}
		if any != nil {
			_ = any.Close() // as above
		}
		group.Wait()
		if err := b.host.letGo(b.network); err != nil {
			b.deps.Log.Warn("network is left on the machine", "network", b.network.Name, logkey.Err, err)
		}
	}()
	if l, err := b.hold(ctx); err != nil {
		return fmt.Errorf("answer on network %s: %w", b.network.Name, err)
	} else if l != nil {
		any, port = l, portOf(l)
		group.Go(func() { b.accept(ctx, &group, l, originalOf) })
	}
	tick := time.NewTicker(b.cfg.Refresh)
	defer tick.Stop()
	b.reconcile(ctx, &group, open)
	if b.deps.Held != nil {
		b.deps.Held()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.changed:
		case <-tick.C:
			// A firewall that is loaded anew drops all tables; a bridge that was down, its routes.
			if err := b.host.hold(b.network, port); err != nil {
				b.deps.Log.Warn("network does not answer", "network", b.network.Name, logkey.Err, err)
			}
		}
		b.reconcile(ctx, &group, open)
	}
}

// hold takes the addresses, and returns the listener that gets all TCP; nil where the
// kernel cannot do that.
func (b *Bridge) hold(ctx context.Context) (*net.TCPListener, error) {
	if err := b.host.hold(b.network, 0); err != nil {
		return nil, err
	}
	l, err := Listen(ctx, b.network.Bridge, netip.AddrPortFrom(b.network.Gateway, 0))
	if err != nil {
		return nil, err
	}
	err = b.host.hold(b.network, portOf(l))
	b.mu.Lock()
	b.redirects = err == nil
	b.mu.Unlock()
	if err == nil {
		return l, nil
	}
	_ = l.Close() // nobody was told of it
	if !errors.Is(err, errNoRedirect) {
		return nil, err
	}
	b.deps.Log.Info("only declared ports answer", "network", b.network.Name, "why", err)
	return nil, nil
}

func portOf(l *net.TCPListener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// reconcile closes the sockets of endpoints that are gone, and opens those that are missing.
func (b *Bridge) reconcile(ctx context.Context, group *sync.WaitGroup, open map[Endpoint]io.Closer) {
	b.mu.Lock()
	wanted, redirects := b.endpoints, b.redirects
	b.mu.Unlock()
	keep := make(map[Endpoint]bool, len(wanted))
	failed := make(map[Endpoint]error)
	for _, e := range wanted {
		keep[e] = true
	}
	for e, c := range open {
		if !keep[e] {
			_ = c.Close() // it is gone either way
			delete(open, e)
		}
	}
	for _, e := range wanted {
		if open[e] != nil || e.Protocol == "tcp" && redirects {
			continue
		}
		c, err := b.open(ctx, group, e, len(open))
		if err != nil {
			failed[e] = err
			continue
		}
		open[e] = c
	}
	b.mu.Lock()
	b.failed = failed
	b.mu.Unlock()
}

// open opens one endpoint and begins to serve it.
func (b *Bridge) open(ctx context.Context, group *sync.WaitGroup, e Endpoint, others int) (io.Closer, error) {
	if err := e.refuse(b.network); err != nil {
		return nil, err
	}
	if others >= b.cfg.Endpoints {
		return nil, fmt.Errorf("%d endpoints are open: %w", others, shoal.ErrNoSpace)
	}
	if e.Protocol == "udp" {
		c, err := ListenPacket(ctx, b.network.Bridge, e.Addr)
		if err != nil {
			return nil, err
		}
		group.Go(func() { b.deps.Packets(ctx, Packets{Conn: &guarded{PacketConn: c, udp: c, bridge: b}, To: e.Addr}) })
		return c, nil
	}
	l, err := Listen(ctx, b.network.Bridge, e.Addr)
	if err != nil {
		return nil, err
	}
	group.Go(func() { b.accept(ctx, group, l, localOf) })
	return l, nil
}

// Stats asks the kernel for its part.
func (b *Bridge) Stats() Stats {
	s := Stats{Streams: b.count.streams.Load(), Datagrams: b.count.datagrams.Load(), Refused: map[Reason]uint64{}}
	for r := range reasons {
		if n := b.count.refused[r].Load(); n > 0 {
			s.Refused[r] = n
		}
	}
	b.mu.Lock()
	s.Redirects, s.Failed = b.redirects, maps.Clone(b.failed)
	b.mu.Unlock()
	if s.Redirects {
		s.TurnedAway = b.host.turnedAway(b.network)
	}
	return s
}
