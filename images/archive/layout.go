// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// image is a Found that is being put together.
type image struct {
	Found
	refs    []docRefs             // of its manifests, those first that others refer to
	configs []blobs.Digest        // of its images, attestations left out
	plain   bool                  // a layer is not compressed
	seen    map[blobs.Digest]bool // what Blobs has
}

type docRefs struct {
	doc  blobs.Digest
	refs []blobs.Digest
}

// add adds a blob, and reports whether it was new.
func (i *image) add(d blobs.Digest, size int64) bool {
	if i.seen[d] {
		return false
	}
	if i.seen == nil {
		i.seen = map[blobs.Digest]bool{}
	}
	i.seen[d] = true
	i.Blobs, i.Size = append(i.Blobs, d), i.Size+size
	return true
}

// settle tells the store what refers to what, and joins images that are the same.
func (in *intake) settle(images []*image) ([]Found, error) {
	var out []Found
	for _, img := range images {
		slices.Sort(img.Platforms)
		img.Platforms = slices.Compact(img.Platforms)
		at := slices.IndexFunc(out, func(f Found) bool { return f.Digest == img.Digest })
		if at >= 0 {
			var err error
			for _, name := range img.Names {
				if out[at].Names, err = addName(out[at].Names, name); err != nil {
					return nil, err
				}
			}
			continue
		}
		for _, r := range img.refs {
			if err := in.store.SetRefs(r.doc, r.refs); err != nil {
				return nil, err
			}
		}
		out = append(out, img.Found)
	}
	return out, nil
}

// within adds to an error which blob it is about.
func within(d blobs.Digest, err error) error { return fmt.Errorf("blob %s: %w", d, err) }

const (
	noteName = "io.containerd.image.name"          // containerd's, the full name
	noteTag  = "org.opencontainers.image.ref.name" // image-spec v1.1, annotations.md: a tag or a name
)

// layout finds the images of index.json. absentError: of one a blob is missing.
func (in *intake) layout() ([]*image, error) {
	if raw, ok := in.docs["oci-layout"]; ok {
		var l struct {
			Version string `json:"imageLayoutVersion"`
		}
		if err := json.Unmarshal(raw, &l); err != nil || l.Version != "1.0.0" {
			return nil, refuse("is an OCI layout of version %q, and only 1.0.0 is taken; write it with another tool", clip(l.Version))
		}
	}
	raw := in.docs["index.json"]
	index, err := manifest.Parse("", raw)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var notes struct {
		Manifests []struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &notes); err != nil || !index.IsIndex() || len(notes.Manifests) != len(index.Images) {
		return nil, refuse("has an index.json that is no index; save the image again")
	}
	if len(index.Images) == 0 {
		return nil, refuse("has an index.json that lists no image; save the image again")
	}
	var images []*image
	picked := map[string]*image{} // it stands there once for each of its names
	for i, desc := range index.Images {
		img := picked[desc.Digest]
		if img == nil {
			if img, err = in.pick(desc); err != nil {
				return nil, err
			}
			picked[desc.Digest], images = img, append(images, img)
		}
		note := notes.Manifests[i].Annotations
		name, tag := note[noteName], note[noteTag]
		if name == "" && strings.ContainsAny(tag, ":/") && isName(tag) {
			name = tag // of tools that write the whole name there; a bare tag names nothing
		}
		if img.Names, err = addName(img.Names, name); err != nil {
			return nil, err
		}
	}
	return images, nil
}

// pick returns the image that a descriptor of index.json names. Engines save an index
// with the one platform that they have: then the image is that one.
func (in *intake) pick(desc manifest.Descriptor) (*image, error) {
	img, err := in.whole(desc)
	var lacks *absentError
	if !errors.As(err, &lacks) {
		return img, err
	}
	_, m, parseErr := in.parse(desc)
	if parseErr != nil || !m.IsIndex() {
		return nil, err
	}
	var have []*image
	var here, gone []string
	for _, child := range m.Images {
		if !isPlatform(child.Platform) {
			continue // attestations and the like
		}
		one, err := in.whole(child)
		switch {
		case err == nil:
			have, here = append(have, one), append(here, child.Platform)
		case errors.As(err, &lacks):
			gone = append(gone, child.Platform)
		default:
			return nil, err
		}
	}
	switch {
	case len(have) == 1:
		return have[0], nil
	case len(have) > 1 && len(gone) > 0:
		return nil, absent("has the image %s for %s but not for %s; save all of its platforms or one", desc.Digest, strings.Join(here, ", "), strings.Join(gone, ", "))
	}
	return nil, err
}

func isPlatform(p string) bool { return p != "" && !strings.HasPrefix(p, "unknown/") }

// whole returns the image of a descriptor if all of its blobs are there.
func (in *intake) whole(desc manifest.Descriptor) (*image, error) {
	img := &image{}
	d, m, err := in.parse(desc)
	if err != nil {
		return nil, err
	}
	img.Digest, img.MediaType = d, m.MediaType
	if isPlatform(desc.Platform) {
		img.Platforms = append(img.Platforms, desc.Platform)
	}
	return img, in.walk(img, desc, 1)
}

// parse reads the manifest or index of a descriptor.
func (in *intake) parse(desc manifest.Descriptor) (blobs.Digest, *manifest.Manifest, error) {
	d, err := in.find(desc)
	if err != nil {
		return d, nil, err
	}
	raw, err := in.document(d, manifest.MaxBytes)
	if err != nil {
		return d, nil, err
	}
	m, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return d, nil, within(d, err)
	}
	return d, m, nil
}

// find returns the digest of a blob that is in the archive.
func (in *intake) find(desc manifest.Descriptor) (blobs.Digest, error) {
	d, err := blobs.ParseDigest(desc.Digest)
	if err != nil {
		return d, err
	}
	p, ok := in.blobs[d]
	switch {
	case !ok:
		return d, absent("lists the blob %s but does not have it; it was cut short or changed: save the image again", d)
	case p.size != desc.Size:
		return d, refuse("has the blob %s of %d bytes, and lists it with %d; it was changed: save the image again", d, p.size, desc.Size)
	}
	return d, nil
}

// walk adds what a descriptor of a manifest or an index names, and all below.
func (in *intake) walk(img *image, desc manifest.Descriptor, depth int) error {
	d, err := in.find(desc)
	if err != nil || !img.add(d, desc.Size) {
		return err
	}
	_, m, err := in.parse(desc)
	if err != nil {
		return err
	}
	if m.IsIndex() && depth > maxDepth {
		return refuse("has indexes in one another deeper than %d; build the image with a plain index", maxDepth)
	}
	var refs []blobs.Digest
	for _, r := range m.Refs() {
		ref, err := in.find(r)
		if err != nil {
			return err
		}
		refs = append(refs, ref)
		if m.IsIndex() {
			if isPlatform(r.Platform) {
				img.Platforms = append(img.Platforms, r.Platform)
			}
			if err := in.walk(img, r, depth+1); err != nil {
				return err
			}
			continue
		}
		img.add(ref, r.Size)
	}
	if !m.IsIndex() {
		if err := in.inspect(img, desc, m); err != nil {
			return err
		}
	}
	img.refs = append(img.refs, docRefs{d, refs})
	return nil
}

// inspect looks at the configuration of an image, if it has one.
func (in *intake) inspect(img *image, desc manifest.Descriptor, m *manifest.Manifest) error {
	if m.Config.MediaType != typeConfig && m.Config.MediaType != typeDockerConfig {
		return nil // an artifact: a chart, a signature
	}
	d, err := in.find(m.Config)
	if err != nil {
		return err
	}
	raw, err := in.document(d, manifest.MaxConfig)
	if err != nil {
		return err
	}
	config, err := manifest.ParseConfig(raw)
	if err != nil {
		return within(d, err)
	}
	if !isPlatform(config.Platform) {
		return nil // an attestation
	}
	if len(config.DiffIDs) != len(m.Layers) {
		return refuse("has an image of %d layers whose configuration has %d; build it again", len(m.Layers), len(config.DiffIDs))
	}
	img.configs = append(img.configs, d)
	if desc.Platform == "" {
		img.Platforms = append(img.Platforms, config.Platform)
	}
	for _, l := range m.Layers {
		if ld, err := in.find(l); err == nil && in.blobs[ld].form == formTar {
			img.plain = true
		}
	}
	return nil
}

// isBetterSaved reports whether manifest.json has the same images as index.json, and the
// layers of one of them are not compressed: they would be moved as they are, two to three
// times the bytes.
func (in *intake) isBetterSaved(images []*image) bool {
	list, err := in.parseSaved()
	if err != nil {
		return false
	}
	saved := map[blobs.Digest]bool{}
	for i := range list {
		saved[in.pieces[in.target(list[i].Config)].digest] = true
	}
	plain := false
	for _, img := range images {
		plain = plain || img.plain
		if len(img.configs) == 0 {
			return false
		}
		for _, c := range img.configs {
			if !saved[c] {
				return false
			}
		}
	}
	return plain
}
