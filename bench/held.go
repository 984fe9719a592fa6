// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"syscall"

	"github.com/shoalnet/shoal/bench/figures"
)

const (
	reachOpen = 10_000 // connections that are held open, if that many files may be
	mostEach  = 20e3   // bytes that one may cost
)

// memories measures what open connections take, each way in processes that did nothing
// before.
func (b *bench) memories(ctx context.Context, s *street) error {
	n, err := mayOpen()
	if err != nil {
		return err
	}
	near, far, err := s.held(ctx, n)
	if err != nil {
		return err
	}
	what, beside := fmt.Sprintf("memory for each of %d open: ", n), figures.Figure{}
	if s.proxy != nil {
		cost, err := b.heldByProxy(ctx, s, n)
		if err != nil {
			return err
		}
		beside = figures.Of(cost, figures.Bytes)
		b.add(figures.NewRow("reach", what+viaHAProxy, 0, one(cost), figures.Bytes))
	}
	for _, r := range []struct {
		name string
		cost float64
	}{{viaLocal, near[0]}, {"remote, asked", far[0]}, {"remote, holder", far[1]}} {
		row := figures.NewRow("reach", what+r.name, 0, one(r.cost), figures.Bytes).Aims("below 20 kB", r.cost < mostEach)
		if beside.Taken {
			row = row.Against(viaHAProxy, beside)
		}
		b.add(row)
	}
	return nil
}

// held returns what each of n open connections costs a peer that holds the replicas, and
// one that does not with the holder.
func (s *street) held(ctx context.Context, n int) (near, far []float64, err error) {
	alone, err := s.peer(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	near, err = each(ctx, alone.Local, n, alone)
	alone.stop()
	if err != nil {
		return nil, nil, fmt.Errorf("local: %w", err)
	}
	holder, err := s.peer(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	defer holder.stop()
	here, err := s.peer(ctx, holder.Host)
	if err != nil {
		return nil, nil, err
	}
	defer here.stop()
	if far, err = each(ctx, here.Remote, n, here, holder); err != nil {
		return nil, nil, fmt.Errorf("remote: %w", err)
	}
	return near, far, nil
}

func (b *bench) heldByProxy(ctx context.Context, s *street, n int) (float64, error) {
	proxy, err := startHAProxy(ctx, b.dir, s.replicas.Replicas)
	if err != nil {
		return 0, err
	}
	defer proxy.stop()
	costs, err := each(ctx, proxy.Local, n, proxy)
	if err != nil {
		return 0, fmt.Errorf("haproxy: %w", err)
	}
	return costs[0], nil
}

// mayOpen returns how many connections can be carried at once: each takes two files, and
// a process has some others.
func mayOpen() (int, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("ask for the limit of open files: %w", err)
	}
	const others = 600
	return int(min(reachOpen, (max(files.Max, 2*others)-others)/2)), nil
}

// each returns the bytes of memory that each of n open connections costs the parts that
// carry it.
func each(ctx context.Context, address string, n int, parts ...*part) ([]float64, error) {
	idle, most := make([]int64, len(parts)), make([]int64, len(parts))
	look := func(at []int64) (err error) {
		for i, p := range parts {
			if at[i], err = p.rss(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := look(idle); err != nil {
		return nil, err
	}
	if err := holdOpen(ctx, address, n, func() error { return look(most) }); err != nil {
		return nil, err
	}
	out := make([]float64, len(parts))
	for i := range parts {
		out[i] = float64(most[i]-idle[i]) / float64(n)
	}
	return out, nil
}
