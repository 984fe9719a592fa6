// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
	"github.com/shoalnet/shoal/ingress/names"
	"github.com/shoalnet/shoal/ingress/names/resolver"
	"github.com/shoalnet/shoal/internal/logkey"
)

// lane is one network of this peer at work: its resolver and its virtual addresses.
type lane struct {
	networks *networks
	network  shoal.Network
	settled  chan struct{} // closed once its names worked, or did not
	ended    chan struct{} // closed when run returns

	wanted time.Duration      // last; networks.mu guards it
	cancel context.CancelFunc // nil: it waits to be run; networks.mu guards it

	zone   atomic.Pointer[names.Zone]
	meant  atomic.Pointer[map[netip.Addr]meaning] // what the virtual addresses stand for
	guests atomic.Pointer[guests]
	nobody atomic.Uint64 // connections to an address that stands for nothing

	once sync.Once // closes settled

	mu sync.Mutex // guards what follows
	laneState
	made      []names.Service // that the zone is of
	held      names.Addresses
	endpoints []bridge.Endpoint
}

// laneState is how a lane is.
type laneState struct {
	isUp     bool
	isUnable bool  // names work on no network of this machine
	trouble  error // why it is not up; nil before it was tried
	full     error // services without an address, a *names.FullError
	services int
	server   *resolver.Server // nil: it does not run
	span     span             // nil: the same
}

func newLane(n *networks, network shoal.Network) *lane {
	l := &lane{networks: n, network: network, settled: make(chan struct{}), ended: make(chan struct{})}
	l.zone.Store(names.NewZone(names.Network{Range: network.Virtual}))
	l.meant.Store(&map[netip.Addr]meaning{})
	l.guests.Store(&guests{})
	return l
}

func (l *lane) state() laneState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.laneState
}

// works waits a moment for the lane to begin, and reports whether its names are answered.
func (l *lane) works(ctx context.Context) bool {
	patience := time.NewTimer(moment)
	defer patience.Stop()
	select {
	case <-l.settled:
	case <-patience.C:
	case <-ctx.Done():
	}
	return l.state().isUp
}

// run serves until ctx ends, again and again where it fails.
func (l *lane) run(ctx context.Context) {
	defer close(l.ended)
	for {
		err := l.networks.able(ctx)
		isUnable := err != nil
		if !isUnable {
			err = l.serve(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		l.failed(err, isUnable)
		if !rest(ctx, again) {
			return
		}
	}
}

// serve answers names and virtual addresses until ctx ends, or something breaks.
func (l *lane) serve(ctx context.Context) error {
	m, deps := l.networks.machine, &l.networks.room.deps
	began := m.index(l.network.Bridge)
	if began == 0 {
		return fmt.Errorf("bridge %s is not on this machine: %w", l.network.Bridge, shoal.ErrNotFound)
	}
	packets, listener, err := m.sockets(ctx, &l.network)
	if err != nil {
		return fmt.Errorf("port 53 of %s: %w", l.network.Gateway, err)
	}
	server, err := resolver.New(resolver.Defaults(), resolver.Deps{
		Log: deps.Log, Packets: []net.PacketConn{packets}, Listeners: []net.Listener{listener},
		Allowed: l.isContainer, Beyond: l.beyond, Forward: l.networks.forward,
	})
	if err == nil {
		var s span
		s, err = m.span(bridge.Deps{Network: l.network, Stream: l.stream, Packets: l.packets, Held: l.isHeld, Log: deps.Log})
		if err == nil {
			return l.answer(ctx, server, s, began)
		}
	}
	_, _ = packets.Close(), listener.Close() // nobody was told of them
	return err
}

// answer runs both sides of the lane until ctx ends, or one breaks.
func (l *lane) answer(ctx context.Context, server *resolver.Server, s span, began int) error {
	l.mu.Lock()
	l.server, l.span = server, s
	server.SetZone(l.zone.Load())
	s.SetEndpoints(l.endpoints)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.server, l.span, l.isUp = nil, nil, false
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error { return l.watch(ctx, began) })
	return g.Wait()
}

// watch fails once the bridge is another one: sockets that are bound to the former hear
// nothing any more.
func (l *lane) watch(ctx context.Context, began int) error {
	for rest(ctx, again) {
		if now := l.networks.machine.index(l.network.Bridge); now != began {
			return fmt.Errorf("bridge %s is gone, or another: %w", l.network.Bridge, shoal.ErrNotFound)
		}
	}
	return nil
}

// isHeld says that names work.
func (l *lane) isHeld() {
	l.mu.Lock()
	l.isUp, l.isUnable, l.trouble = true, false, nil
	l.mu.Unlock()
	l.networks.room.deps.Log.Info("network answers", "network", l.network.Name, "gateway", l.network.Gateway)
	l.once.Do(func() { close(l.settled) })
}

// failed notes why names do not work.
func (l *lane) failed(err error, isUnable bool) {
	l.mu.Lock()
	isNew := l.trouble == nil || err != nil && l.trouble.Error() != err.Error()
	l.trouble, l.isUnable = err, isUnable
	l.mu.Unlock()
	if isNew {
		l.networks.room.deps.Log.Warn("network without names", "network", l.network.Name, logkey.Reason, oneLine(err))
	}
	l.once.Do(func() { close(l.settled) })
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }

// isContainer reports whether a client is a container of the network.
func (l *lane) isContainer(a netip.Addr) bool {
	return l.network.Containers.Contains(a) && a != l.network.Gateway
}

// stream carries a connection of a container.
func (l *lane) stream(ctx context.Context, s bridge.Stream) {
	to, ok := l.destOf(s.To, "tcp")
	if !ok {
		l.nobody.Add(1)
		_ = s.Conn.SetLinger(0) // it is closed either way
		_ = s.Conn.Close()      // as above
		return
	}
	_ = l.networks.room.named.TCP(ctx, s.Conn, to.Dest) // counted
	to.end()
}

// packets carries the datagrams of containers to a declared port.
func (l *lane) packets(ctx context.Context, p bridge.Packets) {
	to, ok := l.destOf(p.To, "udp")
	if !ok {
		return
	}
	defer to.end()
	if err := l.networks.room.named.UDP(ctx, p.Conn, to.Dest); err != nil && !errors.Is(err, net.ErrClosed) {
		l.networks.room.deps.Log.Warn("endpoint answers no more", "network", l.network.Name, "endpoint", p.To, logkey.Err, err)
	}
}
