// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
)

// blobWriter writes one request's part of an upload.
type blobWriter struct {
	r      *Registry
	ctx    context.Context // of the request, as io.Writer takes none
	s      *session
	isDead bool // it will never be a blob
	isOver bool
}

func (r *Registry) beginUpload(ctx context.Context, _ string, _ int) (ociregistry.BlobWriter, error) {
	s, err := r.uploads.begin()
	if err != nil {
		return nil, err
	}
	return &blobWriter{r: r, ctx: ctx, s: s}, nil
}

// resumeUpload goes on with an upload. The offset is that of the header, which frontUpload
// kept: docker ends an upload with a PUT that has neither body nor range, for which
// ociserver says 0.
func (r *Registry) resumeUpload(ctx context.Context, _, id string, _ int64, _ int) (ociregistry.BlobWriter, error) {
	s, err := r.uploads.acquire(id)
	if err != nil {
		return nil, err
	}
	w := &blobWriter{r: r, ctx: ctx, s: s}
	if at := callOf(ctx).offset; at >= 0 && at != s.up.Size() {
		size := s.up.Size()
		return nil, errors.Join(faultf(http.StatusRequestedRangeNotSatisfiable, codeRangeInvalid,
			"chunk begins at %d, and the upload has %d bytes; go on from there", at, size), w.Close())
	}
	return w, nil
}

// pushBlob takes a blob that comes in one request.
func (r *Registry) pushBlob(ctx context.Context, repo string, desc ociregistry.Descriptor, body io.Reader) (ociregistry.Descriptor, error) {
	w, err := r.beginUpload(ctx, repo, 0)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	if _, err = io.Copy(w, body); err == nil {
		desc, err = w.Commit(desc.Digest)
	}
	if err != nil {
		return ociregistry.Descriptor{}, errors.Join(err, w.Cancel())
	}
	return desc, nil
}

// ReadFrom implements io.ReaderFrom. Bytes that came before the sender broke off are kept.
func (w *blobWriter) ReadFrom(body io.Reader) (int64, error) {
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(writerOnly{w}, &filledReader{body}, buf[:])
}

// filledReader fills the buffer that it is given, as a connection does not.
type filledReader struct{ r io.Reader }

func (f *filledReader) Read(p []byte) (int, error) {
	n, err := io.ReadFull(f.r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
		err = nil // the end, or the error, comes again
	}
	return n, err
}

// Write implements io.Writer. An upload that is too large, or finds no room, is removed
// when the request ends: docker begins another one, for which its bytes would be in the way.
func (w *blobWriter) Write(p []byte) (n int, err error) {
	if most := w.r.cfg.MaxBlob; w.s.up.Size() > most-int64(len(p)) {
		err = faultf(http.StatusForbidden, codeDenied, "blob is larger than %d bytes, which is the most that is taken", most)
		w.isDead = true
	} else if n, err = w.s.up.Write(p); errors.Is(err, shoal.ErrNoSpace) {
		w.r.makeRoom(w.ctx, roomAhead)
		var more int
		more, err = w.s.up.Write(p[n:])
		n, w.isDead = n+more, errors.Is(err, shoal.ErrNoSpace)
	}
	if c := callOf(w.ctx); err != nil && c.err == nil {
		c.err = err
	}
	return n, err
}

// roomAhead is how much room a push asks for when there is none, so that it does not ask
// at every write.
const roomAhead = 64 << 20

func (r *Registry) makeRoom(ctx context.Context, size int64) {
	if r.cfg.MakeRoom != nil {
		r.cfg.MakeRoom(ctx, size)
	}
}

func (w *blobWriter) Size() int64 { return w.s.up.Size() }

// ChunkSize is the least that clients may send in a chunk: anything.
func (w *blobWriter) ChunkSize() int { return 0 }

func (w *blobWriter) ID() string { return w.s.up.ID() }

// Close lets the next request go on with the upload.
func (w *blobWriter) Close() error {
	switch {
	case w.isOver:
		return nil
	case w.isDead:
		return w.Cancel()
	}
	w.isOver = true
	w.r.uploads.release(w.s)
	return nil
}

// Commit ends the upload. After an error that is not about the content it rests, and may
// be committed again.
func (w *blobWriter) Commit(digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	d, err := blobs.ParseDigest(string(digest))
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	size := w.s.up.Size()
	w.isOver = true
	defer w.r.uploads.forget(w.s.up.ID())
	if err := w.s.up.Commit(d); err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("push blob %s: %w", d, err)
	}
	return ociregistry.Descriptor{MediaType: octets, Digest: digest, Size: size}, nil
}

// Cancel removes what was written.
func (w *blobWriter) Cancel() error {
	if w.isOver {
		return nil
	}
	w.isOver = true
	defer w.r.uploads.forget(w.s.up.ID())
	return w.s.up.Cancel()
}
