// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/bench/figures"
)

const noteWrite = "a write is a deploy of a changed service, asked for over the control socket until ok: signed and synced to disk. " +
	"20 are offered a second (open loop), to all peers in turn. Visible: from ok to in the folded state that every peer's listings show. " +
	"All peers are whole ones in one process on loopback, each with its own store on disk; the wishes place nothing."

const (
	rate = 20.0 // offered writes a second
	flat = 1.5  // what still counts as flat: p50 to that of one peer, all on one machine
)

const localWrite = "local write, 20/s"

var clusterSizes = []int{1, 3, 5, 9}

// writes measures durable writes, and when all peers see them, by number of peers.
func (b *bench) writes(ctx context.Context) error {
	var local, seen []figures.Row
	for _, n := range clusterSizes {
		l, s, err := b.writeTo(ctx, n)
		if err != nil {
			return fmt.Errorf("%d peers: %w", n, err)
		}
		write := figures.NewRow("write", localWrite, n, l, figures.Seconds)
		all := figures.NewRow("write", "visible on all peers", n, s, figures.Seconds)
		if n > 1 {
			write = write.Against("1 peer", local[0].P50)
			write = write.Aims(fmt.Sprintf("flat: ratio at most %.1f", flat), write.Ratio.Value <= flat)
			all = all.Aims("p99 below 1 s", all.P99.Value < 1)
		}
		local, seen = append(local, write), append(seen, all)
	}
	b.add(local...)
	b.add(seen...)
	return nil
}

func (b *bench) writeTo(ctx context.Context, n int) (local, seen *figures.Series, err error) {
	in, err := b.startInside(ctx, fmt.Sprintf("write-%d", n), n)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if closing := in.close(); err == nil {
			err = closing
		}
	}()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	sights := newSights(n)
	g, watching := errgroup.WithContext(watching)
	for i, m := range in.members {
		g.Go(func() error { return sights.watch(watching, i, m) })
	}
	local, seen = &figures.Series{}, &figures.Series{}
	var mu sync.Mutex // guards accepted
	accepted := make(map[edition]time.Time)
	write := func(ctx context.Context, i int) error {
		e := edition{by: i % n, number: i/n + 1}
		spec := service(e.name(), 0)
		spec.Env = map[string]string{"EDITION": fmt.Sprint(e.number)}
		from := time.Now()
		_, err := in.members[e.by].client.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{spec}}, api.WishOptions{})
		ok := time.Now()
		local.AddTime(ok.Sub(from))
		mu.Lock()
		accepted[e] = ok
		mu.Unlock()
		return err
	}
	if err := figures.Pace(ctx, rate, int(b.writing.Seconds()*rate), write); err != nil {
		return nil, nil, err
	}
	if err := until(ctx, "all peers see all writes", func() bool { return sights.complete(accepted) }); err != nil {
		return nil, nil, err
	}
	stop()
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for e, ok := range accepted {
		seen.AddTime(max(sights.last(e).Sub(ok), 0))
	}
	return local, seen, nil
}

// edition is one write: the number-th version of the service of one peer's own, so
// that no two peers write the same one at once.
type edition struct{ by, number int }

func (e edition) name() string { return fmt.Sprintf("probe-%d", e.by) }

// sights are when each peer first showed each edition.
type sights struct {
	peers int

	mu    sync.Mutex // guards first
	first map[edition]map[int]time.Time
}

func newSights(peers int) *sights {
	return &sights{peers: peers, first: map[edition]map[int]time.Time{}}
}

// watch notes what one peer's view shows, at every change of it, until ctx ends.
func (s *sights) watch(ctx context.Context, peer int, m *member) error {
	c, ok := m.Cluster()
	if !ok {
		return shoal.ErrNotMember
	}
	shown := make([]int, s.peers)
	for {
		changed := c.Views.Changed()
		v, now := c.Views.View(), time.Now()
		for by := range shown {
			svc, ok := v.Service(edition{by: by}.name())
			if !ok {
				continue
			}
			for ; shown[by] < int(svc.Revision.Seq); shown[by]++ {
				s.see(edition{by, shown[by] + 1}, peer, now)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *sights) see(e edition, peer int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first[e] == nil {
		s.first[e] = map[int]time.Time{}
	}
	s.first[e][peer] = at
}

// complete reports whether every peer showed every one of these.
func (s *sights) complete(all map[edition]time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range all {
		if len(s.first[e]) != s.peers {
			return false
		}
	}
	return true
}

// last returns when the last peer showed an edition.
func (s *sights) last(e edition) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last time.Time
	for _, at := range s.first[e] {
		if at.After(last) {
			last = at
		}
	}
	return last
}
