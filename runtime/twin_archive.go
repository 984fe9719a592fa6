// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// Bounds of what a twin takes into memory.
const (
	maxTwinArchive = 1 << 30
	maxTwinEntries = 10_000
)

// savedImage is one image in the manifest.json of an archive that docker save writes.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Load implements [shoal.ImageStore]. It keeps the content in memory.
func (t *Twin) Load(ctx context.Context, archive io.Reader) error {
	if err := t.enter(ctx, "load image", func(l Latency) time.Duration { return l.Call }); err != nil {
		return err
	}
	files, err := readArchive(&stopping{ctx: ctx, r: archive})
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	var saved []savedImage
	if err := json.Unmarshal(files["manifest.json"], &saved); err != nil {
		return fmt.Errorf("load image: manifest.json: %w: %w", shoal.ErrRefused, err)
	}
	for _, s := range saved {
		layers := make([][]byte, len(s.Layers))
		for i, name := range s.Layers {
			if layers[i], err = unzip(files[name]); err != nil { // docker load takes them either way
				return fmt.Errorf("load image: layer %s: %w: %w", name, shoal.ErrRefused, err)
			}
		}
		image, err := newTwinImage(files[s.Config], layers)
		if err != nil {
			return fmt.Errorf("load image: %w: %w", shoal.ErrRefused, err)
		}
		names := make([]string, len(s.RepoTags))
		for i, tag := range s.RepoTags {
			names[i] = shoal.NormalizeRef(tag)
		}
		t.mu.Lock()
		t.keep(image, "load", names...)
		t.mu.Unlock()
	}
	return nil
}

// readArchive returns the files of a tar. Errors of r are returned as they are.
func readArchive(r *stopping) (map[string][]byte, error) {
	files := make(map[string][]byte)
	left := int64(maxTwinArchive)
	from := tar.NewReader(r)
	for range maxTwinEntries {
		h, err := from.Next()
		switch {
		case errors.Is(err, io.EOF):
			return files, nil
		case r.err != nil:
			return nil, r.err
		case err != nil:
			return nil, fmt.Errorf("%w: %w", shoal.ErrRefused, err)
		}
		raw, err := io.ReadAll(io.LimitReader(from, left+1))
		if left -= int64(len(raw)); left < 0 {
			return nil, fmt.Errorf("archive is larger than %d bytes: %w", maxTwinArchive, shoal.ErrRefused)
		}
		switch {
		case r.err != nil:
			return nil, r.err
		case err != nil:
			return nil, fmt.Errorf("%w: %w", shoal.ErrRefused, err)
		}
		files[h.Name] = raw
	}
	return nil, fmt.Errorf("archive has more than %d entries: %w", maxTwinEntries, shoal.ErrRefused)
}

// stopping reads until a context ends, and remembers why it did not go on.
type stopping struct {
	ctx context.Context
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *stopping) Read(b []byte) (int, error) {
	if s.err = s.ctx.Err(); s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// Save implements [shoal.ImageStore].
func (t *Twin) Save(ctx context.Context, ref string, w io.Writer) error {
	if err := t.enter(ctx, "save image "+ref, func(l Latency) time.Duration { return l.Call }); err != nil {
		return err
	}
	t.mu.Lock()
	image := t.lookup(ref)
	var tags []string
	if name := shoal.NormalizeRef(ref); image != nil && digestOf(name) == "" {
		tags = []string{name}
	}
	t.mu.Unlock()
	if image == nil {
		return &missingImage{ref: ref}
	}
	files := map[string][]byte{}
	saved := savedImage{Config: strings.TrimPrefix(image.id, "sha256:") + ".json", RepoTags: tags}
	files[saved.Config] = image.config
	for _, l := range image.layers {
		name := strings.TrimPrefix(sha256Of(l), "sha256:") + "/layer.tar"
		files[name], saved.Layers = l, append(saved.Layers, name)
	}
	manifest, err := json.Marshal([]savedImage{saved})
	if err != nil {
		return fmt.Errorf("save image %s: %w", ref, err)
	}
	files["manifest.json"] = manifest
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("save image %s: %w", ref, err)
		}
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := out.Write(files[name]); err != nil {
			return err
		}
	}
	return out.Close()
}
