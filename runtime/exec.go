// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/shoalnet/shoal"
)

const (
	// noDetach is a sequence of keys that nobody types: the engine's own, Ctrl-P
	// Ctrl-Q, would swallow every Ctrl-P until the next key.
	noDetach = "ctrl-@,ctrl-^,ctrl-_,ctrl-@"
	// askAgain is how often the engine is asked for what it does not know yet.
	askAgain = 20 * time.Millisecond
)

var errNotRunning = fmt.Errorf("the container does not run: %w", shoal.ErrConflict)

// demandsOf returns what a command demands of the machine's owner beyond what its
// container was allowed.
func demandsOf(opts *shoal.ExecOptions) []string {
	return (&shoal.Spec{Setup: shoal.Setup{Privileged: opts.Privileged}}).Demands()
}

// Exec implements [shoal.Console]. A container that is not ours is ErrRefused.
func (d *Docker) Exec(ctx context.Context, id string, opts shoal.ExecOptions, t shoal.Terminal) (int, error) {
	what := "run a command in " + short(id)
	input := sync.OnceFunc(func() {
		if t.In != nil {
			_ = t.In.Close() // nobody reads it any more
		}
	})
	defer input()
	if err := opts.Check(); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	if _, err := d.own(ctx, what, id); err != nil {
		return 0, err
	}
	if err := d.gate.admitExec(&opts); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	made, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (container.ExecCreateResponse, error) {
		r, err := c.ContainerExecCreate(ctx, id, execOptions(&opts, t.In != nil))
		if cerrdefs.IsConflict(err) { // stopped, or paused
			err = errNotRunning
		}
		return r, err
	})
	if err != nil {
		return 0, err
	}
	conn, err := d.attach(ctx, what, made.ID, opts.TTY)
	if err != nil {
		return 0, err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(within, func() { _ = conn.Conn.Close() }) // what waits on it returns
	defer stop()
	var sides sync.WaitGroup
	if opts.Stdin && t.In != nil {
		sides.Go(func() {
			_, _ = io.Copy(conn.Conn, t.In) // a command may end without reading it all
			_ = conn.CloseWrite()
		})
	}
	if opts.TTY {
		sides.Go(func() { d.resize(within, made.ID, opts.Size, t.Resize) })
	}
	if opts.TTY {
		_, err = io.Copy(t.Out, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(t.Out, t.Err, conn.Reader)
	}
	cancel()
	input()
	sides.Wait()
	if ctx.Err() != nil || err != nil && !errors.Is(err, net.ErrClosed) {
		return 0, d.check(ctx, ctx, nil, d.cfg.Quick, what, errors.Join(ctx.Err(), err))
	}
	return d.ended(ctx, what, made.ID)
}

// admitExec asks the owner of this machine, as admit does for a container.
func (g *gate) admitExec(opts *shoal.ExecOptions) error {
	rules := []string{}
	if g.rules != nil {
		rules = g.rules()
	}
	if d := shoal.Forbidden(rules, demandsOf(opts)); d != "" {
		return &shoal.PolicyError{Demand: d}
	}
	return nil
}

func execOptions(opts *shoal.ExecOptions, in bool) container.ExecOptions {
	out := container.ExecOptions{
		Cmd: opts.Command, User: opts.User, WorkingDir: opts.WorkDir, Tty: opts.TTY, Privileged: opts.Privileged,
		AttachStdin: opts.Stdin && in, AttachStdout: true, AttachStderr: true, DetachKeys: noDetach,
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Env)) {
		out.Env = append(out.Env, k+"="+opts.Env[k])
	}
	return out
}

// attach starts a command and returns the connection to it. The client library waits
// for the engine's answer without regard to a context, so the connection itself has
// the deadline until it is there.
func (d *Docker) attach(ctx context.Context, what, exec string, tty bool) (types.HijackedResponse, error) {
	return call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (types.HijackedResponse, error) {
		dial := c.Dialer()
		var over func() bool
		own, err := client.NewClientWithOpts(client.WithHost(d.cfg.Host), client.WithVersion(c.ClientVersion()),
			client.WithDialContext(func(context.Context, string, string) (net.Conn, error) {
				conn, err := dial(ctx)
				if err == nil {
					over = context.AfterFunc(ctx, func() { _ = conn.Close() })
				}
				return conn, err
			}))
		if err != nil {
			return types.HijackedResponse{}, err
		}
		r, err := own.ContainerExecAttach(ctx, exec, container.ExecAttachOptions{Tty: tty})
		if over != nil && !over() && err == nil {
			_ = r.Conn.Close() // it is closed, or will be
			err = ctx.Err()
		}
		return r, err
	})
}

// resize gives a command its first size, as soon as it has a terminal, and all later ones.
func (d *Docker) resize(ctx context.Context, exec string, size shoal.WindowSize, sizes <-chan shoal.WindowSize) {
	for {
		if size != (shoal.WindowSize{}) {
			d.sizeTo(ctx, exec, size)
		}
		select {
		case next, ok := <-sizes:
			if !ok {
				return
			}
			size = next
		case <-ctx.Done():
			return
		}
	}
}

// sizeTo resizes, trying for a second: a terminal that was just asked for is not there yet.
func (d *Docker) sizeTo(ctx context.Context, exec string, size shoal.WindowSize) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		err := d.do(ctx, d.cfg.Quick, "resize a terminal", func(ctx context.Context, c *client.Client) error {
			return c.ContainerExecResize(ctx, exec, container.ResizeOptions{Width: uint(size.Width), Height: uint(size.Height)})
		})
		if err == nil || !sleep(ctx, askAgain) {
			return // a wrong size is better than none of the command
		}
	}
}

// ended returns the exit code of a command whose output has ended; the engine may know
// it a moment later.
func (d *Docker) ended(ctx context.Context, what, exec string) (int, error) {
	late, cancel := context.WithTimeout(ctx, d.cfg.Quick)
	defer cancel()
	for {
		r, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (container.ExecInspect, error) {
			return c.ContainerExecInspect(ctx, exec)
		})
		switch {
		case err != nil:
			return 0, err
		case !r.Running:
			return r.ExitCode, nil
		case !sleep(late, askAgain):
			return 0, d.check(ctx, late, nil, d.cfg.Quick, what, late.Err())
		}
	}
}

// sleep waits, and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
