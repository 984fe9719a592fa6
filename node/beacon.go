// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"sync"

	"github.com/shoalnet/shoal"
)

// beacon joins what the actors tell about this peer with what its images and ingress do. It is safe
// for concurrent use.
type beacon struct {
	to shoal.Beacon

	mu        sync.Mutex // guards what follows, and the order of what goes out
	state     *shoal.PeerState
	blobs     []shoal.BlobKey
	upstreams []shoal.Upstream
	carried   []shoal.Carried
}

// Publish implements shoal.Beacon.
func (b *beacon) Publish(st shoal.PeerState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = &st
	b.tell()
}

// holds takes what this peer holds of images, and whom it may ask for others.
func (b *beacon) holds(blobs []shoal.BlobKey, upstreams []shoal.Upstream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs, b.upstreams = blobs, upstreams
	b.tell()
}

// carries takes what this peer carries to services.
func (b *beacon) carries(carried []shoal.Carried) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.carried = carried
	b.tell()
}

// tell publishes it all, once the actors have something to tell: before that nobody knows
// whether this peer can hold anything. b.mu is held.
func (b *beacon) tell() {
	if b.state == nil {
		return
	}
	st := *b.state
	st.Blobs, st.Upstreams, st.Carried = b.blobs, b.upstreams, b.carried
	b.to.Publish(st)
}

// Confirm implements shoal.Beacon.
func (b *beacon) Confirm(ctx context.Context, peer shoal.PeerID) error {
	return b.to.Confirm(ctx, peer)
}
