// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/shoalnet/shoal"
)

// walk tells of a move of so many bytes in four steps, and waits half-way if it is held.
func (l library) walk(ctx context.Context, p shoal.ImageProgress, progress func(shoal.ImageProgress)) error {
	l.mu.Lock()
	gate := l.images.gate
	l.images.gate = nil
	l.mu.Unlock()
	for step := range int64(5) {
		if gate != nil && step == 2 {
			if err := gate.wait(ctx); err != nil {
				return err
			}
		}
		if p.Done = p.Total * step / 4; progress != nil {
			progress(p)
		}
	}
	return ctx.Err()
}

// enter names images, which this peer holds then.
func (l library) enter(named map[string]*bundle) []shoal.ImageInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []shoal.ImageInfo
	for _, name := range slices.Sorted(maps.Keys(named)) {
		b := named[name]
		for i := range b.blobs {
			l.images.hold(l.self, b.blobs[i].Digest, b.blobs[i].Size)
		}
		l.images.set(name, b)
		out = append(out, l.info(name, b))
	}
	return out
}

// Push implements [shoal.ImageMover].
func (l library) Push(ctx context.Context, ref, as string, progress func(shoal.ImageProgress)) ([]shoal.ImageInfo, error) {
	l.mu.Lock()
	b := l.images.engine[shoal.NormalizeRef(ref)]
	l.mu.Unlock()
	if b == nil {
		return nil, fmt.Errorf("image %s is not in the engine of this peer: %w", ref, shoal.ErrNotFound)
	}
	if err := l.walk(ctx, shoal.ImageProgress{What: "receive", Total: b.size(), Rate: 40e6}, progress); err != nil {
		return nil, err
	}
	return l.enter(map[string]*bundle{shoal.NormalizeRef(cmp.Or(as, ref)): b}), nil
}

// Import implements [shoal.ImageMover].
func (l library) Import(ctx context.Context, archive io.Reader, as string, progress func(shoal.ImageProgress)) ([]shoal.ImageInfo, error) {
	files, err := unpack(archive)
	if err != nil {
		return nil, err
	}
	if err := l.walk(ctx, shoal.ImageProgress{What: "receive"}, progress); err != nil {
		return nil, err
	}
	l.mu.Lock()
	named, err := l.images.take(files, as)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return l.enter(named), nil
}

// Export implements [shoal.ImageMover].
func (l library) Export(ctx context.Context, ref, format, platform string, w io.Writer, progress func(shoal.ImageProgress)) error {
	l.mu.Lock()
	name, b, err := l.images.resolve(ref)
	var out bytes.Buffer
	if err == nil {
		if platform != "" && !slices.Contains(b.platforms, platform) {
			err = fmt.Errorf("image %s is for %s, not for %s: %w", ref, b.platforms[0], platform, shoal.ErrNotFound)
		} else {
			err = l.images.pack(cmp.Or(name, "exported:latest"), format, b, &out)
		}
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if err := l.walk(ctx, shoal.ImageProgress{What: "fetch", Total: b.size()}, progress); err != nil {
		return err
	}
	_, err = io.Copy(w, &out)
	return err
}

// Pull implements [shoal.ImageMover].
func (l library) Pull(ctx context.Context, ref string, progress func(shoal.ImageProgress)) (shoal.ImageInfo, error) {
	l.mu.Lock()
	name, b, err := l.images.resolve(ref)
	var x shoal.ImageInfo
	if err == nil {
		x = l.info(cmp.Or(name, ref), b)
	}
	l.mu.Unlock()
	if err != nil {
		return x, err
	}
	if x.Copies == 0 {
		return x, fmt.Errorf("image %s: no peer heard holds all of it: %w", ref, shoal.ErrNotFound)
	}
	if err := l.walk(ctx, shoal.ImageProgress{What: "fetch", Total: x.Size - x.Here, Rate: 40e6, Peers: x.Copies}, progress); err != nil {
		return x, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b.blobs {
		l.images.hold(l.self, b.blobs[i].Digest, b.blobs[i].Size)
	}
	return l.info(x.Name, b), nil
}
