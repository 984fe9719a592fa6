// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"bytes"
	"cmp"
	"reflect"
	"slices"

	"github.com/shoalnet/shoal"
)

// section is a bit set of the parts of a state that a beat carries.
type section uint32

const (
	sectionUsage section = 1 << iota // Free and Used
	sectionReplicas
	sectionImages
	sectionRefusals
	sectionEngine
	sectionBlobs
	sectionUpstreams
	sectionTrouble
	sectionLoads // Loads and Carried
	sectionAll   = 1<<iota - 1
)

// changes is the difference between two states. Replicas, images and blobs are carried
// one by one, the other sections whole.
type changes struct {
	sections        section
	parts           shoal.PeerState // only what sections names; Replicas, Images and Blobs: changed or added ones
	removedReplicas []shoal.ReplicaID
	removedImages   []string
	removedBlobs    []shoal.BlobKey
}

// whole returns the changes that turn any state into s.
func whole(s *shoal.PeerState) changes {
	return changes{sections: sectionAll, parts: *s}
}

// diff returns what turns old into s; both are in order (see tidy).
func diff(old, s *shoal.PeerState) changes {
	var c changes
	if old.Free != s.Free || old.Used != s.Used {
		c.sections |= sectionUsage
		c.parts.Free, c.parts.Used = s.Free, s.Used
	}
	c.parts.Replicas, c.removedReplicas = diffSorted(old.Replicas, s.Replicas, replicaKey, sameReplica)
	if len(c.parts.Replicas)+len(c.removedReplicas) > 0 {
		c.sections |= sectionReplicas
	}
	c.parts.Images, c.removedImages = diffSorted(old.Images, s.Images, imageKey, sameImage)
	if len(c.parts.Images)+len(c.removedImages) > 0 {
		c.sections |= sectionImages
	}
	c.parts.Blobs, c.removedBlobs = diffSorted(old.Blobs, s.Blobs, itself, sameBlob)
	if len(c.parts.Blobs)+len(c.removedBlobs) > 0 {
		c.sections |= sectionBlobs
	}
	if !slices.Equal(old.Upstreams, s.Upstreams) {
		c.sections |= sectionUpstreams
		c.parts.Upstreams = s.Upstreams
	}
	if !slices.Equal(old.Loads, s.Loads) || !slices.Equal(old.Carried, s.Carried) {
		c.sections |= sectionLoads
		c.parts.Loads, c.parts.Carried = s.Loads, s.Carried
	}
	if !slices.Equal(old.Refusals, s.Refusals) {
		c.sections |= sectionRefusals
		c.parts.Refusals = s.Refusals
	}
	if old.Engine != s.Engine {
		c.sections |= sectionEngine
		c.parts.Engine = s.Engine
	}
	if old.Trouble != s.Trouble {
		c.sections |= sectionTrouble
		c.parts.Trouble = s.Trouble
	}
	return c
}

// apply returns old with the changes made; neither argument is written to. With
// full, what a list held before is forgotten.
func (c changes) apply(old *shoal.PeerState, full bool) *shoal.PeerState {
	if full {
		s := c.parts
		tidy(&s)
		return &s
	}
	s := *old
	if c.sections&sectionUsage != 0 {
		s.Free, s.Used = c.parts.Free, c.parts.Used
	}
	if c.sections&sectionReplicas != 0 {
		s.Replicas = patch(old.Replicas, c.parts.Replicas, c.removedReplicas, replicaKey)
	}
	if c.sections&sectionImages != 0 {
		s.Images = patch(old.Images, c.parts.Images, c.removedImages, imageKey)
	}
	if c.sections&sectionBlobs != 0 {
		s.Blobs = patch(old.Blobs, c.parts.Blobs, c.removedBlobs, itself)
	}
	if c.sections&sectionUpstreams != 0 {
		s.Upstreams = c.parts.Upstreams
	}
	if c.sections&sectionLoads != 0 {
		s.Loads, s.Carried = c.parts.Loads, c.parts.Carried
	}
	if c.sections&sectionRefusals != 0 {
		s.Refusals = c.parts.Refusals
	}
	if c.sections&sectionEngine != 0 {
		s.Engine = c.parts.Engine
	}
	if c.sections&sectionTrouble != 0 {
		s.Trouble = c.parts.Trouble
	}
	tidy(&s)
	return &s
}

// tidy puts the lists of s in order, drops doubles and cuts them to their bounds.
// It replaces the slices and never writes to the old ones.
func tidy(s *shoal.PeerState) {
	s.Replicas = ordered(s.Replicas, maxReplicas, func(a, b shoal.ReplicaStatus) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	s.Images = ordered(s.Images, maxImages, cmp.Compare[string])
	s.Blobs = ordered(s.Blobs, maxBlobs, cmp.Compare[shoal.BlobKey])
	s.Upstreams = ordered(s.Upstreams, maxUpstreams, func(a, b shoal.Upstream) int { return cmp.Compare(a.Registry, b.Registry) })
	s.Loads = ordered(s.Loads, maxReplicas, func(a, b shoal.ReplicaLoad) int { return bytes.Compare(a.Replica[:], b.Replica[:]) })
	s.Carried = ordered(s.Carried, maxReplicas, func(a, b shoal.Carried) int { return cmp.Compare(a.Service, b.Service) })
	s.Refusals = ordered(s.Refusals, maxRefusals, func(a, b shoal.Refusal) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Revision.Compare(b.Revision))
	})
}

// ordered returns list sorted, without doubles (the first stays), at most limit
// long; the very same list if it already is.
func ordered[T any](list []T, limit int, compare func(a, b T) int) []T {
	isOrdered := len(list) <= limit
	for i := 1; i < len(list) && isOrdered; i++ {
		isOrdered = compare(list[i-1], list[i]) < 0
	}
	if isOrdered {
		return list
	}
	out := slices.Clone(list)
	slices.SortStableFunc(out, compare)
	out = slices.CompactFunc(out, func(a, b T) bool { return compare(a, b) == 0 })
	return slices.Clip(out[:min(len(out), limit)])
}

// diffSorted returns the elements of list that old lacks or has otherwise, and the
// keys that are gone.
func diffSorted[T any, K comparable](old, list []T, key func(*T) K, same func(a, b *T) bool) (changed []T, removed []K) {
	was := make(map[K]*T, len(old))
	for i := range old {
		was[key(&old[i])] = &old[i]
	}
	for i := range list {
		k := key(&list[i])
		if w, ok := was[k]; !ok || !same(w, &list[i]) {
			changed = append(changed, list[i])
		}
		delete(was, k)
	}
	for i := range old { // in order, not as the map has it
		if _, gone := was[key(&old[i])]; gone {
			removed = append(removed, key(&old[i]))
		}
	}
	return changed, removed
}

// patch returns old with the changed ones put in and the removed ones taken out,
// in no order.
func patch[T any, K comparable](old, changed []T, removed []K, key func(*T) K) []T {
	drop := make(map[K]bool, len(changed)+len(removed))
	for i := range changed {
		drop[key(&changed[i])] = true
	}
	for _, k := range removed {
		drop[k] = true
	}
	out := make([]T, 0, len(old)+len(changed))
	for i := range old {
		if !drop[key(&old[i])] {
			out = append(out, old[i])
		}
	}
	return append(out, changed...)
}

func replicaKey(r *shoal.ReplicaStatus) shoal.ReplicaID { return r.ID }
func imageKey(ref *string) string                       { return *ref }
func sameImage(a, b *string) bool                       { return *a == *b }
func itself(b *shoal.BlobKey) shoal.BlobKey             { return *b }
func sameBlob(a, b *shoal.BlobKey) bool                 { return *a == *b }

// sameReplica reports whether two states of one replica say the same.
func sameReplica(a, b *shoal.ReplicaStatus) bool {
	x, y := *a, *b
	if !slices.Equal(x.Ports, y.Ports) {
		return false
	}
	x.Ports, y.Ports = nil, nil
	return reflect.DeepEqual(x, y) // whatever fields there will be
}
