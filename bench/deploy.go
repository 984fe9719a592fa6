// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/bench/figures"
	"github.com/shoalnet/shoal/runtime"
)

const noteDeploy = "3 built daemons share this machine's one engine. From asking one of them to its word that exactly n are ready, or to the " +
	"engine's that the rest is gone. Beside it, in turn: the same containers, with the configuration that a daemon gave its own, created, " +
	"started, stopped and removed straight on the engine, 4 creates or starts at a time for each of 3 peers as the daemons do. p99 is the worst round."

// closeTo is how much longer than the engine alone a change may take (DESIGN.md section 14).
const closeTo = 1.2

// step is one change of the number of replicas of one service.
type step struct {
	what     string
	from, to int
	ours     figures.Series
	engine   figures.Series
}

// deploys measures deploy, scale and remove beside the engine alone.
func (b *bench) deploys(ctx context.Context) error {
	d, err := b.settled(ctx)
	if err != nil {
		return err
	}
	alone, err := d.template(ctx)
	if err != nil {
		return d.explain(ctx, err)
	}
	small := []*step{
		{what: "deploy 3", to: 3}, {what: "scale 3 to 10", from: 3, to: 10}, {what: "scale 10 to 5", from: 10, to: 5}, {what: "remove 5", from: 5},
	}
	if err := d.rounds(ctx, alone, b.rounds, small); err != nil {
		return d.explain(ctx, err)
	}
	all := small
	for _, n := range b.large {
		large := []*step{{what: fmt.Sprintf("deploy %d", n), to: n}, {what: fmt.Sprintf("remove %d", n), from: n}}
		if err := d.rounds(ctx, alone, max(b.rounds/3, 1), large); err != nil {
			return d.explain(ctx, err)
		}
		all = append(all, large...)
	}
	for _, s := range all {
		row := figures.NewRow("deploy", s.what, daemonCount, &s.ours, figures.Seconds)
		row = row.Against("engine alone", figures.Of(s.engine.At(50), figures.Seconds))
		b.add(row.Aims(fmt.Sprintf("ratio at most %.1f", closeTo), row.Ratio.Value <= closeTo))
	}
	return nil
}

// explain adds what the daemons said last.
func (d *daemons) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil { // they are not to blame
		return err
	}
	return fmt.Errorf("%w%s", err, d.lastWords())
}

// template has one replica started, to copy its container.
func (d *daemons) template(ctx context.Context) (*direct, error) {
	const name = "warm"
	if err := d.change(ctx, name, 0, 0, 1); err != nil {
		return nil, err
	}
	found, err := d.engine.having(ctx, d.label(), runtime.LabelService+"="+name)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d containers of 1 replica", len(found))
	}
	alone, err := d.engine.copyOf(ctx, found[0].ID, d.cluster, daemonCount)
	return alone, errors.Join(err, d.change(ctx, name, 0, 1, 0))
}

func (d *daemons) label() string { return runtime.LabelCluster + "=" + d.cluster }

// rounds takes the steps n times, ours and the engine's in turn, each first every
// other time.
func (d *daemons) rounds(ctx context.Context, alone *direct, n int, steps []*step) error {
	for round := range n {
		name := fmt.Sprintf("round-%d-%d", steps[0].to, round)
		ours := func() error {
			for i, s := range steps {
				begin := time.Now()
				if err := d.change(ctx, name, (round+i)%daemonCount, s.from, s.to); err != nil {
					return fmt.Errorf("%s: %w", s.what, err)
				}
				s.ours.AddTime(time.Since(begin))
			}
			return nil
		}
		engine := func() error {
			for _, s := range steps {
				begin := time.Now()
				do, by := alone.start, s.to-s.from
				if by < 0 {
					do, by = alone.stop, -by
				}
				if err := do(ctx, by); err != nil {
					return fmt.Errorf("%s on the engine alone: %w", s.what, err)
				}
				s.engine.AddTime(time.Since(begin))
			}
			return nil
		}
		first, second := ours, engine
		if round%2 == 1 {
			first, second = engine, ours
		}
		if err := first(); err != nil {
			return err
		}
		if err := second(); err != nil {
			return err
		}
	}
	return nil
}

// change asks one daemon for a number of replicas and returns when it is so.
func (d *daemons) change(ctx context.Context, name string, asked, from, to int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c := d.list[asked].client
	var err error
	switch {
	case from == 0:
		_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{service(name, to)}}, api.WishOptions{})
	case to == 0:
		_, err = c.Remove(ctx, shoal.RemoveWish{Services: []string{name}}, api.WishOptions{})
	default:
		_, err = c.Scale(ctx, []shoal.ScaleTarget{{Service: name, N: to}}, api.WishOptions{})
	}
	if err != nil {
		return err
	}
	if err := d.await(ctx, c, name, to); err != nil || to > from {
		return err
	}
	// The word of a peer that replicas have ended may come before their containers are gone.
	return until(ctx, "the containers are gone", func() bool {
		left, err := d.engine.having(ctx, d.label(), runtime.LabelService+"="+name)
		return err == nil && len(left) == to
	})
}

var errEnough = errors.New("seen enough")

// await watches a service as the command does until exactly n are ready.
func (d *daemons) await(ctx context.Context, c *api.Client, name string, n int) error {
	err := c.Watch(ctx, []string{name}, func(all []api.Progress, _ api.Freshness) error {
		for _, p := range all {
			if p.Trouble != "" {
				return errors.New(p.Trouble)
			}
			if p.Service.Name == name && p.Settled && p.Exists == (n > 0) && (n == 0 || p.Service.Ready == n) {
				return errEnough
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("the watch of %s ended", name)
	}
	return err
}
