// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/node"
	"github.com/shoalnet/shoal/runtime"
)

// image is what all replicas of the bench run.
const image = "shoal-bench:1"

// graceTime is how long a peer that has just started leaves the slots of others
// alone (actors and placement, profile LAN).
const graceTime = 12 * time.Second

// member is a whole peer in this process: real links on loopback, a real store on
// disk, a control socket. Only its engine is the in-memory one.
type member struct {
	*node.Peer
	id      *links.Identity
	twin    *runtime.Twin
	witness *witness // of the twin
	socket  string
	client  *api.Client
}

// inside is a cluster of members.
type inside struct {
	members []*member
	clock   shoal.Clock
	close   func() error
}

// startInside makes one cluster of n peers and waits until all hear all.
func (b *bench) startInside(ctx context.Context, name string, n int) (_ *inside, err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	g, running := errgroup.WithContext(running)
	in := &inside{clock: shoal.NewSystemClock()}
	in.close = func() error {
		cancel()
		err := g.Wait()
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		for _, m := range in.members {
			m.client.Close()
			err = errors.Join(err, m.id.Close())
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		}
	}()
	for i := range n {
		socket := filepath.Join(b.sockets, fmt.Sprintf("%s-%d.sock", name, i))
		m, err := newMember(filepath.Join(dir, fmt.Sprint(i)), socket, i, in.clock)
		if err != nil {
			return nil, err
		}
		in.members = append(in.members, m)
		server, err := api.NewServer(api.Config{Socket: socket}, api.Deps{
			Membership: m, Cluster: m.Cluster, Doctor: m.Peer, Report: m.Report, Clock: in.clock, Log: quiet(),
		})
		if err != nil {
			return nil, err
		}
		g.Go(func() error { return m.Run(running) })
		g.Go(func() error { return server.Run(running) })
	}
	return in, in.form(running)
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func newMember(dir, socket string, i int, clock shoal.Clock) (*member, error) {
	id, err := links.OpenIdentity(dir, nil)
	if err != nil {
		return nil, err
	}
	m := &member{id: id, socket: socket}
	l, store := links.LAN(), gossip.LAN()
	l.Listen = []string{fmt.Sprintf("127.0.0.%d:%d", 31+i, node.DefaultPort)}
	store.Dir = filepath.Join(dir, "store")
	m.Peer, err = node.NewPeer(node.Parts{
		Identity: id, Links: l, Store: store, Beats: beats.LAN(), Actors: actors.LAN(),
		HostName: fmt.Sprintf("m%d", i), Clock: clock, Rand: rand.Reader, Log: quiet(),
		Engine: func(cluster, self shoal.PeerID) (node.Engines, error) {
			m.twin = runtime.NewTwin(runtime.TwinConfig{
				Cluster: cluster, Peer: self, Images: []string{image},
				Capacity: shoal.Resources{CPUMilli: 1_000_000, MemBytes: 1 << 40},
			}, clock)
			m.witness = &witness{Engine: m.twin, clock: clock, first: map[string]time.Duration{}}
			return node.Engines{Engine: m.witness, Machine: m.twin, Console: m.twin, Puller: m.twin}, nil
		},
	})
	if err == nil {
		m.client, err = api.Dial(socket)
	}
	if err != nil {
		return nil, errors.Join(err, id.Close())
	}
	return m, nil
}

// form makes one cluster and waits until all hear all.
func (in *inside) form(ctx context.Context) error {
	first := in.members[0]
	if _, err := first.Init(ctx, shoal.InitOptions{}); err != nil {
		return err
	}
	for _, m := range in.members[1:] {
		token, err := first.CreateToken(ctx, shoal.TokenOptions{})
		if err != nil {
			return err
		}
		if err := m.Join(ctx, token, shoal.JoinOptions{}); err != nil {
			return err
		}
	}
	return until(ctx, "all peers hear all", func() bool {
		for _, m := range in.members {
			if !m.hears(len(in.members)) {
				return false
			}
		}
		return true
	})
}

// hears reports whether a member hears all, and its socket answers.
func (m *member) hears(all int) bool {
	if _, err := os.Lstat(m.socket); err != nil {
		return false
	}
	v, ok := m.view()
	if !ok || len(v.Peers()) != all {
		return false
	}
	for i := range v.Peers() {
		if p := &v.Peers()[i]; !v.Alive(p.ID) || v.State(p.ID) == nil || p.Facts.Capacity.CPUMilli == 0 {
			return false
		}
	}
	return true
}

func (m *member) view() (*shoal.View, bool) {
	c, ok := m.Cluster()
	if !ok {
		return nil, false
	}
	return c.Views.View(), true
}

// service is what the bench deploys: no ports, no health check, so that ready means
// started; a small share of the machine, so that a hundred have room.
func service(name string, replicas int) shoal.Spec {
	return shoal.Spec{
		Name: name, Image: image, Command: []string{"work", "-every", "1h"},
		Mode: shoal.ModeReplicated, Replicas: replicas, Strategy: shoal.StrategySpread,
		OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
		Limits: shoal.Resources{CPUMilli: 100, MemBytes: 32 << 20}, Reservations: shoal.Resources{CPUMilli: 1, MemBytes: 4 << 20},
	}
}

// until asks every millisecond whether something is so, two minutes at most.
func until(ctx context.Context, what string, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
