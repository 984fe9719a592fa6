// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// List implements shoal.Images.
func (r *Room) List(context.Context) ([]shoal.ImageInfo, error) {
	d := r.deps.Records.Desired()
	var out []shoal.ImageInfo
	for i := range d.Images {
		if img := &d.Images[i]; img.Digest != "" || len(img.Rivals) > 0 {
			out = append(out, r.info(d, img))
		}
	}
	return out, nil
}

// info says what is known about a name.
func (r *Room) info(d *shoal.Desired, img *shoal.Image) shoal.ImageInfo {
	out := shoal.ImageInfo{
		Name: img.Image, Digest: img.Digest, Platforms: img.Platforms, MinCopies: r.minCopies(&img.ImageBody),
		Pinned: img.Pinned, Services: users(d, img.Digest), Author: img.ID.Author, Since: img.Since,
	}
	for _, b := range img.Rivals {
		out.Rivals = append(out.Rivals, b.Digest)
	}
	slices.Sort(out.Rivals)
	out.Rivals = slices.Compact(out.Rivals)
	if img.Digest != "" {
		r.measure(&out, img.Blobs)
	}
	return out
}

// measure fills in sizes and copies.
func (r *Room) measure(out *shoal.ImageInfo, of []shoal.BlobRef) {
	have := map[shoal.PeerID]int{}
	mine := 0
	for _, b := range of {
		out.Size += b.Size
		d, err := blobs.ParseDigest(b.Digest)
		if err != nil {
			continue
		}
		if info, err := r.store.Stat(d); err == nil {
			out.Here += info.Have
			if info.Complete {
				mine++
			}
		}
		for _, id := range r.holders(d) {
			have[id]++
		}
	}
	if mine == len(of) {
		out.Copies++
	}
	for _, n := range have {
		if n == len(of) {
			out.Copies++
		}
	}
}

// users returns the services that run a digest, sorted.
func users(d *shoal.Desired, digest string) []string {
	var out []string
	for i := range d.Services {
		if digest != "" && d.Services[i].Spec.Digest == digest {
			out = append(out, d.Services[i].Spec.Name)
		}
	}
	return out
}

// look returns what is known about a reference.
func (r *Room) look(ref string) (shoal.ImageInfo, *shoal.ImageBody, error) {
	name, digest, err := splitRef(ref)
	if err != nil {
		return shoal.ImageInfo{}, nil, err
	}
	d := r.deps.Records.Desired()
	if img, ok := d.Image(name); ok && digest == "" && len(img.Rivals) > 0 {
		return r.info(d, img), &img.ImageBody, nil
	}
	body, err := r.find(ref)
	if err != nil {
		return shoal.ImageInfo{}, nil, err
	}
	img, ok := d.Image(body.Image)
	if !ok || img.Digest != body.Digest {
		img = &shoal.Image{ImageBody: *body}
	}
	return r.info(d, img), body, nil
}

// Inspect implements shoal.Images.
func (r *Room) Inspect(ctx context.Context, ref string) (shoal.ImageDetail, error) {
	info, body, err := r.look(ref)
	if err != nil {
		return shoal.ImageDetail{}, err
	}
	out := shoal.ImageDetail{ImageInfo: info, MediaType: body.MediaType}
	kinds := map[string]piece{}
	if body.Digest != "" {
		// Where the manifests are not here the records still tell sizes.
		pieces, _ := r.walk(ctx, rootOf(body), everywhere, r.readHere)
		for _, p := range pieces {
			kinds[p.Digest] = p
		}
	}
	var all []blobs.Digest
	for _, b := range body.Blobs {
		d, err := blobs.ParseDigest(b.Digest)
		if err != nil {
			return shoal.ImageDetail{}, err
		}
		all = append(all, d)
		one := shoal.ImageBlob{BlobRef: b, Kind: kinds[b.Digest].kind, Platform: kinds[b.Digest].Platform}
		if info, err := r.store.Stat(d); err == nil {
			one.Here = info.Have
			switch {
			case info.Complete:
				one.Holders = append(one.Holders, r.deps.Self)
			case info.Have > 0:
				one.Partial = append(one.Partial, r.deps.Self)
			}
		}
		out.Blobs = append(out.Blobs, one)
	}
	held, silent := r.exchange.Probe(ctx, all)
	for p, answers := range held {
		for _, h := range answers {
			i := slices.Index(all, h.Digest)
			switch {
			case i < 0:
			case h.Complete:
				out.Blobs[i].Holders = append(out.Blobs[i].Holders, p)
			default:
				out.Blobs[i].Partial = append(out.Blobs[i].Partial, p)
			}
		}
	}
	for i := range out.Blobs {
		slices.Sort(out.Blobs[i].Holders)
		slices.Sort(out.Blobs[i].Partial)
	}
	out.Silent = r.silent(silent)
	return out, nil
}

// silent returns who did not answer, and the members that are not connected, sorted.
func (r *Room) silent(asked []shoal.PeerID) []shoal.PeerID {
	out := slices.Clone(asked)
	connected := r.members()
	d := r.deps.Records.Desired()
	for i := range d.Peers {
		p := &d.Peers[i]
		if !p.Removed && p.ID != r.deps.Self && !slices.Contains(connected, p.ID) {
			out = append(out, p.ID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// maxCopies bounds what a user may ask for.
const maxCopies = 100

// Change implements shoal.Images.
func (r *Room) Change(ctx context.Context, c shoal.ImageChange) (shoal.ImageInfo, error) {
	if c.To != "" {
		return r.tag(ctx, c.Name, c.To)
	}
	name, digest, err := splitRef(c.Name)
	switch {
	case err != nil:
		return shoal.ImageInfo{}, err
	case digest != "":
		return shoal.ImageInfo{}, &shoal.InvalidError{Field: "image", Why: fmt.Sprintf("%q has a digest; only what a name stands for can be changed", c.Name)}
	case c.MinCopies < 0 || c.MinCopies > maxCopies:
		return shoal.ImageInfo{}, &shoal.InvalidError{Field: "min-copies", Why: fmt.Sprintf("must be 1-%d, got %d", maxCopies, c.MinCopies)}
	}
	var was shoal.ImageInfo
	err = r.say(ctx, name, func(d *shoal.Desired, now *shoal.Image) (*shoal.ImageBody, error) {
		if now == nil || now.Digest == "" && len(now.Rivals) == 0 {
			return nil, r.unknown(c.Name)
		}
		was = r.info(d, now)
		b := now.ImageBody
		switch {
		case c.Remove:
			if err := mayForget(d, now); err != nil {
				return nil, err
			}
			b = shoal.ImageBody{}
		case len(now.Rivals) > 0:
			return nil, shoal.RivalError(now)
		case c.Pin != nil:
			b.Pinned = *c.Pin
		}
		if c.MinCopies > 0 {
			b.MinCopies = c.MinCopies
		}
		if !c.Remove && b.Pinned == now.Pinned && b.MinCopies == now.MinCopies {
			return nil, nil // it is so already
		}
		return &b, nil
	})
	if err != nil || c.Remove {
		return was, err
	}
	info, _, err := r.look(name)
	return info, err
}

// mayForget refuses to take the last name of an image that services run.
func mayForget(d *shoal.Desired, img *shoal.Image) error {
	by := users(d, img.Digest)
	if len(by) == 0 {
		return nil
	}
	for i := range d.Images {
		if o := &d.Images[i]; o.Image != img.Image && o.Digest == img.Digest {
			return nil
		}
	}
	return &shoal.AdviceError{
		Err:    fmt.Errorf("%s is run by %s: %w", img.Image, strings.Join(by, ", "), shoal.ErrConflict),
		Advice: "remove or update what runs it first, or give it another name (shoal image tag)",
	}
}

// tag makes another name stand for an image.
func (r *Room) tag(ctx context.Context, ref, to string) (shoal.ImageInfo, error) {
	name, digest, err := splitRef(to)
	if err == nil && digest != "" {
		err = &shoal.InvalidError{Field: "name", Why: fmt.Sprintf("%q has a digest: only a name with a tag can be given one", to)}
	}
	if err != nil {
		return shoal.ImageInfo{}, err
	}
	body, err := r.find(ref)
	if errors.Is(err, shoal.ErrNotFound) {
		if own := r.untagged(ctx, ref); own != nil {
			body, err = own, nil
		}
	}
	if err != nil {
		return shoal.ImageInfo{}, err
	}
	err = r.say(ctx, name, func(_ *shoal.Desired, now *shoal.Image) (*shoal.ImageBody, error) {
		b := *body
		b.Replaces, b.Pinned, b.MinCopies = nil, false, 0
		if now != nil {
			if now.Digest == b.Digest {
				return nil, nil // it is so already
			}
			b.Pinned, b.MinCopies = now.Pinned, now.MinCopies
		}
		return &b, nil
	})
	if err != nil {
		return shoal.ImageInfo{}, err
	}
	info, _, err := r.look(name)
	return info, err
}

// untagged describes an image of this peer's store that no record names, nil if it is not
// there: it was pushed by digest, or its name was moved.
func (r *Room) untagged(ctx context.Context, ref string) *shoal.ImageBody {
	_, digest, err := splitRef(ref)
	if err != nil || digest == "" {
		return nil
	}
	raw, err := r.readHere(ctx, manifest.Descriptor{Digest: digest})
	if err != nil {
		return nil
	}
	m, err := manifest.Parse("", raw)
	if err != nil {
		return nil
	}
	body, err := r.describe(ctx, manifest.Descriptor{MediaType: m.MediaType, Digest: digest, Size: int64(len(raw))})
	if err != nil {
		return nil
	}
	return body
}
