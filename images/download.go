// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/exchange"
	"github.com/shoalnet/shoal/images/swarm"
	"github.com/shoalnet/shoal/images/upstream"
	"github.com/shoalnet/shoal/internal/logkey"
)

const (
	// attempts is how often a download that broke off is taken up where it ended.
	attempts = 5
	// skipFrom is how many chunks in a row have to be here for a registry to be asked anew,
	// for what follows them; fewer are read over.
	skipFrom = 16
)

// download fetches a blob from the registry that ref names, chunk by chunk, and tells who
// waits for it of each. What comes from peers meanwhile it need not bring.
func (r *Room) download(ctx context.Context, b exchange.Blob, ref string, isManifest bool) error {
	r.deps.Log.Info("fetch from the registry outside", "image", ref, "blob", short(b.Digest.String()), "bytes", b.Size)
	if isManifest {
		raw, _, err := r.outside.Manifest(ctx, ref, b.Digest.String())
		if err != nil {
			return err
		}
		r.fetched.Add(int64(len(raw)))
		_, err = r.store.Put(raw)
		return err
	}
	release, err := r.grow(b)
	if err != nil {
		return err
	}
	defer release()
	r.downloads.begin(b.Digest, upstream.Registry(ref))
	defer r.downloads.end(b.Digest)
	d := &download{r: r, b: b, ref: ref}
	if err := d.run(ctx); err != nil {
		if errors.Is(err, blobs.ErrMismatch) && d.wrote == b.Size { // else a peer may be to blame
			r.deps.Log.Warn("registry outside sent something else", logkey.Err, r.outside.Blame(ref))
		}
		return fmt.Errorf("blob %s from outside: %w", short(b.Digest.String()), err)
	}
	return nil
}

// grow makes room for a blob and begins it in the store, which keeps it until release.
func (r *Room) grow(b exchange.Blob) (release func(), err error) {
	if b.Size < 1 {
		return nil, &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("of blob %s is not known", short(b.Digest.String()))}
	}
	if _, err := r.store.Stat(b.Digest); errors.Is(err, shoal.ErrNotFound) {
		if err := r.makeRoom(b.Size); err != nil {
			return nil, err
		}
	}
	if _, err := r.store.Grow(b.Digest, b.Size); err != nil {
		return nil, err
	}
	return r.store.Lease(b.Digest)
}

// download is one blob that comes from outside. It is for one goroutine.
type download struct {
	r     *Room
	b     exchange.Blob
	ref   string
	wrote int64 // bytes of the chunks that it brought itself
}

// run ends when the blob is whole, whoever brought the rest.
func (d *download) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() { d.watch(ctx, cancel) })
	for failed := 0; ; {
		before := d.wrote
		isWhole, err := d.rest(ctx)
		if errors.Is(err, blobs.ErrMismatch) && d.isListed() {
			isWhole, err = true, d.apart(ctx)
		}
		switch {
		case isWhole && err == nil || errors.Is(context.Cause(ctx), errWhole):
			return nil
		case err == nil: // it goes on behind what is here
			continue
		}
		failed++
		if ctx.Err() != nil || d.wrote == before || failed == attempts || errors.Is(err, blobs.ErrMismatch) {
			return err
		}
		d.r.deps.Log.Info("download goes on where it broke off", "blob", short(d.b.Digest.String()), "at", d.wrote, logkey.Err, err)
	}
}

var (
	errWhole = errors.New("blob is whole")
	errGone  = errors.New("what was here of it is gone")
)

// isListed reports whether the blob goes by a chunk list, of peers: then the registry or the
// list is false, and only the whole can say which.
func (d *download) isListed() bool {
	info, err := d.r.store.Stat(d.b.Digest)
	return err == nil && !info.Complete && !info.Grows
}

// apart fetches the whole blob beside what is here of it, which goes if its list is false.
func (d *download) apart(ctx context.Context) error {
	if err := d.r.makeRoom(d.b.Size); err != nil {
		return err
	}
	in, _, err := d.r.outside.Blob(ctx, d.ref, d.b.Digest.String(), 0)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	up, err := d.r.store.Upload()
	if err != nil {
		return err
	}
	defer func() { _ = up.Cancel() }() // after Commit it does nothing
	d.wrote, err = io.Copy(up, io.LimitReader(in, d.b.Size))
	if d.r.fetched.Add(d.wrote); err != nil {
		return err
	}
	return up.Commit(d.b.Digest)
}

// watch ends a download once the blob is whole: peers may have brought what it waits for.
func (d *download) watch(ctx context.Context, end context.CancelCauseFunc) {
	for {
		changed := d.r.store.Changed()
		if info, err := d.r.store.Stat(d.b.Digest); err == nil && info.Complete {
			end(errWhole)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// rest asks the registry for what follows the first missing chunk. Without an error and not
// whole: it came to many chunks that are here.
func (d *download) rest(ctx context.Context) (isWhole bool, err error) {
	i, err := d.missing(0)
	switch {
	case err != nil:
		return false, err
	case i == d.chunks(): // somebody may be hashing it
		have, err := d.r.store.Grow(d.b.Digest, d.b.Size)
		return err == nil && have.Full(), err
	}
	in, size, err := d.r.outside.Blob(ctx, d.ref, d.b.Digest.String(), int64(i)*swarm.ChunkBytes)
	if err != nil {
		return false, err
	}
	defer func() { _ = in.Close() }() // it was only read
	if size >= 0 && size != d.b.Size {
		return false, &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("of blob %s is %d in its manifest and %d at the registry", short(d.b.Digest.String()), d.b.Size, size)}
	}
	buf := make([]byte, min(d.b.Size, swarm.ChunkBytes))
	for ; i < d.chunks(); i++ {
		next, err := d.missing(i)
		if err != nil {
			return false, err
		}
		if next == d.chunks() || next-i >= skipFrom {
			return false, nil
		}
		chunk := buf[:min(d.b.Size-int64(i)*swarm.ChunkBytes, swarm.ChunkBytes)]
		if _, err := io.ReadFull(in, chunk); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return false, err
		}
		if isWhole, err = d.write(i, chunk); isWhole || err != nil {
			return isWhole, err
		}
	}
	return false, nil
}

// write gives the store a chunk and tells of it, also of what proved false.
func (d *download) write(i int, chunk []byte) (isWhole bool, err error) {
	if next, err := d.missing(i); err != nil || next != i {
		return false, err
	}
	isWhole, err = d.r.store.WriteChunk(d.b.Digest, i, chunk)
	d.r.exchange.Gained(d.b.Digest)
	if err == nil || errors.Is(err, blobs.ErrMismatch) {
		d.wrote += int64(len(chunk))
		d.r.fetched.Add(int64(len(chunk)))
	}
	return isWhole, err
}

// missing returns the first chunk from i on that is not here; the number of chunks: none.
func (d *download) missing(i int) (int, error) {
	have, _, err := d.r.store.Chunks(d.b.Digest)
	for err == nil && i < have.Len() && have.Has(i) {
		i++
	}
	if errors.Is(err, shoal.ErrNotFound) { // which would say that the registry has it not
		err = errGone
	}
	return i, err
}

func (d *download) chunks() int { return int((d.b.Size + swarm.ChunkBytes - 1) / swarm.ChunkBytes) }

// downloads are the registries that blobs come from now. The zero value is ready.
type downloads struct {
	mu sync.Mutex // guards by
	by map[blobs.Digest]string
}

func (d *downloads) begin(b blobs.Digest, registry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[blobs.Digest]string{}
	}
	d.by[b] = registry
}

func (d *downloads) end(b blobs.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.by, b)
}

// from returns the registry, "" if the blob comes from peers only.
func (d *downloads) from(b blobs.Digest) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.by[b]
}
