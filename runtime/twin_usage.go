// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

// What every container of a [Twin] uses; it computes nothing.
const (
	twinCPU = 10
	twinMem = 4 << 20
)

// Measure implements [shoal.Console]: the same for every container that runs.
func (t *Twin) Measure(ctx context.Context, id string) (shoal.Usage, error) {
	what := "measure " + short(id)
	if err := t.enter(ctx, what, func(l Latency) time.Duration { return l.Call }); err != nil {
		return shoal.Usage{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.own(id)
	if err != nil {
		return shoal.Usage{}, fmt.Errorf("%s: %w", what, err)
	}
	if c.State != shoal.ContainerRunning {
		return shoal.Usage{}, fmt.Errorf("%s: %w", what, errNotRunning)
	}
	return shoal.Usage{CPUMilli: twinCPU, MemBytes: twinMem}, nil
}
