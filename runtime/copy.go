// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

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
	if !late.Stop() && ctx.Err() == nil {
		d.forget(c, err)
		return fmt.Errorf("%s: no answer within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
	}
	if err != nil {
		return d.check(ctx, ctx, c, d.cfg.Quick, what, copyError(path, err))
	}
	defer func() { _ = body.Close() }() // it was only read from
	if err := stat(shoal.PathStat{Name: st.Name, Bytes: st.Size, Mode: st.Mode, Link: st.LinkTarget}); err != nil {
		return err
	}
	from := &patient{from: body, limit: d.cfg.Quick, expire: cancel}
	to := &sink{w: w}
	_, err = io.Copy(to, from)
	switch {
	case to.failed != nil:
		return to.failed
	case from.expired.Load() && ctx.Err() == nil:
		return fmt.Errorf("%s: no more within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
	}
	return d.check(ctx, ctx, c, d.cfg.Quick, what, err)
}

// CopyTo implements [shoal.Console]. A container that is not ours is ErrRefused.
func (d *Docker) CopyTo(ctx context.Context, id, dir string, archive io.ReadCloser) error {
	defer func() { _ = archive.Close() }() // it was only read from
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
	from := newSource(archive, d.cfg.Slow, cancel)
	err = c.CopyToContainer(within, id, dir, from, container.CopyToContainerOptions{})
	failed, isLate := from.end()
	switch {
	case failed != nil: // the engine saw a broken archive, but that is not why
		return failed
	case isLate && ctx.Err() == nil:
		d.forget(c, err)
		return fmt.Errorf("%s: takes nothing for %s: %w", what, d.cfg.Slow, shoal.ErrEngineDown)
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

// copyError words what engines answer about paths: 400 for what is no archive, 403 for a
// file system that is read-only.
func copyError(path string, err error) error {
	switch {
	case cerrdefs.IsNotFound(err):
		return fmt.Errorf("there is no %s: %w", path, shoal.ErrNotFound)
	case cerrdefs.IsInvalidArgument(err):
		return &shoal.InvalidError{Field: "path", Why: fmt.Sprintf("%s cannot take this archive: %s", path, err)}
	case cerrdefs.IsPermissionDenied(err):
		return fmt.Errorf("%s is read-only: %w", path, shoal.ErrRefused)
	}
	return err
}

// sink keeps the error of what is written to apart from the engine's.
type sink struct {
	w      io.Writer
	failed error
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.failed = err
	return n, err
}

// source does the same for what is read from, and notices when the engine stops reading:
// the time that a Read itself takes is the sender's.
type source struct {
	r     io.Reader
	limit time.Duration
	late  *time.Timer

	mu     sync.Mutex // guards failed: the client library reads in a goroutine
	failed error
}

func newSource(r io.Reader, limit time.Duration, late func()) *source {
	return &source{r: r, limit: limit, late: time.AfterFunc(limit, late)}
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	s.late.Stop()
	defer s.late.Reset(s.limit)
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = err
	}
	return n, err
}

// end returns the sender's error, and whether the engine was late.
func (s *source) end() (failed error, isLate bool) {
	isLate = !s.late.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed, isLate
}
