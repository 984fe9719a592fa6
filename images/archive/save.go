// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// WriteDocker writes an image of one platform so that docker load takes it, of engines
// from 20.10 on. Layers stay compressed with gzip, or plain, as they are; those with zstd,
// which engines before 23 cannot read, are decompressed, for which they are read twice.
// names have a tag each and no digest; there may be none. progress and errors are those
// of [WriteOCI]. *shoal.InvalidError: also, it is an index, or no image that runs.
func WriteDocker(ctx context.Context, w io.Writer, read Source, desc manifest.Descriptor, names []string, progress func(bytes int64)) error {
	out := newWriter(ctx, w, read, progress)
	if err := out.docker(desc, names); err != nil {
		return fmt.Errorf("write Docker archive of image %s: %w", desc.Digest, err)
	}
	return nil
}

func (w *writer) docker(desc manifest.Descriptor, names []string) error {
	tags := []string{}
	for _, name := range names {
		if !isName(name) {
			return &shoal.InvalidError{Field: "name", Why: fmt.Sprintf("%q is no name with a tag", clip(name))}
		}
		tags = append(tags, shoal.NormalizeRef(name))
	}
	raw, err := w.document(desc, manifest.MaxBytes)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if m.IsIndex() {
		return &shoal.InvalidError{Field: "image", Why: "is for several platforms, and a Docker archive for one; say which"}
	}
	config, err := w.document(m.Config, manifest.MaxConfig)
	if err != nil {
		return err
	}
	parsed, err := manifest.ParseConfig(config)
	if err != nil {
		return fmt.Errorf("blob %s: %w", m.Config.Digest, err)
	}
	if len(parsed.DiffIDs) != len(m.Layers) || len(m.Layers) == 0 {
		return &shoal.InvalidError{Field: "image", Why: fmt.Sprintf("has %d layers and a configuration of %d: no engine can run it", len(m.Layers), len(parsed.DiffIDs))}
	}
	return w.save(m, config, parsed.DiffIDs, tags)
}

// save writes the archive: manifest.json first, so that one pass knows what follows.
func (w *writer) save(m *manifest.Manifest, config []byte, diffIDs, tags []string) error {
	one := savedImage{Config: strings.TrimPrefix(m.Config.Digest, "sha256:") + ".json", RepoTags: tags}
	for _, l := range m.Layers {
		one.Layers = append(one.Layers, strings.TrimPrefix(l.Digest, "sha256:")+"/layer.tar")
	}
	list, err := json.Marshal([]savedImage{one})
	if err != nil {
		return err
	}
	if err := w.file("manifest.json", list); err != nil {
		return err
	}
	if err := w.file(one.Config, config); err != nil {
		return err
	}
	written := map[string]bool{} // an image may have a layer twice
	for i, l := range m.Layers {
		name := one.Layers[i]
		if written[name] {
			continue
		}
		written[name] = true
		if err := w.dir(strings.TrimSuffix(name, "layer.tar")); err != nil {
			return err
		}
		if err := w.layer(name, l, diffIDs[i]); err != nil {
			return err
		}
	}
	return w.close()
}

// layer writes a layer as engines of all ages read it.
func (w *writer) layer(name string, desc manifest.Descriptor, diffID string) error {
	isZstd := false
	err := w.with(desc, func(d blobs.Digest, r io.Reader) error {
		buf := bufio.NewReaderSize(r, 256<<10)
		head, err := buf.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if isZstd = sniff(head) == formZstd; isZstd {
			return nil
		}
		return w.copy(name, d, desc.Size, buf)
	})
	if err != nil || !isZstd {
		return err
	}
	plain, err := blobs.ParseDigest(diffID)
	if err != nil {
		return err
	}
	size := int64(0) // a tar's header says it, before the content
	what := "layer " + desc.Digest
	err = w.with(desc, func(_ blobs.Digest, r io.Reader) error {
		var got blobs.Digest
		size, got, err = measure(formZstd, r, what, Limits{}.withDefaults())
		if err == nil && got != plain {
			err = fmt.Errorf("read %s: %w: it unpacks to %s, not %s", what, blobs.ErrMismatch, got, plain)
		}
		return err
	})
	if err != nil {
		return err
	}
	return w.with(desc, func(_ blobs.Digest, r io.Reader) error {
		z, release, err := decompress(formZstd, r)
		if err != nil {
			return err
		}
		defer release()
		return w.copy(name, plain, size, z)
	})
}
