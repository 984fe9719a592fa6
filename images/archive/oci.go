// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/manifest"
)

// WriteOCI writes an image, an index with all of its platforms or one manifest, as a tar
// of an OCI image layout 1.0.0 (image-spec v1.1, image-layout.md). Blobs stay as they
// are, digests and all; the same image gives the same bytes. name may be "". progress may
// be nil; it is told the bytes that were written. After an error what was written is no
// archive. *shoal.InvalidError: name is none, or the image is nested too deep.
func WriteOCI(ctx context.Context, w io.Writer, read Source, root manifest.Descriptor, name string, progress func(bytes int64)) error {
	out := newWriter(ctx, w, read, progress)
	if err := out.oci(root, name); err != nil {
		return fmt.Errorf("write OCI layout of image %s: %w", root.Digest, err)
	}
	return nil
}

type jsonIndex struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	Manifests     []jsonDescriptor `json:"manifests"`
}

func (w *writer) oci(root manifest.Descriptor, name string) error {
	notes, err := notesOf(name)
	if err != nil {
		return err
	}
	order, err := w.order(nil, map[string]bool{}, root, 1)
	if err != nil {
		return err
	}
	index, err := json.Marshal(&jsonIndex{
		SchemaVersion: 2, MediaType: manifest.TypeIndex,
		Manifests: []jsonDescriptor{{MediaType: order[0].MediaType, Size: root.Size, Digest: root.Digest, Annotations: notes}},
	})
	if err != nil {
		return err
	}
	if err := w.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := w.file("index.json", index); err != nil {
		return err
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := w.dir(dir); err != nil {
			return err
		}
	}
	for _, desc := range order {
		if err := w.blob("blobs/sha256/"+strings.TrimPrefix(desc.Digest, "sha256:"), desc); err != nil {
			return err
		}
	}
	return w.close()
}

// notesOf returns what index.json says about the name of an image, as containerd and
// Docker write it.
func notesOf(name string) (map[string]string, error) {
	if name == "" {
		return nil, nil
	}
	plain, _, _ := strings.Cut(name, "@")
	if !isName(plain) {
		return nil, &shoal.InvalidError{Field: "name", Why: fmt.Sprintf("%q is no name of an image", clip(name))}
	}
	notes := map[string]string{noteName: fullName(name)}
	if tag := tagOf(name); tag != "" {
		notes[noteTag] = tag
	}
	return notes, nil
}

// order appends what an image consists of, each blob once, what refers before what it
// refers to.
func (w *writer) order(all []manifest.Descriptor, seen map[string]bool, desc manifest.Descriptor, depth int) ([]manifest.Descriptor, error) {
	if seen[desc.Digest] {
		return all, nil
	}
	seen[desc.Digest] = true
	raw, err := w.document(desc, manifest.MaxBytes)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	desc.MediaType = m.MediaType
	if all = append(all, desc); len(all) > maxPieces {
		return nil, refuse("would hold more than %d blobs; write the image for one platform", maxPieces)
	}
	if m.IsIndex() && depth > maxDepth {
		return nil, refuse("has indexes in one another deeper than %d; build the image with a plain index", maxDepth)
	}
	for _, r := range m.Refs() {
		switch {
		case m.IsIndex():
			if all, err = w.order(all, seen, r, depth+1); err != nil {
				return nil, err
			}
		case !seen[r.Digest]:
			seen[r.Digest] = true
			all = append(all, r)
		}
	}
	return all, nil
}
