// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// front does for a request what ociserver does not, and answers it (errDone) or hands it
// on, changed into what ociserver understands.
func (r *Registry) front(w http.ResponseWriter, req *http.Request, c *call) error {
	t, err := parseTarget(req.URL.Path)
	if err != nil {
		return err
	}
	isGet := req.Method == http.MethodGet
	switch t.kind {
	case kindCatalog:
		if isGet {
			return r.listRepositories(w, req)
		}
	case kindTags:
		if isGet {
			return r.listTags(w, req, t.repo)
		}
	case kindReferrers:
		if isGet {
			return r.listReferrers(w, req, t.ref)
		}
	case kindBlob:
		if isGet {
			w.Header().Set("Accept-Ranges", "bytes")
			return r.frontRange(w, req, t)
		}
	case kindUploads:
		return r.frontUploads(req, t)
	case kindUpload:
		return r.frontUpload(w, req, t, c)
	case kindManifest:
		if req.Method == http.MethodPut {
			return r.frontManifest(req, c)
		}
	case kindOther:
	}
	return nil
}

// frontRange makes of a Range header what ociserver takes: one range that is within the
// blob, or none. RFC 9110, section 14.2, lets a server ignore what it does not like.
func (r *Registry) frontRange(w http.ResponseWriter, req *http.Request, t target) error {
	said := req.Header.Get("Range")
	req.Header.Del("Range")
	if said == "" || req.Header.Get("If-Range") != "" { // which names no version of ours
		return nil
	}
	d, _ := blobs.ParseDigest(t.ref)
	info, err := r.bring(req.Context(), t.repo, d, 0)
	if err != nil {
		return unknown(codeBlobUnknown, err)
	}
	first, last, verdict := parseRange(said, info.Size)
	switch verdict {
	case rangeGood:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, last))
	case rangeUnsatisfiable:
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", info.Size))
		return faultf(http.StatusRequestedRangeNotSatisfiable, codeRangeInvalid, "range %q is not within the %d bytes of the blob", clip(said), info.Size)
	case rangeIgnored:
	}
	return nil
}

// frontUploads checks the digests that begin an upload. A mount of what is not here
// becomes an upload (distribution-spec v1.1, "Mounting a blob from another repository"),
// and one that names no repository is served from any.
func (r *Registry) frontUploads(req *http.Request, t target) error {
	query := req.URL.Query()
	if s := query.Get("digest"); s != "" {
		if err := checkDigest(s); err != nil {
			return err
		}
	}
	s := query.Get("mount")
	if s == "" {
		return nil
	}
	if err := checkDigest(s); err != nil {
		return err
	}
	d, _ := blobs.ParseDigest(s)
	if info, err := r.store.Stat(d); err == nil && info.Complete {
		query.Set("from", t.repo)
	} else {
		query.Del("mount")
		query.Del("from")
		query.Del("digest")
	}
	u := *req.URL
	u.RawQuery = query.Encode()
	req.URL = &u
	return nil
}

// frontUpload notes where a chunk belongs, for ociserver says the same of a chunk at 0 and
// of one that does not say; and it cancels.
func (r *Registry) frontUpload(w http.ResponseWriter, req *http.Request, t target, c *call) error {
	switch req.Method {
	case http.MethodPut:
		if err := checkDigest(req.URL.Query().Get("digest")); err != nil {
			return err
		}
	case http.MethodPatch:
	case http.MethodDelete:
		id, err := decodeID(t.ref)
		if err == nil {
			err = r.uploads.cancel(id)
		}
		if err != nil {
			return unknown(codeUploadUnknown, err)
		}
		w.WriteHeader(http.StatusNoContent)
		return errDone
	default:
		return nil
	}
	said := req.Header.Get("Content-Range")
	req.Header.Del("Content-Range")
	if said == "" {
		return nil
	}
	first, last, ok := parseContentRange(said)
	switch {
	case !ok:
		return faultf(http.StatusBadRequest, codeRangeInvalid, "Content-Range must be FIRST-LAST, got %q", clip(said))
	case req.ContentLength >= 0 && last-first+1 != req.ContentLength:
		return faultf(http.StatusBadRequest, codeSizeInvalid, "Content-Range is %d bytes, and %d are sent", last-first+1, req.ContentLength)
	}
	c.offset = first
	return nil
}

// frontManifest reads a manifest within its bound, and says which type it has.
func (r *Registry) frontManifest(req *http.Request, c *call) error {
	raw, err := io.ReadAll(io.LimitReader(req.Body, manifest.MaxBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("read manifest: %w", err)
	case len(raw) > manifest.MaxBytes:
		return faultf(http.StatusRequestEntityTooLarge, codeManifestInvalid, "manifest is larger than %d bytes, which is the most that is taken", manifest.MaxBytes)
	}
	said, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || said == "application/octet-stream" {
		said = "" // the content tells
	}
	m, err := readManifest(said, raw)
	if err != nil {
		return &fault{status: http.StatusBadRequest, code: codeManifestInvalid, err: err}
	}
	c.manifest = m
	req.Header.Set("Content-Type", m.MediaType)
	req.Body = io.NopCloser(bytes.NewReader(raw))
	return nil
}

// readManifest reads a manifest of which the type is in its content, for that alone is
// what other peers get.
func readManifest(said string, raw []byte) (*manifest.Manifest, error) {
	m, err := manifest.Parse(said, raw)
	if err != nil {
		return nil, err
	}
	if len(m.ArtifactType) > 255 {
		return nil, &shoal.InvalidError{Field: "artifactType", Why: fmt.Sprintf("is %d bytes, at most 255 are taken", len(m.ArtifactType))}
	}
	if said == "" {
		return m, nil
	}
	if bare, err := manifest.Parse("", raw); err != nil || bare.MediaType != m.MediaType {
		return nil, &shoal.InvalidError{Field: "mediaType", Why: fmt.Sprintf("is missing; write %q into the manifest", m.MediaType)}
	}
	return m, nil
}
