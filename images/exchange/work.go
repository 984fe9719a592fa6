// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
	"github.com/shoalnet/shoal/internal/logkey"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// How chunk lists are fetched.
const (
	listTime  = 5 * time.Second        // for a part of it
	listPause = time.Second            // after nobody sent one
	listVotes = 500 * time.Millisecond // to hear which list others offer, when it is not bound
)

// foundList is a chunk list that has its hash, or that there is none and the blob grows.
type foundList struct {
	size   int64
	hash   blobs.Digest
	hashes []blobs.Digest
	grows  bool
}

// listWait is a part of a list that a peer was asked for.
type listWait struct {
	peer shoal.PeerID
	list blobs.Digest
	from int64
	came chan []blobs.Digest
}

// work does what is due and may touch the disk. Only run calls it.
func (t *task) work(ctx context.Context) {
	t.mu.Lock()
	isDiscard, isStale, found, isNew := t.isDiscard, t.isStale, t.found, t.sw == nil
	t.isDiscard, t.isStale, t.found = false, false, nil
	t.mu.Unlock()
	if isDiscard && !t.discard() {
		return
	}
	switch {
	case isStale && isNew:
		t.openStored(ctx)
		t.opened()
	case isStale:
		t.sync()
	case found != nil && isNew:
		t.begin(ctx, *found)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isWanted || t.sw != nil && t.have.Full() {
		return // it may just be hashed
	}
	if t.sw == nil && !t.isListing && t.found == nil && t.now() >= t.listAt {
		t.listFromPeers()
	}
	t.greet()
	if now := t.now(); !t.isFinding && now >= t.findAt && (t.isStarved || !t.hasSource()) {
		isStarved := t.isStarved
		t.isFinding, t.isStarved = true, false
		t.findGap = min(max(2*t.findGap, findPause), findPauseLast)
		t.x.spawn(func(ctx context.Context) { t.find(ctx, isStarved) })
	}
}

// discard removes the partial blob that went by another chunk list.
func (t *task) discard() bool {
	info, err := t.x.deps.Store.Stat(t.digest)
	if err == nil && !info.Complete {
		err = t.x.deps.Store.Remove(t.digest)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil && info.Complete: // it came by another way, and the whole is proof enough
		t.boundSize, t.boundList, t.isStale = 0, blobs.Digest{}, true
		clear(t.falsified)
		t.poke()
		return false
	case err != nil && !errors.Is(err, shoal.ErrNotFound):
		t.fail(fmt.Errorf("begin anew by the right chunk list: %w", err))
		return false
	}
	return true
}

// openStored goes by what the store has of the blob, whole or partial.
func (t *task) openStored(ctx context.Context) {
	f, err := t.storedList()
	if err != nil {
		if !errors.Is(err, shoal.ErrNotFound) {
			t.x.deps.Log.Warn("blob cannot be served", "blob", t.digest, logkey.Err, err)
		}
		return
	}
	t.mu.Lock()
	if f.grows && t.isUngrown { // whoever writes it is alone with it until it is whole
		t.mu.Unlock()
		return
	}
	isFit := t.suits(f)
	if !isFit {
		t.isDiscard, t.isStale = true, false
		t.poke()
	}
	t.mu.Unlock()
	if isFit {
		t.begin(ctx, f)
	}
}

func (t *task) storedList() (foundList, error) {
	info, err := t.x.deps.Store.Stat(t.digest)
	if err != nil || info.Grows {
		return foundList{size: info.Size, grows: true}, err
	}
	size, hashes, err := t.x.deps.Store.ChunkList(t.digest)
	return foundList{size: size, hash: listHash(hashes), hashes: hashes}, err
}

// opened answers who said hello meanwhile, if the store has nothing.
func (t *task) opened() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isOpening = false
	if t.sw != nil {
		return
	}
	for _, n := range t.neighbours() {
		if n.sess != nil && n.isAnswered {
			t.hello(n, true)
		}
	}
}

// begin makes the scheduler, once the chunk list is known or there is none to wait for.
func (t *task) begin(ctx context.Context, f foundList) {
	have, err := t.beginStored(f)
	var reader *blobs.Reader
	if err == nil {
		reader, err = t.x.deps.Store.Read(ctx, t.digest)
	}
	var sw *swarm.Swarm
	if err == nil {
		cfg := swarm.Defaults(t.x.seed ^ seedFrom(t.digest))
		cfg.Uploads = min(cfg.Uploads, t.x.cfg.UploadSlots)
		cfg.Patience, cfg.Stall = t.x.cfg.Patience, t.x.cfg.Stall
		sw, err = swarm.New(cfg, have.Len(), have)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && !t.suits(f) { // a caller knew better meanwhile
		_ = reader.Close() // it was not read from
		t.isDiscard = true
		t.poke()
		return
	}
	switch {
	case errors.Is(err, blobs.ErrMismatch):
		t.list, t.grows = f.hash, f.grows
		t.listFalse()
		return
	case errors.Is(err, shoal.ErrConflict): // an earlier life went by another list
		t.isDiscard, t.found = true, &f
		t.poke()
		return
	case err != nil:
		t.fail(err)
		return
	}
	t.sw, t.size, t.list, t.hashes, t.have, t.reader, t.grows = sw, f.size, f.hash, f.hashes, have, reader, f.grows
	kind := swarm.EventPause
	if t.isWanted {
		kind = swarm.EventResume
	}
	t.step(swarm.Event{Kind: kind})
	t.resolve(nil, func(w *waiter) bool { return !w.isWhole })
	for _, n := range t.neighbours() {
		if n.sess != nil {
			t.hello(n, true) // before the asks that follow from joining it
			t.join(n)
		}
	}
	if have.Count() > 0 {
		t.x.tellNews(t.digest)
	}
	t.finish()
}

func (t *task) beginStored(f foundList) (swarm.Bitmap, error) {
	if f.grows {
		return t.x.deps.Store.Grow(t.digest, f.size)
	}
	return t.x.deps.Store.Begin(t.digest, f.size, f.hashes)
}

// sync takes what the store got by another way, and notices when it has all.
func (t *task) sync() {
	hashes := t.grown()
	t.mu.Lock()
	defer t.mu.Unlock()
	have, _, err := t.x.deps.Store.Chunks(t.digest) // not before: chunks come meanwhile
	if err != nil || t.sw == nil || have.Len() != t.have.Len() {
		return
	}
	if t.grows && isBeyond(t.have, have) { // it proved false, and somebody began anew
		t.growFalse()
		return
	}
	isFirst := t.have.Count() == 0
	for c := range have.Len() {
		if have.Has(c) && !t.have.Has(c) {
			t.have.Set(c)
			t.step(swarm.Event{Kind: swarm.EventChunk, Chunk: c})
		}
	}
	if isFirst && t.have.Count() > 0 {
		t.x.tellNews(t.digest)
	}
	if hashes != nil && t.grows {
		t.bind(hashes)
	}
	t.finish()
}

// finish notices that the blob is whole: every chunk is here, and the store has hashed it.
func (t *task) finish() {
	if t.isWhole || t.grows || !t.have.Full() {
		return // one that grew is whole once it has its list: the next tick sees to it
	}
	if info, err := t.x.deps.Store.Stat(t.digest); err != nil || !info.Complete {
		return // it is being hashed; the next tick looks again
	}
	t.isWhole = true
	t.judge()
	t.x.deps.Finder.Announce(t.digest)
	t.resolve(nil, everyone)
	t.setWanted(false)
	t.x.tellNews(t.digest)
}

// reconsider gives up a partial blob of an earlier life, when peers have the blob and none
// of them goes by its list. The caller holds mu.
func (t *task) reconsider() bool {
	if t.sw == nil || t.isWhole || t.grows || t.boundList != (blobs.Digest{}) {
		return false
	}
	for _, n := range t.peers {
		if n.sess != nil && n.offer.size != 0 && !n.offer.grows && n.offer.list != t.list && t.fits(n.offer.size, n.offer.list) {
			t.reset()
			t.isDiscard = true
			t.poke()
			return true
		}
	}
	return false
}

// listFalse takes that all chunks were what the list says and the whole is not the blob:
// who offered the list is dropped, and who was dropped because of it was right.
func (t *task) listFalse() {
	list := t.list
	switch {
	case t.grows:
		t.growFalse()
		return
	case list == blobs.Digest{}:
		return
	}
	t.reset()
	if list == t.boundList {
		t.fail(fmt.Errorf("%w: its chunk list is that of something else", blobs.ErrMismatch))
		return
	}
	t.falsified[list] = true
	for _, n := range t.neighbours() {
		switch {
		case n.offer.list == list:
			t.ban(n, "offers a chunk list that is not the blob's")
		case n.isBanned && n.falseList == list:
			n.isBanned, n.retryAt = false, 0
		case n.sess != nil:
			n.isTold = false
			t.hello(n, true)
		}
	}
	t.findAt = 0
	t.note()
}

// listFromPeers fetches the chunk list from who offers it: the one that is bound, else the
// one that most offer. If nobody offers one and somebody's blob grows, it is to grow here too.
func (t *task) listFromPeers() {
	votes, isWaiting := map[blobs.Digest]int{}, false
	for _, n := range t.peers {
		switch {
		case n.isDialing, n.sess != nil && !n.isAnswered:
			isWaiting = true
		case n.sess != nil && n.offer.size != 0 && !n.offer.grows && t.fits(n.offer.size, n.offer.list):
			votes[n.offer.list]++
		}
	}
	if len(votes) == 0 && !t.hasGrower() {
		return
	}
	if t.offeredAt == 0 {
		t.offeredAt = t.now()
	}
	if isWaiting && (len(votes) == 0 || t.boundList == blobs.Digest{}) && t.now()-t.offeredAt < listVotes {
		return
	}
	if len(votes) == 0 {
		t.found = &foundList{size: t.boundSize, grows: true}
		t.poke()
		return
	}
	var best blobs.Digest
	for list, n := range votes {
		if n > votes[best] || n == votes[best] && string(list[:]) < string(best[:]) {
			best = list
		}
	}
	var from []*neighbour
	for _, n := range t.neighbours() {
		if n.sess != nil && n.offer.size != 0 && !n.offer.grows && n.offer.list == best {
			from = append(from, n)
		}
	}
	t.isListing = true
	t.x.spawn(func(ctx context.Context) { t.fetchList(ctx, best, from) })
}

// fetchList asks one peer after the other for a list, and believes it if it has its hash.
func (t *task) fetchList(ctx context.Context, list blobs.Digest, from []*neighbour) {
	for _, n := range from {
		t.mu.Lock()
		s, size := n.sess, n.offer.size
		t.mu.Unlock()
		if s == nil || size == 0 {
			continue
		}
		hashes, err := t.listFrom(ctx, s, list, chunksOf(size))
		t.mu.Lock()
		if err == nil && listHash(hashes) == list {
			t.isListing = false
			t.found = &foundList{size: size, hash: list, hashes: hashes}
			t.note()
			t.mu.Unlock()
			return
		}
		if err == nil {
			t.leave(n)
			t.ban(n, "sends a chunk list that has not its hash")
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isListing = false
	t.listAt = t.now() + listPause
	t.note()
}

// listFrom asks a peer for all parts of a list.
func (t *task) listFrom(ctx context.Context, s *session, list blobs.Digest, n int) ([]blobs.Digest, error) {
	hashes := make([]blobs.Digest, 0, n)
	for len(hashes) < n {
		count := min(n-len(hashes), maxListPart)
		w := &listWait{peer: s.peer, list: list, from: int64(len(hashes)), came: make(chan []blobs.Digest, 1)}
		t.mu.Lock()
		t.listing = w
		t.mu.Unlock()
		s.send(&shoalv1.BlobListRequest{Blob: t.digest[:], List: list[:], From: w.from, Count: int64(count)})
		part, err := w.wait(ctx, s)
		if err != nil {
			return nil, err
		}
		if len(part) != count {
			return nil, fmt.Errorf("%w: %d hashes instead of %d", shoal.ErrNotFound, len(part), count)
		}
		hashes = append(hashes, part...)
	}
	return hashes, nil
}

func (w *listWait) wait(ctx context.Context, s *session) ([]blobs.Digest, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	select {
	case part := <-w.came:
		return part, nil
	case <-s.done:
		return nil, errSessionEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
