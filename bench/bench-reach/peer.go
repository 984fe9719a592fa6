// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/bench/reachwire"
	"github.com/shoalnet/shoal/ingress/balance"
	"github.com/shoalnet/shoal/ingress/carry"
)

// targets are the replicas of this peer. They do not change.
type targets map[shoal.ReplicaID]netip.AddrPort

// Target implements carry.Targets.
func (t targets) Target(_ context.Context, _ shoal.PeerID, a carry.Ask) (carry.Place, error) {
	at, ok := t[a.Replica]
	if !ok {
		return carry.Place{}, &carry.Refusal{Reason: carry.NotHere}
	}
	return carry.Place{Addr: at}, nil
}

// servePeer carries to the replicas, from a door to its own and one to those of holder,
// and for others, until ctx ends.
func servePeer(ctx context.Context, out io.Writer, replicas []string, holder string) error {
	h, err := reachwire.NewHost()
	if err != nil {
		return err
	}
	defer h.Close() //nolint:errcheck // the process ends
	own := targets{}
	for i, text := range replicas {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			return fmt.Errorf("-replicas: %w", err)
		}
		own[replica(i)] = at
	}
	self := shoal.PeerID(h.ID().String())
	c, err := newCarrier(self, own, h)
	if err != nil {
		return err
	}
	h.SetStreamHandler(carry.Protocol, func(s network.Stream) { c.Serve(ctx, s) })
	h.SetStreamHandler(reachwire.Raw, func(s network.Stream) { blast(ctx, s) })

	g, ctx := errgroup.WithContext(ctx)
	at := reachwire.Addresses{Host: h.Addrs()[0].String() + "/p2p/" + h.ID().String()}
	if at.Local, err = door(ctx, g, c, self, len(replicas)); err != nil {
		return err
	}
	if holder != "" {
		info, err := peer.AddrInfoFromString(holder)
		if err != nil {
			return fmt.Errorf("-holder: %w", err)
		}
		if err := h.Connect(ctx, *info); err != nil {
			return err
		}
		if at.Remote, err = door(ctx, g, c, shoal.PeerID(info.ID.String()), len(replicas)); err != nil {
			return err
		}
	}
	if err := say(out, at); err != nil {
		return err
	}
	return g.Wait()
}

// newCarrier makes a carrier with the daemon's bounds, but those on one client, which is
// all that there is here.
func newCarrier(self shoal.PeerID, own targets, h host.Host) (*carry.Carrier, error) {
	cfg := carry.Defaults()
	cfg.ConnsPerClient, cfg.StreamsPerPeer = cfg.Conns, cfg.Streams
	return carry.New(cfg, carry.Deps{
		Self: self, Targets: own, Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler),
		Open: func(ctx context.Context, holder shoal.PeerID) (network.Stream, error) {
			id, err := peer.Decode(string(holder))
			if err != nil {
				return nil, err
			}
			return h.NewStream(ctx, id, carry.Protocol)
		},
	})
}

// door publishes n replicas of a holder, taken in turn as HAProxy's roundrobin does, and
// returns where.
func door(ctx context.Context, g *errgroup.Group, c *carry.Carrier, holder shoal.PeerID, n int) (string, error) {
	l, err := carry.Listen(ctx, netip.MustParseAddrPort("127.0.0.1:0"), carry.TCP)
	if err != nil {
		return "", err
	}
	snap := balance.Snapshot{Policy: shoal.LBRoundRobin}
	for i := range n {
		snap.Backends = append(snap.Backends, balance.Backend{Replica: replica(i), Slot: i, Holder: holder, Ready: true, Alive: true})
	}
	s := carry.NewService("web", 1)
	s.Update(snap)
	g.Go(func() error { return l.Serve(ctx, c, carry.Dest{Service: s, Port: 80, Via: carry.ViaPublished}) })
	return l.Addr().String(), nil
}

func replica(i int) shoal.ReplicaID { return shoal.ReplicaID{0: byte(i), 15: 1} }

// blast sends on a stream until it or ctx ends.
func blast(ctx context.Context, s network.Stream) {
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	defer s.Reset() //nolint:errcheck // nothing more is sent
	piece := make([]byte, reachwire.Piece)
	for {
		if _, err := s.Write(piece); err != nil {
			return
		}
	}
}
