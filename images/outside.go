// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/exchange"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/images/upstream"
	"github.com/shoalnet/shoal/internal/logkey"
)

// attempts is how often a download that broke off is taken up where it ended.
const attempts = 5

// outlook says who asks a registry outside for a blob that no peer has.
type outlook struct {
	isOurs bool
	why    string // why nobody does, "" if somebody does
}

// slowest is how many bytes a second a download brings that is not given up. Until it is
// whole nobody sees how far it is; a peer that is gone, or whose registry fails, is no
// candidate any more, so only who is stuck without knowing it is waited for.
const slowest = 1 << 20

// outsideFor decides whose turn it is to ask for a blob of ref that was wanted that long.
func (r *Room) outsideFor(b exchange.Blob, ref string, since time.Duration) outlook {
	if ref == "" {
		return outlook{why: "push the image on a peer that has it (shoal image push)"}
	}
	if !r.asksOutside() {
		return outlook{why: whyPolicy}
	}
	var may []shoal.PeerID
	if upstream.MayAsk(r.outside.Waits(), ref) {
		may = append(may, r.deps.Self)
	}
	var waits string
	for id, st := range r.heard() {
		if upstream.MayAsk(st.Upstreams, ref) {
			may = append(may, id)
		}
	}
	for _, u := range r.outside.Waits() {
		if u.Waits != "" {
			waits = fmt.Sprintf("%s: %s", u.Registry, u.Waits)
		}
	}
	switch {
	case len(may) > 0:
		return outlook{isOurs: upstream.Turn(r.deps.Self, may, b.Digest.String(), since-time.Duration(b.Size/slowest)*time.Second)}
	case waits != "":
		return outlook{why: "no registry outside may be asked now (" + waits + ")"}
	}
	return outlook{why: "push it on a peer that has it (shoal image push), or allow its registry (upstream in the daemon's configuration)"}
}

// download fetches a blob from the registry that ref names, and tells who waits for it.
func (r *Room) download(ctx context.Context, b exchange.Blob, ref string, isManifest bool) error {
	r.deps.Log.Info("fetch from the registry outside", "image", ref, "blob", short(b.Digest.String()), "bytes", b.Size)
	if isManifest {
		raw, _, err := r.outside.Manifest(ctx, ref, b.Digest.String())
		if err != nil {
			return err
		}
		_, err = r.store.Put(raw)
		return err
	}
	if err := r.makeRoom(b.Size); err != nil {
		return err
	}
	up, err := r.store.Upload()
	if err != nil {
		return err
	}
	defer func() { _ = up.Cancel() }() // after Commit it does nothing
	r.downloads.begin(b.Digest, shoal.ImageProgress{What: "fetch", Total: b.Size, From: upstream.Registry(ref)})
	defer r.downloads.end(b.Digest)
	for i := range attempts {
		before := up.Size()
		if err = r.downloadRest(ctx, b, ref, up); err == nil {
			break
		}
		if ctx.Err() != nil || up.Size() == before || i == attempts-1 {
			return err
		}
		r.deps.Log.Info("download goes on where it broke off", "blob", short(b.Digest.String()), "at", up.Size(), logkey.Err, err)
	}
	if err := up.Commit(b.Digest); err != nil {
		if errors.Is(err, blobs.ErrMismatch) {
			r.deps.Log.Warn("registry outside sent something else", logkey.Err, r.outside.Blame(ref))
		}
		return fmt.Errorf("blob %s from outside: %w", short(b.Digest.String()), err)
	}
	return nil
}

// downloadRest goes on where an upload is.
func (r *Room) downloadRest(ctx context.Context, b exchange.Blob, ref string, up *blobs.Upload) error {
	in, size, err := r.outside.Blob(ctx, ref, b.Digest.String(), up.Size())
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	if b.Size != 0 && size >= 0 && size != b.Size {
		return &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("of blob %s is %d in its manifest and %d at the registry", short(b.Digest.String()), b.Size, size)}
	}
	most := r.cfg.Exchange.MaxBlob
	if known := max(b.Size, size); known > 0 {
		most = known
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if up.Size()+int64(n) > most {
				return &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("of blob %s is more than the %d bytes it should have", short(b.Digest.String()), most)}
			}
			if _, err := up.Write(buf[:n]); err != nil {
				return err
			}
			r.downloads.set(b.Digest, up.Size())
		}
		switch {
		case errors.Is(err, io.EOF) && b.Size != 0 && up.Size() < b.Size:
			return io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF): // the digest says whether that was all
			return nil
		case err != nil:
			return err
		}
	}
}

// downloads are the blobs that come from outside now. The zero value is ready.
type downloads struct {
	mu sync.Mutex // guards by
	by map[blobs.Digest]*shoal.ImageProgress
}

func (d *downloads) begin(b blobs.Digest, p shoal.ImageProgress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[blobs.Digest]*shoal.ImageProgress{}
	}
	d.by[b] = &p
}

func (d *downloads) set(b blobs.Digest, done int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.by[b]; p != nil {
		p.Done = done
	}
}

func (d *downloads) end(b blobs.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.by, b)
}

func (d *downloads) progress(b blobs.Digest) (shoal.ImageProgress, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.by[b]; p != nil {
		return *p, true
	}
	return shoal.ImageProgress{}, false
}

// resolveTime bounds the question what a name stands for outside: a deploy waits for it.
const resolveTime = 12 * time.Second

// Resolve implements shoal.Resolver.
func (r *Room) Resolve(ctx context.Context, ref string) (shoal.ResolvedImage, error) {
	known, err := shoal.ResolveImage(r.deps.Views.View(), ref)
	if err == nil || !errors.Is(err, shoal.ErrNotFound) || !r.isAllowed(ref) {
		return known, err
	}
	found, outErr := r.lookOutside(ctx, ref)
	switch {
	case outErr == nil:
		return shoal.ResolvedImage{Digest: found.Digest, Platforms: found.Platforms}, nil
	case errors.Is(outErr, shoal.ErrNotFound):
		return known, err
	}
	return known, fmt.Errorf("%w; and its registry could not be asked: %w", err, outErr)
}

// lookOutside asks the registry what a name stands for, and keeps the manifest, so that the
// registry is not asked again for it.
func (r *Room) lookOutside(ctx context.Context, ref string) (upstream.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	found, err := r.outside.Resolve(ctx, ref)
	if err != nil {
		return found, err
	}
	m, err := manifest.Parse(found.MediaType, found.Raw)
	if err != nil {
		return found, err
	}
	if _, err := r.store.Put(found.Raw); err != nil {
		return found, err
	}
	return found, r.noteRefs(ctx, manifest.Descriptor{Digest: found.Digest}, m)
}
