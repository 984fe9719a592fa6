// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// maxCopies bounds how many copies of an image can be asked for (shoal.ImageChange).
const maxCopies = 100

// imaging returns the ports of a member that serves images.
func (s *Server) imaging() (*Cluster, error) {
	c, err := s.cluster()
	if err == nil && (c.Images == nil || c.Mover == nil) {
		return nil, &Error{Code: CodeRefused, What: "this daemon serves no images"}
	}
	return c, err
}

// ListImages implements the service.
func (s *Server) ListImages(ctx context.Context, _ *connect.Request[shoalv1.ListImagesRequest]) (*connect.Response[shoalv1.ListImagesResponse], error) {
	c, err := s.imaging()
	if err != nil {
		return nil, err
	}
	list, err := c.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	out := &shoalv1.ListImagesResponse{Freshness: s.freshness(m), Images: m.images(list)}
	return connect.NewResponse(out), nil
}

// InspectImage implements the service.
func (s *Server) InspectImage(ctx context.Context, req *connect.Request[shoalv1.InspectImageRequest]) (*connect.Response[shoalv1.InspectImageResponse], error) {
	c, err := s.imaging()
	if err != nil {
		return nil, err
	}
	ref := req.Msg.GetRef()
	if err := shoal.CheckRef("image", ref); err != nil {
		return nil, err
	}
	d, err := c.Images.Inspect(ctx, ref)
	if err != nil {
		return nil, s.aboutImage(ctx, c, ref, err)
	}
	m := s.moment(ctx, c)
	out := &shoalv1.InspectImageResponse{
		Image: m.image(&d.ImageInfo), MediaType: d.MediaType, Silent: m.places(d.Silent), Freshness: s.freshness(m),
	}
	for i := range d.Blobs {
		b := &d.Blobs[i]
		out.Blobs = append(out.Blobs, &shoalv1.ImageBlob{
			Digest: b.Digest, SizeBytes: b.Size, Kind: b.Kind, Platform: b.Platform, HereBytes: b.Here,
			Holders: m.places(b.Holders), Partial: m.places(b.Partial),
		})
	}
	return connect.NewResponse(out), nil
}

// ChangeImage implements the service.
func (s *Server) ChangeImage(ctx context.Context, req *connect.Request[shoalv1.ChangeImageRequest]) (*connect.Response[shoalv1.ChangeImageResponse], error) {
	c, err := s.imaging()
	if err != nil {
		return nil, err
	}
	change, err := wantedChange(req.Msg)
	if err != nil {
		return nil, err
	}
	info, err := c.Images.Change(ctx, change)
	if err != nil {
		return nil, s.aboutImage(ctx, c, change.Name, err)
	}
	m := s.moment(ctx, c)
	return connect.NewResponse(&shoalv1.ChangeImageResponse{Image: m.image(&info)}), nil
}

// wantedChange reads a change, and refuses one that no peer could make.
func wantedChange(m *shoalv1.ChangeImageRequest) (shoal.ImageChange, error) {
	out := shoal.ImageChange{Name: m.GetName()}
	if err := shoal.CheckRef("name", out.Name); err != nil {
		return out, err
	}
	switch what := m.GetChange().(type) {
	case *shoalv1.ChangeImageRequest_To:
		if err := shoal.CheckRef("to", what.To); err != nil {
			return out, err
		}
		if strings.Contains(what.To, "@") {
			return out, &shoal.InvalidError{Field: "to", Why: fmt.Sprintf("must be a name without a digest, got %q", what.To)}
		}
		out.To = what.To
	case *shoalv1.ChangeImageRequest_Remove:
		if !what.Remove {
			return out, &shoal.InvalidError{Field: "remove", Why: "must be true"}
		}
		out.Remove = true
	case *shoalv1.ChangeImageRequest_Pin:
		out.Pin = &what.Pin
	case *shoalv1.ChangeImageRequest_MinCopies:
		if what.MinCopies < 1 || what.MinCopies > maxCopies {
			return out, &shoal.InvalidError{Field: "min_copies", Why: fmt.Sprintf("must be 1-%d, got %d", maxCopies, what.MinCopies)}
		}
		out.MinCopies = int(what.MinCopies)
	default:
		return out, &shoal.InvalidError{Field: "change", Why: "is missing: one of to, remove, pin, min_copies"}
	}
	return out, nil
}

// CollectImages implements the service.
func (s *Server) CollectImages(ctx context.Context, req *connect.Request[shoalv1.CollectImagesRequest]) (*connect.Response[shoalv1.CollectImagesResponse], error) {
	c, err := s.imaging()
	if err != nil {
		return nil, err
	}
	opts := shoal.CollectOptions{All: req.Msg.GetAll(), Room: req.Msg.GetRoomBytes(), DryRun: req.Msg.GetDryRun()}
	if opts.Room < 0 {
		return nil, &shoal.InvalidError{Field: "room_bytes", Why: fmt.Sprintf("must not be negative, got %d", opts.Room)}
	}
	got, err := c.Images.Collect(ctx, opts)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.CollectImagesResponse{
		Blobs: int32(got.Blobs), Bytes: got.Bytes, UsedBytes: got.Used, LimitBytes: got.Limit,
	}), nil
}

// GetImagePolicy implements the service.
func (s *Server) GetImagePolicy(ctx context.Context, _ *connect.Request[shoalv1.GetImagePolicyRequest]) (*connect.Response[shoalv1.GetImagePolicyResponse], error) {
	c, err := s.imaging()
	if err != nil {
		return nil, err
	}
	p, err := c.Images.Policy(ctx)
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	return connect.NewResponse(&shoalv1.GetImagePolicyResponse{Policy: m.policy(&p), Freshness: s.freshness(m)}), nil
}

// SetImagePolicy implements the service.
func (s *Server) SetImagePolicy(ctx context.Context, req *connect.Request[shoalv1.SetImagePolicyRequest]) (*connect.Response[shoalv1.SetImagePolicyResponse], error) {
	c, err := s.imaging()
	if err != nil {
		return nil, err
	}
	word := req.Msg.GetUpstream()
	if err := shoal.CheckUpstream(word); err != nil {
		return nil, err
	}
	p, err := c.Images.SetUpstream(ctx, word)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.SetImagePolicyResponse{Policy: s.moment(ctx, c).policy(&p)}), nil
}

// GetRegistryLogin implements the service.
func (s *Server) GetRegistryLogin(ctx context.Context, _ *connect.Request[shoalv1.GetRegistryLoginRequest]) (*connect.Response[shoalv1.GetRegistryLoginResponse], error) {
	c, err := s.imaging()
	if err != nil {
		return nil, err
	}
	l, err := c.Images.Login(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.GetRegistryLoginResponse{Address: l.Address, User: l.User, Password: l.Password}), nil
}

// aboutImage tells of an error what the user needs to go on: which names there are, which
// digests a name stands for, who uses it.
func (s *Server) aboutImage(ctx context.Context, c *Cluster, ref string, err error) error {
	isMissing, isConflict := errors.Is(err, shoal.ErrNotFound), errors.Is(err, shoal.ErrConflict)
	if !isMissing && !isConflict {
		return err
	}
	list, lerr := c.Images.List(ctx)
	if lerr != nil {
		return err // what came first is what was asked for
	}
	name := shoal.NormalizeRef(ref)
	_, digest, _ := strings.Cut(name, "@")
	i := slices.IndexFunc(list, func(x shoal.ImageInfo) bool { return x.Name == name || digest != "" && x.Digest == digest })
	switch {
	case isMissing && i < 0:
		var known []string
		for _, x := range list {
			known = append(known, x.Name)
		}
		why := newPane(c.Views.View(), s.deps.Clock.Mono()).synced()
		return &Error{Code: CodeNotFound, What: fmt.Sprintf("no image %q (known here: %s)", ref, listed(known)), Why: why}
	case isConflict && i >= 0 && len(list[i].Rivals) > 0:
		return disputed(&list[i])
	case isConflict && i >= 0 && len(list[i].Services) > 0:
		return &Error{
			Code: CodeConflict, What: fmt.Sprintf("image %s is used by %s", name, listed(slices.Clone(list[i].Services))),
			Todo: "update them to another image, or remove them, first",
		}
	}
	return err
}

// disputed is the error about a name that stands for several digests.
func disputed(x *shoal.ImageInfo) *Error {
	digests := append([]string{x.Digest}, x.Rivals...)
	digests = slices.DeleteFunc(digests, func(d string) bool { return d == "" })
	slices.Sort(digests)
	digests = slices.Compact(digests)
	repository := x.Name[:strings.LastIndexByte(x.Name, ':')] // there always is a tag
	return &Error{
		Code: CodeConflict,
		What: fmt.Sprintf("%s stands for %d digests, %s", x.Name, len(digests), strings.Join(digests, " and ")),
		Why:  "peers that did not hear each other named them so",
		Todo: fmt.Sprintf("write %s@DIGEST for one of them; shoal image tag %s@DIGEST %s settles it", repository, repository, x.Name),
	}
}

func (m *moment) images(in []shoal.ImageInfo) []*shoalv1.ImageRow {
	out := make([]*shoalv1.ImageRow, len(in))
	for i := range in {
		out[i] = m.image(&in[i])
	}
	return out
}

func (m *moment) image(x *shoal.ImageInfo) *shoalv1.ImageRow {
	return &shoalv1.ImageRow{
		Name: x.Name, Digest: x.Digest, Platforms: x.Platforms, SizeBytes: x.Size, HereBytes: x.Here,
		Copies: int32(x.Copies), MinCopies: int32(x.MinCopies), IsPinned: x.Pinned, Services: x.Services, Rivals: x.Rivals,
		Author: m.place(x.Author), Since: stamp(x.Since.WallMilli),
	}
}

func (m *moment) policy(p *shoal.Policy) *shoalv1.ImagePolicy {
	out := &shoalv1.ImagePolicy{Upstream: p.Upstream}
	if len(p.Heads) > 0 {
		out.Author, out.Since = m.place(p.ID.Author), stamp(p.Since.WallMilli)
	}
	return out
}

func (m *moment) places(in []shoal.PeerID) []*shoalv1.Place {
	out := make([]*shoalv1.Place, len(in))
	for i, id := range in {
		out[i] = m.place(id)
	}
	return out
}
