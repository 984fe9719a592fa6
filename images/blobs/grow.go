// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

// Grow is [Store.Begin] for a blob of which only the size is known: its chunks are not
// verified one by one as they come, the whole is by its digest. Readers get them all the
// same, so who passes them on passes on what nobody has proven. The list is what came, once
// the blob is whole. On a blob that was begun with a list Grow goes by that list. It does
// not outlive the Store: what grew, and was neither whole nor given a list, is removed when
// the store is opened. Errors are those of Begin; *shoal.InvalidError: no blob has that size.
func (s *Store) Grow(d Digest, size int64) (swarm.Bitmap, error) {
	if size < 1 || size > maxChunks*swarm.ChunkBytes {
		return swarm.Bitmap{}, &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("must be 1-%d, got %d", int64(maxChunks*swarm.ChunkBytes), size)}
	}
	have, err := s.begin(d, size, make([]Digest, chunksOf(size)), true)
	if err == nil && have.Full() {
		err = s.complete(d)
	}
	if err != nil {
		return swarm.Bitmap{}, wrap("grow blob", d, err)
	}
	return have, nil
}

// grows reports whether a part has no list that its chunks are compared with.
func (s *Store) grows(p *part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.grows
}

// adopt gives a part that grows its list, if what is here fits it. The caller holds files,
// and mu, which is let go of meanwhile.
func (s *Store) adopt(e *entry, list []Digest) error {
	p := e.part
	s.mu.Unlock()
	defer s.mu.Lock()
	p.growing.Lock()
	defer p.growing.Unlock()
	s.mu.Lock()
	isFit := true
	for i := range list {
		isFit = isFit && (!p.have.Has(i) || p.list[i] == list[i])
	}
	s.mu.Unlock()
	if !isFit {
		return fmt.Errorf("%w: a chunk that is here is not what the list says", shoal.ErrConflict)
	}
	if err := s.replace(s.listPath(e.digest), packDigests(e.size, list)); err != nil {
		return err
	}
	s.mu.Lock()
	p.list, p.grows = slices.Clone(list), false
	s.mu.Unlock()
	return nil
}
