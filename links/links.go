// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Links is this peer's place in the network. Its methods are safe for concurrent use.
type Links struct {
	cfg   Config
	id    *Identity
	clock shoal.Clock
	log   *slog.Logger
	self  peer.ID
	host  host.Host
	owned bool // the host is ours to close
	gate  *gate
	wake  chan struct{} // asks the dial loop to look again; holds one

	mu      sync.Mutex // guards the rest
	desired *shoal.Desired
	members shoal.PeerID // the cluster whose members the gate knows
	changed chan struct{}
	doubted map[peer.ID]bool           // linked, but silent when pinged
	seen    map[peer.ID][]ma.Multiaddr // where members were reached or found, newest first, at most 4
	door    *door                      // who admits, nil until ServeJoin
	logs    LogSource                  // nil until ServeLogs
	doctor  DoctorSource               // nil until ServeDoctor
	removed RemovalSink                // nil until ServeRemoval
	inside  Inside                     // nil until ServeInside
	via     []peer.ID                  // relays that hold a reservation for this peer, sorted
	sockets map[peer.ID]ma.Multiaddr   // where relays see its QUIC socket
	punched map[peer.ID]bool           // linked through punched holes
	pings   map[peer.ID]pingLog        // of members

	carrying *carrying
	puncher  atomic.Pointer[holepunch.Service] // nil: nothing is punched

	commands  atomic.Int32 // that other members run here
	measuring atomic.Int32 // for other members
}

// New makes the links of this peer. Nothing listens, dials or serves before Run; but
// libp2p's own goroutines run from here on, so a Links that is never run wants Close.
func New(cfg Config, id *Identity, clock shoal.Clock, log *slog.Logger) (*Links, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	self, err := peer.Decode(string(id.Self()))
	if err != nil {
		return nil, fmt.Errorf("read own peer ID: %w", err)
	}
	l := &Links{
		cfg: cfg, id: id, clock: clock, log: log, self: self, host: cfg.Host,
		wake: make(chan struct{}, 1), changed: make(chan struct{}), seen: map[peer.ID][]ma.Multiaddr{},
		doubted: map[peer.ID]bool{}, sockets: map[peer.ID]ma.Multiaddr{}, punched: map[peer.ID]bool{}, pings: map[peer.ID]pingLog{},
	}
	if cfg.Host != nil {
		if cfg.Host.ID() != self {
			return nil, &shoal.InvalidError{Field: "host", Why: "has another key than the identity"}
		}
		l.gate = newGate(clock, anyLoopback(cfg.Host.Addrs()))
	} else {
		listen, err := cfg.listenAddrs()
		if err != nil {
			return nil, err
		}
		l.gate = newGate(clock, anyLoopback(listen))
		l.gate.noWay = cfg.noWay
		if l.host, err = newHost(cfg, id, l.gate); err != nil {
			return nil, err
		}
		l.owned = true
	}
	l.carrying = &carrying{gate: l.gate, refused: l.refusedToRelay}
	l.SetMembers(nil)
	return l, nil
}

// Close ends a Links whose Run was never called. Run closes by itself.
func (l *Links) Close() error {
	if !l.owned {
		return nil
	}
	return l.host.Close()
}

// Host returns the host for other rooms: each stream it opens or accepts is with a
// current member. They must not close it.
func (l *Links) Host() host.Host { return &memberHost{Host: l.host, gate: l.gate} }

// Handle serves a protocol to members only; it is Host().SetStreamHandler.
func (l *Links) Handle(p protocol.ID, h network.StreamHandler) {
	l.host.SetStreamHandler(p, l.gate.memberOnly(h))
}

// Addrs returns the multiaddresses to tell members: at most 14 where it listens, sorted,
// then the circuits that lead to it. Empty before Run listens.
func (l *Links) Addrs() []string {
	out := addrTexts(pick(l.gate.loopback, maxAddrs-maxRelays, withoutCircuits(l.host.Addrs())))
	slices.Sort(out)
	for _, relay := range l.reservedOn() {
		out = append(out, circuitVia(relay).String())
	}
	return out[:min(len(out), maxAddrs)]
}

// SetMembers takes the current members and open invites from the folded records,
// nil when there are none. Members remembered beside the key count until the records
// name them or remove them. Cheap when neither changed; connections of removed
// members are cut, once they were told.
func (l *Links) SetMembers(d *shoal.Desired) {
	l.mu.Lock()
	same := l.desired != nil && d != nil && l.members == l.id.Cluster() && sameMembers(l.desired, d)
	l.desired = d
	l.mu.Unlock()
	if !same {
		l.admitMembers(d)
	}
}

// sameMembers reports whether d says the same as old about who is a member, where,
// and which invites there are.
func sameMembers(old, d *shoal.Desired) bool {
	return slices.EqualFunc(old.Peers, d.Peers, func(a, b shoal.Peer) bool {
		return a.ID == b.ID && a.Removed == b.Removed && slices.Equal(a.Facts.Addrs, b.Facts.Addrs)
	}) && slices.EqualFunc(old.Invites, d.Invites, func(a, b shoal.Invite) bool {
		return a.ID == b.ID && a.ExpiresAt == b.ExpiresAt
	})
}

// admitMembers works out who may connect now.
func (l *Links) admitMembers(d *shoal.Desired) {
	cluster := l.id.Cluster()
	l.mu.Lock()
	l.members = cluster
	l.mu.Unlock()
	members, removed := map[peer.ID]bool{}, map[peer.ID]bool{}
	if cluster != "" {
		for _, m := range l.id.Members() {
			if p, err := peer.Decode(string(m.Peer)); err == nil {
				members[p] = true
			}
		}
	}
	doorUntil := int64(0)
	if d != nil {
		for i := range d.Peers {
			if p, err := peer.Decode(string(d.Peers[i].ID)); err == nil {
				members[p] = !d.Peers[i].Removed
				if d.Peers[i].Removed {
					removed[p] = true
				}
			}
		}
		doorUntil = l.openUntil(d)
	}
	delete(members, l.self)
	for p, in := range members {
		if !in {
			delete(members, p)
		}
	}
	l.gate.set(members, removed, doorUntil)
	l.forgetPings()
	l.poke()
	l.announce()
}

// openUntil returns until when strangers may come. The door stays open for the
// bearers of used, revoked and just expired invites too: only who gets in can be
// told why it does not work.
func (l *Links) openUntil(d *shoal.Desired) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := int64(0)
	if l.door == nil {
		return until
	}
	for i := range d.Invites {
		until = max(until, d.Invites[i].ExpiresAt+int64(doorGrace.Seconds()))
	}
	return until
}

// Connected returns the members with an open link, sorted. While a connection is open
// that began before its peer was a member, and is about to be made anew, the peer
// does not count: a stream might still take that one, and break.
func (l *Links) Connected() []shoal.PeerID {
	whole := map[peer.ID]bool{}
	for _, c := range l.host.Network().Conns() {
		p := c.RemotePeer()
		before, seen := whole[p]
		whole[p] = l.gate.isLink(c) && (before || !seen)
	}
	out := []shoal.PeerID{}
	for p, ok := range whole {
		if ok {
			out = append(out, shoal.PeerID(p.String()))
		}
	}
	slices.Sort(out)
	return out
}

// Changed returns a channel that is closed when Connected may have changed after the
// call.
func (l *Links) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *Links) announce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Links) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Run listens, dials members, and serves join, logs and ping until ctx ends. It
// returns after everything it started ended; a host of its own is closed then.
// nil: ctx ended; anything else is why it could not go on.
func (l *Links) Run(ctx context.Context) (err error) {
	if l.owned {
		defer func() { err = errors.Join(err, l.host.Close()) }()
		if err := l.listen(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := l.serve(ctx)
	defer stop()

	notify := &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { l.opened(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { l.closed(c) },
	}
	l.host.Network().Notify(notify)
	defer l.host.Network().StopNotify(notify)
	defer l.stopRelaying()
	defer l.stopPunching()
	if l.cfg.MDNS {
		stop, err := l.discover()
		if err != nil {
			l.log.Warn("local discovery does not work", logkey.Err, err) // the rest does
		} else {
			defer stop()
		}
	}
	l.dialLoop(ctx)
	return nil
}

// serve registers this room's own protocols. The returned call takes them away again
// and waits until the last handler returned; by then ctx must have ended or be about to.
func (l *Links) serve(ctx context.Context) func() {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{}
	own := map[protocol.ID]network.StreamHandler{
		ProtocolJoin: r.handler(ctx, l.serveJoin),
		ProtocolPing: l.gate.memberOnly(r.handler(ctx, l.servePing)),
		ProtocolLogs: l.gate.memberOnly(r.handler(ctx, l.serveLogs)),

		ProtocolRemoved: l.gate.memberOnly(r.handler(ctx, l.serveRemoval)),
		ProtocolUsage:   l.gate.memberOnly(r.handler(ctx, l.serveUsage)),
		ProtocolWords:   l.gate.memberOnly(r.handler(ctx, l.serveWords)),
		ProtocolCopy:    l.gate.memberOnly(r.handler(ctx, l.serveCopy)),
		ProtocolExec:    l.gate.memberOnly(r.handler(ctx, l.serveExec)),
		ProtocolDoctor:  l.gate.memberOnly(r.handler(ctx, l.serveDoctor)),
	}
	for p, h := range own {
		l.host.SetStreamHandler(p, h)
	}
	return func() {
		for p := range own {
			l.host.RemoveStreamHandler(p)
		}
		cancel()
		r.end()
	}
}

// running counts the handlers that run, and refuses new ones at the end.
type running struct {
	mu    sync.Mutex // guards ended, and orders Add before Wait
	ended bool
	wg    sync.WaitGroup
}

// handler gives h the context and resets the stream when that ends.
func (r *running) handler(ctx context.Context, h func(context.Context, network.Stream)) network.StreamHandler {
	return func(s network.Stream) {
		if !r.begin() {
			_ = s.Reset() // we are going; the other side will notice
			return
		}
		defer r.wg.Done()
		stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
		defer stop()
		h(ctx, s)
	}
}

func (r *running) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.wg.Add(1)
	}
	return !r.ended
}

func (r *running) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.wg.Wait()
}

func (l *Links) listen() error {
	addrs, err := l.cfg.listenAddrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		// One at a time: the swarm is content when one of many works, we are not.
		if err := l.host.Network().Listen(a); err != nil {
			return listenError(a, err)
		}
	}
	return nil
}

func (l *Links) opened(c network.Conn) {
	p := c.RemotePeer()
	l.gate.began(c)
	if l.gate.isMember(p) {
		l.host.ConnManager().Protect(p, "member")
		if c.Stat().Direction == network.DirOutbound {
			l.sawAt(p, c.RemoteMultiaddr())
		}
	}
	l.poke()
	l.announce()
}

func (l *Links) closed(c network.Conn) {
	if p := c.RemotePeer(); !l.isStraight(p) {
		l.mu.Lock()
		delete(l.punched, p)
		l.mu.Unlock()
	}
	l.gate.ended(c, l.host.Network().Connectedness(c.RemotePeer()) != network.Connected)
	l.poke()
	l.announce()
}

// doubt marks a member whose link is open but did not answer: the dial loop asks
// again until it answers, and then replaces the link if that is what was dead. TCP
// alone would notice only at its next retransmission, half a minute late.
func (l *Links) doubt(p peer.ID, doubted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if doubted {
		l.doubted[p] = true
	} else {
		delete(l.doubted, p)
	}
}

func (l *Links) isDoubted(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubted[p]
}

// sawAt keeps an address at which a member answered or was found.
func (l *Links) sawAt(p peer.ID, addrs ...ma.Multiaddr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[p] = pick(l.gate.loopback, 4, addrs, l.seen[p])
}
