// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package node wires the rooms into one daemon: what is started with what, and in
// which order it ends. [Run] is the daemon; [Peer] is the same without its control
// socket, which simulations start by the dozen with other parts.
//
// The package refuses to decide anything: it has no opinion on slots, records or
// peers.
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/ingress"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/node/metrics"
	"github.com/shoalnet/shoal/runtime"
)

// Run is the daemon. It returns when ctx ends, after everything it started has
// ended; containers are left running.
func Run(ctx context.Context, cfg Config, log *slog.Logger) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	rules, err := newOwner(cfg.Policy, log)
	if err != nil {
		return err
	}
	clock := cfg.Clock
	if clock == nil {
		clock = shoal.NewSystemClock()
	}
	id, err := links.OpenIdentity(cfg.Dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	parts, err := cfg.parts(id, rules, clock, log)
	if err != nil {
		return err
	}
	peer, err := NewPeer(parts)
	if err != nil {
		return err
	}
	exporter := metrics.New(peer.measure, log)
	server, err := api.NewServer(api.Config{Socket: cfg.Socket}, api.Deps{
		Membership: peer, Cluster: peer.Cluster, Doctor: peer, Report: peer.Report, Metrics: exporter.Text,
		Path: peer.path, Clock: clock, Log: log, Open: cfg.Ready,
	})
	if err != nil {
		return errors.Join(err, peer.links.Close())
	}
	scraped, err := cfg.listenMetrics(ctx)
	if err != nil {
		return errors.Join(err, peer.links.Close())
	}
	log.Info("shoald", "version", cfg.Version, "peer", id.Self(), "socket", cfg.Socket, "data", cfg.Dir)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		// Nobody is told "not a member" or "no such service" before the records are read.
		if peer.awaitStart(ctx); ctx.Err() != nil {
			return nil
		}
		return server.Run(ctx)
	})
	g.Go(func() error { return peer.Run(ctx) })
	g.Go(func() error { rules.run(ctx, cfg.Reload); return nil })
	if scraped != nil {
		log.Info("metrics for Prometheus", "address", scraped.Addr().String())
		g.Go(func() error { return exporter.Serve(ctx, scraped) })
	}
	return g.Wait()
}

// parts picks what the machine's owner configured.
func (c *Config) parts(id *links.Identity, rules *owner, clock shoal.Clock, log *slog.Logger) (Parts, error) {
	p := Parts{
		Identity: id, Links: links.LAN(), Store: gossip.LAN(), Beats: beats.LAN(), Actors: actors.LAN(),
		Facts: shoal.PeerFacts{
			Name: c.Name, Labels: c.Labels, Reserved: c.Reserved, Version: c.Version, PublishAddr: c.Publish,
		},
		HostName: hostName(id.Self()), Clock: clock, Rand: rand.Reader, Log: log, BackBy: c.BackBy,
		Settings: c, Tail: c.Tail, Rules: rules.allows,
	}
	if c.Profile == ProfileWAN {
		p.Links, p.Store, p.Beats, p.Actors = links.WAN(), gossip.WAN(), beats.WAN(), actors.WAN()
	}
	var err error
	if p.Links.Listen, err = c.listen(); err != nil {
		return p, err
	}
	if p.Links.Advertise, err = multiaddrs("advertise", c.Advertise); err != nil {
		return p, err
	}
	p.Links.Version, p.Links.MDNS, p.Links.UPnP, p.Links.Relay = c.Version, c.MDNS, !c.NoUPnP, c.Relay
	p.Store.Dir = filepath.Join(c.Dir, "store")
	own := c.Images
	own.Dir = filepath.Join(c.Dir, "images")
	p.Images = &own
	reach := ingress.Defaults()
	if c.Publish != "" {
		if reach.Publish, err = netip.ParseAddr(c.Publish); err != nil {
			return p, fmt.Errorf("publish: %w", err)
		}
	}
	reach.NoNames = c.Names == NamesOff
	p.Ingress = &reach
	p.Engine = func(cluster, self shoal.PeerID) (Engines, error) {
		d, err := runtime.NewDocker(runtime.Config{
			Host: c.Docker, Cluster: cluster, Peer: self, Guarded: c.guarded(), Pool: c.Pool,
			Rules: func() []string { allowed, _ := rules.allows(); return allowed },
		}, clock, log)
		if err != nil {
			return Engines{}, fmt.Errorf("set up the engine: %w", err)
		}
		return Engines{
			Engine: d, Machine: d, Console: d, Puller: runtime.NewPuller(d), Images: d, Networks: d, Apart: d.Apart, Close: d.Close,
		}, nil
	}
	words := wordsFile(filepath.Join(c.Dir, "words.json"))
	p.Shelf = words
	p.Forget = func() error {
		return errors.Join(os.RemoveAll(p.Store.Dir), os.RemoveAll(own.Dir), os.RemoveAll(string(words)))
	}
	return p, nil
}

// guarded returns what gives this daemon away: its key, its socket, its policy.
func (c *Config) guarded() []string {
	var out []string
	for _, name := range []string{c.Dir, c.Socket, c.Policy} {
		if abs, err := filepath.Abs(name); err == nil && name != "" {
			out = append(out, abs)
		}
	}
	return out
}

// hostName is the machine's name in the form that peers may have, or the end of
// the peer's ID where it has none.
func hostName(id shoal.PeerID) string {
	name, _ := os.Hostname() // without one the ID serves
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	if shoal.CheckName("name", name) != nil {
		return "peer-" + strings.ToLower(id.Short())
	}
	return name
}
