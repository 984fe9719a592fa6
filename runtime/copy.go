// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// While an engine copies it does nothing else with that container: no stop, no
// inspection. So nobody may keep it waiting for longer than Config.Slow.
func idle(what, who string, limit time.Duration) error {
	return fmt.Errorf("%s: %s for %s, and its engine can do nothing else with a container meanwhile: %w", what, who, limit, shoal.ErrRefused)
}

// CopyFrom implements [shoal.Console]. A container that is not ours is ErrRefused.
func (d *Docker) CopyFrom(ctx context.Context, id, path string, stat func(shoal.PathStat) error, w io.Writer) error {
	what := fmt.Sprintf("copy %s from %s", path, short(id))
	c, err := d.copying(ctx, what, id, path)
	if err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(d.cfg.Quick, cancel)
	body, st, err := c.CopyFromContainer(within, id, path)
	if err == nil {
		defer func() { _ = body.Close() }() // it was only read from
	}
	if !late.Stop() && ctx.Err() == nil {
		d.forget(c, err)
		return fmt.Errorf("%s: no answer within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
	}
	if err != nil {
		return d.check(ctx, ctx, c, d.cfg.Quick, what, copyError(path, err))
	}
	if err := stat(shoal.PathStat{Name: st.Name, Bytes: st.Size, Mode: st.Mode, Link: st.LinkTarget}); err != nil {
		return err
	}
	from := &patient{from: body, limit: d.cfg.Quick, expire: cancel}
	to := &sink{w: w, limit: d.cfg.Slow, cancel: cancel}
	_, err = io.Copy(to, from)
	switch {
	case to.isLate.Load() && ctx.Err() == nil:
		return idle(what, "nobody took what is there", d.cfg.Slow)
	case to.failed != nil:
		return to.failed
	case from.expired.Load() && ctx.Err() == nil:
		return fmt.Errorf("%s: no more within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
	}
	return d.check(ctx, ctx, c, d.cfg.Quick, what, err)
}

// CopyTo implements [shoal.Console]. A container that is not ours is ErrRefused.
func (d *Docker) CopyTo(ctx context.Context, id, dir string, archive io.ReadCloser) error {
	shut := sync.OnceFunc(func() { _ = archive.Close() }) // it was only read from
	defer shut()
	what := fmt.Sprintf("copy to %s in %s", dir, short(id))
	c, err := d.copying(ctx, what, id, dir)
	if err != nil {
		return err
	}
	// What an engine says of a file that should be a directory differs; the stat is clear.
	st, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (container.PathStat, error) {
		st, err := c.ContainerStatPath(ctx, id, dir)
		return st, copyError(dir, err)
	})
	if err != nil {
		return err
	}
	if !st.Mode.IsDir() && st.Mode&fs.ModeSymlink == 0 {
		return &shoal.InvalidError{Field: "path", Why: dir + " is no directory"}
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(within, shut)() // the client library waits for a Read under way
	from := newSource(archive, d.cfg.Slow, cancel)
	err = c.CopyToContainer(within, id, dir, from, container.CopyToContainerOptions{})
	late, failed := from.end()
	switch {
	case ctx.Err() != nil:
		return d.check(ctx, ctx, c, d.cfg.Quick, what, cmp.Or(err, failed))
	case late == lateSender && err != nil:
		return idle(what, "no more of the archive came", d.cfg.Slow)
	case late == lateEngine && err != nil:
		d.forget(c, err)
		return fmt.Errorf("%s: takes nothing for %s: %w", what, d.cfg.Slow, shoal.ErrEngineDown)
	case failed != nil: // the engine saw a broken archive, but that is not why
		return failed
	}
	return d.check(ctx, ctx, c, d.cfg.Quick, what, copyError(dir, err))
}

// copying checks what both directions ask for, and that the engine answers.
func (d *Docker) copying(ctx context.Context, what, id, path string) (*client.Client, error) {
	if err := shoal.CheckPath(path); err != nil {
		return nil, err
	}
	if _, err := d.own(ctx, what, id); err != nil {
		return nil, err
	}
	c, err := d.connectWithin(ctx)
	return c, d.check(ctx, ctx, nil, d.cfg.Quick, what, err)
}

// copyError words what engines answer about paths. Of a file system that is read-only
// Engine 20.10 answers 500, later ones 400: only the words tell.
func copyError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case cerrdefs.IsPermissionDenied(err), strings.Contains(err.Error(), "marked read-only"):
		return fmt.Errorf("%s is read-only: %w", path, shoal.ErrRefused)
	case cerrdefs.IsNotFound(err):
		return fmt.Errorf("there is no %s: %w", path, shoal.ErrNotFound)
	case cerrdefs.IsInvalidArgument(err):
		return &shoal.InvalidError{Field: "path", Why: fmt.Sprintf("%s cannot take this archive: %s", path, err)}
	}
	return err
}

// sink keeps the error of what is written to apart from the engine's, and ends the
// engine's answer when a Write takes long.
type sink struct {
	w      io.Writer
	limit  time.Duration
	cancel func()
	isLate atomic.Bool
	failed error
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	late := time.AfterFunc(s.limit, func() {
		s.isLate.Store(true)
		s.cancel()
	})
	defer late.Stop()
	n, err := s.w.Write(p)
	s.failed = err
	return n, err
}

// lateness says who kept the other waiting.
type lateness int

const (
	lateNobody lateness = iota
	lateEngine          // it does not read
	lateSender          // it sends nothing
)

// source does for what is read from what sink does for what is written to, and notices
// as well when the engine stops reading.
type source struct {
	r      io.Reader
	limit  time.Duration
	cancel func()

	mu     sync.Mutex // guards the rest: the client library reads in a goroutine
	timer  *time.Timer
	failed error
	late   lateness
	isOver bool
}

func newSource(r io.Reader, limit time.Duration, cancel func()) *source {
	s := &source{r: r, limit: limit, cancel: cancel}
	s.await(lateEngine)
	return s
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	s.await(lateSender)
	defer s.await(lateEngine)
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = err
	}
	return n, err
}

// await gives somebody the time of limit.
func (s *source) await(who lateness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.isOver { // the client library may still read, but nobody waits
		return
	}
	s.timer = time.AfterFunc(s.limit, func() {
		s.mu.Lock()
		s.late = who
		s.mu.Unlock()
		s.cancel()
	})
}

// end returns who was late, and the sender's error.
func (s *source) end() (late lateness, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isOver = true
	s.timer.Stop()
	return s.late, s.failed
}
