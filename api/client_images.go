// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Image is one name of an image.
type Image struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest"`
	Platforms []string  `json:"platforms"`
	Size      int64     `json:"size_bytes"`
	Here      int64     `json:"here_bytes"` // on the asked peer
	Copies    int       `json:"copies"`     // peers heard that hold all of it
	MinCopies int       `json:"min_copies"`
	Pinned    bool      `json:"pinned"`
	Services  []string  `json:"services"`         // that use it now
	Rivals    []string  `json:"rivals,omitempty"` // other digests that the name stands for
	Author    Place     `json:"author"`
	Since     time.Time `json:"since,omitzero"`
}

// ImageBlob is one blob of an image, and who holds it.
type ImageBlob struct {
	Digest   string  `json:"digest"`
	Size     int64   `json:"size_bytes"`
	Kind     string  `json:"kind"` // index, manifest, config, layer
	Platform string  `json:"platform,omitempty"`
	Here     int64   `json:"here_bytes"`
	Holders  []Place `json:"holders"`
	Partial  []Place `json:"partial"`
}

// ImageDetail is all about an image.
type ImageDetail struct {
	Image
	MediaType string      `json:"media_type"`
	Blobs     []ImageBlob `json:"blobs"`
	Silent    []Place     `json:"silent"` // members that did not answer who holds what
	Freshness Freshness   `json:"-"`
}

// ImagePolicy is what the cluster does for images that no peer has.
type ImagePolicy struct {
	Upstream  string    `json:"upstream"` // peers-first, none
	Author    Place     `json:"author"`   // who said so; empty: nobody did
	Since     time.Time `json:"since,omitzero"`
	Freshness Freshness `json:"-"`
}

// Collected is what a collection of images removed, or would.
type Collected struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"removed_bytes"`
	Used  int64 `json:"used_bytes"`  // that stay
	Limit int64 `json:"limit_bytes"` // 0: none
}

// Images lists every name that has a digest.
func (c *Client) Images(ctx context.Context) (Listing[Image], error) {
	r, err := call(ctx, c, c.rpc.ListImages, &shoalv1.ListImagesRequest{})
	return Listing[Image]{all(r.GetImages(), imageOf), freshnessOf(r.GetFreshness())}, err
}

// Image tells all about one, NAME[:TAG] or NAME@DIGEST, and asks the other peers what
// they hold of it.
func (c *Client) Image(ctx context.Context, ref string) (ImageDetail, error) {
	r, err := call(ctx, c, c.rpc.InspectImage, &shoalv1.InspectImageRequest{Ref: ref})
	if err != nil {
		return ImageDetail{}, err
	}
	return ImageDetail{
		Image: imageOf(r.GetImage()), MediaType: r.GetMediaType(), Silent: all(r.GetSilent(), placeOf),
		Blobs: all(r.GetBlobs(), func(b *shoalv1.ImageBlob) ImageBlob {
			return ImageBlob{
				Digest: b.GetDigest(), Size: b.GetSizeBytes(), Kind: b.GetKind(), Platform: b.GetPlatform(), Here: b.GetHereBytes(),
				Holders: all(b.GetHolders(), placeOf), Partial: all(b.GetPartial(), placeOf),
			}
		}),
		Freshness: freshnessOf(r.GetFreshness()),
	}, nil
}

// ChangeImage changes a name everywhere, by the rules of shoal.Images.
func (c *Client) ChangeImage(ctx context.Context, change shoal.ImageChange) (Image, error) {
	req := &shoalv1.ChangeImageRequest{Name: change.Name}
	switch {
	case change.To != "":
		req.Change = &shoalv1.ChangeImageRequest_To{To: change.To}
	case change.Remove:
		req.Change = &shoalv1.ChangeImageRequest_Remove{Remove: true}
	case change.Pin != nil:
		req.Change = &shoalv1.ChangeImageRequest_Pin{Pin: *change.Pin}
	default:
		req.Change = &shoalv1.ChangeImageRequest_MinCopies{MinCopies: int32(change.MinCopies)}
	}
	r, err := call(ctx, c, c.rpc.ChangeImage, req)
	if err != nil {
		return Image{}, err
	}
	return imageOf(r.GetImage()), nil
}

// ImagePolicy tells whether the cluster asks registries outside.
func (c *Client) ImagePolicy(ctx context.Context) (ImagePolicy, error) {
	r, err := call(ctx, c, c.rpc.GetImagePolicy, &shoalv1.GetImagePolicyRequest{})
	if err != nil {
		return ImagePolicy{}, err
	}
	out := policyOf(r.GetPolicy())
	out.Freshness = freshnessOf(r.GetFreshness())
	return out, nil
}

// SetImagePolicy says for all peers whether they do, by a word that shoal.CheckUpstream takes.
func (c *Client) SetImagePolicy(ctx context.Context, upstream string) (ImagePolicy, error) {
	r, err := call(ctx, c, c.rpc.SetImagePolicy, &shoalv1.SetImagePolicyRequest{Upstream: upstream})
	if err != nil {
		return ImagePolicy{}, err
	}
	return policyOf(r.GetPolicy()), nil
}

// CollectImages removes from the asked peer what is not needed.
func (c *Client) CollectImages(ctx context.Context, opts shoal.CollectOptions) (Collected, error) {
	r, err := call(ctx, c, c.rpc.CollectImages, &shoalv1.CollectImagesRequest{All: opts.All, RoomBytes: opts.Room, DryRun: opts.DryRun})
	return Collected{Blobs: int(r.GetBlobs()), Bytes: r.GetBytes(), Used: r.GetUsedBytes(), Limit: r.GetLimitBytes()}, err
}

// RegistryLogin says how to speak to the asked peer's registry, on its machine.
func (c *Client) RegistryLogin(ctx context.Context) (shoal.RegistryLogin, error) {
	r, err := call(ctx, c, c.rpc.GetRegistryLogin, &shoalv1.GetRegistryLoginRequest{})
	return shoal.RegistryLogin{Address: r.GetAddress(), User: r.GetUser(), Password: r.GetPassword()}, err
}

func policyOf(m *shoalv1.ImagePolicy) ImagePolicy {
	return ImagePolicy{Upstream: m.GetUpstream(), Author: placeOf(m.GetAuthor()), Since: timeOf(m.GetSince())}
}

func imageOf(m *shoalv1.ImageRow) Image {
	same := func(s string) string { return s }
	return Image{
		Name: m.GetName(), Digest: m.GetDigest(), Platforms: all(m.GetPlatforms(), same), Size: m.GetSizeBytes(), Here: m.GetHereBytes(),
		Copies: int(m.GetCopies()), MinCopies: int(m.GetMinCopies()), Pinned: m.GetIsPinned(), Services: all(m.GetServices(), same),
		Rivals: m.GetRivals(), Author: placeOf(m.GetAuthor()), Since: timeOf(m.GetSince()),
	}
}
