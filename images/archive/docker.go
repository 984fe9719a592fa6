// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/json"
	"path"
	"regexp"
	"strings"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// Media types of what is in a manifest (Docker's "Image Manifest V 2, Schema 2"; OCI's
// image-spec v1.1, media-types.md).
const (
	typeDockerConfig = "application/vnd.docker.container.image.v1+json"
	typeDockerLayer  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	typeConfig       = "application/vnd.oci.image.config.v1+json"
	typeGzipLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeZstdLayer    = "application/vnd.oci.image.layer.v1.tar+zstd"
)

// savedImage is one image of manifest.json, as docker save writes it (Docker's "Image
// Specification v1.2", combined image JSON and filesystem changeset format).
type savedImage struct {
	Config       string                 `json:"Config"`
	RepoTags     []string               `json:"RepoTags"`
	Layers       []string               `json:"Layers"`
	LayerSources map[string]layerSource `json:"LayerSources,omitempty"`
}

// layerSource says where a foreign layer comes from, of Windows' base images.
type layerSource struct {
	MediaType string   `json:"mediaType"`
	URLs      []string `json:"urls"`
}

// parseSaved reads manifest.json.
func (in *intake) parseSaved() ([]savedImage, error) {
	var list []savedImage
	if err := json.Unmarshal(in.docs["manifest.json"], &list); err != nil {
		return nil, refuse("has a manifest.json that is not what docker save writes: %s; save the image again", err)
	}
	switch {
	case len(list) == 0:
		return nil, refuse("has a manifest.json that lists no image; save the image again")
	case len(list) > manifest.MaxImages:
		return nil, refuse("has %d images, at most %d are taken; save fewer at a time", len(list), manifest.MaxImages)
	}
	return list, nil
}

// saved finds the images of manifest.json.
func (in *intake) saved() ([]*image, error) {
	list, err := in.parseSaved()
	if err != nil {
		return nil, err
	}
	var images []*image
	for i := range list {
		img, err := in.savedImage(&list[i])
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

func (in *intake) savedImage(one *savedImage) (*image, error) {
	names := []string(nil)
	var err error
	for _, tag := range one.RepoTags {
		if names, err = addName(names, tag); err != nil {
			return nil, err
		}
	}
	for _, src := range one.LayerSources {
		if len(src.URLs) > 0 || strings.Contains(src.MediaType, "foreign") || strings.Contains(src.MediaType, "nondistributable") {
			return nil, refuse("has a layer that is to be fetched from an address that the image names; that is never done: build it with the layer in it")
		}
	}
	config, diffIDs, platform, err := in.savedConfig(one)
	if err != nil {
		return nil, err
	}
	layers := make([]piece, len(diffIDs))
	for i, diffID := range diffIDs {
		if layers[i], err = in.savedLayer(one.Layers[i]); err != nil {
			return nil, err
		}
		if layers[i].diffID.String() != diffID {
			return nil, refuse("layer %q is not what the configuration says: it unpacks to %s, not %s; the archive was damaged or changed: save the image again",
				clip(one.Layers[i]), layers[i].diffID, diffID)
		}
	}
	return in.compose(names, config, layers, platform)
}

var hexName = regexp.MustCompile(`(?:^|[/:])([0-9a-f]{64})(?:\.json)?$`)

// savedConfig returns the configuration of an image and what is in it.
func (in *intake) savedConfig(one *savedImage) (config piece, diffIDs []string, platform string, err error) {
	config, err = in.piece(one.Config, "configuration")
	if err != nil {
		return config, nil, "", err
	}
	if config.form != formJSON {
		if config.size > manifest.MaxConfig {
			return config, nil, "", refuse("configuration %q is %d bytes, at most %d are taken; build the image with less in it", clip(one.Config), config.size, manifest.MaxConfig)
		}
		return config, nil, "", refuse("configuration %q is not JSON; save the image again", clip(one.Config))
	}
	if m := hexName.FindStringSubmatch(one.Config); m != nil && config.digest.String() != "sha256:"+m[1] {
		return config, nil, "", refuse("configuration %q has other content than its name says; it was damaged or changed: save the image again", clip(one.Config))
	}
	raw, err := in.document(config.digest, manifest.MaxConfig)
	if err != nil {
		return config, nil, "", err
	}
	parsed, err := manifest.ParseConfig(raw)
	if err != nil {
		return config, nil, "", within(config.digest, err)
	}
	switch {
	case len(one.Layers) > manifest.MaxLayers:
		return config, nil, "", refuse("has an image of %d layers, at most %d are taken; build it with fewer steps", len(one.Layers), manifest.MaxLayers)
	case len(parsed.DiffIDs) != len(one.Layers):
		return config, nil, "", refuse("lists %d layers of an image whose configuration has %d; save the image again", len(one.Layers), len(parsed.DiffIDs))
	}
	config.size = int64(len(raw))
	return config, parsed.DiffIDs, parsed.Platform, nil
}

// piece returns what the entry became that manifest.json means.
func (in *intake) piece(name, what string) (piece, error) {
	p, ok := in.pieces[in.target(name)]
	if !ok {
		return p, absent("lists the %s %q but does not have it; it was cut short or changed: save the image again", what, clip(name))
	}
	return p, nil
}

// target returns the name of the entry that a name or a link stands for.
func (in *intake) target(name string) string {
	name = path.Clean(name)
	if target, ok := in.links[name]; ok {
		return target
	}
	return name
}

// savedLayer returns a layer, compressed and in the store.
func (in *intake) savedLayer(name string) (piece, error) {
	p, err := in.piece(name, "layer")
	if err != nil {
		return p, err
	}
	p, err = in.layer(p, "layer "+clip(path.Clean(name)))
	if err == nil {
		in.pieces[in.target(name)] = p // the next image may have it, too
	}
	return p, err
}

type jsonManifest struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	Config        jsonDescriptor   `json:"config"`
	Layers        []jsonDescriptor `json:"layers"`
}

type jsonDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Size        int64             `json:"size"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (p piece) descriptor(mediaType string) jsonDescriptor {
	return jsonDescriptor{MediaType: mediaType, Size: p.size, Digest: p.digest.String()}
}

// compose writes the manifest that docker save left out. It is one of Docker's schema 2:
// the configuration is Docker's, with fields that OCI's does not have (health check), and
// schema 2 is what every engine itself pushes and pulls. It has no type for zstd, so an
// image with such a layer gets OCI's.
func (in *intake) compose(names []string, config piece, layers []piece, platform string) (*image, error) {
	m := jsonManifest{SchemaVersion: 2, MediaType: manifest.TypeDockerManifest, Config: config.descriptor(typeDockerConfig), Layers: []jsonDescriptor{}}
	gz, isZstd := typeDockerLayer, false
	for _, l := range layers {
		isZstd = isZstd || l.form == formZstd
	}
	if isZstd {
		m.MediaType, m.Config.MediaType, gz = manifest.TypeManifest, typeConfig, typeGzipLayer
	}
	img := &image{configs: []blobs.Digest{config.digest}}
	for _, l := range layers {
		kind := gz
		if l.form == formZstd {
			kind = typeZstdLayer
		}
		m.Layers = append(m.Layers, l.descriptor(kind))
	}
	raw, err := json.Marshal(&m)
	if err != nil {
		return nil, err
	}
	root, err := in.store.Put(raw)
	if err == nil {
		err = in.hold(root)
	}
	if err != nil {
		return nil, err
	}
	img.Found = Found{Names: names, Digest: root, MediaType: m.MediaType}
	if platform != "" {
		img.Platforms = []string{platform}
	}
	img.add(root, int64(len(raw)))
	img.add(config.digest, config.size)
	refs := []blobs.Digest{config.digest}
	for _, l := range layers {
		img.add(l.digest, l.size)
		refs = append(refs, l.digest)
	}
	img.refs = append(img.refs, docRefs{root, refs})
	return img, nil
}
