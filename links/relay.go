// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Words of Config.Relay.
const (
	relayAuto = "auto"
	relayOn   = "on"
	relayOff  = "off"
)

// Bounds of what a peer carries for others. There is none of bytes or time per circuit
// (libp2p's own cut one after 128 KiB or 2 minutes): logs, exec and images last longer,
// and libp2p takes a limited connection for none at all, so that neither pubsub nor
// anything that asks for a connected peer would use it. A circuit that is read slowly
// is written slowly: no more than its buffers is ever held.
const (
	// maxReserved: FullMesh members and as many again in larger clusters.
	maxReserved = 128
	// addrReserved: so many of them may live behind one router.
	addrReserved = 64
	// peerCircuits: a peer may be cut off from all others of a full mesh, and make a
	// few circuits anew before the old ones are gone.
	peerCircuits = 64
	// maxCircuits: of all members; with its buffers 32 MiB.
	maxCircuits = 512
	// relayBuffer, one each way. 256 MiB through a relay, three hosts on two cores and
	// loopback: about 175 MB/s with libp2p's 2 KiB and with 16 KiB, 230 with 32 KiB
	// (640 straight).
	relayBuffer = 32 << 10
	// reserveTime is long because whoever reserves compares it with its own clock,
	// which may be hours off; with the connection a reservation is gone at once.
	reserveTime = 24 * time.Hour
)

// carrying is this peer's work as a relay. It implements relay.ACLFilter and
// relay.MetricsTracer.
type carrying struct {
	gate    *gate
	refused func(what string, who peer.ID) // is told of each refusal

	service  *relay.Relay // nil: this peer does not relay; only the dial loop touches it, and
	isBroken bool         // this: it could not begin

	isOn                    atomic.Bool
	reserved, circuits      atomic.Int64 // now
	bytes, denied, overfull atomic.Int64 // ever
}

var (
	_ relay.ACLFilter     = (*carrying)(nil)
	_ relay.MetricsTracer = (*carrying)(nil)
)

// AllowReserve implements relay.ACLFilter: members only.
func (c *carrying) AllowReserve(p peer.ID, _ ma.Multiaddr) bool {
	if c.gate.isMember(p) {
		return true
	}
	c.denied.Add(1)
	c.refused("a reservation", p)
	return false
}

// AllowConnect implements relay.ACLFilter: between members only, and not too many.
func (c *carrying) AllowConnect(from peer.ID, _ ma.Multiaddr, to peer.ID) bool {
	for _, p := range []peer.ID{from, to} {
		if !c.gate.isMember(p) {
			c.denied.Add(1)
			c.refused("a circuit", p)
			return false
		}
	}
	if c.circuits.Load() >= maxCircuits {
		c.overfull.Add(1)
		return false
	}
	return true
}

// RelayStatus implements relay.MetricsTracer.
func (c *carrying) RelayStatus(enabled bool) { c.isOn.Store(enabled) }

// ConnectionOpened implements relay.MetricsTracer.
func (c *carrying) ConnectionOpened() { c.circuits.Add(1) }

// ConnectionClosed implements relay.MetricsTracer.
func (c *carrying) ConnectionClosed(time.Duration) { c.circuits.Add(-1) }

// ConnectionRequestHandled implements relay.MetricsTracer.
func (c *carrying) ConnectionRequestHandled(s pbv2.Status) { c.count(s) }

// ReservationAllowed implements relay.MetricsTracer.
func (c *carrying) ReservationAllowed(isRenewal bool) {
	if !isRenewal {
		c.reserved.Add(1)
	}
}

// ReservationClosed implements relay.MetricsTracer.
func (c *carrying) ReservationClosed(n int) { c.reserved.Add(-int64(n)) }

// ReservationRequestHandled implements relay.MetricsTracer.
func (c *carrying) ReservationRequestHandled(s pbv2.Status) { c.count(s) }

// BytesTransferred implements relay.MetricsTracer.
func (c *carrying) BytesTransferred(n int) { c.bytes.Add(int64(n)) }

func (c *carrying) count(s pbv2.Status) {
	if s == pbv2.Status_RESOURCE_LIMIT_EXCEEDED || s == pbv2.Status_RESERVATION_REFUSED {
		c.overfull.Add(1)
	}
}

// relayLimits are the bounds above as libp2p takes them.
func relayLimits() relay.Resources {
	return relay.Resources{
		ReservationTTL: reserveTime, MaxReservations: maxReserved, MaxCircuits: peerCircuits, BufferSize: relayBuffer,
		MaxReservationsPerIP: addrReserved, MaxReservationsPerASN: maxReserved,
	}
}

// offer begins to relay if this peer should and does not yet. Once it does, it goes on
// for as long as the daemon runs: a relay that comes and goes helps nobody.
func (l *Links) offer() {
	if l.carrying.service != nil || l.carrying.isBroken || !l.mayRelay() {
		return
	}
	service, err := relay.New(l.host, relay.WithResources(relayLimits()), relay.WithACL(l.carrying), relay.WithMetricsTracer(l.carrying))
	if err != nil {
		l.log.Warn("this peer cannot relay", logkey.Err, err)
		l.carrying.isBroken = true // else it would be told again and again
		return
	}
	l.carrying.service = service
	l.log.Info("relaying between members that cannot reach each other")
}

// stopRelaying ends what offer began.
func (l *Links) stopRelaying() {
	if l.carrying.service != nil {
		_ = l.carrying.service.Close() // it reports nothing
	}
}

// refusedToRelay logs the first refusal; the doctor has the count.
func (l *Links) refusedToRelay(what string, who peer.ID) {
	if l.carrying.denied.Load() == 1 {
		l.log.Warn("refused to relay for a stranger", logkey.Peer, shoal.PeerID(who.String()).Short(), logkey.Reason, what)
	}
}

func (l *Links) mayRelay() bool {
	switch l.cfg.Relay {
	case relayOn:
		return true
	case relayOff:
		return false
	}
	return !l.gate.loopback && l.reachedFromElsewhere()
}

// reachedFromElsewhere reports whether a member from another network linked to this
// peer by itself. That is all a relay needs: whoever cannot be dialled has dialled the
// peers that can, so these need nobody to dial them back and tell.
func (l *Links) reachedFromElsewhere() bool {
	var own []net.Addr
	for _, c := range l.host.Network().Conns() {
		p := c.RemotePeer()
		if c.Stat().Direction != network.DirInbound || isRelayed(c) || !l.gate.isLink(c) || l.wasPunched(p) {
			continue
		}
		if _, relayed := l.open(p); len(relayed) > 0 {
			continue // it may just have been punched
		}
		ip, err := manet.ToIP(c.RemoteMultiaddr())
		if err != nil {
			continue
		}
		if own == nil {
			if own, err = net.InterfaceAddrs(); err != nil {
				return false
			}
		}
		told := append(parseAddrs(l.recorded(p)), parseAddrs(l.id.addrsOf(shoal.PeerID(p.String())))...)
		if isElsewhere(ip, own, told) {
			return true
		}
	}
	return false
}

// isElsewhere reports whether a peer seen at ip is in another network than this one: on
// none of its links (own), or behind a router that translates, for it is none of the
// addresses the peer tells.
func isElsewhere(ip net.IP, own []net.Addr, told []ma.Multiaddr) bool {
	if !slices.ContainsFunc(own, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.Contains(ip) }) {
		return true
	}
	direct := withoutCircuits(told)
	return len(direct) > 0 && !slices.ContainsFunc(direct, func(a ma.Multiaddr) bool {
		at, err := manet.ToIP(a)
		return err != nil || at.Equal(ip) // a name may stand for any
	})
}

// RelayChecks says for the doctor what this peer carries for others, and where others
// reach it through a relay.
func (l *Links) RelayChecks() []shoal.Check {
	c := shoal.Check{Area: reachArea, Name: "relaying", State: shoal.CheckOK, Detail: "nothing: " + l.whyNoRelay()}
	if k := l.carrying; k.isOn.Load() {
		c.Detail = fmt.Sprintf("%d members reserved, %d circuits open, %d MiB carried; refused: %d of strangers, %d above the bounds",
			k.reserved.Load(), k.circuits.Load(), k.bytes.Load()>>20, k.denied.Load(), k.overfull.Load())
		if k.overfull.Load() > 0 {
			c.State, c.Remedy = shoal.CheckWarn, "let more members relay: relay: on, on machines that others can dial"
		}
	}
	out := []shoal.Check{c}
	if via := l.reservedOn(); len(via) > 0 {
		names := make([]string, 0, len(via))
		for _, p := range via {
			names = append(names, shoal.PeerID(p.String()).Short())
		}
		out = append(out, shoal.Check{Area: reachArea, Name: "relayed by", State: shoal.CheckOK, Detail: fmt.Sprintf("not all members reach this machine straight; they may through %v", names)})
	}
	return out
}

func (l *Links) whyNoRelay() string {
	if l.cfg.Relay == relayOff {
		return "switched off"
	}
	return "no member from another network links to this machine by itself"
}
