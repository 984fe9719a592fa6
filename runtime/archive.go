// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// Load implements [shoal.ImageStore]. An archive that the engine does not take is
// ErrRefused. No Read of archive begins after it returned; one that is under way when
// ctx ends is not waited for.
func (d *Docker) Load(ctx context.Context, archive io.Reader) error {
	const what = "load image"
	from := &feed{r: archive}
	err := d.transfer(ctx, what, func(ctx context.Context, c *client.Client, p *pace) error {
		from.moved = p.moved
		defer from.shut()
		resp, err := c.ImageLoad(ctx, from)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // it was only read from
		if !resp.JSON {
			_, err := io.Copy(io.Discard, resp.Body)
			return err
		}
		return readStream(resp.Body, func(*streamLine) { p.moved() })
	})
	if failed := from.failed(); failed != nil && ctx.Err() == nil {
		return failed // the engine saw a broken archive, but that is not why
	}
	if said, ok := errors.AsType[*engineSays](err); ok {
		return fmt.Errorf("%s: %s: %w", what, said.text, shoal.ErrRefused)
	}
	return err
}

// feed is an archive on its way to the engine. The client library may still read when
// its call has returned.
type feed struct {
	r     io.Reader
	moved func()

	mu     sync.Mutex // guards the rest; not held while reading
	isShut bool
	err    error
}

// Read implements io.Reader.
func (f *feed) Read(b []byte) (int, error) {
	f.mu.Lock()
	isShut := f.isShut
	f.mu.Unlock()
	if isShut {
		return 0, io.ErrClosedPipe
	}
	n, err := f.r.Read(b)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.isShut:
		return 0, io.ErrClosedPipe
	case err != nil && !errors.Is(err, io.EOF):
		f.err = err
	case n > 0:
		f.moved()
	}
	return n, err
}

func (f *feed) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.isShut = true
}

// failed returns the error of the archive itself.
func (f *feed) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Save implements [shoal.ImageStore]. What cannot be had by its name is saved without.
func (d *Docker) Save(ctx context.Context, ref string, w io.Writer) error {
	found, err := d.Find(ctx, ref)
	if err != nil {
		return err
	}
	name := found.ID
	if digestOf(shoal.NormalizeRef(ref)) == "" {
		name = shoal.NormalizeRef(ref)
	}
	out := &archiveEnd{w: w}
	err = d.transfer(ctx, "save image "+ref, func(ctx context.Context, c *client.Client, p *pace) error {
		body, err := c.ImageSave(ctx, []string{name})
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }() // it was only read from
		out.moved = p.moved
		if _, err := io.Copy(out, body); err != nil {
			return err
		}
		return out.whole()
	})
	if out.err != nil && ctx.Err() == nil {
		return out.err
	}
	return err
}

// archiveEnd passes an archive on and looks at its end: an engine that fails half-way
// has no other way to say so than to end it with something else.
type archiveEnd struct {
	w     io.Writer
	moved func()
	size  int64
	tail  []byte
	err   error // of w
}

// tarEnd ends every tar: two blocks of zeros (POSIX.1-2017, pax, "ustar Interchange Format").
var tarEnd = make([]byte, 1024)

// Write implements io.Writer.
func (a *archiveEnd) Write(b []byte) (int, error) {
	n, err := a.w.Write(b)
	a.err = err
	a.size += int64(n)
	a.tail = append(a.tail, b[max(0, n-len(tarEnd)):n]...)
	a.tail = append(a.tail[:0], a.tail[max(0, len(a.tail)-len(tarEnd)):]...)
	if n > 0 {
		a.moved()
	}
	return n, err
}

// whole returns an error unless what was written ends as an archive does.
func (a *archiveEnd) whole() error {
	if a.size%512 != 0 || !bytes.Equal(a.tail, tarEnd) {
		text, _, _ := bytes.Cut(bytes.Trim(a.tail, "\x00"), []byte("\n"))
		return fmt.Errorf("the archive breaks off after %d bytes: %q", a.size, text[max(0, len(text)-200):])
	}
	return nil
}
