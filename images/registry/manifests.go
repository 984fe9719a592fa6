// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/internal/logkey"
)

// maxNamed is how many missing blobs an error names; the search ends there.
const maxNamed = 8

// read returns a manifest that is in the store. *shoal.InvalidError: the blob is none.
func (r *Registry) read(ctx context.Context, d blobs.Digest) ([]byte, *manifest.Manifest, error) {
	blob, err := r.store.Read(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	raw, err := readAll(blob)
	if err = errors.Join(err, blob.Close()); err != nil {
		return nil, nil, err
	}
	m, err := readManifest("", raw)
	return raw, m, err
}

func readAll(blob *blobs.Reader) ([]byte, error) {
	if blob.Size() > manifest.MaxBytes {
		return nil, &shoal.InvalidError{Field: "manifest", Why: fmt.Sprintf("is %d bytes, at most %d are taken", blob.Size(), manifest.MaxBytes)}
	}
	raw := make([]byte, blob.Size())
	_, err := io.ReadFull(blob.Stream(0, -1), raw)
	return raw, err
}

// fetch returns a manifest that is here or at other peers.
func (r *Registry) fetch(ctx context.Context, repo string, d blobs.Digest, size int64) (ociregistry.Descriptor, []byte, error) {
	info, err := r.bring(ctx, repo, d, size)
	if err == nil {
		err = r.await(ctx, d)
	}
	if err != nil {
		return ociregistry.Descriptor{}, nil, unknown(codeManifestUnknown, err)
	}
	raw, m, err := r.read(ctx, d)
	if err == nil && len(info.Refs) == 0 && (len(m.Refs()) > 0 || m.Subject != nil) {
		err = r.note(d, m) // it just came
	}
	if isInvalid(err) {
		return ociregistry.Descriptor{}, nil, &fault{status: http.StatusNotFound, code: codeManifestUnknown, err: fmt.Errorf("%s is no manifest: %w", d, err)}
	}
	if err != nil {
		return ociregistry.Descriptor{}, nil, unknown(codeManifestUnknown, err)
	}
	return ociregistry.Descriptor{MediaType: m.MediaType, Digest: ociregistry.Digest(d.String()), Size: int64(len(raw))}, raw, nil
}

func (r *Registry) fetchTag(ctx context.Context, repo, tag string) (ociregistry.Descriptor, []byte, error) {
	named, err := r.backend.Tag(ctx, repo, tag)
	if err != nil {
		return ociregistry.Descriptor{}, nil, unknown(codeManifestUnknown, err)
	}
	d, err := blobs.ParseDigest(named.Digest)
	if err != nil {
		return ociregistry.Descriptor{}, nil, fmt.Errorf("tag %s of %s: %w", tag, repo, err)
	}
	return r.fetch(ctx, repo, d, named.Size)
}

func (r *Registry) fetchDigest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, []byte, error) {
	d, err := blobs.ParseDigest(string(digest))
	if err != nil {
		return ociregistry.Descriptor{}, nil, err
	}
	return r.fetch(ctx, repo, d, 0)
}

func (r *Registry) getManifest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	return manifestReader(r.fetchDigest(ctx, repo, digest))
}

func (r *Registry) getTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	return manifestReader(r.fetchTag(ctx, repo, tag))
}

func (r *Registry) resolveManifest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	desc, _, err := r.fetchDigest(ctx, repo, digest)
	return desc, err
}

func (r *Registry) resolveTag(ctx context.Context, repo, tag string) (ociregistry.Descriptor, error) {
	desc, _, err := r.fetchTag(ctx, repo, tag)
	return desc, err
}

type rawReader struct {
	io.Reader
	desc ociregistry.Descriptor
}

func (m *rawReader) Descriptor() ociregistry.Descriptor { return m.desc }
func (m *rawReader) Close() error                       { return nil }

func manifestReader(desc ociregistry.Descriptor, raw []byte, err error) (ociregistry.BlobReader, error) {
	if err != nil {
		return nil, err
	}
	return &rawReader{Reader: bytes.NewReader(raw), desc: desc}, nil
}

// pushManifest stores a manifest of which all that it refers to is here, and names it. Of
// an index these are its manifests, all of them: an index whose platforms nobody can have
// is of use to nobody. What a subject names need not be here.
func (r *Registry) pushManifest(ctx context.Context, repo, tag string, raw []byte, mediaType string) (ociregistry.Descriptor, error) {
	m := callOf(ctx).manifest
	release, err := r.hold(ctx, repo, m)
	defer release()
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	d, err := r.store.Put(raw)
	if errors.Is(err, shoal.ErrNoSpace) {
		r.makeRoom(ctx, int64(len(raw)))
		d, err = r.store.Put(raw)
	}
	if err == nil {
		err = r.note(d, m)
	}
	if err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("push manifest to %s: %w", repo, err)
	}
	if tag != "" {
		if err := r.backend.SetTag(ctx, repo, tag, manifest.Descriptor{MediaType: mediaType, Digest: d.String(), Size: int64(len(raw))}); err != nil {
			return ociregistry.Descriptor{}, err
		}
		r.log.Info("image pushed", logkey.Image, repo+":"+tag, "digest", d.String())
	}
	return ociregistry.Descriptor{MediaType: mediaType, Digest: ociregistry.Digest(d.String()), Size: int64(len(raw))}, nil
}

// hold waits until everything that a manifest refers to is whole in the store, and keeps
// it there until release, which is never nil.
func (r *Registry) hold(ctx context.Context, repo string, m *manifest.Manifest) (release func(), err error) {
	var leases []func()
	release = func() {
		for _, end := range leases {
			end()
		}
	}
	var missing []string
	for i, ref := range m.Refs() {
		end, err := r.holdOne(ctx, repo, ref)
		switch {
		case errors.Is(err, shoal.ErrNotFound):
			missing = append(missing, ref.Digest)
		case isInvalid(err):
			return release, &fault{status: http.StatusBadRequest, code: codeManifestInvalid, err: fmt.Errorf("reference %d of the manifest: %w", i, err)}
		case err != nil:
			return release, fmt.Errorf("%s of the manifest: %w", ref.Digest, err)
		default:
			leases = append(leases, end)
		}
		if len(missing) == maxNamed {
			break
		}
	}
	if len(missing) > 0 {
		return release, faultf(http.StatusNotFound, codeManifestBlobUnknown, "manifest refers to what is neither here nor at another peer: %s; push that first", strings.Join(missing, ", "))
	}
	return release, r.awaitAll(ctx, m)
}

func (r *Registry) awaitAll(ctx context.Context, m *manifest.Manifest) error {
	for _, ref := range m.Refs() {
		d, err := blobs.ParseDigest(ref.Digest)
		if err == nil {
			err = r.await(ctx, d)
		}
		if err != nil {
			return unknown(codeManifestBlobUnknown, fmt.Errorf("%s of the manifest: %w", ref.Digest, err))
		}
	}
	return nil
}

func (r *Registry) holdOne(ctx context.Context, repo string, ref manifest.Descriptor) (release func(), err error) {
	d, err := blobs.ParseDigest(ref.Digest)
	if err != nil {
		return nil, err
	}
	info, err := r.bring(ctx, repo, d, ref.Size)
	if err != nil {
		return nil, err
	}
	if info.Size != ref.Size {
		return nil, &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("is %d, but %s has %d bytes", ref.Size, d, info.Size)}
	}
	return r.store.Lease(d)
}

// await returns when a blob that arrives is whole.
func (r *Registry) await(ctx context.Context, d blobs.Digest) error {
	for {
		_, changed, err := r.store.Chunks(d)
		if err != nil || changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Registry) deleteTag(ctx context.Context, repo, tag string) error {
	if err := r.backend.DeleteTag(ctx, repo, tag); err != nil {
		return unknown(codeManifestUnknown, err)
	}
	r.log.Info("image name removed", logkey.Image, repo+":"+tag)
	return nil
}

// deleteManifest takes away the tags of the repository that stand for a manifest, and
// removes it.
func (r *Registry) deleteManifest(ctx context.Context, repo string, digest ociregistry.Digest) error {
	d, err := blobs.ParseDigest(string(digest))
	if err != nil {
		return err
	}
	_, m, err := r.read(ctx, d)
	isHere := err == nil
	switch {
	case isInvalid(err):
		return faultf(http.StatusNotFound, codeManifestUnknown, "%s is no manifest", d)
	case err != nil && !errors.Is(err, shoal.ErrNotFound):
		return err
	}
	if err := r.mayRemove(ctx, repo, d); err != nil {
		return err
	}
	names, err := r.deleteTagsOf(ctx, repo, string(digest))
	switch {
	case err != nil:
		return err
	case !isHere && names == 0:
		return faultf(http.StatusNotFound, codeManifestUnknown, "%s: %w", d, shoal.ErrNotFound)
	case !isHere:
		return nil
	}
	if err := r.remove(ctx, d); err != nil {
		return unknown(codeManifestUnknown, err)
	}
	r.forget(d, m)
	return nil
}

// deleteTagsOf takes away the tags of a repository that stand for a manifest, and returns
// how many.
func (r *Registry) deleteTagsOf(ctx context.Context, repo, digest string) (int, error) {
	tags, err := r.backend.Tags(ctx, repo)
	if err != nil && !errors.Is(err, shoal.ErrNotFound) {
		return 0, err
	}
	n := 0
	for _, tag := range tags {
		named, err := r.backend.Tag(ctx, repo, tag)
		if err != nil || named.Digest != digest {
			continue // one that stands for two is decided by people
		}
		if err := r.deleteTag(ctx, repo, tag); err != nil && !errors.Is(err, shoal.ErrNotFound) {
			return n, err
		}
		n++
	}
	return n, nil
}
