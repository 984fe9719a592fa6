// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
)

const octets = "application/octet-stream"

// buffers carry content between connections and the store. The store asks the disk for its
// free room at every write, and a connection gets a deadline at every one, so they are
// larger than those of io.Copy.
var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// bring sees to it that the store can read a blob, perhaps while it arrives, and counts as
// a use of it: what a client was told is here stays for a while.
func (r *Registry) bring(ctx context.Context, repo string, d blobs.Digest, size int64) (blobs.Info, error) {
	info, err := r.store.Stat(d)
	if err != nil && !errors.Is(err, shoal.ErrNotFound) {
		return blobs.Info{}, err
	}
	if err != nil || !info.Complete {
		if err := r.backend.Need(ctx, repo, d, size); err != nil {
			return blobs.Info{}, err
		}
		if info, err = r.store.Stat(d); err != nil {
			return blobs.Info{}, err
		}
	}
	release, err := r.store.Lease(d)
	if err != nil {
		return blobs.Info{}, err
	}
	release()
	return info, nil
}

func (r *Registry) resolveBlob(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	d, err := blobs.ParseDigest(string(digest))
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	info, err := r.bring(ctx, repo, d, 0)
	if err != nil {
		return ociregistry.Descriptor{}, unknown(codeBlobUnknown, err)
	}
	return ociregistry.Descriptor{MediaType: octets, Digest: digest, Size: info.Size}, nil
}

func (r *Registry) getBlob(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	return r.getBlobRange(ctx, repo, digest, 0, -1)
}

func (r *Registry) getBlobRange(ctx context.Context, repo string, digest ociregistry.Digest, from, to int64) (ociregistry.BlobReader, error) {
	d, err := blobs.ParseDigest(string(digest))
	if err != nil {
		return nil, err
	}
	if _, err := r.bring(ctx, repo, d, 0); err != nil {
		return nil, unknown(codeBlobUnknown, err)
	}
	blob, err := r.store.Read(ctx, d)
	if err != nil {
		return nil, unknown(codeBlobUnknown, err)
	}
	length := int64(-1)
	if to >= 0 {
		length = to - from
	}
	return &blobReader{
		Reader: blob.Stream(from, length), blob: blob,
		desc: ociregistry.Descriptor{MediaType: octets, Digest: digest, Size: blob.Size()},
	}, nil
}

// blobReader is a blob, or a part of one, that is sent to a client.
type blobReader struct {
	io.Reader
	blob *blobs.Reader
	desc ociregistry.Descriptor
}

func (b *blobReader) Descriptor() ociregistry.Descriptor { return b.desc }

func (b *blobReader) Close() error { return b.blob.Close() }

// WriteTo implements io.WriterTo. What goes wrong here cannot be told to the client but by
// cutting the connection, which http.Server does as the length is not reached.
func (b *blobReader) WriteTo(w io.Writer) (int64, error) {
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(writerOnly{w}, b.Reader, buf[:])
}

// writerOnly hides a ReadFrom, for which io.CopyBuffer would leave its buffer.
type writerOnly struct{ io.Writer }

// deleteBlob removes what nothing here refers to.
func (r *Registry) deleteBlob(ctx context.Context, repo string, digest ociregistry.Digest) error {
	d, err := blobs.ParseDigest(string(digest))
	if err != nil {
		return err
	}
	if _, err := r.store.Stat(d); err != nil {
		return unknown(codeBlobUnknown, err)
	}
	if err := r.mayRemove(ctx, repo, d); err != nil {
		return err
	}
	return unknown(codeBlobUnknown, r.remove(ctx, d))
}

// How long a DELETE waits for who still uses a blob: the exchange keeps what it moved, or
// was asked for, open for some 2 s.
const (
	removeTime  = 4 * time.Second
	removeAgain = 100 * time.Millisecond
)

// remove removes a blob once nobody uses it. If that takes long the answer is a 405 with
// the reason: the specification has no other for what is not deleted.
func (r *Registry) remove(ctx context.Context, d blobs.Digest) error {
	for began := time.Now(); ; {
		err := r.store.Remove(d)
		switch {
		case !errors.Is(err, shoal.ErrConflict):
			return err
		case time.Since(began) > removeTime:
			return faultf(http.StatusMethodNotAllowed, codeUnsupported, "remove %s: %w; try again later", d, err)
		}
		select {
		case <-time.After(removeAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mayRemove asks whether anything needs a blob. Then the answer is the 405 that the
// specification has for what a registry does not delete.
func (r *Registry) mayRemove(ctx context.Context, repo string, d blobs.Digest) error {
	for _, info := range r.store.List() {
		if slices.Contains(info.Refs, d) {
			return faultf(http.StatusMethodNotAllowed, codeUnsupported, "remove %s: %w: %s refers to it; delete that first", d, shoal.ErrConflict, info.Digest)
		}
	}
	err := r.backend.MayRemove(ctx, repo, d)
	if errors.Is(err, shoal.ErrConflict) {
		return faultf(http.StatusMethodNotAllowed, codeUnsupported, "remove %s: %w", d, err)
	}
	return err
}

// mountBlob is asked for blobs that are here only.
func (r *Registry) mountBlob(_ context.Context, _, _ string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	d, err := blobs.ParseDigest(string(digest))
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	release, err := r.store.Lease(d) // a use: the manifest follows
	if err != nil {
		return ociregistry.Descriptor{}, unknown(codeBlobUnknown, err)
	}
	release()
	return ociregistry.Descriptor{MediaType: octets, Digest: digest}, nil
}
