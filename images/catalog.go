// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// splitRef takes a reference apart: the name in its normal form, always with a tag, and
// the digest, "" if it has none.
func splitRef(ref string) (name, digest string, err error) {
	if err := shoal.CheckImage(ref); err != nil {
		return "", "", err
	}
	name, digest, _ = strings.Cut(ref, "@")
	return shoal.NormalizeRef(name), digest, nil
}

// repository returns a name without its tag.
func repository(name string) string {
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		return name[:at]
	}
	return name
}

// find returns the record of a name, or the one that binds a digest if ref has one.
// ErrNotFound: the records do not know it. ErrConflict: the name stands for several
// digests.
func (r *Room) find(ref string) (*shoal.ImageBody, error) {
	name, digest, err := splitRef(ref)
	if err != nil {
		return nil, err
	}
	d := r.deps.Records.Desired()
	if digest != "" {
		if b := binding(d, name, digest); b != nil {
			return b, nil
		}
		return nil, r.unknown(ref)
	}
	img, ok := d.Image(name)
	switch {
	case ok && len(img.Rivals) > 0:
		return nil, shoal.RivalError(img)
	case !ok || img.Digest == "":
		return nil, r.unknown(ref)
	}
	return &img.ImageBody, nil
}

// binding returns the record that says what an image of this digest is made of: the one
// of this name, else any, for a digest is the same image under every name. nil: none does.
func binding(d *shoal.Desired, name, digest string) *shoal.ImageBody {
	var found *shoal.ImageBody
	for i := range d.Images {
		img := &d.Images[i]
		for _, b := range append([]shoal.ImageBody{img.ImageBody}, img.Rivals...) {
			if b.Digest == digest && (found == nil || img.Image == name) {
				found = &b
			}
		}
	}
	return found
}

// unknown is the error of an image that the records do not know.
func (r *Room) unknown(ref string) error {
	err := fmt.Errorf("no image %q is known to the cluster: %w", ref, shoal.ErrNotFound)
	if near := nearest(ref, r.deps.Records.Desired()); near != "" {
		return &shoal.AdviceError{Err: err, Advice: fmt.Sprintf("did you mean %s?", near)}
	}
	return &shoal.AdviceError{Err: err, Advice: "shoal image ls lists what there is; shoal image push gives it one of this machine's engine"}
}

// nearest returns a name of the same repository with another tag, or of another
// repository with the same last part, "" if there is none.
func nearest(ref string, d *shoal.Desired) string {
	want := repository(shoal.NormalizeRef(ref))
	last := want[strings.LastIndexByte(want, '/')+1:]
	var alike string
	for i := range d.Images {
		name := d.Images[i].Image
		if d.Images[i].Digest == "" && len(d.Images[i].Rivals) == 0 {
			continue
		}
		repo := repository(name)
		if repo == want {
			return name
		}
		if repo[strings.LastIndexByte(repo, '/')+1:] == last {
			alike = name
		}
	}
	return alike
}

// say writes what a name stands for. change gets the folded state of the name, nil if it
// has none, and returns the new body, without ID, or nil if nothing changes. It must not
// block.
func (r *Room) say(ctx context.Context, name string, change func(*shoal.Desired, *shoal.Image) (*shoal.ImageBody, error)) error {
	_, err := r.deps.Records.Update(ctx, func(d *shoal.Desired, at shoal.Stamp) ([]shoal.Body, error) {
		if err := shoal.MayWish(r.deps.Views.View().With(d)); err != nil {
			return nil, err
		}
		now, _ := d.Image(name)
		body, err := change(d, now)
		if err != nil || body == nil {
			return nil, err
		}
		body.Image, body.ID = name, shoal.RevisionID{Seq: 1, Author: at.Author}
		if now != nil {
			body.Replaces = slices.Clone(now.Heads)
			for _, id := range now.Heads {
				body.ID.Seq = max(body.ID.Seq, id.Seq+1)
			}
		}
		return []shoal.Body{body}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("write what %s stands for: %w", name, err)
	}
	return nil
}

// adopt makes a name stand for an image whose manifests, and the blobs of at least one
// platform, are in the store.
func (r *Room) adopt(ctx context.Context, name string, root manifest.Descriptor, isUpstream bool) error {
	if err := shoal.CheckImageName(name); err != nil {
		return err
	}
	body, err := r.describe(ctx, root)
	if err != nil {
		return fmt.Errorf("take image %s: %w", name, err)
	}
	body.Upstream = isUpstream
	return r.say(ctx, name, func(_ *shoal.Desired, now *shoal.Image) (*shoal.ImageBody, error) {
		b := *body
		if now != nil {
			b.Pinned, b.MinCopies = now.Pinned, now.MinCopies
			if now.Digest == b.Digest && knows(now.Blobs, b.Blobs) && slices.Equal(now.Platforms, b.Platforms) {
				return nil, nil // said already
			}
			if now.Digest == b.Digest {
				b.Blobs = join(now.Blobs, b.Blobs)
				b.Platforms = joinSorted(now.Platforms, b.Platforms)
				b.Upstream = b.Upstream || now.Upstream
			}
		}
		return &b, nil
	})
}

// knows reports whether every blob of b is in a, its chunks included.
func knows(a, b []shoal.BlobRef) bool {
	for _, want := range b {
		if !slices.ContainsFunc(a, func(have shoal.BlobRef) bool {
			return have.Digest == want.Digest && (have.Chunks == want.Chunks || want.Chunks == "")
		}) {
			return false
		}
	}
	return true
}

// join returns a with the blobs of b that it lacks, and their chunks where it has none.
func join(a, b []shoal.BlobRef) []shoal.BlobRef {
	out := slices.Clone(a)
	for _, one := range b {
		at := slices.IndexFunc(out, func(o shoal.BlobRef) bool { return o.Digest == one.Digest })
		switch {
		case at < 0:
			out = append(out, one)
		case out[at].Chunks == "":
			out[at].Chunks = one.Chunks
		}
	}
	return out
}

func joinSorted(a, b []string) []string {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// describe says what an image of the store is made of, and notes in the store what its
// manifests refer to, so that they are kept together.
func (r *Room) describe(ctx context.Context, root manifest.Descriptor) (*shoal.ImageBody, error) {
	pieces, err := r.walk(ctx, root, everywhere, r.readHere)
	if err != nil {
		return nil, err
	}
	body := &shoal.ImageBody{Digest: root.Digest, MediaType: root.MediaType}
	if len(pieces) > shoal.MaxBlobs {
		return nil, &shoal.InvalidError{Field: "image", Why: fmt.Sprintf("has %d blobs, at most %d are taken", len(pieces), shoal.MaxBlobs)}
	}
	for _, p := range pieces {
		ref := shoal.BlobRef{Digest: p.Digest, Size: p.Size}
		d, err := blobs.ParseDigest(p.Digest)
		if err != nil {
			return nil, err
		}
		if info, err := r.store.Stat(d); err == nil && info.Complete {
			_, list, err := r.store.ChunkList(d)
			if err != nil {
				return nil, err
			}
			ref.Chunks = blobs.ListDigest(list).String()
		}
		body.Blobs = append(body.Blobs, ref)
		if p.kind == kindConfig && p.Platform != "" {
			body.Platforms = append(body.Platforms, p.Platform)
		}
	}
	body.Platforms = joinSorted(body.Platforms, nil)
	return body, nil
}
