// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// Source opens a blob for reading and says how large it is. The blob may still be
// arriving: then the reader waits, until ctx ends. It may be asked for one blob twice.
type Source = func(ctx context.Context, d blobs.Digest) (io.ReadCloser, int64, error)

// writer writes a tar. The same calls give the same bytes.
type writer struct {
	ctx  context.Context // of the one write that it serves
	read Source
	out  *outlet
	tw   *tar.Writer
}

func newWriter(ctx context.Context, w io.Writer, read Source, progress func(int64)) *writer {
	out := &outlet{ctx: ctx, w: w, progress: progress}
	return &writer{ctx: ctx, read: read, out: out, tw: tar.NewWriter(out)}
}

// outlet counts what is written, and ends with its context.
type outlet struct {
	ctx      context.Context
	w        io.Writer
	n, told  int64
	progress func(int64)
}

func (o *outlet) Write(p []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := o.w.Write(p)
	o.n += int64(n)
	if o.n-o.told >= tellEvery {
		o.tell()
	}
	return n, err
}

func (o *outlet) tell() {
	if o.progress != nil && o.n > o.told {
		o.told = o.n
		o.progress(o.n)
	}
}

// close ends the tar.
func (w *writer) close() error {
	if err := w.tw.Close(); err != nil {
		return err
	}
	w.out.tell()
	return nil
}

func (w *writer) header(kind byte, name string, mode, size int64) error {
	return w.tw.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0)})
}

func (w *writer) dir(name string) error { return w.header(tar.TypeDir, name, 0o755, 0) }

func (w *writer) file(name string, content []byte) error {
	if err := w.header(tar.TypeReg, name, 0o644, int64(len(content))); err != nil {
		return err
	}
	_, err := w.tw.Write(content)
	return err
}

// copy writes size bytes of r, which have to have the digest d.
func (w *writer) copy(name string, d blobs.Digest, size int64, r io.Reader) error {
	if err := w.header(tar.TypeReg, name, 0o644, size); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(w.tw, io.TeeReader(r, sum))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if n != size || blobs.Digest(sum.Sum(nil)) != d {
		return fmt.Errorf("write %s: %w: not %s", name, blobs.ErrMismatch, d)
	}
	return nil
}

// blob writes a blob as it is.
func (w *writer) blob(name string, desc manifest.Descriptor) error {
	return w.with(desc, func(d blobs.Digest, r io.Reader) error { return w.copy(name, d, desc.Size, r) })
}

// with calls fn with the content of a blob.
func (w *writer) with(desc manifest.Descriptor, fn func(d blobs.Digest, r io.Reader) error) error {
	d, err := blobs.ParseDigest(desc.Digest)
	if err != nil {
		return err
	}
	r, size, err := w.read(w.ctx, d)
	if err != nil {
		return err
	}
	if size != desc.Size {
		err = refuse("blob %s has %d bytes and is said to have %d; build the image again", d, size, desc.Size)
	} else {
		err = fn(d, r)
	}
	return errors.Join(err, r.Close())
}

// document reads a manifest or a configuration.
func (w *writer) document(desc manifest.Descriptor, limit int64) (raw []byte, err error) {
	if desc.Size > limit {
		return nil, refuse("document %s is %d bytes, at most %d are taken; build the image with less in it", desc.Digest, desc.Size, limit)
	}
	err = w.with(desc, func(d blobs.Digest, r io.Reader) error {
		raw, err = io.ReadAll(io.LimitReader(r, desc.Size+1))
		if err == nil && blobs.DigestOf(raw) != d {
			err = fmt.Errorf("read blob %s: %w", d, blobs.ErrMismatch)
		}
		return err
	})
	return raw, err
}
