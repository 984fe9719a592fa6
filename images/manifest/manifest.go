// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// The media types of manifests (OCI image-spec v1.1 media-types.md, Docker's
// "Image Manifest V 2, Schema 2").
const (
	TypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex          = "application/vnd.oci.image.index.v1+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// The bounds.
const (
	MaxBytes  = 4 << 20 // of a manifest: what OCI's distribution-spec asks registries to take
	MaxLayers = 256     // engines stop at 125 to 127; artifacts may have more
	MaxImages = 128     // of an index
	// MaxConfig is the largest configuration of an image. Large ones hold a history of some
	// hundred steps, and have 100 KiB.
	MaxConfig = 8 << 20
)

// Descriptor names a blob or a manifest.
type Descriptor struct {
	MediaType string
	Digest    string
	Size      int64
	Platform  string // "linux/arm/v7"; "" where none is said
}

// Manifest is a manifest or an index.
type Manifest struct {
	MediaType    string // one of this package's
	ArtifactType string
	Annotations  map[string]string
	Config       Descriptor // of a manifest
	Layers       []Descriptor
	Images       []Descriptor // of an index
	Subject      *Descriptor  // what it is about; that need not be here
}

// IsIndex reports whether it lists manifests.
func (m *Manifest) IsIndex() bool { return isIndex(m.MediaType) }

// Refs returns what it refers to and needs: its configuration and layers, or its
// manifests.
func (m *Manifest) Refs() []Descriptor {
	if m.IsIndex() {
		return slices.Clone(m.Images)
	}
	return append([]Descriptor{m.Config}, m.Layers...)
}

// IsType reports whether a media type is one of a manifest or an index.
func IsType(mediaType string) bool {
	return isIndex(mediaType) || mediaType == TypeManifest || mediaType == TypeDockerManifest
}

func isIndex(mediaType string) bool { return mediaType == TypeIndex || mediaType == TypeDockerList }

type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Annotations   map[string]string `json:"annotations"`
	Config        *descriptor       `json:"config"`
	Layers        []descriptor      `json:"layers"`
	FSLayers      json.RawMessage   `json:"fsLayers"` // of Docker's schema 1
	Manifests     []descriptor      `json:"manifests"`
	Subject       *descriptor       `json:"subject"`
}

type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	URLs      []string  `json:"urls"`
	Platform  *platform `json:"platform"`
}

type platform struct {
	OS      string `json:"os"`
	Arch    string `json:"architecture"`
	Variant string `json:"variant"`
}

func (p *platform) String() string {
	if p == nil || p.OS == "" || p.Arch == "" {
		return ""
	}
	return shoal.Platform(p.OS, p.Arch, p.Variant)
}

func invalid(field, format string, args ...any) error {
	return &shoal.InvalidError{Field: field, Why: fmt.Sprintf(format, args...)}
}

// Parse reads a manifest or an index. mediaType is what the sender called it, "" if it
// said nothing: then the content tells. *shoal.InvalidError: it is none, or not one that
// is taken.
func Parse(mediaType string, raw []byte) (*Manifest, error) {
	if len(raw) > MaxBytes {
		return nil, invalid("manifest", "is %d bytes, at most %d are taken", len(raw), MaxBytes)
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, invalid("manifest", "is not JSON: %s", err)
	}
	m := &Manifest{ArtifactType: d.ArtifactType, Annotations: d.Annotations}
	var err error
	if m.MediaType, err = d.kind(mediaType); err != nil {
		return nil, err
	}
	if m.IsIndex() {
		err = m.readIndex(&d)
	} else {
		err = m.readManifest(&d)
	}
	if err != nil {
		return nil, err
	}
	if d.Subject != nil {
		s, err := d.Subject.read("subject", MaxBytes)
		if err != nil {
			return nil, err
		}
		m.Subject = &s
	}
	return m, nil
}

// kind returns which media type the document is of.
func (d *document) kind(said string) (string, error) {
	switch {
	case d.SchemaVersion == 1 || len(d.FSLayers) > 0 || strings.HasPrefix(said, "application/vnd.docker.distribution.manifest.v1"):
		return "", invalid("schemaVersion", "is Docker's schema 1, which ended in 2017; build and push the image again")
	case d.SchemaVersion != 2:
		return "", invalid("schemaVersion", "must be 2, got %d", d.SchemaVersion)
	case said != "" && d.MediaType != "" && said != d.MediaType:
		return "", invalid("mediaType", "is %q, but it was sent as %q", clip(d.MediaType), clip(said))
	case d.Layers != nil && d.Manifests != nil || d.Config != nil && d.Manifests != nil:
		return "", invalid("manifests", "stands beside layers: one reader would see an index, another a manifest")
	}
	t := d.MediaType
	if t == "" {
		t = said
	}
	if t == "" {
		t = TypeManifest
		if d.Manifests != nil {
			t = TypeIndex
		}
	}
	if !IsType(t) {
		return "", invalid("mediaType", "%q is no manifest of an image", clip(t))
	}
	return t, nil
}

func (m *Manifest) readManifest(d *document) error {
	if d.Config == nil {
		return invalid("config", "is missing")
	}
	if len(d.Layers) > MaxLayers {
		return invalid("layers", "are %d, at most %d are taken", len(d.Layers), MaxLayers)
	}
	var err error
	if m.Config, err = d.Config.read("config", MaxConfig); err != nil {
		return err
	}
	for i := range d.Layers {
		l, err := d.Layers[i].read(fmt.Sprintf("layers[%d]", i), 0)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, l)
	}
	return nil
}

func (m *Manifest) readIndex(d *document) error {
	if len(d.Manifests) > MaxImages {
		return invalid("manifests", "are %d, at most %d are taken", len(d.Manifests), MaxImages)
	}
	for i := range d.Manifests {
		one, err := d.Manifests[i].read(fmt.Sprintf("manifests[%d]", i), MaxBytes)
		if err != nil {
			return err
		}
		m.Images = append(m.Images, one)
	}
	return nil
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// read checks a descriptor. limit 0: any size.
func (d *descriptor) read(field string, limit int64) (Descriptor, error) {
	switch {
	case len(d.URLs) > 0 || strings.Contains(d.MediaType, "foreign") || strings.Contains(d.MediaType, "nondistributable"):
		return Descriptor{}, invalid(field, "is to be fetched from an address that the image names; that is never done: build it with the layer in it")
	case !digestForm.MatchString(d.Digest):
		return Descriptor{}, invalid(field+".digest", "must be sha256 and 64 hex digits, got %q", clip(d.Digest))
	case d.Size < 0:
		return Descriptor{}, invalid(field+".size", "must not be negative, got %d", d.Size)
	case limit > 0 && d.Size > limit:
		return Descriptor{}, invalid(field+".size", "is %d bytes, at most %d are taken", d.Size, limit)
	case len(d.MediaType) > 255:
		return Descriptor{}, invalid(field+".mediaType", "is %d bytes, at most 255 are taken", len(d.MediaType))
	}
	return Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform.String()}, nil
}

// clip shortens hostile text for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// For returns which manifest of an index a machine runs: the one for its very platform,
// else of those that fit the one of the newest variant, of equal ones the first. The error
// names what there is: "image is linux/arm64, this machine is linux/amd64".
func (m *Manifest) For(machine string) (Descriptor, error) {
	best := -1
	for i, d := range m.Images {
		switch {
		case !shoal.PlatformFits(machine, d.Platform):
		case d.Platform == machine:
			return d, nil
		case best < 0 || d.Platform > m.Images[best].Platform:
			best = i
		}
	}
	if best >= 0 {
		return m.Images[best], nil
	}
	return Descriptor{}, invalid("image", "is %s, this machine is %s", m.platforms(), machine)
}

// Platforms returns the platforms of an index, sorted; what is for none, as
// attestations are, is left out.
func (m *Manifest) Platforms() []string {
	var out []string
	for _, d := range m.Images {
		if d.Platform != "" && !strings.HasPrefix(d.Platform, "unknown/") {
			out = append(out, d.Platform)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (m *Manifest) platforms() string {
	if all := m.Platforms(); len(all) > 0 {
		return strings.Join(all, ", ")
	}
	return "for no platform"
}
