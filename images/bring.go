// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/exchange"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/internal/logkey"
)

// together is how many blobs of one image are fetched at a time: engines unpack layers in
// order, so the first should not wait for the last.
const together = 4

// wanted is an image to be moved here.
type wanted struct {
	ref    string // name@digest, or the digest alone: where it is asked for outside
	root   manifest.Descriptor
	refs   map[string]shoal.BlobRef // what records bind, by digest
	pieces []piece                  // what it is made of for this machine, once that is known
}

// want joins what the records say of a reference. A digest that no record binds is wanted
// all the same: who has the blob knows its size, and the whole proves itself.
func (r *Room) want(ref string) (*wanted, error) {
	name, digest, err := splitRef(ref)
	if err != nil {
		return nil, err
	}
	body, err := r.find(ref)
	switch {
	case err != nil && digest == "":
		return nil, err
	case err != nil:
		body = &shoal.ImageBody{Digest: digest}
	}
	w := &wanted{ref: repository(name) + "@" + body.Digest, root: manifest.Descriptor{MediaType: body.MediaType, Digest: body.Digest}, refs: map[string]shoal.BlobRef{}}
	for _, b := range body.Blobs {
		w.refs[b.Digest] = b
	}
	w.root.Size = w.refs[body.Digest].Size
	return w, nil
}

// blob returns what the exchange has to know of a descriptor.
func (w *wanted) blob(d manifest.Descriptor) (exchange.Blob, error) {
	own, err := blobs.ParseDigest(d.Digest)
	if err != nil {
		return exchange.Blob{}, err
	}
	b := exchange.Blob{Digest: own, Size: d.Size}
	ref, ok := w.refs[d.Digest]
	if !ok {
		return b, nil
	}
	if b.Size != 0 && ref.Size != b.Size {
		return b, &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("of blob %s is %d in its manifest and %d in the record", short(d.Digest), b.Size, ref.Size)}
	}
	b.Size = ref.Size
	if ref.Chunks != "" {
		b.List, err = blobs.ParseDigest(ref.Chunks)
	}
	return b, err
}

// inspect fetches the manifests and the configuration of an image, for a machine, and so
// learns what it is made of.
func (r *Room) inspect(ctx context.Context, w *wanted, machine string) error {
	pieces, err := r.walk(ctx, w.root, machine, func(ctx context.Context, d manifest.Descriptor) ([]byte, error) {
		b, err := w.blob(d)
		if err != nil {
			return nil, err
		}
		if err := r.bring(ctx, b, w.ref, manifest.IsType(d.MediaType) || d.Digest == w.root.Digest); err != nil {
			return nil, err
		}
		return r.readSmall(ctx, b.Digest)
	})
	w.pieces = pieces
	return err
}

// bringAll fetches an image for a machine, telling how far it is.
func (r *Room) bringAll(ctx context.Context, w *wanted, machine string, progress func(shoal.ImageProgress)) error {
	if err := r.inspect(ctx, w, machine); err != nil {
		return err
	}
	var all []exchange.Blob
	for _, p := range w.pieces {
		b, err := w.blob(p.Descriptor)
		if err != nil {
			return err
		}
		all = append(all, b)
	}
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { r.report(ctx, all, progress) })
	g, fetch := errgroup.WithContext(ctx)
	g.SetLimit(together)
	for i, b := range all {
		g.Go(func() error { return r.bring(fetch, b, w.ref, manifest.IsType(w.pieces[i].MediaType)) })
	}
	return g.Wait()
}

// reportEvery is how often progress is told; the beats carry it once a second.
const reportEvery = 500 * time.Millisecond

// report tells how far the blobs are until ctx ends.
func (r *Room) report(ctx context.Context, all []exchange.Blob, progress func(shoal.ImageProgress)) {
	if progress == nil {
		return
	}
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var total int64
	for _, b := range all {
		total += b.Size
	}
	last, at := int64(-1), r.deps.Clock.Mono()
	rate := 0.0
	for {
		p := shoal.ImageProgress{What: "fetch", Total: total}
		for _, b := range all {
			one := r.far(b.Digest)
			p.Done += one.Done
			p.Peers = max(p.Peers, one.Peers)
			if one.From != "" {
				p.From = one.From
			}
		}
		now := r.deps.Clock.Mono()
		if took := (now - at).Seconds(); last >= 0 && took > 0 {
			rate = 0.7*rate + 0.3*float64(max(p.Done-last, 0))/took // the last two seconds count most
			p.Rate = int64(rate)
		}
		last, at = p.Done, now
		progress(p)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// far returns how far one blob is.
func (r *Room) far(d blobs.Digest) shoal.ImageProgress {
	p, _ := r.exchange.Progress(d)
	p.From = r.downloads.from(d)
	return p
}

// bring makes a blob whole in the store: from peers, and where none has it from the
// registry that ref names, in this peer's turn. Whoever wants the same waits for the same.
// ErrNotFound: nobody has it.
func (r *Room) bring(ctx context.Context, b exchange.Blob, ref string, isManifest bool) error {
	if info, err := r.store.Stat(b.Digest); err == nil && info.Complete {
		return nil
	}
	_, err := r.bringing.do(ctx, b.Digest, nil, func(ctx context.Context, _ func(shoal.ImageProgress)) (struct{}, error) {
		return struct{}{}, r.seek(ctx, b, ref, isManifest)
	})
	return err
}

// seek goes on until the blob is whole or there is nobody left to ask: while something of it
// comes from anybody, nobody else asks outside. ref "": peers only.
func (r *Room) seek(ctx context.Context, b exchange.Blob, ref string, isManifest bool) error {
	began, isTidied := r.deps.Clock.Mono(), false
	for {
		err := r.exchange.Fetch(ctx, b)
		switch {
		case errors.Is(err, shoal.ErrNoSpace) && !isTidied:
			isTidied = true
			if err := r.makeRoom(b.Size); err != nil {
				return err
			}
			continue
		case !errors.Is(err, shoal.ErrNotFound):
			return err
		}
		out := r.outsideFor(b, ref, began)
		switch {
		case out.isOurs:
			switch err := r.download(ctx, b, ref, isManifest); {
			case err == nil:
				return nil
			case errors.Is(err, shoal.ErrNotFound), errors.Is(err, shoal.ErrNoSpace), ctx.Err() != nil:
				return err
			default:
				r.deps.Log.Info("registry outside", "blob", short(b.Digest.String()), logkey.Err, err)
			}
		case out.why != "":
			return &shoal.AdviceError{Err: err, Advice: out.why}
		}
		select {
		case <-time.After(r.cfg.Quiet):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
