// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// TwinEvent is one thing that happened in a [Twin].
type TwinEvent struct {
	At        time.Duration // the clock's Mono
	Kind      string        // create, start, healthy, unhealthy, stop, exit, remove, power-cut
	Service   string
	Replica   shoal.ReplicaID
	Container string
}

// TwinCounts is what happened to one replica's container. More than one start is a
// restart.
type TwinCounts struct{ Creates, Starts, Stops, Exits, Removes int }

// watcher is one call of Events.
type watcher struct {
	queue  []shoal.EngineEvent
	wake   chan struct{} // holds one
	broken bool
}

// Events implements [shoal.Engine].
func (t *Twin) Events(ctx context.Context, fn func(shoal.EngineEvent)) error {
	if err := t.enter(ctx, "watch engine", func(l Latency) time.Duration { return l.Call }); err != nil {
		return err
	}
	w := &watcher{wake: make(chan struct{}, 1)}
	t.mu.Lock()
	t.watchers[w] = true
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.watchers, w)
	}()
	for {
		t.mu.Lock()
		events, broken, hang := w.queue, w.broken, t.hang
		if hang == nil {
			w.queue = nil
		}
		t.mu.Unlock()
		if broken {
			return fmt.Errorf("watch engine: stream broke: %w", shoal.ErrEngineDown)
		}
		if hang == nil {
			for _, e := range events {
				fn(e)
			}
		}
		select {
		case <-w.wake:
		case <-hang:
		case <-ctx.Done():
			return fmt.Errorf("watch engine: %w", ctx.Err())
		}
	}
}

// note counts, remembers and publishes what happened. Callers hold t.mu.
func (t *Twin) note(c *twinContainer, kind, action string) {
	t.history = append(t.history, TwinEvent{
		At: t.clock.Mono(), Kind: kind, Service: c.Service, Replica: c.Replica, Container: c.ID,
	})
	if !c.foreign {
		n := t.counts[c.Replica]
		switch kind {
		case "create":
			n.Creates++
		case "start":
			n.Starts++
		case "stop":
			n.Stops++
		case "exit":
			n.Exits++
		case "remove":
			n.Removes++
		}
		t.counts[c.Replica] = n
	}
	if action != "" {
		t.publish(c, action)
	}
}

// publish queues an event of a container of ours for every watcher. Callers hold t.mu.
func (t *Twin) publish(c *twinContainer, action string) {
	if !c.foreign {
		t.tell(shoal.EngineEvent{Container: c.ID, Replica: c.Replica, Action: action})
	}
}

// tell queues an event for every watcher. Callers hold t.mu.
func (t *Twin) tell(e shoal.EngineEvent) {
	for w := range t.watchers {
		w.queue = append(w.queue, e)
		w.nudge()
	}
}

func (w *watcher) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// breakStreams ends all calls of Events. Callers hold t.mu.
func (t *Twin) breakStreams() {
	for w := range t.watchers {
		w.broken = true
		w.nudge()
	}
}

// Logs implements [shoal.Console].
func (t *Twin) Logs(ctx context.Context, id string, opts shoal.LogOptions, fn func(shoal.LogLine) error) error {
	if err := t.enter(ctx, "read logs", func(l Latency) time.Duration { return l.Call }); err != nil {
		return err
	}
	for next := -1; ; {
		t.mu.Lock()
		c, err := t.own(id)
		if err != nil {
			t.mu.Unlock()
			if next >= 0 && isNotFound(err) {
				return nil // removed while it was followed: that is the end
			}
			return fmt.Errorf("read logs of %s: %w", short(id), err)
		}
		if next < 0 {
			next = firstLine(c.lines, opts)
		}
		lines := slices.Clone(c.lines[next:])
		next = len(c.lines)
		running, printed := c.State == shoal.ContainerRunning, c.printed
		t.mu.Unlock()
		for _, line := range lines {
			if !opts.Until.IsZero() && line.Time.After(opts.Until) {
				return nil
			}
			if err := fn(line); err != nil {
				return err
			}
		}
		if !opts.Follow || !running {
			return nil
		}
		select {
		case <-printed:
		case <-ctx.Done():
			return fmt.Errorf("read logs of %s: %w", short(id), ctx.Err())
		}
	}
}

// firstLine returns where the selected lines begin.
func firstLine(lines []shoal.LogLine, opts shoal.LogOptions) int {
	from := 0
	for from < len(lines) && !opts.Since.IsZero() && lines[from].Time.Before(opts.Since) {
		from++
	}
	if opts.Tail >= 0 {
		from = max(from, len(lines)-opts.Tail)
	}
	return from
}
