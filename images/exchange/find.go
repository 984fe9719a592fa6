// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Between looks for sources; doubles.
const (
	findPause     = 2 * time.Second
	findPauseLast = 30 * time.Second
)

// find looks for sources: those the Finder names, then whoever of all members says that
// it has something. If there is none, callers are told. isStarved: those that are known
// bring nothing, so all are asked.
func (t *task) find(ctx context.Context, isStarved bool) {
	named := t.askFinder(ctx)
	if t.awaitSource(ctx) && !isStarved {
		t.endFind()
		return
	}
	members := t.x.others(t.x.deps.Members())
	held, silent := t.x.probe(ctx, members, []blobs.Digest{t.digest}, true)
	t.mu.Lock()
	for id := range held {
		t.answers(id)
	}
	t.greet()
	t.mu.Unlock()
	isFound := t.awaitSource(ctx)
	t.endFind()
	if isFound || ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isWhole || t.sw != nil && t.have.Full() || t.hasSource() || t.isCrowded() || t.reconsider() { // it changed meanwhile
		return
	}
	t.nowhere(max(len(members), named), len(silent))
}

// askFinder makes candidates of the peers that the Finder names, and returns how many.
func (t *task) askFinder(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, t.x.cfg.ProbeTimeout)
	defer cancel()
	ids, err := t.x.deps.Finder.Find(ctx, t.digest)
	if err != nil {
		t.x.deps.Log.Debug("finder failed", "blob", t.digest, logkey.Err, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	named := 0
	for _, id := range trimmed(ids, maxCandidates) {
		if t.candidate(id, true) != nil {
			named++
		}
	}
	t.greet()
	return named
}

func (t *task) endFind() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isFinding = false
	t.findAt = t.now() + t.findGap
}

// awaitSource waits until there is a source, or nobody is left who may become one, for
// Config.ProbeTimeout at most.
func (t *task) awaitSource(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, t.x.cfg.ProbeTimeout)
	defer cancel()
	for {
		t.mu.Lock()
		isFound, isPending, changed := t.hasSource() || !t.isWanted, t.isPending(), t.changed
		t.mu.Unlock()
		if isFound || !isPending {
			return isFound
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// hasSource reports whether a peer that is connected has something that is missing here.
func (t *task) hasSource() bool {
	for _, n := range t.peers {
		if n.isBanned || n.sess == nil || n.offer.size == 0 {
			continue
		}
		if t.sw == nil {
			if t.mayTake(n.offer) && n.offer.chunks.Count() > 0 {
				return true
			}
			continue
		}
		if !n.isJoined {
			continue
		}
		for c := range t.have.Len() {
			if n.offer.chunks.Has(c) && !t.have.Has(c) {
				return true
			}
		}
	}
	return false
}

// isPending reports whether a peer may yet turn out to be a source.
func (t *task) isPending() bool {
	now := t.now()
	for _, n := range t.peers {
		isNext := n.sess == nil && n.isHolder && !n.isBanned && now >= n.retryAt // as greet sees it
		if n.isDialing || isNext || n.sess != nil && !n.isAnswered {
			return true
		}
	}
	return false
}

// isCrowded reports whether somebody has it and had no place for us: we come again.
func (t *task) isCrowded() bool {
	for _, n := range t.peers {
		if n.isCrowded && !n.isBanned {
			return true
		}
	}
	return false
}

// nowhere tells callers that no peer brings the blob any further.
func (t *task) nowhere(asked, silent int) {
	var err error
	switch {
	case asked == 0:
		err = fmt.Errorf("%w: there is no other peer to ask", shoal.ErrNotFound)
	case t.have.Count() > 0:
		err = fmt.Errorf("%w: %d of %d chunks are here, and none of the %d peers asked has more (%d did not answer)",
			shoal.ErrNotFound, t.have.Count(), t.have.Len(), asked, silent)
	default:
		err = fmt.Errorf("%w: none of the %d peers asked has it (%d did not answer)", shoal.ErrNotFound, asked, silent)
	}
	t.resolve(err, everyone)
}
