// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

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
	late := time.AfterFunc(d.cfg.Quick, cancel)
	messages, failed := c.Events(within, events.ListOptions{Filters: wanted()}) // returns when the answer began
	opened := late.Stop()
	defer func() {
		cancel()
		for range failed { // until the client's goroutine has ended
		}
	}()
	for {
		select {
		case m := <-messages:
			if e, ok := d.eventOf(&m); ok {
				fn(e)
			}
		case err := <-failed:
			if !opened && ctx.Err() == nil {
				d.forget(c, err)
				return fmt.Errorf("%s: no answer within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
			}
			return d.check(ctx, ctx, c, d.cfg.Quick, what, err)
		}
	}
}

// wanted is what the engine is asked to tell. It has no filter for our labels, as that
// would hold for images too, which have none.
func wanted() filters.Args {
	args := filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("type", string(events.ImageEventType)),
	)
	// Not the exec_* events: every run of a health check makes three of them.
	for _, action := range []events.Action{
		events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionOOM, events.ActionStop,
		events.ActionPause, events.ActionUnPause, events.ActionRename, events.ActionDestroy, events.ActionHealthStatus,
		events.ActionLoad, events.ActionPull, events.ActionImport, events.ActionTag, events.ActionUnTag, events.ActionDelete,
	} {
		args.Add("event", string(action))
	}
	return args
}

// eventOf makes an event of what the engine told; !ok: it is about a container that is
// not ours.
func (d *Docker) eventOf(m *events.Message) (e shoal.EngineEvent, ok bool) {
	if m.Type == events.ImageEventType {
		return shoal.EngineEvent{Image: m.Actor.ID, Action: string(m.Action)}, true
	}
	labels := m.Actor.Attributes
	if labels[LabelCluster] != string(d.cfg.Cluster) || labels[LabelPeer] != string(d.cfg.Peer) {
		return shoal.EngineEvent{}, false
	}
	d.changed(m.Actor.ID)
	replica, err := shoal.ParseReplicaID(labels[LabelReplica])
	return shoal.EngineEvent{Container: m.Actor.ID, Replica: replica, Action: string(m.Action)}, err == nil
}
