// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// Puller is shoal.Puller over what the engine already holds. It never pulls.
type Puller struct{ docker *Docker }

// NewPuller returns the puller of an engine.
func NewPuller(d *Docker) *Puller { return &Puller{docker: d} }

// Ensure implements [shoal.Puller]. The error of an absent image reads
// "image REF is not there (docker load it)".
func (p *Puller) Ensure(ctx context.Context, ref string, _ func(shoal.ImageProgress)) (string, error) {
	d := p.docker
	missing, id := false, ""
	err := d.do(ctx, d.cfg.Quick, "look for image "+ref, func(ctx context.Context, c *client.Client) error {
		image, err := c.ImageInspect(ctx, shoal.NormalizeRef(ref))
		id = image.ID
		if cerrdefs.IsNotFound(err) {
			missing = true
			return nil
		}
		return err
	})
	if err == nil && missing {
		return "", &missingImage{ref: ref}
	}
	return id, err
}

// Images implements [shoal.Puller]: tags ("hello:1") and digests
// ("hello@sha256:..."), as shoal.NormalizeRef writes them.
func (p *Puller) Images(ctx context.Context) ([]string, error) {
	d := p.docker
	found, err := call(ctx, d, d.cfg.Quick, "list images", func(ctx context.Context, c *client.Client) ([]image.Summary, error) {
		return c.ImageList(ctx, image.ListOptions{})
	})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, img := range found {
		for _, ref := range append(slices.Clone(img.RepoTags), img.RepoDigests...) {
			if ref != "<none>:<none>" && ref != "<none>@<none>" {
				out = append(out, shoal.NormalizeRef(ref))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
