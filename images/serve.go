// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// A repository of the registry is the name of an image without its tag, as users write it
// or in its normal form: "docker pull 127.0.0.1:5050/ghcr.io/x/y:v1" is ghcr.io/x/y:v1. A
// port, which repositories cannot have, stands after a "_": 10.0.0.7_5000/app is
// 10.0.0.7:5000/app.

var hostAndPort = regexp.MustCompile(`^([a-z0-9.-]*\.[a-z0-9.-]*|localhost)_([0-9]{1,5})/`)

// nameOf returns the name that a repository stands for, without tag.
func nameOf(repo string) string {
	return repository(shoal.NormalizeRef(hostAndPort.ReplaceAllString(repo, "$1:$2/")))
}

// repoOf returns the repository of a name.
func repoOf(name string) string {
	host, rest, ok := strings.Cut(repository(name), "/")
	if !ok {
		return host
	}
	return strings.ReplaceAll(host, ":", "_") + "/" + rest
}

// Tag implements registry.Backend.
func (r *Room) Tag(ctx context.Context, repo, tag string) (manifest.Descriptor, error) {
	ref := nameOf(repo) + ":" + tag
	body, err := r.find(ref)
	if err == nil {
		return rootOf(body), nil
	}
	if !errors.Is(err, shoal.ErrNotFound) || !r.isAllowed(ref) {
		return manifest.Descriptor{}, err
	}
	found, outErr := r.lookOutside(ctx, ref)
	if outErr != nil {
		return manifest.Descriptor{}, fmt.Errorf("%w; and its registry: %w", err, outErr)
	}
	return manifest.Descriptor{MediaType: found.MediaType, Digest: found.Digest, Size: int64(len(found.Raw))}, nil
}

// rootOf returns the manifest or index that a record is about.
func rootOf(b *shoal.ImageBody) manifest.Descriptor {
	d := manifest.Descriptor{MediaType: b.MediaType, Digest: b.Digest}
	for _, ref := range b.Blobs {
		if ref.Digest == b.Digest {
			d.Size = ref.Size
		}
	}
	return d
}

// Tags implements registry.Backend.
func (r *Room) Tags(_ context.Context, repo string) ([]string, error) {
	want := nameOf(repo)
	var out []string
	r.names(func(repo, tag string) {
		if repo == want {
			out = append(out, tag)
		}
	})
	if len(out) == 0 {
		return nil, fmt.Errorf("no image of repository %q is known to the cluster: %w", repo, shoal.ErrNotFound)
	}
	return out, nil
}

// Repositories implements registry.Backend.
func (r *Room) Repositories(context.Context) ([]string, error) {
	var out []string
	r.names(func(repo, _ string) { out = append(out, repoOf(repo)) })
	slices.Sort(out)
	return slices.Compact(out), nil
}

// names calls fn for every name that stands for something.
func (r *Room) names(fn func(repo, tag string)) {
	d := r.deps.Records.Desired()
	for i := range d.Images {
		img := &d.Images[i]
		if img.Digest != "" || len(img.Rivals) > 0 {
			repo := repository(img.Image)
			fn(repo, strings.TrimPrefix(img.Image[len(repo):], ":"))
		}
	}
}

// SetTag implements registry.Backend.
func (r *Room) SetTag(ctx context.Context, repo, tag string, d manifest.Descriptor) error {
	return r.adopt(ctx, nameOf(repo)+":"+tag, d, false)
}

// DeleteTag implements registry.Backend.
func (r *Room) DeleteTag(ctx context.Context, repo, tag string) error {
	_, err := r.Change(ctx, shoal.ImageChange{Name: nameOf(repo) + ":" + tag, Remove: true})
	return err
}

// MayRemove implements registry.Backend.
func (r *Room) MayRemove(_ context.Context, _ string, d blobs.Digest) error {
	desired, digest := r.deps.Records.Desired(), d.String()
	for i := range desired.Services {
		s := &desired.Services[i]
		if s.Spec.Digest == digest {
			return fmt.Errorf("service %s runs it: %w", s.Spec.Name, shoal.ErrConflict)
		}
	}
	for i := range desired.Images {
		for _, b := range desired.Images[i].Blobs {
			if b.Digest == digest {
				return fmt.Errorf("%s is made of it: %w", desired.Images[i].Image, shoal.ErrConflict)
			}
		}
	}
	return nil
}

// Need implements registry.Backend. A registry outside is asked only for what a manifest
// of this store refers to: a client that pushes asks whether a layer is here, too, and what
// it has is nobody's business outside.
func (r *Room) Need(ctx context.Context, repo string, d blobs.Digest, size int64) error {
	if r.probed(repo) {
		return fmt.Errorf("that is only asked to see whether the question arrives: %w", shoal.ErrNotFound)
	}
	w := &wanted{refs: map[string]shoal.BlobRef{}}
	if b := r.bound(d); b.Digest != "" {
		w.refs[b.Digest] = b
	}
	as, isReferred := r.referredAs(ctx, d)
	if d == blobs.DigestOf(nil) && !isReferred && len(w.refs) == 0 { // anybody could make it
		return fmt.Errorf("blob %s: %w", short(d.String()), shoal.ErrNotFound)
	}
	if isReferred {
		w.ref, size = nameOf(repo)+"@"+d.String(), as.Size
	}
	one, err := w.blob(manifest.Descriptor{Digest: d.String(), Size: size})
	if err != nil {
		return err
	}
	if err = r.exchange.Begin(ctx, one); errors.Is(err, shoal.ErrNotFound) || errors.Is(err, shoal.ErrNoSpace) {
		err = r.bring(ctx, one, w.ref, manifest.IsType(as.MediaType))
	}
	if err != nil || !manifest.IsType(as.MediaType) {
		return err
	}
	raw, err := r.readSmall(ctx, d)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(as.MediaType, raw)
	if err != nil {
		return err
	}
	return r.noteRefs(ctx, as, m)
}

// referredAs returns how a manifest of the store describes a blob.
func (r *Room) referredAs(ctx context.Context, d blobs.Digest) (manifest.Descriptor, bool) {
	for _, info := range r.store.List() {
		if !slices.Contains(info.Refs, d) {
			continue
		}
		raw, err := r.readSmall(ctx, info.Digest)
		if err != nil {
			continue
		}
		m, err := manifest.Parse("", raw)
		if err != nil {
			continue
		}
		for _, one := range m.Refs() {
			if one.Digest == d.String() {
				return one, true
			}
		}
	}
	return manifest.Descriptor{}, false
}

// bound returns what records bind of a blob, zero if none does.
func (r *Room) bound(d blobs.Digest) shoal.BlobRef {
	desired, digest := r.deps.Records.Desired(), d.String()
	var found shoal.BlobRef
	for i := range desired.Images {
		for _, b := range desired.Images[i].Blobs {
			if b.Digest == digest && (found.Digest == "" || found.Chunks == "") {
				found = b
			}
		}
	}
	return found
}
