// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mss "github.com/multiformats/go-multistream"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Two peers behind routers meet by sending to each other at the same time, each to
// where a relay sees the other (DCUtR, libp2p's holepunch). Only QUIC does it here: all
// its connections use the one socket, so that what the relay sees is what a router
// maps, which is not so of TCP.

// startPunching begins to answer and to make such attempts, once a relay has said where
// it sees this peer.
func (l *Links) startPunching() {
	h, ok := l.host.(interface {
		host.Host
		IDService() identify.IDService
	})
	if !ok || l.puncher.Load() != nil || len(l.seenSockets()) == 0 {
		return
	}
	service, err := holepunch.NewService(h, h.IDService(), l.seenSockets, holepunch.WithTracer(punched{l}), holepunch.DirectDialTimeout(l.cfg.DialTimeout))
	if err != nil {
		l.log.Debug("holes cannot be punched", logkey.Err, err) // relays carry on
		return
	}
	l.puncher.Store(service)
}

func (l *Links) stopPunching() {
	if service := l.puncher.Load(); service != nil {
		_ = service.Close() // it reports nothing
	}
}

// punched is told how attempts end.
type punched struct{ l *Links }

// Trace implements holepunch.EventTracer.
func (t punched) Trace(e *holepunch.Event) {
	t.l.log.Debug("hole punch", logkey.Peer, shoal.PeerID(e.Remote.String()).Short(), "step", e.Type, "detail", fmt.Sprintf("%+v", e.Evt))
	if end, ok := e.Evt.(*holepunch.EndHolePunchEvt); ok && end.Success {
		t.l.mu.Lock()
		t.l.punched[e.Remote] = true
		t.l.mu.Unlock()
		t.l.poke()
	}
}

// wasPunched reports whether the straight link to a peer goes through punched holes.
func (l *Links) wasPunched(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.punched[p]
}

// seenSockets returns where relays see this peer's QUIC socket.
func (l *Links) seenSockets() []ma.Multiaddr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []ma.Multiaddr
	for _, p := range l.via {
		if a := l.sockets[p]; a != nil && !ma.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// sawUs keeps where a relay sees this peer.
func (l *Links) sawUs(relay peer.ID, at ma.Multiaddr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.sockets {
		if p != relay && !slices.Contains(l.via, p) {
			delete(l.sockets, p)
		}
	}
	if at != nil {
		l.sockets[relay] = at
	}
}

// observe asks a relay over a QUIC connection of its own where it sees us: the link in
// use is TCP mostly, whose port says nothing. nil: it cannot be found out.
func (l *Links) observe(ctx context.Context, relay peer.ID) ma.Multiaddr {
	sw, ok := l.host.Network().(transports)
	if !ok || l.gate.loopback {
		return nil
	}
	for _, a := range withoutCircuits(l.addrsOf(relay)) {
		if _, err := a.ValueForProtocol(ma.P_QUIC_V1); err != nil {
			continue
		}
		at, err := askOver(ctx, sw, a, relay)
		if err == nil {
			return at
		}
		l.log.Debug("relay did not say where it sees us", logkey.Err, err)
	}
	return nil
}

func askOver(ctx context.Context, sw transports, a ma.Multiaddr, p peer.ID) (ma.Multiaddr, error) {
	t := sw.TransportForDialing(a)
	if t == nil {
		return nil, network.ErrNoRemoteAddrs
	}
	c, err := t.Dial(ctx, a, p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // it has served
	s, err := c.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := mss.SelectProtoOrFail(ProtocolPing, s); err != nil {
		return nil, err
	}
	if err := frame.Write(s, &shoalv1.Ping{Nonce: []byte{1}}, pingFrame); err != nil {
		return nil, err
	}
	var echo shoalv1.Ping
	if err := frame.Read(s, &echo, pingFrame); err != nil {
		return nil, err
	}
	at, err := netip.ParseAddrPort(echo.GetObserved())
	if err != nil {
		return nil, err
	}
	seen, err := manet.FromNetAddr(net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	return ma.Join(seen, ma.StringCast("/quic-v1")), nil
}
