// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// maxArchive bounds what the twin keeps of one archive.
const maxArchive = 256 << 20

// Media types of OCI's image specification v1.1.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// refName is the annotation that names an image of a layout.
const refName = "org.opencontainers.image.ref.name"

// Parts of the files of an archive that the twin reads and writes.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Platform    *platform         `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	platform struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType,omitempty"`
		Config        *descriptor  `json:"config,omitempty"`
		Layers        []descriptor `json:"layers,omitempty"`
		Manifests     []descriptor `json:"manifests,omitempty"`
	}
	saved struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
)

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func badArchive(format string, args ...any) error {
	return &shoal.InvalidError{Field: "archive", Why: fmt.Sprintf(format, args...)}
}

// put keeps a blob.
func (m *images) put(mediaType string, b []byte) descriptor {
	d := digestOf(b)
	m.content[d] = b
	return descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (m *images) putJSON(mediaType string, v any) descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // of our own types
	}
	return m.put(mediaType, raw)
}

// make makes an image for linux/amd64 with a layer of each size; the same each time.
func (m *images) make(seed string, layers ...int) *bundle {
	var parts []descriptor
	for i, n := range layers {
		word := fmt.Sprintf("layer %d of %s\n", i, seed)
		parts = append(parts, m.put(typeLayer, []byte(strings.Repeat(word, n/len(word)+1)[:n])))
	}
	return m.assemble(m.putJSON(typeConfig, platform{"linux", "amd64"}), parts)
}

func (m *images) assemble(config descriptor, layers []descriptor) *bundle {
	d := m.putJSON(typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: &config, Layers: layers})
	b, err := m.read(d, nil)
	if err != nil {
		panic(err) // it was just written
	}
	return b
}

// read makes a bundle of a manifest or an index and what it refers to, all of which is
// among files, or kept already.
func (m *images) read(d descriptor, files map[string][]byte) (*bundle, error) {
	b := &bundle{digest: d.Digest, mediaType: d.MediaType}
	if err := m.add(b, d, files, "", 0); err != nil {
		return nil, err
	}
	slices.Sort(b.platforms)
	m.bundles[b.digest] = b
	return b, nil
}

// add adds a blob and what it refers to.
func (m *images) add(b *bundle, d descriptor, files map[string][]byte, kind string, depth int) error {
	raw, ok := m.content[d.Digest]
	if !ok {
		raw, ok = files["blobs/"+strings.ReplaceAll(d.Digest, ":", "/")]
	}
	switch {
	case depth > 3:
		return badArchive("has indexes within indexes")
	case !ok:
		return badArchive("lacks %s, which it refers to", d.Digest)
	case digestOf(raw) != d.Digest:
		return badArchive("has other content at %s than its name says", d.Digest)
	}
	m.content[d.Digest] = raw
	var inside manifest
	if kind == "" {
		if err := json.Unmarshal(raw, &inside); err != nil {
			return badArchive("has no manifest at %s: %v", d.Digest, err)
		}
		kind = "manifest"
		if len(inside.Manifests) > 0 {
			kind = "index"
		}
	}
	b.blobs = append(b.blobs, shoal.ImageBlob{BlobRef: shoal.BlobRef{Digest: d.Digest, Size: int64(len(raw))}, Kind: kind})
	if kind == "config" {
		var p platform
		if err := json.Unmarshal(raw, &p); err != nil || p.OS == "" {
			return badArchive("has a configuration that says no platform")
		}
		b.platforms = append(b.platforms, shoal.Platform(p.OS, p.Architecture, ""))
	}
	for _, x := range inside.Manifests {
		if err := m.add(b, x, files, "", depth+1); err != nil {
			return err
		}
	}
	if inside.Config != nil {
		if err := m.add(b, *inside.Config, files, "config", depth+1); err != nil {
			return err
		}
	}
	for _, x := range inside.Layers {
		if err := m.add(b, x, files, "layer", depth+1); err != nil {
			return err
		}
	}
	return nil
}

// unpack reads a tar archive, gzipped or not, to its end.
func unpack(archive io.Reader) (map[string][]byte, error) {
	in := bufio.NewReader(archive)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		zip, err := gzip.NewReader(in)
		if err != nil {
			return nil, badArchive("is damaged: %v", err)
		}
		in = bufio.NewReader(zip)
	}
	files, total := map[string][]byte{}, int64(0)
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, in) // padding, and the end that was said
			return files, err
		}
		var data []byte
		if err == nil {
			data, err = io.ReadAll(io.LimitReader(r, maxArchive))
			total += int64(len(data))
		}
		switch {
		case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, badArchive("is no tar archive, or not all of one")
		case err != nil:
			return nil, err
		case total > maxArchive:
			return nil, badArchive("is too large for a test")
		case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir:
			return nil, badArchive("has a link or device at %s", h.Name)
		}
		files[path.Clean(h.Name)] = data
	}
}

// take finds the images of an archive, by their names.
func (m *images) take(files map[string][]byte, as string) (map[string]*bundle, error) {
	out := map[string]*bundle{}
	var index manifest
	var tars []saved
	switch {
	case files["index.json"] != nil:
		if err := json.Unmarshal(files["index.json"], &index); err != nil {
			return nil, badArchive("has no index: %v", err)
		}
	case files["manifest.json"] != nil:
		if err := json.Unmarshal(files["manifest.json"], &tars); err != nil {
			return nil, badArchive("has no manifest.json: %v", err)
		}
	default:
		return nil, badArchive("is neither an OCI layout nor what docker save writes")
	}
	for _, d := range index.Manifests {
		b, err := m.read(d, files)
		if err != nil {
			return nil, err
		}
		if name := cmp.Or(as, d.Annotations[refName]); name != "" {
			out[shoal.NormalizeRef(name)] = b
		}
	}
	for _, s := range tars {
		var layers []descriptor
		for _, l := range s.Layers {
			if files[l] == nil {
				return nil, badArchive("lacks %s, which it refers to", l)
			}
			layers = append(layers, m.put(typeLayer, files[l]))
		}
		b := m.assemble(m.put(typeConfig, files[s.Config]), layers)
		for _, name := range s.RepoTags {
			out[shoal.NormalizeRef(cmp.Or(as, name))] = b
		}
		if as != "" {
			out[shoal.NormalizeRef(as)] = b
		}
	}
	if len(out) == 0 {
		return nil, &shoal.AdviceError{Err: badArchive("does not name its image"), Advice: "give it a name with --as"}
	}
	return out, nil
}

// pack writes an image as a layout, or as docker save does.
func (m *images) pack(name, format string, b *bundle, w io.Writer) error {
	files := map[string][]byte{}
	mustJSON := func(v any) []byte {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err) // of our own types
		}
		return raw
	}
	if format == shoal.FormatOCI {
		d := descriptor{MediaType: b.mediaType, Digest: b.digest, Size: b.blobs[0].Size, Annotations: map[string]string{refName: name}}
		files["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
		files["index.json"] = mustJSON(manifest{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{d}})
		for _, x := range b.blobs {
			files["blobs/"+strings.ReplaceAll(x.Digest, ":", "/")] = m.content[x.Digest]
		}
	} else {
		s := saved{RepoTags: []string{name}}
		for _, x := range b.blobs {
			switch file := strings.TrimPrefix(x.Digest, "sha256:"); x.Kind {
			case "config":
				s.Config = file + ".json"
				files[s.Config] = m.content[x.Digest]
			case "layer":
				s.Layers = append(s.Layers, file+"/layer.tar")
				files[file+"/layer.tar"] = m.content[x.Digest]
			}
		}
		files["manifest.json"] = mustJSON([]saved{s})
	}
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			return err
		}
		if _, err := io.Copy(out, bytes.NewReader(files[name])); err != nil {
			return err
		}
	}
	return out.Close()
}
