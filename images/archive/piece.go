// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// piece is what an entry of the archive became.
type piece struct {
	form   form // of the blob in the store; formOther: nothing was stored
	digest blobs.Digest
	size   int64
	diffID blobs.Digest // of what a layer unpacks to; zero: not known
	isNew  bool         // the store did not have it before
}

var noDigest blobs.Digest

// level is how layers are compressed: the fastest of the package. What it writes depends
// on the bytes only, so a layer has the same digest on every peer of a version.
const level = gzip.BestSpeed

// file stores one entry, if it may be a part of an image.
func (in *intake) file(name string, size int64) error {
	if base := path.Base(name); base == "json" || base == "VERSION" || name == "repositories" {
		return nil // of Docker before 1.10; the configuration says the same
	}
	head, err := in.entry.Peek(headBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	err = nil // what is shorter than its head is no error
	p := piece{form: sniff(head), size: size}
	if in.blobCount++; in.blobCount > maxPieces {
		return refuse("holds more than %d blobs; save fewer images at a time", maxPieces)
	}
	if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
		if d, err := blobs.ParseDigest("sha256:" + hex); err == nil {
			p.digest = d
			if p.form == formTar {
				p.diffID = d
			}
			p.isNew, err = in.keep(d, in.entry)
			in.pieces[name], in.blobs[d] = p, p
			return err
		}
	}
	switch p.form {
	case formTar:
		p, err = in.compress(in.entry)
	case formGzip, formZstd:
		p.digest, err = in.keepUnnamed(in.entry)
	case formJSON:
		if size <= manifest.MaxConfig {
			p.digest, err = in.keepUnnamed(in.entry)
			break
		}
		p.form = formOther
	default:
		p.form = formOther
		in.blobCount--
	}
	in.pieces[name] = p
	return err
}

// hold leases a blob until the end of the Read.
func (in *intake) hold(d blobs.Digest) error {
	if in.held[d] != nil {
		return nil
	}
	release, err := in.store.Lease(d)
	if err == nil {
		in.held[d] = release
	}
	return err
}

// has reports whether the store has a blob whole; then it is held.
func (in *intake) has(d blobs.Digest) bool {
	if in.hold(d) != nil {
		return false
	}
	info, err := in.store.Stat(d)
	if err == nil && info.Complete {
		return true
	}
	in.held[d]() // it is arriving: what comes of it is leased when it is there
	delete(in.held, d)
	return false
}

// keep stores what r reads as the blob d, which it has to be.
func (in *intake) keep(d blobs.Digest, r io.Reader) (isNew bool, err error) {
	if in.has(d) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return false, err
		}
		if blobs.Digest(sum.Sum(nil)) != d {
			return false, mismatch(d)
		}
		return false, nil
	}
	up, err := in.store.Upload()
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(up, r); err != nil {
		return false, errors.Join(err, up.Cancel())
	}
	return true, in.commit(up, d)
}

func mismatch(d blobs.Digest) error {
	return refuse("blob %s has other content than its digest says; it was damaged or changed: save the image again", d)
}

// keepUnnamed stores what r reads.
func (in *intake) keepUnnamed(r io.Reader) (blobs.Digest, error) {
	up, err := in.store.Upload()
	if err != nil {
		return noDigest, err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(up, sum), r); err != nil {
		return noDigest, errors.Join(err, up.Cancel())
	}
	d := blobs.Digest(sum.Sum(nil))
	return d, in.commit(up, d)
}

func (in *intake) commit(up *blobs.Upload, d blobs.Digest) error {
	err := up.Commit(d)
	switch {
	case errors.Is(err, blobs.ErrMismatch):
		return mismatch(d)
	case err != nil:
		return errors.Join(err, up.Cancel())
	}
	return in.hold(d)
}

// compress stores the plain layer that r reads, unless the store has it.
func (in *intake) compress(r io.Reader) (piece, error) {
	up, err := in.store.Upload()
	if err != nil {
		return piece{}, err
	}
	plain, packed := sha256.New(), sha256.New()
	err = squeeze(io.MultiWriter(up, packed), io.TeeReader(r, plain))
	if err != nil {
		return piece{}, errors.Join(err, up.Cancel())
	}
	diffID := blobs.Digest(plain.Sum(nil))
	if twin, ok := in.twin(diffID); ok {
		return twin, up.Cancel()
	}
	p := piece{form: formGzip, digest: blobs.Digest(packed.Sum(nil)), size: up.Size(), diffID: diffID}
	return p, in.commit(up, p.digest)
}

// squeeze compresses r into w. The header of gzip has no name and no time.
func squeeze(w io.Writer, r io.Reader) error {
	buf := bufio.NewWriterSize(w, 256<<10) // gzip writes a few hundred bytes at a time
	z, err := gzip.NewWriterLevel(buf, level)
	if err != nil {
		return err
	}
	z.ModTime = time.Unix(0, 0) // this package writes year 1 as it is
	if _, err := io.CopyBuffer(z, r, make([]byte, 256<<10)); err != nil {
		return err
	}
	return errors.Join(z.Close(), buf.Flush())
}

// twin returns the compressed layer that the store has of a plain one. It is held.
func (in *intake) twin(diffID blobs.Digest) (piece, bool) {
	if in.known == nil {
		return piece{}, false
	}
	desc, ok := in.known(diffID)
	if !ok {
		return piece{}, false
	}
	d, err := blobs.ParseDigest(desc.Digest)
	if err != nil || !in.has(d) {
		return piece{}, false
	}
	p := piece{digest: d, diffID: diffID}
	err = in.open(d, func(r *bufio.Reader, size int64) error {
		head, err := r.Peek(headBytes)
		p.form, p.size = sniff(head), size
		return err
	})
	return p, (err == nil || errors.Is(err, io.EOF)) && p.form == formGzip
}

// open calls fn with a blob of the store.
func (in *intake) open(d blobs.Digest, fn func(r *bufio.Reader, size int64) error) error {
	r, err := in.store.Read(in.ctx, d)
	if err != nil {
		return err
	}
	err = fn(bufio.NewReaderSize(r.Stream(0, -1), 256<<10), r.Size())
	return errors.Join(err, r.Close())
}

// document reads a small blob of the store.
func (in *intake) document(d blobs.Digest, limit int64) (raw []byte, err error) {
	err = in.open(d, func(r *bufio.Reader, size int64) error {
		if size > limit {
			return refuse("document %s is %d bytes, at most %d are taken; build the image with less in it", d, size, limit)
		}
		if in.docBytes += max(size, 4096); in.docBytes > maxDocBytes {
			return refuse("has more than %d bytes of manifests and configurations; save fewer images at a time", maxDocBytes)
		}
		raw, err = io.ReadAll(r)
		return err
	})
	return raw, err
}

// layer makes a piece a compressed layer whose diffID is known. what names it in errors.
func (in *intake) layer(p piece, what string) (piece, error) {
	switch {
	case p.form == formTar: // stored as it is, under blobs/sha256
		if p.isNew {
			in.spare = append(in.spare, p.digest)
		}
		if twin, ok := in.twin(p.diffID); ok {
			return twin, nil
		}
		out := piece{}
		err := in.open(p.digest, func(r *bufio.Reader, _ int64) (err error) {
			out, err = in.compress(r)
			return err
		})
		return out, err
	case p.form != formGzip && p.form != formZstd:
		return p, refuse("%s is neither a tar nor one compressed with gzip or zstd; save the image again", what)
	case p.diffID == noDigest:
		err := in.open(p.digest, func(r *bufio.Reader, _ int64) (err error) {
			_, p.diffID, err = measure(p.form, r, what, in.limits)
			return err
		})
		return p, err
	}
	return p, nil
}

// measure reads a compressed layer and returns the size and the digest of what it unpacks to.
func measure(f form, r io.Reader, what string, l Limits) (int64, blobs.Digest, error) {
	in := &counter{r: r}
	z, release, err := decompress(f, in)
	if err != nil {
		return 0, noDigest, damaged("in "+what, err)
	}
	defer release()
	m := &meter{r: z, what: what + " is", limit: l.Blob, ratio: l.Ratio, in: func() int64 { return in.n }}
	sum := sha256.New()
	n, err := io.Copy(sum, m)
	switch {
	case err != nil && in.err != nil && !errors.Is(in.err, io.EOF): // of the store, or the context
		return 0, noDigest, fmt.Errorf("read %s: %w", what, in.err)
	case err != nil:
		return 0, noDigest, damaged("in "+what, err)
	}
	return n, blobs.Digest(sum.Sum(nil)), nil
}

// counter counts what is read, and remembers its error.
type counter struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n, c.err = c.n+int64(n), err
	return n, err
}

// removeSpare removes the plain layers that were compressed from the store. Who holds one
// keeps it.
func (in *intake) removeSpare() error {
	for _, d := range in.spare {
		if err := in.store.Remove(d); err != nil && !errors.Is(err, shoal.ErrNotFound) && !errors.Is(err, shoal.ErrConflict) {
			return err
		}
	}
	return nil
}
