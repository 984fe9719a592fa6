// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/internal/logkey"
)

// tidy removes what expired, and keeps the headroom, until ctx ends.
func (r *Room) tidy(ctx context.Context) {
	tick := time.NewTicker(r.cfg.Tidy)
	defer tick.Stop()
	for {
		headroom := r.cfg.Headroom
		if total, err := r.store.Disk(); err == nil {
			headroom = min(headroom, total/20)
		}
		if err := r.makeRoom(headroom); err != nil && ctx.Err() == nil {
			r.deps.Log.Debug("no headroom for images", logkey.Err, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// makeRoom removes what is used least until that many bytes more find room. ErrNoSpace:
// what must stay leaves no room for them.
func (r *Room) makeRoom(bytes int64) error {
	r.tidying.Lock()
	defer r.tidying.Unlock()
	removed, err := r.store.Collect(r.keep(), bytes)
	if len(removed) > 0 {
		var sum int64
		for _, i := range removed {
			sum += i.Have
		}
		r.deps.Log.Info("images removed to make room", "blobs", len(removed), "bytes", sum)
	}
	return err
}

// keep says what must stay: what services need here or may need in a moment, what is
// pinned, and what too few others hold.
func (r *Room) keep() blobs.Keep {
	d := r.deps.Records.Desired()
	var needed []blobs.Digest
	need := func(digest string) {
		b, err := blobs.ParseDigest(digest)
		if err != nil {
			return
		}
		needed = append(needed, b)
		if r.registry != nil { // signatures and the like
			needed = append(needed, r.registry.Referrers(b)...)
		}
	}
	for i := range d.Services {
		need(d.Services[i].Spec.Digest)
	}
	copies := map[blobs.Digest]int{} // that others must hold of a blob, before it goes here
	for i := range d.Images {
		img := &d.Images[i]
		if img.Pinned {
			need(img.Digest)
		}
		atLeast := r.minCopies(&img.ImageBody)
		if img.Upstream && r.mayAskNow(img.Image) {
			atLeast = 0
		}
		for _, b := range img.Blobs {
			if d, err := blobs.ParseDigest(b.Digest); err == nil {
				copies[d] = max(copies[d], atLeast)
			}
		}
	}
	return blobs.Keep{Needed: needed, MayLose: func(b blobs.Digest) bool { return len(r.holders(b)) >= copies[b] }}
}

func (r *Room) minCopies(b *shoal.ImageBody) int {
	if b.MinCopies > 0 {
		return b.MinCopies
	}
	return r.cfg.MinCopies
}

// Collect implements shoal.Images.
func (r *Room) Collect(_ context.Context, opts shoal.CollectOptions) (shoal.Collected, error) {
	if opts.Room < 0 {
		return shoal.Collected{}, &shoal.InvalidError{Field: "room", Why: fmt.Sprintf("must not be negative, got %d", opts.Room)}
	}
	room := opts.Room
	if opts.All {
		room = math.MaxInt64 / 2
	}
	r.tidying.Lock()
	defer r.tidying.Unlock()
	keep := r.keep()
	var removed []blobs.Info
	var err error
	if opts.DryRun {
		removed, err = r.store.Plan(keep, room)
	} else {
		removed, err = r.store.Collect(keep, room)
	}
	if opts.All && errors.Is(err, shoal.ErrNoSpace) { // all that may go is gone
		err = nil
	}
	usage, usageErr := r.store.Usage()
	out := shoal.Collected{Used: usage.Bytes, Limit: usage.Limit}
	for _, i := range removed {
		out.Blobs++
		out.Bytes += i.Have
	}
	if opts.DryRun {
		out.Used -= out.Bytes
	}
	return out, errors.Join(err, usageErr)
}
