// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// Start implements [shoal.Engine]. A container that is not ours is ErrRefused.
func (d *Docker) Start(ctx context.Context, id string) error {
	what := "start container " + short(id)
	if _, err := d.own(ctx, what, id); err != nil {
		return err
	}
	defer d.changed(id)
	return d.do(ctx, d.cfg.Slow, what, func(ctx context.Context, c *client.Client) error {
		return c.ContainerStart(ctx, id, container.StartOptions{})
	})
}

// Stop implements [shoal.Engine]. The engine counts the grace in whole seconds; it
// is rounded up. A container that is not ours is ErrRefused.
func (d *Docker) Stop(ctx context.Context, id, signal string, grace time.Duration) error {
	what := "stop container " + short(id)
	_, err := d.own(ctx, what, id)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.changed(id)
	timeout := seconds(grace)
	limit := time.Duration(timeout)*time.Second + d.cfg.StopMargin
	err = d.do(ctx, limit, what, func(ctx context.Context, c *client.Client) error {
		if signal != "" && versions.LessThan(c.ClientVersion(), "1.42") {
			return stopBySignal(ctx, c, id, signal, time.Duration(timeout)*time.Second)
		}
		return c.ContainerStop(ctx, id, container.StopOptions{Signal: signal, Timeout: &timeout})
	})
	if isNotFound(err) {
		return nil
	}
	return err
}

// stopBySignal does what ContainerStop does with a signal of the caller's choice,
// which the API before 1.42 cannot be told.
func stopBySignal(ctx context.Context, c *client.Client, id, signal string, grace time.Duration) error {
	if err := c.ContainerKill(ctx, id, signal); err != nil {
		if cerrdefs.IsConflict(err) { // it does not run
			return nil
		}
		return err
	}
	within, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	exited, failed := c.ContainerWait(within, id, container.WaitConditionNotRunning)
	select {
	case <-exited:
		return nil
	case err := <-failed:
		if within.Err() == nil {
			return err
		}
	}
	none := 0
	return c.ContainerStop(ctx, id, container.StopOptions{Timeout: &none})
}

// Remove implements [shoal.Engine]. A container that is not ours is ErrRefused.
func (d *Docker) Remove(ctx context.Context, id string) error {
	what := "remove container " + short(id)
	_, err := d.own(ctx, what, id)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.changed(id)
	err = d.do(ctx, d.cfg.Slow, what, func(ctx context.Context, c *client.Client) error {
		err := c.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true})
		if cerrdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress") {
			return nil // another call removes it; the engine has no code of its own for this
		}
		return err
	})
	if isNotFound(err) {
		return nil
	}
	return err
}

// own returns whose a container is. Absent: ErrNotFound; not ours: ErrRefused. It
// asks the engine's list, not the container, whose lock a start may hold for long;
// labels never change, so it asks once.
func (d *Docker) own(ctx context.Context, what, id string) (identity, error) {
	if !fullID(id) {
		return identity{}, fmt.Errorf("%s: %w", what, shoal.ErrNotFound)
	}
	d.mu.Lock()
	k := d.known[id]
	d.mu.Unlock()
	if k != nil {
		return k.identity, nil
	}
	found, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]container.Summary, error) {
		return c.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("id", id))})
	})
	if err != nil {
		return identity{}, err
	}
	if len(found) != 1 || found[0].ID != id {
		return identity{}, fmt.Errorf("%s: %w", what, shoal.ErrNotFound)
	}
	who, err := identify(found[0].Labels)
	if err != nil || who.cluster != d.cfg.Cluster || who.peer != d.cfg.Peer {
		return identity{}, fmt.Errorf("%s: not a container of this peer: %w", what, shoal.ErrRefused)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known[id] == nil {
		d.known[id] = &knowledge{identity: who}
	}
	return who, nil
}

// fullID reports whether id is an engine's full container ID; names and prefixes
// could be somebody else's.
func fullID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}
