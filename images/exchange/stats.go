// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
)

// Stats are counts since New.
type Stats struct {
	Peers []PeerStats // sorted by peer
	Blobs []BlobStats // sorted by digest; of those that moved lately
	// Refused counts what peers sent that was not taken, by reason: "unknown" message or
	// frame, "form", "range" (a chunk that the blob has not), "size", "list", "absent",
	// "limit", "unasked".
	Refused map[string]uint64
}

// PeerStats is what moved between this peer and another, over all blobs.
type PeerStats struct {
	Peer shoal.PeerID
	Got  int64 // bytes of chunks that came from it and were true
	Sent int64 // bytes of chunks handed to the network for it
	Bad  int   // chunks from it that were not what the list says
	Lied int   // blobs for which it was dropped
}

// BlobStats is what moved of one blob.
type BlobStats struct {
	Digest  blobs.Digest
	Sent    int64 // bytes handed to the network
	Sources []Source
}

// Source is who chunks of a blob came from.
type Source struct {
	Peer  shoal.PeerID
	Bytes int64
}

// Bounds of what is remembered.
const (
	maxPeerStats = 4096
	maxBlobStats = 256
)

// books counts. They are safe for concurrent use.
type books struct {
	mu      sync.Mutex // guards what follows
	peers   map[shoal.PeerID]*PeerStats
	blobs   map[blobs.Digest]*moved
	turn    uint64
	refused map[string]uint64
}

// moved is what moved of a blob, and when that last was.
type moved struct {
	turn uint64
	sent int64
	from map[shoal.PeerID]int64
}

func newBooks() *books {
	return &books{peers: map[shoal.PeerID]*PeerStats{}, blobs: map[blobs.Digest]*moved{}, refused: map[string]uint64{}}
}

// got counts a true chunk.
func (b *books) got(p shoal.PeerID, d blobs.Digest, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peer(p).Got += int64(n)
	b.blob(d).from[p] += int64(n)
}

// sent counts what was handed to the network.
func (b *books) sent(p shoal.PeerID, d blobs.Digest, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peer(p).Sent += int64(n)
	b.blob(d).sent += int64(n)
}

func (b *books) bad(p shoal.PeerID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peer(p).Bad++
}

func (b *books) lied(p shoal.PeerID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peer(p).Lied++
}

func (b *books) refuse(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused[reason]++
}

// peer returns the account of a peer. The caller holds mu. Members that left are many
// only after years, then somebody's account begins anew.
func (b *books) peer(p shoal.PeerID) *PeerStats {
	s := b.peers[p]
	if s == nil {
		if len(b.peers) >= maxPeerStats {
			for q := range b.peers {
				delete(b.peers, q)
				break
			}
		}
		s = &PeerStats{Peer: p}
		b.peers[p] = s
	}
	return s
}

// blob returns the account of a blob; the one that moved longest ago makes room.
func (b *books) blob(d blobs.Digest) *moved {
	b.turn++
	m := b.blobs[d]
	if m == nil {
		if len(b.blobs) >= maxBlobStats {
			var oldest blobs.Digest
			least := b.turn
			for e, o := range b.blobs {
				if o.turn < least {
					oldest, least = e, o.turn
				}
			}
			delete(b.blobs, oldest)
		}
		m = &moved{from: map[shoal.PeerID]int64{}}
		b.blobs[d] = m
	}
	m.turn = b.turn
	return m
}

// Stats returns the counts.
func (x *Exchange) Stats() Stats {
	b := x.books
	b.mu.Lock()
	defer b.mu.Unlock()
	st := Stats{Refused: maps.Clone(b.refused)}
	for _, p := range b.peers {
		st.Peers = append(st.Peers, *p)
	}
	for d, m := range b.blobs {
		blob := BlobStats{Digest: d, Sent: m.sent}
		for p, n := range m.from {
			blob.Sources = append(blob.Sources, Source{Peer: p, Bytes: n})
		}
		slices.SortFunc(blob.Sources, func(a, b Source) int { return cmp.Compare(a.Peer, b.Peer) })
		st.Blobs = append(st.Blobs, blob)
	}
	slices.SortFunc(st.Peers, func(a, b PeerStats) int { return cmp.Compare(a.Peer, b.Peer) })
	slices.SortFunc(st.Blobs, func(a, b BlobStats) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return st
}
