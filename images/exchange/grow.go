// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"errors"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
	"github.com/shoalnet/shoal/internal/logkey"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// A blob grows when nobody knows its chunk list yet: one peer gets it from a registry
// outside, which has no hashes of chunks. The others take from it, and from each other, what
// nobody can verify before the whole is there. A lie is found at the end, then; it is not
// believed, and the blob does not grow here again: only a list is gone by from then on.

// maxTaken bounds the chunks of one blob of which it is remembered who sent them: of the
// first 64 GiB, in 6 MB.
const maxTaken = 1 << 16

// taken is a chunk that nobody could verify.
type taken struct {
	peer shoal.PeerID
	sum  blobs.Digest
}

// suits is fits for one that may grow, which has no list.
func (t *task) suits(f foundList) bool {
	if !f.grows {
		return t.fits(f.size, f.hash)
	}
	return !t.isUngrown && (t.boundSize == 0 || f.size == t.boundSize)
}

// mayTake reports whether what a peer offers can be begun with. Without a list the size has
// to be known from elsewhere: else a stranger's word is all there is.
func (t *task) mayTake(o offer) bool {
	if o.grows {
		return !t.isUngrown && o.size == t.boundSize
	}
	return t.fits(o.size, o.list)
}

// hasGrower reports whether a peer that grows has something to begin with.
func (t *task) hasGrower() bool {
	for _, n := range t.peers {
		if n.sess != nil && n.offer.grows && t.mayTake(n.offer) && n.offer.chunks.Count() > 0 {
			return true
		}
	}
	return false
}

// sumOf returns the hash of a chunk that the store does not compare with any.
func (t *task) sumOf(chunk []byte) blobs.Digest {
	t.mu.Lock()
	grows := t.grows
	t.mu.Unlock()
	if !grows {
		return blobs.Digest{}
	}
	return blobs.DigestOf(chunk)
}

// noteTaken remembers who sent a chunk, until it is known whether that was true.
func (t *task) noteTaken(chunk int, p shoal.PeerID, sum blobs.Digest) {
	if !t.grows || sum == (blobs.Digest{}) || len(t.taken) >= maxTaken {
		return
	}
	if t.taken == nil {
		t.taken = map[int]taken{}
	}
	t.taken[chunk] = taken{peer: p, sum: sum}
}

// grown returns the list of a blob that grew and is whole, nil if it is not.
func (t *task) grown() []blobs.Digest {
	t.mu.Lock()
	grows := t.grows
	t.mu.Unlock()
	if !grows {
		return nil
	}
	if info, err := t.x.deps.Store.Stat(t.digest); err != nil || !info.Complete {
		return nil
	}
	_, hashes, err := t.x.deps.Store.ChunkList(t.digest)
	if err != nil && !errors.Is(err, shoal.ErrNotFound) {
		t.x.deps.Log.Warn("blob cannot be served by its list", "blob", t.digest, logkey.Err, err)
	}
	return hashes
}

// bind gives a blob that grew and is whole its list, and tells it. The whole is proof
// enough: if a caller bound another list, that one is false. The caller holds mu.
func (t *task) bind(hashes []blobs.Digest) {
	t.hashes, t.list, t.grows, t.taken = hashes, listHash(hashes), false, nil
	if !t.fits(t.size, t.list) {
		t.x.deps.Log.Warn("blob is whole and has not the chunk list that was bound", "blob", t.digest)
		t.boundSize, t.boundList = 0, blobs.Digest{}
		clear(t.falsified)
	}
	for _, n := range t.neighbours() {
		if n.sess != nil && n.isAnswered {
			t.hello(n, true)
			t.join(n)
		}
	}
}

// growFalse takes that all chunks came and are not the blob, and nobody knows which is
// false. Nobody is dropped for that. The caller holds mu.
func (t *task) growFalse() {
	t.x.deps.Log.Info("what came of a blob without a chunk list is not the blob", "blob", t.digest)
	t.isUngrown = true
	t.reset()
	for _, n := range t.neighbours() {
		if n.sess != nil {
			n.isTold = false
			t.hello(n, true)
		}
	}
	t.findAt, t.isStale = 0, true
	t.note()
}

// judge drops who sent what was false while the blob grew, now that it is whole by a list.
// The caller holds mu.
func (t *task) judge() {
	for chunk, one := range t.taken {
		if chunk >= len(t.hashes) || one.sum == t.hashes[chunk] {
			continue
		}
		n := t.peers[one.peer]
		if n == nil {
			n = &neighbour{id: one.peer}
			t.peers[one.peer] = n
		}
		if !n.isBanned {
			t.leave(n)
			t.ban(n, "sent a chunk that is not the blob's")
		}
	}
	t.taken = nil
}

// doubt takes that a chunk from p is not what the list says. If p grows it is not to blame,
// for it cannot know: nothing is taken from it before it has a list, and it is served. The
// caller holds mu.
func (t *task) doubt(p shoal.PeerID) bool {
	n := t.peers[p]
	if n == nil || !n.offer.grows {
		return false
	}
	n.isDoubted = true
	if n.sess != nil { // so that it begins anew, and waits for nothing that it asked for
		n.sess.send(&shoalv1.BlobBye{Blob: t.digest[:], Reason: shoalv1.BlobByeReason_BLOB_BYE_REASON_CROWDED})
	}
	t.unjoin(n)
	n.retryAt = t.now() + absentPause
	return true
}

// isDoubtful reports whether what a peer offers is not taken.
func (n *neighbour) isDoubtful() bool { return n.isDoubted && n.offer.grows }

// isBeyond reports whether a chunk is in a that is not in b.
func isBeyond(a, b swarm.Bitmap) bool {
	for c := range a.Len() {
		if a.Has(c) && !b.Has(c) {
			return true
		}
	}
	return false
}
