// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
)

// measuring is how many containers are measured at once: each costs the engine two
// readings of its counters, and a second.
const measuring = 16

// Usage measures every replica here that runs. What ends meanwhile is left out.
func (s *System) Usage(ctx context.Context) ([]shoal.Usage, error) {
	return measureAll(ctx, s.deps.Console, s.board.running(), func(_ *shoal.ReplicaStatus, err error) error { return err })
}

// measureAll measures replicas. One that ended meanwhile is left out; so is one that cannot
// be measured, unless judge returns an error, which ends it all.
func measureAll(ctx context.Context, console shoal.Console, running []shoal.ReplicaStatus, judge func(*shoal.ReplicaStatus, error) error) ([]shoal.Usage, error) {
	out := make([]shoal.Usage, len(running))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(measuring)
	for i := range running {
		g.Go(func() error {
			u, err := console.Measure(ctx, running[i].Container)
			switch {
			case errors.Is(err, shoal.ErrNotFound) || errors.Is(err, shoal.ErrConflict):
				return nil
			case err != nil:
				return judge(&running[i], err)
			}
			u.Replica = running[i].ID
			out[i] = u
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	kept := out[:0]
	for _, u := range out {
		if u.Replica != (shoal.ReplicaID{}) {
			kept = append(kept, u)
		}
	}
	return kept, nil
}
