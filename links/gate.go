// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
)

// DESIGN section 11: strangers, 4 at a time, for 10 s.
const (
	maxStrangers = 4
	strangerTime = 10 * time.Second
)

// doorGrace is how long after an invite's expiry its bearer is still let in, to be
// told that it is too late rather than that nobody answers.
const doorGrace = time.Hour

// gate knows who may connect. Members may; a stranger may while the door is open,
// and then speaks the join protocol only; a removed member may as a stranger may, at any
// time, to be told; whoever we are joining through may.
type gate struct {
	clock    shoal.Clock
	loopback bool               // we listen on loopback ourselves
	noWay    func(peer.ID) bool // for tests: whom no straight way leads to; nil: nobody

	mu        sync.Mutex // guards the rest
	members   map[peer.ID]bool
	removed   map[peer.ID]bool // may come as strangers do, to be told
	told      map[string]bool  // connections, by ID, on which that was begun
	doorUntil int64            // Unix seconds; strangers may come until then
	strangers map[peer.ID]time.Duration
	hosts     map[peer.ID]int // peers we join through, by running joins
	joining   map[peer.ID]int // newcomers we are just admitting
	early     map[string]bool // connections, by ID, that began before their peer was a member
}

var _ connmgr.ConnectionGater = (*gate)(nil)

func newGate(clock shoal.Clock, loopback bool) *gate {
	return &gate{
		clock: clock, loopback: loopback,
		members: map[peer.ID]bool{}, strangers: map[peer.ID]time.Duration{}, hosts: map[peer.ID]int{},
		joining: map[peer.ID]int{}, early: map[string]bool{}, told: map[string]bool{},
	}
}

// set replaces the members, the removed, and the time until which the door is open.
func (g *gate) set(members, removed map[peer.ID]bool, doorUntil int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members, g.removed, g.doorUntil = members, removed, doorUntil
	for p := range g.strangers {
		if members[p] {
			delete(g.strangers, p)
		}
	}
}

func (g *gate) isMember(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[p]
}

// mayStay reports whether a connection of p may be or remain open. It gives a
// stranger one of the few places if one is free. Who used up its time is let in
// again only after as long once more, so that others get a turn.
func (g *gate) mayStay(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.members[p] || g.hosts[p] > 0 {
		return true
	}
	now := g.clock.Mono()
	if since, ok := g.strangers[p]; ok && now-since < 2*strangerTime {
		return now-since < strangerTime
	}
	if g.clock.Wall().Unix() >= g.doorUntil && !g.removed[p] {
		return false
	}
	here := 0
	for q, since := range g.strangers {
		switch age := now - since; {
		case age < strangerTime:
			here++
		case age >= 2*strangerTime:
			delete(g.strangers, q)
		}
	}
	if here < maxStrangers {
		g.strangers[p] = now
	}
	return here < maxStrangers
}

// began notes a connection that begins before its peer is a member.
func (g *gate) began(c network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.members[c.RemotePeer()] {
		g.early[c.ID()] = true
	}
}

// ended forgets a connection; with the last one a stranger's place is free at once,
// if it went by itself.
func (g *gate) ended(c network.Conn, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.early, c.ID())
	delete(g.told, c.ID())
	p := c.RemotePeer()
	if since, ok := g.strangers[p]; ok && last && g.clock.Mono()-since < strangerTime {
		delete(g.strangers, p)
	}
}

// isLink reports whether c is a connection of members from its beginning.
func (g *gate) isLink(c network.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[c.RemotePeer()] && !g.early[c.ID()]
}

// stale reports whether a member's connection has to be made anew: it began before
// the peer was a member, when the rooms that look at connections once (pubsub does)
// turned away from it. One that carries a join is left alone until that is over.
func (g *gate) stale(c network.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := c.RemotePeer()
	return g.members[p] && g.early[c.ID()] && g.hosts[p]+g.joining[p] == 0
}

// nextStranger returns when the time of the next stranger will be up, false if there
// is none.
func (g *gate) nextStranger() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.Mono()
	first, any := time.Duration(0), false
	for _, since := range g.strangers {
		if end := since + strangerTime; end > now && (!any || end < first) {
			first, any = end, true
		}
	}
	return first, any
}

// mustTell reports, once for each connection, that its peer is to be told that it was
// removed.
func (g *gate) mustTell(c network.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.removed[c.RemotePeer()] || g.told[c.ID()] {
		return false
	}
	g.told[c.ID()] = true
	return true
}

// wasLink reports whether c began while its peer was a member, which it is no more.
func (g *gate) wasLink(c network.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.removed[c.RemotePeer()] && !g.early[c.ID()]
}

// visit lets p be dialled although it is no member yet, until the returned call.
func (g *gate) visit(p peer.ID) func() { return g.count(g.hosts, p) }

// admitting keeps the connection of a newcomer that becomes a member, until the
// returned call.
func (g *gate) admitting(p peer.ID) func() { return g.count(g.joining, p) }

func (g *gate) count(m map[peer.ID]int, p peer.ID) func() {
	g.mu.Lock()
	defer g.mu.Unlock()
	m[p]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if m[p]--; m[p] == 0 {
			delete(m, p)
		}
	}
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g *gate) InterceptPeerDial(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[p] || g.hosts[p] > 0
}

// InterceptAddrDial implements connmgr.ConnectionGater.
func (g *gate) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return dialable(a, g.loopback) && g.mayPass(p, a)
}

// InterceptAccept implements connmgr.ConnectionGater: nobody is known by address.
func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured implements connmgr.ConnectionGater: now it is known who it is.
func (g *gate) InterceptSecured(_ network.Direction, p peer.ID, addrs network.ConnMultiaddrs) bool {
	return g.mayPass(p, addrs.RemoteMultiaddr()) && g.mayStay(p)
}

// mayPass reports whether a may lead to p. Through a relay it may only where all are
// members: nobody joins through one, a newcomer asks a peer that can be dialled.
func (g *gate) mayPass(p peer.ID, a ma.Multiaddr) bool {
	relay, isCircuit := relayOf(a)
	if !isCircuit {
		return g.noWay == nil || !g.noWay(p)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[relay] && g.members[p]
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (g *gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// memberOnly wraps a handler: streams of anybody else are reset unread.
func (g *gate) memberOnly(h network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if !g.isMember(s.Conn().RemotePeer()) {
			_ = s.Reset() // there is nobody to tell
			return
		}
		h(s)
	}
}

// memberHost is the host as the other rooms see it: every stream, in or out, is with
// a member, whatever connections are open.
type memberHost struct {
	host.Host
	gate *gate
}

// SetStreamHandler implements host.Host.
func (h *memberHost) SetStreamHandler(p protocol.ID, handler network.StreamHandler) {
	h.Host.SetStreamHandler(p, h.gate.memberOnly(handler))
}

// SetStreamHandlerMatch implements host.Host.
func (h *memberHost) SetStreamHandlerMatch(p protocol.ID, match func(protocol.ID) bool, handler network.StreamHandler) {
	h.Host.SetStreamHandlerMatch(p, match, h.gate.memberOnly(handler))
}

// NewStream implements host.Host.
func (h *memberHost) NewStream(ctx context.Context, p peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	if !h.gate.isMember(p) {
		return nil, fmt.Errorf("open stream to %s: %w", shoal.PeerID(p.String()).Short(), errStranger)
	}
	return h.Host.NewStream(ctx, p, protocols...)
}

var errStranger = fmt.Errorf("not a member: %w", shoal.ErrRefused)
