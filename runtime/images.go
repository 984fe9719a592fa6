// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// Puller is shoal.Puller over what the engine already holds. It never pulls.
type Puller struct{ docker *Docker }

// NewPuller returns the puller of an engine.
func NewPuller(d *Docker) *Puller { return &Puller{docker: d} }

// Ensure implements [shoal.Puller]: it only looks, as [Docker.Find] does. The error of
// an absent image reads "image REF is not there (shoal image push it where docker has it)".
func (p *Puller) Ensure(ctx context.Context, ref string, _ func(shoal.ImageProgress)) (string, error) {
	found, err := p.docker.Find(ctx, ref)
	return found.ID, err
}

// Images implements [shoal.Puller].
func (p *Puller) Images(ctx context.Context) ([]string, error) { return p.docker.Images(ctx) }

// Find implements [shoal.ImageStore]. An image with a digest is found under whatever
// registry's name the engine has that digest: the digest says what is in it.
func (d *Docker) Find(ctx context.Context, ref string) (shoal.EngineImage, error) {
	what := "look for image " + ref
	name := shoal.NormalizeRef(ref)
	found, err := d.inspectImage(ctx, what, name)
	if err != nil || found != nil && (!isDigest(name) || found.ID == name) { // a beginning of an ID is none
		return engineImage(found), err
	}
	if digest := digestOf(name); digest != "" {
		id, err := d.idOfDigest(ctx, what, digest)
		if err != nil {
			return shoal.EngineImage{}, err
		}
		if id != "" {
			found, err := d.inspectImage(ctx, what, id)
			if err != nil || found != nil {
				return engineImage(found), err
			}
		}
	}
	return shoal.EngineImage{}, &missingImage{ref: ref}
}

// inspectImage returns an image by a name or an ID, nil if there is none.
func (d *Docker) inspectImage(ctx context.Context, what, ref string) (*image.InspectResponse, error) {
	return call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (*image.InspectResponse, error) {
		found, err := c.ImageInspect(ctx, ref)
		if cerrdefs.IsNotFound(err) {
			return nil, nil
		}
		return &found, err
	})
}

// idOfDigest returns the ID of the image with a digest, "" if there is none.
func (d *Docker) idOfDigest(ctx context.Context, what, digest string) (string, error) {
	all, err := d.listImages(ctx, what)
	for _, one := range all {
		for _, known := range one.RepoDigests {
			if digestOf(known) == digest {
				return one.ID, nil
			}
		}
	}
	return "", err
}

func (d *Docker) listImages(ctx context.Context, what string) ([]image.Summary, error) {
	return call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]image.Summary, error) {
		return c.ImageList(ctx, image.ListOptions{})
	})
}

// engineImage puts what the engine says into the root's words.
func engineImage(found *image.InspectResponse) shoal.EngineImage {
	if found == nil {
		return shoal.EngineImage{}
	}
	return shoal.EngineImage{
		ID: found.ID, Names: namesOf(found.RepoTags, found.RepoDigests),
		Platform: shoal.Platform(found.Os, found.Architecture, found.Variant), Size: found.Size,
	}
}

// namesOf returns tags and digests as shoal.NormalizeRef writes them, sorted.
func namesOf(tags, digests []string) []string {
	var out []string
	for _, ref := range slices.Concat(tags, digests) {
		if ref != "<none>:<none>" && ref != "<none>@<none>" {
			out = append(out, shoal.NormalizeRef(ref))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Images implements [shoal.ImageStore]: tags ("hello:1") and digests
// ("hello@sha256:..."), as shoal.NormalizeRef writes them.
func (d *Docker) Images(ctx context.Context) ([]string, error) {
	all, err := d.listImages(ctx, "list images")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, one := range all {
		out = append(out, namesOf(one.RepoTags, one.RepoDigests)...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Tag implements [shoal.ImageStore].
func (d *Docker) Tag(ctx context.Context, id, ref string) error {
	name, err := tagName(ref)
	if err != nil {
		return err
	}
	return d.do(ctx, d.cfg.Quick, "tag image "+ref, func(ctx context.Context, c *client.Client) error {
		err := c.ImageTag(ctx, id, name)
		if cerrdefs.IsNotFound(err) {
			return &missingImage{ref: id}
		}
		if err != nil {
			return err
		}
		found, err := c.ImageInspect(ctx, id)
		if err != nil {
			return err
		}
		for _, pulled := range pulledHere(namesOf(found.RepoTags, found.RepoDigests)) {
			// One of several names: the image stays. A name that stays does no harm.
			_, _ = c.ImageRemove(ctx, pulled, image.RemoveOptions{})
		}
		return nil
	})
}

// pulledHere returns those of an image's names that it has only because it was pulled by
// digest from a registry on this machine.
func pulledHere(names []string) []string {
	var out []string
	for _, n := range names {
		repo, _, isDigest := strings.Cut(n, "@")
		host, _, isHost := strings.Cut(repo, "/")
		isHere := isHost && (strings.HasPrefix(host, "127.") || strings.HasPrefix(host, "localhost:") || strings.HasPrefix(host, "[::1]:"))
		if isDigest && isHere && !slices.ContainsFunc(names, func(o string) bool { return strings.HasPrefix(o, repo+":") }) {
			out = append(out, n)
		}
	}
	return out
}

// tagName returns the form of a name that an image can be given. A digest is no name:
// it says what is in an image.
func tagName(ref string) (string, error) {
	name := shoal.NormalizeRef(ref)
	if digestOf(name) != "" || ref == "" {
		return "", &shoal.InvalidError{Field: "image", Why: "must be a name with a tag, got " + ref}
	}
	return name, nil
}

// digestOf returns the "sha256:..." of a reference, or that it is; "" without.
func digestOf(ref string) string {
	if _, digest, pinned := strings.Cut(ref, "@"); pinned {
		return digest
	}
	if isDigest(ref) {
		return ref
	}
	return ""
}

// isDigest reports whether a reference is nothing but a digest, or an engine's ID.
func isDigest(ref string) bool { return strings.HasPrefix(ref, "sha256:") }
