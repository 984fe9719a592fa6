// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

// What every container of a [Twin] uses of which nothing else was said; it computes nothing.
const (
	twinCPU = 10
	twinMem = 4 << 20
)

// SetUse says what each running container of a service uses from now on.
func (t *Twin) SetUse(service string, u shoal.Usage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.uses == nil {
		t.uses = map[string]shoal.Usage{}
	}
	t.uses[service] = u
}

// Check implements [shoal.Console]: what its program says, once the health was judged.
func (t *Twin) Check(ctx context.Context, id string) (string, error) {
	what := "read the health check of " + short(id)
	if err := t.enter(ctx, what, func(l Latency) time.Duration { return l.Call }); err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.own(id)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", what, err)
	case c.Health == shoal.HealthHealthy || c.Health == shoal.HealthUnhealthy:
		return c.program.CheckSays, nil
	}
	return "", nil
}

// Measure implements [shoal.Console]: what SetUse said, else the same for every container
// that runs.
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
	if u, ok := t.uses[c.Service]; ok {
		return u, nil
	}
	return shoal.Usage{CPUMilli: twinCPU, MemBytes: twinMem}, nil
}
