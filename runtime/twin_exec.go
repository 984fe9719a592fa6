// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

// Exec implements [shoal.Console]: it calls what the container's [Program] has for it.
func (t *Twin) Exec(ctx context.Context, id string, opts shoal.ExecOptions, term shoal.Terminal) (int, error) {
	if term.In != nil {
		defer func() { _ = term.In.Close() }() // nobody reads it any more
	}
	what := "run a command in " + short(id)
	if err := t.enter(ctx, what, func(l Latency) time.Duration { return l.Call }); err != nil {
		return 0, err
	}
	run, ended, err := t.inside(id, &opts)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	if run == nil {
		_, _ = fmt.Fprintf(term.Out, "exec: %q: executable file not found in $PATH\r\n", opts.Command[0]) // the code says it all
		return 127, nil
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan int, 1)
	go func() { done <- run(within, opts, term) }()
	code := 0
	select {
	case code = <-done:
	case <-ended:
		cancel()
		<-done
		code = 137
	}
	if ctx.Err() != nil {
		return 0, fmt.Errorf("%s: %w", what, ctx.Err())
	}
	return code, nil
}

// inside returns what runs commands in a container, and what is closed at its end.
func (t *Twin) inside(id string, opts *shoal.ExecOptions) (func(context.Context, shoal.ExecOptions, shoal.Terminal) int, <-chan struct{}, error) {
	if err := opts.Check(); err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.own(id)
	if err != nil {
		return nil, nil, err
	}
	if d := shoal.Forbidden(t.rules, demandsOf(opts)); d != "" {
		return nil, nil, &shoal.PolicyError{Demand: d}
	}
	if c.State != shoal.ContainerRunning {
		return nil, nil, errNotRunning
	}
	return c.program.Exec, c.ended, nil
}
