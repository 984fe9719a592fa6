// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// maxBlob bounds the size of one blob, so that the sum of all of an image's fits.
const maxBlob = 1 << 50

// digestPrefix is what digests begin with; the wire has the 32 bytes that follow, so
// that 1,000 blobs with their chunk lists are one record.
const digestPrefix = "sha256:"

func imageMessage(b *shoal.ImageBody) *shoalv1.ImageBody {
	m := &shoalv1.ImageBody{
		Image: b.Image, Id: revisionMessage(b.ID), Replaces: revisionMessages(b.Replaces), Digest: digestBytes(b.Digest),
		MediaType: b.MediaType, Platforms: b.Platforms, Upstream: b.Upstream, Pinned: b.Pinned, MinCopies: int32(b.MinCopies),
	}
	for _, r := range b.Blobs {
		m.Blobs = append(m.Blobs, &shoalv1.BlobRef{Digest: digestBytes(r.Digest), Size: r.Size, Chunks: digestBytes(r.Chunks)})
	}
	return m
}

func imageOf(m *shoalv1.ImageBody) (*shoal.ImageBody, error) {
	digest, err := digestOf("digest", m.GetDigest())
	b := &shoal.ImageBody{
		Image: m.GetImage(), ID: revisionOf(m.GetId()), Replaces: revisionsOf(m.GetReplaces()), Digest: digest,
		MediaType: m.GetMediaType(), Platforms: m.GetPlatforms(), Upstream: m.GetUpstream(), Pinned: m.GetPinned(),
		MinCopies: int(m.GetMinCopies()),
	}
	for _, r := range m.GetBlobs() {
		blob, berr := digestOf("blobs", r.GetDigest())
		chunks, cerr := digestOf("blobs", r.GetChunks())
		for _, e := range []error{berr, cerr} {
			if err == nil {
				err = e
			}
		}
		b.Blobs = append(b.Blobs, shoal.BlobRef{Digest: blob, Size: r.GetSize(), Chunks: chunks})
	}
	return b, err
}

// digestBytes returns the bytes of a checked digest, nil for "".
func digestBytes(s string) []byte {
	raw, err := hex.DecodeString(strings.TrimPrefix(s, digestPrefix))
	if err != nil || len(raw) == 0 {
		return nil
	}
	return raw
}

func digestOf(field string, raw []byte) (string, error) {
	switch len(raw) {
	case 0:
		return "", nil
	case len(shoal.Digest{}):
		return digestPrefix + hex.EncodeToString(raw), nil
	}
	return "", invalid(field, "has a digest of %d bytes, SHA-256 has %d", len(raw), len(shoal.Digest{}))
}

// image checks every bound of an image's body.
func (c *checker) image(b *shoal.ImageBody) {
	if err := shoal.CheckImageName(b.Image); err != nil {
		c.fail("image", "%v", err)
	}
	c.revision("id", b.ID, false)
	c.revisions("replaces", b.Replaces)
	c.digest("digest", b.Digest, true)
	c.text("media_type", b.MediaType, maxWord)
	c.platforms(b.Platforms)
	c.between("min_copies", int64(b.MinCopies), 0, maxCopies)
	c.count("blobs", len(b.Blobs), shoal.MaxBlobs)
	for _, r := range b.Blobs {
		c.digest("blobs", r.Digest, false)
		c.digest("blobs", r.Chunks, true)
		c.between("blobs", r.Size, 0, maxBlob)
	}
}

// platforms checks those of an image.
func (c *checker) platforms(s []string) {
	c.list("platforms", s, shoal.MaxPlatforms, maxWord)
	if !slices.IsSorted(s) {
		c.fail("platforms", "are not sorted")
	}
}

func (c *checker) digest(field, s string, mayBeNone bool) {
	if s == "" && mayBeNone {
		return
	}
	if err := shoal.CheckDigest(field, s); err != nil && c.err == nil {
		c.err = err
	}
}

// held checks the blobs and the registries that a peer tells of.
func (c *checker) held(s *shoal.PeerState) {
	c.count("blobs", len(s.Blobs), maxBlobs)
	if !slices.IsSorted(s.Blobs) {
		c.fail("blobs", "are not sorted")
	}
	c.count("upstreams", len(s.Upstreams), maxUpstreams)
	for _, u := range s.Upstreams {
		c.text("upstreams", u.Registry, maxWord)
		c.text("upstreams", u.Waits, maxText)
	}
	if !slices.IsSortedFunc(s.Upstreams, compareUpstreams) {
		c.fail("upstreams", "are not sorted")
	}
}

func compareUpstreams(a, b shoal.Upstream) int { return strings.Compare(a.Registry, b.Registry) }

// heldMessage puts the blobs and registries of a state into its message, sorted and
// cut to their bounds, and into the state what it put there.
func heldMessage(s *shoal.PeerState, m *shoalv1.PeerState) {
	s.Blobs = slices.Sorted(slices.Values(s.Blobs))
	s.Blobs = s.Blobs[:min(len(s.Blobs), maxBlobs)]
	for _, b := range s.Blobs {
		m.Blobs = append(m.Blobs, uint64(b))
	}
	s.Upstreams = slices.SortedStableFunc(slices.Values(s.Upstreams), compareUpstreams)
	s.Upstreams = s.Upstreams[:min(len(s.Upstreams), maxUpstreams)]
	for i := range s.Upstreams {
		u := &s.Upstreams[i]
		u.Waits = sentence(u.Waits)
		m.Upstreams = append(m.Upstreams, &shoalv1.Upstream{Registry: u.Registry, Waits: u.Waits})
	}
}

// heldOf is the inverse of heldMessage.
func heldOf(m *shoalv1.PeerState, s *shoal.PeerState) {
	for _, b := range m.GetBlobs() {
		s.Blobs = append(s.Blobs, shoal.BlobKey(b))
	}
	for _, u := range m.GetUpstreams() {
		s.Upstreams = append(s.Upstreams, shoal.Upstream{Registry: u.GetRegistry(), Waits: u.GetWaits()})
	}
}
