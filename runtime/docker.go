// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// minAPI is the oldest engine API that this room was tested with (Engine 20.10).
const minAPI = "1.41"

var (
	_ shoal.Engine     = (*Docker)(nil)
	_ shoal.Machine    = (*Docker)(nil)
	_ shoal.Console    = (*Docker)(nil)
	_ shoal.ImageStore = (*Docker)(nil)
	_ shoal.Networks   = (*Docker)(nil)
	_ shoal.Engine     = (*Twin)(nil)
	_ shoal.Machine    = (*Twin)(nil)
	_ shoal.Console    = (*Twin)(nil)
	_ shoal.ImageStore = (*Twin)(nil)
	_ shoal.Networks   = (*Twin)(nil)
	_ shoal.Puller     = (*Twin)(nil)
	_ shoal.Puller     = (*Puller)(nil)
)

// Docker is a Docker Engine as shoal.Engine, shoal.Machine, shoal.Console,
// shoal.ImageStore and shoal.Networks. It is safe for concurrent use, holds no connection open but for
// idle ones, and finds the engine again by itself when it comes back, also in another
// version.
type Docker struct {
	cfg   Config
	clock shoal.Clock
	log   *slog.Logger
	gate  gate

	client atomic.Pointer[client.Client] // nil: negotiate before the next call
	making chan struct{}                 // holds one while a network is looked for and made
	apart  atomic.Pointer[bool]          // what Apart learned; nil: not asked yet

	mu    sync.Mutex // guards what follows; never held across a call
	api   string     // negotiated last
	known map[string]*knowledge
	used  map[string]cpuSample
}

// NewDocker returns the engine at cfg.Host; it need not answer yet.
func NewDocker(cfg Config, clock shoal.Clock, log *slog.Logger) (*Docker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.defaults()
	if err := CheckHost(cfg.Host); err != nil {
		return nil, err
	}
	return &Docker{
		cfg: cfg, clock: clock, log: log, gate: newGate(&cfg), making: make(chan struct{}, 1),
		known: make(map[string]*knowledge), used: make(map[string]cpuSample),
	}, nil
}

// CheckHost returns a *shoal.InvalidError if host can be no engine's address.
func CheckHost(host string) error {
	if _, err := client.ParseHostURL(host); err != nil {
		return &shoal.InvalidError{Field: "docker", Why: fmt.Sprintf("must be an engine's address like %s, got %q", DefaultHost, host)}
	}
	return nil
}

// Close closes idle connections. Calls after it open new ones.
func (d *Docker) Close() error {
	if c := d.client.Swap(nil); c != nil {
		return c.Close()
	}
	return nil
}

// connect returns a client that speaks the engine's API version. The client library
// negotiates once and then only downwards; an engine that was replaced meanwhile
// needs a new client, so one that failed is thrown away (see check).
func (d *Docker) connect(ctx context.Context) (*client.Client, error) {
	if c := d.client.Load(); c != nil {
		return c, nil
	}
	c, err := client.NewClientWithOpts(client.WithHost(d.cfg.Host))
	if err != nil {
		return nil, err
	}
	ping, err := c.Ping(ctx)
	if err != nil {
		_ = c.Close() // it closes idle connections only
		return nil, err
	}
	if ping.APIVersion == "" || versions.LessThan(ping.APIVersion, minAPI) {
		_ = c.Close() // as above
		return nil, fmt.Errorf("engine speaks API %q, %s or newer is needed: %w", ping.APIVersion, minAPI, shoal.ErrEngineDown)
	}
	c.NegotiateAPIVersionPing(ping)
	if !d.client.CompareAndSwap(nil, c) {
		if first := d.client.Load(); first != nil { // somebody else was faster
			_ = c.Close() // it closes idle connections only
			return first, nil
		}
		return c, nil
	}
	d.mu.Lock()
	was := d.api
	d.api = c.ClientVersion()
	d.mu.Unlock()
	if was != c.ClientVersion() {
		d.log.Info("engine answers", "host", d.cfg.Host, "api", c.ClientVersion())
	}
	return c, nil
}

// call asks the engine within a deadline. what is the beginning of the error.
func call[T any](ctx context.Context, d *Docker, limit time.Duration, what string, fn func(context.Context, *client.Client) (T, error)) (T, error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out T
	c, err := d.connect(within)
	if err == nil {
		out, err = fn(within, c)
	}
	return out, d.check(ctx, within, c, limit, what, err)
}

// do is call for what answers with an error only.
func (d *Docker) do(ctx context.Context, limit time.Duration, what string, fn func(context.Context, *client.Client) error) error {
	_, err := call(ctx, d, limit, what, func(ctx context.Context, c *client.Client) (struct{}, error) {
		return struct{}{}, fn(ctx, c)
	})
	return err
}

// check puts what the engine answered, or failed to, into the root's words. outer
// is the caller's context, within the one with our deadline.
func (d *Docker) check(outer, within context.Context, c *client.Client, limit time.Duration, what string, err error) error {
	var missing *missingImage
	switch {
	case err == nil:
		return nil
	case outer.Err() != nil:
		return fmt.Errorf("%s: %w", what, outer.Err())
	case within.Err() != nil:
		d.forget(c, err)
		return fmt.Errorf("%s: no answer within %s: %w", what, limit, shoal.ErrEngineDown)
	case errors.Is(err, shoal.ErrEngineDown), errors.As(err, &missing):
		return fmt.Errorf("%s: %w", what, err)
	case unreachable(err):
		d.forget(c, err)
		return fmt.Errorf("%s: %w: %w", what, shoal.ErrEngineDown, err)
	case cerrdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", what, shoal.ErrNotFound, err)
	case cerrdefs.IsConflict(err):
		return fmt.Errorf("%s: %w: %w", what, shoal.ErrConflict, err)
	case cerrdefs.IsInvalidArgument(err):
		d.forget(c, err) // "client version is too old" comes as this, too
		return fmt.Errorf("%s: %w: %w", what, shoal.ErrRefused, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// unreachable reports whether nobody answered, or not to the end.
func unreachable(err error) bool {
	var network net.Error
	return client.IsErrConnectionFailed(err) || cerrdefs.IsUnavailable(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network)
}

// forget makes the next call negotiate again.
func (d *Docker) forget(c *client.Client, err error) {
	if c != nil && d.client.CompareAndSwap(c, nil) {
		d.log.Debug("negotiate with engine again", logkey.Err, err)
		_ = c.Close() // it closes idle connections only
	}
}
