// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
)

// Carrier carries connections of clients to replicas, and serves other peers that do. It
// is safe for concurrent use and starts nothing by itself.
type Carrier struct {
	cfg    Config
	deps   Deps
	pools  *pools
	dialer net.Dialer
	server server
	uses   uses
}

// New allocates a Carrier. *shoal.InvalidError: what of cfg or deps does not do.
func New(cfg Config, deps Deps) (*Carrier, error) {
	if err := errors.Join(cfg.Validate(), deps.Validate()); err != nil {
		return nil, fmt.Errorf("make carrier: %w", err)
	}
	return &Carrier{
		cfg: cfg, deps: deps, pools: newPools(), server: server{peers: map[shoal.PeerID]*asker{}}, uses: uses{clock: deps.Clock, of: map[shoal.ReplicaID]*use{}},
		dialer: net.Dialer{Timeout: cfg.DialTimeout, KeepAliveConfig: keepAlive(cfg.KeepAlive)},
	}, nil
}

// TCP carries a connection to a replica, and returns once it is over and conn is closed.
// If none takes it, or something breaks, conn is reset, so that the client sees no end that
// nobody wished; the error is a *Refusal then, and counted. Other connections than TCP are
// closed instead, and should have a CloseWrite. When ctx ends all is reset.
func (c *Carrier) TCP(ctx context.Context, conn net.Conn, to Dest) error {
	counts := &to.Service.counts
	counts.begin()
	defer counts.end()
	near := newEnd(conn)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(c.dialer.KeepAliveConfig) // it works without
	}
	client := portOf(conn.RemoteAddr())
	far, held, err := c.connect(ctx, &to, Ask{Protocol: TCP, Client: client, Reached: portOf(conn.LocalAddr())})
	if err != nil {
		err = c.failed(&to, client, err)
		near.reset()
		return err
	}
	defer held.closed()
	j := &join{near: near, far: far.end(), pools: c.pools, clock: c.deps.Clock, counts: counts, first: held.firstByte}
	c.bound(j, c.cfg.Idle)
	defer j.idle.stop()
	if err := j.run(ctx); err != nil {
		return c.failed(&to, client, err)
	}
	return nil
}

// bound has a join broken off once it was silent for long; 0: never.
func (c *Carrier) bound(j *join, silence time.Duration) {
	if silence > 0 {
		j.idle = newIdleTimer(c.deps.Clock, silence, func() {
			j.breakOff(&Refusal{Reason: Silent, Text: fmt.Sprintf("for %v", silence)})
		})
	}
}

// failed counts why a connection ended.
func (c *Carrier) failed(to *Dest, client netip.AddrPort, err error) error {
	why := because(ReplicaBroke, err)
	to.Service.counts.fail(why.Reason)
	c.deps.Log.Debug("connection ended early", logkey.Service, to.Service.name, "client", client, logkey.Reason, why.Reason, logkey.Err, why)
	return why
}

// far is the way to a replica: a socket here, or a stream to its holder.
type far struct {
	conn   net.Conn
	stream network.Stream
}

func (f far) end() end {
	if f.stream != nil {
		return &streamEnd{f.stream}
	}
	return newEnd(f.conn)
}

// connect finds a replica that takes the connection. What ask lacks is filled in.
func (c *Carrier) connect(ctx context.Context, to *Dest, ask Ask) (far, *lease, error) {
	begun := c.deps.Clock.Mono()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Budget)
	defer cancel()
	ask.Service, ask.Port, ask.Via = to.Service.name, to.Port, to.Via
	var last *Refusal
	var tried []shoal.ReplicaID
	for len(tried) < c.cfg.Attempts {
		now, changed := c.deps.Clock.Mono(), to.Service.changed()
		b, ok := to.take(ask.Client.Addr(), tried, now)
		if !ok && len(tried) == 0 && c.awaits(ctx, to, changed) {
			continue
		}
		if !ok {
			break
		}
		if last != nil { // it is not the end of this connection, so nobody else counts it
			to.Service.counts.fail(last.Reason)
			to.Service.counts.retries.Add(1)
		}
		ask.Replica = b.Replica
		held := &lease{service: to.Service, backend: b, isUDP: ask.Protocol == UDP, isGuess: to.IsGuess || to.Via == ViaForward}
		f, err := c.dial(ctx, b.Holder, &ask)
		at := c.deps.Clock.Mono()
		switch {
		case err == nil:
			if b.Holder == c.deps.Self {
				held.done = c.uses.begin(b.Replica, at)
			}
			held.connected(at-now, at)
			to.Service.counts.connect.add(at - begun)
			return f, held, nil
		case errors.Is(ctx.Err(), context.Canceled): // no word about the replica
			held.closed()
			return far{}, nil, because(Ended, ctx.Err())
		}
		held.refused(at)
		last = because(LinkDown, err)
		tried = append(tried, b.Replica)
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		return far{}, nil, &Refusal{Reason: NoReplica}
	}
	return far{}, nil, last
}

// Carried reports whether a connection to a replica of this peer is open, or one was
// carried there in the last 10 s, for whomever.
func (c *Carrier) Carried(replica shoal.ReplicaID) bool { return c.uses.lately(replica) }

// awaits holds a connection to a service that sleeps, and has woken it, until something has
// changed about its replicas. false: there is nothing to wait for, or time is up.
func (c *Carrier) awaits(ctx context.Context, to *Dest, changed <-chan struct{}) bool {
	if c.deps.Wake == nil || !to.Replica.IsZero() || to.OfSlot || !c.deps.Wake(to.Service.name) {
		return false
	}
	select {
	case <-changed:
		return true
	case <-ctx.Done():
		return false
	}
}

// dial connects a replica, here or at its holder. No byte of the client has gone out when
// it fails.
func (c *Carrier) dial(ctx context.Context, holder shoal.PeerID, ask *Ask) (far, error) {
	if holder == c.deps.Self {
		conn, err := c.reach(ctx, holder, ask)
		return far{conn: conn}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AnswerTimeout)
	defer cancel()
	s, err := c.deps.Open(ctx, holder)
	if err != nil {
		return far{}, because(LinkDown, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	err = frame.Write(s, ask.message(), maxMessage)
	if err == nil {
		err = hearAnswer(s)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = s.Reset() // err says it all
		return far{}, because(LinkDown, err)
	}
	return far{stream: s}, nil
}

// reach connects a replica of this peer for asker.
func (c *Carrier) reach(ctx context.Context, asker shoal.PeerID, ask *Ask) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	place, err := c.deps.Targets.Target(ctx, asker, *ask)
	if err != nil {
		return nil, because(NotReady, err)
	}
	// Not by DialTCP and DialUDP: these bind a port first, and one that is bound serves no
	// other address, so 28,000 connections to all replicas of this peer would be the end.
	conn, err := c.dialer.DialContext(ctx, ask.Protocol, place.Addr.String())
	if err != nil {
		return nil, because(Unreachable, err)
	}
	if place.Proxy && ask.Protocol == TCP {
		// A new socket has room for it: this does not wait.
		if _, err := conn.Write(ProxyHeader(ask.Client, ask.Reached)); err != nil {
			_ = conn.Close()
			return nil, because(Unreachable, err)
		}
	}
	return conn, nil
}
