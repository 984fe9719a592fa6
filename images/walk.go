// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// The kinds of blobs.
const (
	kindIndex    = "index"
	kindManifest = "manifest"
	kindConfig   = "config"
	kindLayer    = "layer"
)

// everywhere stands for all platforms of which the manifest can be read.
const everywhere = ""

// maxDepth is how deep indexes may lie in each other. Build tools write one.
const maxDepth = 3

// piece is one blob of an image; Platform is that of the manifest it belongs to.
type piece struct {
	manifest.Descriptor
	kind string
}

// reader returns the content of a small blob. ErrNotFound: it is not to be had.
type reader func(ctx context.Context, d manifest.Descriptor) ([]byte, error)

// walk returns the blobs of an image, each once: the root, and what it refers to for a
// machine of that platform, configurations before layers. Of an index everywhere takes
// all of which the manifest is to be had, at least one.
func (r *Room) walk(ctx context.Context, root manifest.Descriptor, machine string, read reader) ([]piece, error) {
	w := walker{room: r, machine: machine, read: read, seen: map[string]bool{}}
	if err := w.enter(ctx, root, 0); err != nil {
		return nil, err
	}
	return w.out, nil
}

type walker struct {
	room    *Room
	machine string
	read    reader
	seen    map[string]bool
	out     []piece
}

func (w *walker) add(d manifest.Descriptor, kind string) {
	if !w.seen[d.Digest] {
		w.seen[d.Digest] = true
		w.out = append(w.out, piece{d, kind})
	}
}

func (w *walker) enter(ctx context.Context, d manifest.Descriptor, depth int) error {
	if depth > maxDepth {
		return &shoal.InvalidError{Field: "manifests", Why: fmt.Sprintf("lie in each other more than %d deep", maxDepth)}
	}
	raw, err := w.read(ctx, d)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(d.MediaType, raw)
	if err != nil {
		return err
	}
	if err := w.room.noteRefs(ctx, d, m); err != nil {
		return err
	}
	if !m.IsIndex() {
		return w.image(ctx, d, m)
	}
	w.add(d, kindIndex)
	if w.machine != everywhere {
		one, err := m.For(w.machine)
		if err != nil {
			return err
		}
		return w.enter(ctx, one, depth+1)
	}
	found := false
	for _, one := range m.Images {
		err := w.enter(ctx, one, depth+1)
		switch {
		case err == nil:
			found = true
		case !errors.Is(err, shoal.ErrNotFound):
			return err
		}
	}
	if !found && len(m.Images) > 0 {
		return fmt.Errorf("none of the %d images of index %s: %w", len(m.Images), short(d.Digest), shoal.ErrNotFound)
	}
	return nil
}

// image adds a manifest, its configuration and its layers.
func (w *walker) image(ctx context.Context, d manifest.Descriptor, m *manifest.Manifest) error {
	raw, err := w.read(ctx, m.Config)
	if err != nil {
		return err
	}
	config, err := manifest.ParseConfig(raw)
	if err != nil {
		return err
	}
	if d.Platform == "" {
		d.Platform = config.Platform
	}
	if w.machine != everywhere && !shoal.PlatformFits(w.machine, d.Platform) {
		return &shoal.InvalidError{Field: "image", Why: fmt.Sprintf("is %s, this machine is %s", d.Platform, w.machine)}
	}
	w.add(d, kindManifest)
	for i, ref := range m.Refs() {
		ref.Platform = d.Platform
		if i == 0 {
			w.add(ref, kindConfig)
		} else {
			w.add(ref, kindLayer)
		}
	}
	return nil
}

// noteRefs tells the store what a manifest that it holds refers to.
func (r *Room) noteRefs(ctx context.Context, d manifest.Descriptor, m *manifest.Manifest) error {
	own, err := blobs.ParseDigest(d.Digest)
	if err != nil {
		return err
	}
	info, err := r.store.Stat(own)
	if err != nil || !info.Complete || len(info.Refs) > 0 {
		return nil //nolint:nilerr // what is read from elsewhere has no place here
	}
	if r.registry != nil {
		return r.registry.Manifested(ctx, own)
	}
	var refs []blobs.Digest
	for _, ref := range m.Refs() {
		one, err := blobs.ParseDigest(ref.Digest)
		if err != nil {
			return err
		}
		refs = append(refs, one)
	}
	return r.store.SetRefs(own, refs)
}

// readHere is the reader of what is in the store.
func (r *Room) readHere(ctx context.Context, d manifest.Descriptor) ([]byte, error) {
	own, err := blobs.ParseDigest(d.Digest)
	if err != nil {
		return nil, err
	}
	info, err := r.store.Stat(own)
	if err != nil {
		return nil, err
	}
	if !info.Complete {
		return nil, fmt.Errorf("blob %s is not whole: %w", short(d.Digest), shoal.ErrNotFound)
	}
	return r.readSmall(ctx, own)
}

// readSmall returns a whole blob that is a manifest or a configuration.
func (r *Room) readSmall(ctx context.Context, d blobs.Digest) ([]byte, error) {
	in, err := r.store.Read(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was only read
	if in.Size() > manifest.MaxConfig {
		return nil, &shoal.InvalidError{Field: "manifest", Why: fmt.Sprintf("%s is %d bytes, at most %d are taken", short(d.String()), in.Size(), manifest.MaxConfig)}
	}
	return io.ReadAll(in.Stream(0, -1))
}

// short returns a digest as listings show it: 12 hex digits.
func short(digest string) string {
	const from, to = len("sha256:"), len("sha256:") + 12
	if len(digest) < to {
		return digest
	}
	return digest[from:to]
}
