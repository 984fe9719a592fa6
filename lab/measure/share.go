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
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/node"
	"github.com/shoalnet/shoal/runtime"
)

const (
	image = "hello:1"
	peers = 3
)

// member is one peer of the measurement.
type member struct {
	*node.Peer
	id   *links.Identity
	twin *runtime.Twin
}

// measureShare deploys three replicas on three peers, again and again, and takes the
// time until every holder's engine has been asked to create its container.
func measureShare(ctx context.Context, deploys int) (out []*series, err error) {
	dir, err := os.MkdirTemp("", "shoal-measure-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		err = errors.Join(err, g.Wait())
	}()
	clock := shoal.NewSystemClock()
	var all []*member
	for i := range peers {
		m, err := newMember(filepath.Join(dir, fmt.Sprint(i)), i, clock)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, m.id.Close()) }()
		g.Go(func() error { return m.Run(ctx) })
		all = append(all, m)
	}
	if err := form(ctx, all); err != nil {
		return nil, err
	}
	accept := &series{what: "a wish written, signed and synced", aim: "-"}
	create := &series{what: "wish asked to create issued on every holder", aim: "-"}
	ours := &series{what: "wish accepted to create issued on every holder", aim: "p99 below 50 ms"}
	for i := range deploys {
		asked, accepted, created, err := deployOnce(ctx, all, all[i%peers], fmt.Sprintf("s%d", i), clock)
		if err != nil {
			return nil, err
		}
		accept.times = append(accept.times, accepted-asked)
		create.times = append(create.times, created-asked)
		ours.times = append(ours.times, created-accepted)
	}
	return []*series{accept, create, ours}, nil
}

func newMember(dir string, i int, clock shoal.Clock) (*member, error) {
	id, err := links.OpenIdentity(dir, nil)
	if err != nil {
		return nil, err
	}
	m := &member{id: id}
	l, store := links.LAN(), gossip.LAN()
	l.Listen = []string{fmt.Sprintf("127.0.0.%d:%d", 31+i, node.DefaultPort)}
	store.Dir = filepath.Join(dir, "store")
	m.Peer, err = node.NewPeer(node.Parts{
		Identity: id, Links: l, Store: store, Beats: beats.LAN(), Actors: actors.LAN(),
		HostName: fmt.Sprintf("m%d", i), Clock: clock, Rand: rand.Reader,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Engine: func(cluster, self shoal.PeerID) (node.Engines, error) {
			m.twin = runtime.NewTwin(runtime.TwinConfig{Cluster: cluster, Peer: self, Images: []string{image}}, clock)
			return node.Engines{Engine: m.twin, Machine: m.twin, Console: m.twin, Puller: m.twin}, nil
		},
	})
	return m, err
}

// form makes one cluster and waits until all hear all, and the boot grace is over.
func form(ctx context.Context, all []*member) error {
	if _, err := all[0].Init(ctx, shoal.InitOptions{}); err != nil {
		return err
	}
	for _, m := range all[1:] {
		token, err := all[0].CreateToken(ctx, shoal.TokenOptions{})
		if err != nil {
			return err
		}
		if err := m.Join(ctx, token, shoal.JoinOptions{}); err != nil {
			return err
		}
	}
	if err := until(ctx, func() bool {
		for _, m := range all {
			c, ok := m.Cluster()
			if !ok {
				return false
			}
			v := c.Views.View()
			for i := range v.Peers() {
				if p := &v.Peers()[i]; !v.Alive(p.ID) || v.State(p.ID) == nil || p.Facts.Capacity.CPUMilli == 0 {
					return false
				}
			}
			if len(v.Peers()) != len(all) {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	select {
	case <-time.After(12 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deployOnce deploys and removes one service and returns, on the shared clock, when
// it was asked for, when that was accepted, and when the last create was issued.
func deployOnce(ctx context.Context, all []*member, at *member, name string, clock shoal.Clock) (asked, accepted, created time.Duration, err error) {
	c, ok := at.Cluster()
	if !ok {
		return 0, 0, 0, shoal.ErrNotMember
	}
	spec := shoal.Spec{
		Name: name, Image: image, Mode: shoal.ModeReplicated, Replicas: peers, Strategy: shoal.StrategySpread,
		OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny}, MaxPerPeer: 1,
	}
	asked = clock.Mono()
	if _, err := c.Wishes.Submit(ctx, shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{spec}}}, shoal.UpdateOptions{}); err != nil {
		return 0, 0, 0, err
	}
	accepted = clock.Mono()
	if err := until(ctx, func() bool { created = lastCreate(all, name); return created != 0 }); err != nil {
		return 0, 0, 0, err
	}
	if _, err := c.Wishes.Submit(ctx, shoal.Wish{Remove: &shoal.RemoveWish{Services: []string{name}}}, shoal.UpdateOptions{}); err != nil {
		return 0, 0, 0, err
	}
	return asked, accepted, created, until(ctx, func() bool {
		for _, m := range all {
			if n, _ := m.twin.Running(name); n > 0 {
				return false
			}
		}
		return true
	})
}

// lastCreate returns when the last of all holders was asked to create, 0 if one was not yet.
func lastCreate(all []*member, service string) time.Duration {
	last := time.Duration(0)
	for _, m := range all {
		found := false
		for _, e := range m.twin.History() {
			if e.Kind == "create" && e.Service == service {
				last, found = max(last, e.At), true
			}
		}
		if !found {
			return 0
		}
	}
	return last
}

// until asks every millisecond whether something is so.
func until(ctx context.Context, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !so() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait: %w", ctx.Err())
		}
	}
	return nil
}
