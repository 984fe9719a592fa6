// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/events"

	"github.com/shoalnet/shoal"
)

// Events implements [shoal.Engine]. Reconnecting is the caller's. A stream that is
// open and silent because the engine hangs is not noticed here: the periodic List is.
func (d *Docker) Events(ctx context.Context, fn func(shoal.EngineEvent)) error {
	const what = "watch engine"
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := d.connectWithin(within)
	if err != nil {
		return d.check(ctx, ctx, nil, d.cfg.Quick, what, err)
	}
	args := d.ours()
	args.Add("type", string(events.ContainerEventType))
	// Not the exec_* events: every run of a health check makes three of them.
	for _, action := range []events.Action{
		events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionOOM, events.ActionStop,
		events.ActionPause, events.ActionUnPause, events.ActionRename, events.ActionDestroy, events.ActionHealthStatus,
	} {
		args.Add("event", string(action))
	}
	late := time.AfterFunc(d.cfg.Quick, cancel)
	messages, failed := c.Events(within, events.ListOptions{Filters: args}) // returns when the answer began
	opened := late.Stop()
	defer func() {
		cancel()
		for range failed { // until the client's goroutine has ended
		}
	}()
	for {
		select {
		case m := <-messages:
			d.changed(m.Actor.ID)
			replica, err := shoal.ParseReplicaID(m.Actor.Attributes[LabelReplica])
			if err != nil {
				continue
			}
			fn(shoal.EngineEvent{Container: m.Actor.ID, Replica: replica, Action: string(m.Action)})
		case err := <-failed:
			if !opened && ctx.Err() == nil {
				d.forget(c, err)
				return fmt.Errorf("%s: no answer within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
			}
			return d.check(ctx, ctx, c, d.cfg.Quick, what, err)
		}
	}
}
