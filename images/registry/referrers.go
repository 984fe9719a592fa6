// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// referrers knows which manifests in the store are about which others. That is all that is
// kept in memory: annotations, which may be large, are read when they are asked for.
type referrers struct {
	mu sync.Mutex // guards of
	of map[blobs.Digest]map[blobs.Digest]bool
}

func (x *referrers) add(d, subject blobs.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.of[subject] == nil {
		x.of[subject] = map[blobs.Digest]bool{}
	}
	x.of[subject][d] = true
}

func (x *referrers) remove(d, subject blobs.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.of[subject], d)
	if len(x.of[subject]) == 0 {
		delete(x.of, subject)
	}
}

// Referrers returns the manifests in the store that are about a subject, as signatures are,
// sorted. Nothing refers to them, so who keeps the subject has to keep them too. Some may
// be gone from the store.
func (r *Registry) Referrers(subject blobs.Digest) []blobs.Digest {
	r.referrers.mu.Lock()
	defer r.referrers.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.referrers.of[subject]), func(a, b blobs.Digest) int { return bytes.Compare(a[:], b[:]) })
}

// Manifested tells that a manifest came to the store otherwise than by a push: from a peer
// or an archive. What it refers to is then known to the store, and it to Referrers.
// shoal.ErrNotFound: it is not there; *shoal.InvalidError: it is no manifest.
func (r *Registry) Manifested(ctx context.Context, d blobs.Digest) error {
	_, m, err := r.read(ctx, d)
	if err == nil {
		err = r.note(d, m)
	}
	if err != nil {
		return fmt.Errorf("note manifest %s: %w", d, err)
	}
	return nil
}

func (r *Registry) note(d blobs.Digest, m *manifest.Manifest) error {
	refs := make([]blobs.Digest, 0, len(m.Layers)+len(m.Images)+1)
	for _, ref := range m.Refs() {
		to, err := blobs.ParseDigest(ref.Digest)
		if err != nil {
			return err
		}
		refs = append(refs, to)
	}
	if err := r.store.SetRefs(d, refs); err != nil {
		return err
	}
	if subject, ok := subjectOf(m); ok {
		r.referrers.add(d, subject)
	}
	return nil
}

func (r *Registry) forget(d blobs.Digest, m *manifest.Manifest) {
	if subject, ok := subjectOf(m); ok {
		r.referrers.remove(d, subject)
	}
}

func subjectOf(m *manifest.Manifest) (blobs.Digest, bool) {
	if m.Subject == nil {
		return blobs.Digest{}, false
	}
	d, err := blobs.ParseDigest(m.Subject.Digest)
	return d, err == nil
}

// maxBare is how large a manifest can be that refers to nothing, an empty index, and be
// found when the registry opens: to look at every blob would take long.
const maxBare = 64 << 10

// mayBeManifest says whether a blob is worth a look when the registry opens.
func mayBeManifest(info blobs.Info) bool {
	return info.Complete && (len(info.Refs) > 0 && info.Size <= manifest.MaxBytes || info.Size <= maxBare)
}
