// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// twinPlatform is what a twin runs.
const twinPlatform = "linux/amd64"

// twinImage is an image as an engine holds it; nothing in it changes.
type twinImage struct {
	id       string // digest of its configuration
	platform string
	config   []byte
	layers   [][]byte // tars, as the configuration counts them
}

// twinConfig is what a twin reads of an image's configuration (OCI image specification,
// "OCI Image Configuration").
type twinConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
	Comment      string `json:"comment,omitempty"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// newTwinImage checks that a configuration and the layers belong together.
func newTwinImage(config []byte, layers [][]byte) (*twinImage, error) {
	var c twinConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(layers) {
		return nil, fmt.Errorf("image has %d layers, its configuration says %d", len(layers), len(c.RootFS.DiffIDs))
	}
	for i, want := range c.RootFS.DiffIDs {
		if got := sha256Of(layers[i]); got != want {
			return nil, fmt.Errorf("layer %d is %s, the configuration says %s", i, got, want)
		}
	}
	return &twinImage{
		id: sha256Of(config), platform: shoal.Platform(c.OS, c.Architecture, c.Variant), config: config, layers: layers,
	}, nil
}

// blankImage is the image of a name that nobody gave content: always the same.
func blankImage(name string) *twinImage {
	c := twinConfig{Architecture: "amd64", OS: "linux", Comment: name}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{}
	raw, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings always have a JSON
	}
	return &twinImage{id: sha256Of(raw), platform: twinPlatform, config: raw}
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (i *twinImage) size() int64 {
	n := int64(0)
	for _, l := range i.layers {
		n += int64(len(l))
	}
	return n
}

// SetImages makes the engine hold exactly these images, and tells of those that came
// and went. Those that it had stay what they were; new ones are empty. Running
// containers stay.
func (t *Twin) SetImages(refs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	had, images := t.names, t.images
	t.names, t.images = make(map[string]string, len(refs)), make(map[string]*twinImage, len(refs))
	for _, ref := range refs {
		name := shoal.NormalizeRef(ref)
		image := images[had[name]]
		if image == nil {
			image = blankImage(name)
		}
		t.names[name], t.images[image.id] = image.id, image
	}
	for _, ref := range slices.Sorted(maps.Keys(t.names)) {
		if had[ref] == "" {
			t.tell(shoal.EngineEvent{Image: ref, Action: "load"})
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(had)) {
		if t.names[ref] == "" {
			t.tell(shoal.EngineEvent{Image: ref, Action: "untag"})
		}
	}
}

// ForgetImage takes an image from the engine, with all its names. Running containers stay.
func (t *Twin) ForgetImage(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.images, id)
	for _, name := range slices.Sorted(maps.Keys(t.names)) {
		if t.names[name] == id {
			delete(t.names, name)
			t.tell(shoal.EngineEvent{Image: name, Action: "untag"})
		}
	}
}

// keep takes an image in, under names. Callers hold t.mu.
func (t *Twin) keep(image *twinImage, action string, names ...string) {
	t.images[image.id] = image
	for _, name := range names {
		t.names[name] = image.id
		t.tell(shoal.EngineEvent{Image: name, Action: action})
	}
}

// lookup returns what [shoal.ImageStore].Find finds, nil: nothing. Callers hold t.mu.
func (t *Twin) lookup(ref string) *twinImage {
	name := shoal.NormalizeRef(ref)
	if image := t.images[t.names[name]]; image != nil {
		return image
	}
	if image := t.images[name]; image != nil {
		return image
	}
	if digest := digestOf(name); digest != "" {
		for _, known := range slices.Sorted(maps.Keys(t.names)) {
			if digestOf(known) == digest {
				return t.images[t.names[known]]
			}
		}
	}
	return nil
}

// Find implements [shoal.ImageStore].
func (t *Twin) Find(ctx context.Context, ref string) (shoal.EngineImage, error) {
	if err := t.enter(ctx, "look for image "+ref, func(l Latency) time.Duration { return l.Call }); err != nil {
		return shoal.EngineImage{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	image := t.lookup(ref)
	if image == nil {
		return shoal.EngineImage{}, &missingImage{ref: ref}
	}
	out := shoal.EngineImage{ID: image.id, Platform: image.platform, Size: image.size()}
	for name, id := range t.names {
		if id == image.id {
			out.Names = append(out.Names, name)
		}
	}
	slices.Sort(out.Names)
	return out, nil
}

// Ensure implements [shoal.Puller]: it only looks.
func (t *Twin) Ensure(ctx context.Context, ref string, _ func(shoal.ImageProgress)) (string, error) {
	found, err := t.Find(ctx, ref)
	return found.ID, err
}

// Images implements [shoal.ImageStore] and [shoal.Puller].
func (t *Twin) Images(ctx context.Context) ([]string, error) {
	if err := t.enter(ctx, "list images", func(l Latency) time.Duration { return l.Call }); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.names)), nil
}

// Tag implements [shoal.ImageStore].
func (t *Twin) Tag(ctx context.Context, id, ref string) error {
	name, err := tagName(ref)
	if err != nil {
		return err
	}
	if err := t.enter(ctx, "tag image "+ref, func(l Latency) time.Duration { return l.Call }); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	image := t.lookup(id)
	if image == nil {
		return fmt.Errorf("tag image %s: %w", ref, &missingImage{ref: id})
	}
	t.keep(image, "tag", name)
	var names []string
	for n, id := range t.names {
		if id == image.id {
			names = append(names, n)
		}
	}
	for _, pulled := range pulledHere(names) {
		delete(t.names, pulled)
	}
	return nil
}
