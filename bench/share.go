// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/bench/figures"
)

const noteShare = "our own share of a deploy of 3 replicas on 3 peers, from the wish accepted to create issued on every holder. " +
	"The peers are whole ones in one process; only the engine is the in-memory one, as its time is not ours."

// share deploys three replicas on three peers, again and again, and takes the time
// until every holder's engine has been asked to create its container.
func (b *bench) share(ctx context.Context) (err error) {
	const peers = 3
	in, err := b.startInside(ctx, "share", peers)
	if err != nil {
		return err
	}
	defer func() {
		if closing := in.close(); err == nil {
			err = closing
		}
	}()
	if err := sleep(ctx, graceTime); err != nil {
		return err
	}
	var accept, ours figures.Series
	for i := range b.shares {
		asked, accepted, created, err := in.deployOnce(ctx, in.members[i%peers], fmt.Sprintf("s%d", i))
		if err != nil {
			return err
		}
		accept.AddTime(accepted - asked)
		ours.AddTime(created - accepted)
	}
	row := figures.NewRow("share", "deploy 3: accepted to create issued", peers, &ours, figures.Seconds)
	b.add(
		figures.NewRow("share", "deploy 3: asked to accepted", peers, &accept, figures.Seconds),
		row.Aims("p99 below 50 ms", row.P99.Value < 0.05),
	)
	return nil
}

// deployOnce deploys and removes one service and returns, on the cluster's clock, when
// it was asked for, when that was accepted, and when the last create was issued.
func (in *inside) deployOnce(ctx context.Context, at *member, name string) (asked, accepted, created time.Duration, err error) {
	c, ok := at.Cluster()
	if !ok {
		return 0, 0, 0, shoal.ErrNotMember
	}
	spec := service(name, len(in.members))
	spec.MaxPerPeer = 1
	asked = in.clock.Mono()
	if _, err := c.Wishes.Submit(ctx, shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{spec}}}, shoal.UpdateOptions{}); err != nil {
		return 0, 0, 0, err
	}
	accepted = in.clock.Mono()
	if err := until(ctx, "all creates are issued", func() bool { created = in.lastCreate(name); return created != 0 }); err != nil {
		return 0, 0, 0, err
	}
	if _, err := c.Wishes.Submit(ctx, shoal.Wish{Remove: &shoal.RemoveWish{Services: []string{name}}}, shoal.UpdateOptions{}); err != nil {
		return 0, 0, 0, err
	}
	return asked, accepted, created, until(ctx, "all containers are gone", func() bool {
		for _, m := range in.members {
			if n, _ := m.twin.Running(name); n > 0 {
				return false
			}
		}
		return true
	})
}

// lastCreate returns when the last of all holders was asked to create, 0 if one was not yet.
func (in *inside) lastCreate(service string) time.Duration {
	last := time.Duration(0)
	for _, m := range in.members {
		at := m.witness.asked(service)
		if at == 0 {
			return 0
		}
		last = max(last, at)
	}
	return last
}

// witness is an engine that notes when it was first asked to create a container of
// each service.
type witness struct {
	shoal.Engine
	clock shoal.Clock

	mu    sync.Mutex // guards first
	first map[string]time.Duration
}

// Create implements shoal.Engine.
func (w *witness) Create(ctx context.Context, spec shoal.ContainerSpec) (string, error) {
	now := w.clock.Mono()
	w.mu.Lock()
	if _, ok := w.first[spec.Spec.Name]; !ok {
		w.first[spec.Spec.Name] = now
	}
	w.mu.Unlock()
	return w.Engine.Create(ctx, spec)
}

func (w *witness) asked(service string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first[service]
}
