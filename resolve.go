// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"slices"
	"strings"
)

// ResolveImage answers what a reference stands for from a view alone: first the records,
// then the images that the engines of peers are heard to hold. It is [Resolver.Resolve]
// without a registry to ask. ErrConflict: the name was given several digests, and the
// error names them and what to do.
//
// A digest of the user's own is found by content: whatever name it was pushed under, as
// an image or as one platform of one.
func ResolveImage(v *View, ref string) (ResolvedImage, error) {
	if err := CheckImage(ref); err != nil {
		return ResolvedImage{}, err
	}
	name := NormalizeRef(ref)
	if _, digest, pinned := strings.Cut(name, "@"); pinned {
		if out, ok := recorded(v.Desired(), digest); ok {
			return out, nil
		}
	} else if i, ok := v.Desired().Image(name); ok {
		switch {
		case i.Digest != "":
			return ResolvedImage{Digest: i.Digest, Platforms: i.Platforms}, nil
		case len(i.Rivals) > 0:
			return ResolvedImage{}, RivalError(i)
		}
	}
	if len(EngineHolders(v, ref)) > 0 {
		return ResolvedImage{}, nil
	}
	return ResolvedImage{}, fmt.Errorf("image %s: %w", ref, ErrNotFound)
}

// recorded looks for a digest in all records, those of rivals included.
func recorded(d *Desired, digest string) (ResolvedImage, bool) {
	for i := range d.Images {
		bodies := append([]ImageBody{d.Images[i].ImageBody}, d.Images[i].Rivals...)
		for _, b := range bodies {
			if b.Digest == digest {
				return ResolvedImage{Digest: digest, Platforms: b.Platforms}, true
			}
			if slices.ContainsFunc(b.Blobs, func(r BlobRef) bool { return r.Digest == digest }) {
				return ResolvedImage{Digest: digest}, true // one platform of it; the record does not say which
			}
		}
	}
	return ResolvedImage{}, false
}

// RivalError says that a name stands for several digests, which, and what to do. It
// wraps ErrConflict.
func RivalError(i *Image) error {
	var digests []string
	for _, r := range i.Rivals {
		digests = append(digests, r.Digest)
	}
	slices.Sort(digests)
	digests = slices.Compact(digests)
	return &AdviceError{
		Err:    fmt.Errorf("image %s was pushed as %s: %w", i.Image, strings.Join(digests, " and as "), ErrConflict),
		Advice: fmt.Sprintf("name one (%s@%s), or push or tag it again", i.Image[:strings.LastIndexByte(i.Image, ':')], digests[0]),
	}
}

// EngineHolders returns the members whose engines hold an image under this reference,
// as far as they are heard and have told, sorted.
func EngineHolders(v *View, ref string) []PeerID {
	name := NormalizeRef(ref)
	var out []PeerID
	for i := range v.Peers() {
		p := &v.Peers()[i]
		st := v.State(p.ID)
		if st == nil || p.Removed || !v.Alive(p.ID) {
			continue
		}
		if _, has := slices.BinarySearch(st.Images, name); has {
			out = append(out, p.ID)
		}
	}
	return out
}
