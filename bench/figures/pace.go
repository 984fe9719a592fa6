// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package figures

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxFlying is how many calls may be under way at once. More means that the rate is
// beyond what is measured, and no percentile of it says anything.
const maxFlying = 1000

// ErrTooSlow means that calls took so long that they piled up.
var ErrTooSlow = errors.New("cannot keep up with the offered rate")

// Pace calls do n times, rate times a second, each on time whatever the earlier ones
// take (an open loop), and returns when the last has ended. The first error ends it.
func Pace(ctx context.Context, rate float64, n int, do func(ctx context.Context, i int) error) error {
	every := time.Duration(float64(time.Second) / rate)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxFlying)
	begin := time.Now()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for i := range n {
		wait.Reset(time.Until(begin.Add(time.Duration(i) * every)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			return errors.Join(g.Wait(), context.Cause(ctx))
		}
		if !g.TryGo(func() error { return do(ctx, i) }) {
			g.Go(func() error { return fmt.Errorf("%d calls under way: %w", maxFlying, ErrTooSlow) })
			break
		}
	}
	return g.Wait()
}
