// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
)

// maxHoldings is the bound of shoal.PeerState.Blobs.
const maxHoldings = 4096

// tellGap is the least time between two words on the beats about what is held: layers of
// one image become whole within a moment of each other.
const tellGap = 250 * time.Millisecond

// askEvery is how often the waits of registries outside are looked at: they end by time.
const askEvery = 5 * time.Second

// tellHoldings keeps the beats true about what this peer holds, and tells who asked in
// vain for what came by another way than from peers.
func (r *Room) tellHoldings(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var keys []shoal.BlobKey
	var ups []shoal.Upstream
	known := map[blobs.Digest]bool{}
	isTold := false
	for {
		changed := r.store.Changed()
		whole := slices.DeleteFunc(r.store.List(), func(i blobs.Info) bool { return !i.Complete })
		known = r.gained(known, whole)
		nowKeys, nowUps := holdings(whole), r.outside.Waits()
		if !isTold || !slices.Equal(keys, nowKeys) || !slices.Equal(ups, nowUps) {
			keys, ups, isTold = nowKeys, nowUps, true
			r.deps.Tell(keys, ups)
		}
		select {
		case <-changed:
			select {
			case <-time.After(tellGap):
			case <-ctx.Done():
				return
			}
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// gained tells the exchange of blobs that were not known, and returns those that are.
func (r *Room) gained(known map[blobs.Digest]bool, whole []blobs.Info) map[blobs.Digest]bool {
	now := make(map[blobs.Digest]bool, len(whole))
	for _, i := range whole {
		now[i.Digest] = true
		if !known[i.Digest] {
			r.exchange.Gained(i.Digest)
		}
	}
	return now
}

// holdings returns the keys of blobs. Of more than a beat takes the largest count: they are
// worth being found without a question.
func holdings(all []blobs.Info) []shoal.BlobKey {
	if len(all) > maxHoldings {
		slices.SortStableFunc(all, func(a, b blobs.Info) int { return int(min(max(b.Size-a.Size, -1), 1)) })
		all = all[:maxHoldings]
	}
	keys := make([]shoal.BlobKey, 0, len(all))
	for _, i := range all {
		keys = append(keys, i.Digest.Key())
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// finder finds blobs by what the peers' beats say. It is where a DHT would go.
type finder struct{ *Room }

// Find implements exchange.Finder.
func (f finder) Find(_ context.Context, d blobs.Digest) ([]shoal.PeerID, error) {
	return f.holders(d), nil
}

// Announce implements exchange.Finder: tellHoldings sees the store change.
func (f finder) Announce(blobs.Digest) {}

// holders returns the other peers that are heard and say that they hold a blob, sorted.
func (r *Room) holders(d blobs.Digest) []shoal.PeerID {
	var out []shoal.PeerID
	for id, st := range r.heard() {
		if _, holds := slices.BinarySearch(st.Blobs, d.Key()); holds {
			out = append(out, id)
		}
	}
	return out
}

// heard yields the other peers that are heard, by ID, with what they last told.
func (r *Room) heard() iter.Seq2[shoal.PeerID, *shoal.PeerState] {
	return func(yield func(shoal.PeerID, *shoal.PeerState) bool) {
		v := r.deps.Views.View()
		for i := range v.Peers() {
			p := &v.Peers()[i]
			st := v.State(p.ID)
			if p.ID != r.deps.Self && !p.Removed && st != nil && v.Alive(p.ID) && !yield(p.ID, st) {
				return
			}
		}
	}
}
