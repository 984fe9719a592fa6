// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// judgeImage folds what all authors say of one name. In force is what no other author's
// body replaces. If those in force agree on a digest, that is what the name stands for;
// if they do not, it stands for none until somebody decides. As with services, a push
// that the author of a removal had not seen survives it.
func (v *verdict) judgeImage(versions []version) {
	heads, seen := standing(versions)
	v.seenRevs = seen
	if len(heads) == 0 {
		return
	}
	v.image = &shoal.Image{}
	for _, it := range heads {
		v.image.Heads = append(v.image.Heads, imageBody(it).ID)
	}
	if named := slices.DeleteFunc(slices.Clone(heads), func(it *item) bool { return imageBody(it).Digest == "" }); len(named) > 0 {
		heads = named
	}
	newest := heads[len(heads)-1]
	v.image.ImageBody, v.image.Since = *imageBody(newest), newest.Record.HLC
	if digests := digestsOf(heads); len(digests) > 1 {
		v.rival(heads, digests)
		return
	}
	most := slices.MaxFunc(heads, func(a, b *item) int { return compareKnowledge(imageBody(a), imageBody(b)) })
	b := imageBody(most)
	v.image.MediaType, v.image.Platforms, v.image.Blobs = b.MediaType, b.Platforms, b.Blobs
	v.image.Upstream = slices.ContainsFunc(heads, func(it *item) bool { return imageBody(it).Upstream })
}

// compareKnowledge orders bodies about one digest by how much they say of what it is
// made of: chunk lists, then blobs, then platforms, then the ID.
func compareKnowledge(a, b *shoal.ImageBody) int {
	lists := func(i *shoal.ImageBody) (n int) {
		for _, r := range i.Blobs {
			if r.Chunks != "" {
				n++
			}
		}
		return n
	}
	return cmp.Or(
		cmp.Compare(lists(a), lists(b)), cmp.Compare(len(a.Blobs), len(b.Blobs)),
		cmp.Compare(len(a.Platforms), len(b.Platforms)), a.ID.Compare(b.ID),
	)
}

func imageBody(it *item) *shoal.ImageBody { return it.Record.Body.(*shoal.ImageBody) }

// digestsOf returns the digests that these name, sorted.
func digestsOf(heads []*item) []string {
	var out []string
	for _, it := range heads {
		out = append(out, imageBody(it).Digest)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// rival makes the name stand for nothing, and says what to do about it.
func (v *verdict) rival(heads []*item, digests []string) {
	i := v.image
	for _, it := range heads {
		i.Rivals = append(i.Rivals, *imageBody(it))
	}
	v.clash = &shoal.Conflict{Image: i.Image, Rule: fmt.Sprintf(
		"none of its authors saw the other's push: %s stands for nothing until it is pushed or tagged again; use one of %s",
		i.Image, strings.Join(digests, ", "))}
	i.Digest, i.MediaType, i.Platforms, i.Blobs, i.Upstream = "", "", nil, nil, false
}
