// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// kind is what a path is about.
type kind int

const (
	kindOther     kind = iota // ociserver answers
	kindCatalog               // /v2/_catalog
	kindUploads               // /v2/<name>/blobs/uploads/
	kindUpload                // /v2/<name>/blobs/uploads/<id>
	kindBlob                  // /v2/<name>/blobs/<digest>
	kindManifest              // /v2/<name>/manifests/<tag or digest>
	kindTags                  // /v2/<name>/tags/list
	kindReferrers             // /v2/<name>/referrers/<digest>
)

type target struct {
	kind kind
	repo string
	ref  string // tag, digest or upload
}

// repository is the grammar of names (distribution-spec v1.1, "Pulling manifests"), of
// which the specification advises at most 255 bytes with the host.
var repository = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

const maxRepository = 255

// parseTarget reads a path. Digests and names that are none end here; what no path of the
// specification is goes to ociserver, which says so.
func parseTarget(path string) (target, error) {
	path, ok := strings.CutPrefix(path, "/v2/")
	if !ok || path == "" {
		return target{}, nil
	}
	if path == "_catalog" {
		return target{kind: kindCatalog}, nil
	}
	t := cutTarget(path)
	switch {
	case t.kind == kindOther:
		return t, nil
	case len(t.repo) > maxRepository || !repository.MatchString(t.repo):
		return t, faultf(http.StatusBadRequest, codeNameInvalid, "%q is no name of a repository: lower case letters, digits, and . _ - between them, parts divided by /", clip(t.repo))
	case t.kind == kindBlob, t.kind == kindReferrers, t.kind == kindManifest && strings.Contains(t.ref, ":"):
		return t, checkDigest(t.ref)
	}
	return t, nil
}

func cutTarget(path string) target {
	for _, end := range []string{"/blobs/uploads/", "/blobs/uploads"} {
		if repo, ok := strings.CutSuffix(path, end); ok {
			return target{kind: kindUploads, repo: repo}
		}
	}
	rest, ref := cutLast(path)
	repo, noun := cutLast(rest)
	switch {
	case ref == "" || repo == "":
	case noun == "uploads" && strings.HasSuffix(repo, "/blobs"):
		return target{kind: kindUpload, repo: strings.TrimSuffix(repo, "/blobs"), ref: ref}
	case noun == "blobs":
		return target{kind: kindBlob, repo: repo, ref: ref}
	case noun == "manifests":
		return target{kind: kindManifest, repo: repo, ref: ref}
	case noun == "referrers":
		return target{kind: kindReferrers, repo: repo, ref: ref}
	case noun == "tags" && ref == "list":
		return target{kind: kindTags, repo: repo, ref: ref}
	}
	return target{}
}

func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

func checkDigest(s string) error {
	if _, err := blobs.ParseDigest(s); err != nil {
		return faultf(http.StatusBadRequest, codeDigestInvalid, "%w", err)
	}
	return nil
}

// call is what the part before ociserver and the one behind it tell each other about one
// request.
type call struct {
	offset   int64              // of the chunk that is sent, -1 if it does not say
	manifest *manifest.Manifest // that is put
	err      error              // of the body or of writing it; ociserver does not keep it
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{offset: -1}
}

// errDone says that a request is answered.
var errDone = errors.New("answered")

// ServeHTTP implements http.Handler. The request must have come to a loopback address, and
// http.LocalAddrContextKey say so, as http.Server does.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !r.calls.begin() {
		http.Error(w, "the registry is ending", http.StatusServiceUnavailable)
		return
	}
	defer r.calls.wg.Done()
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	c := &call{offset: -1}
	req = req.WithContext(context.WithValue(req.Context(), callKey{}, c))
	w, req.Body = r.patient(w, req, c)
	err := r.admit(w, req)
	if err == nil {
		err = r.front(w, req, c)
	}
	switch {
	case err == nil:
		r.oci.ServeHTTP(w, req)
	case !errors.Is(err, errDone):
		r.writeError(w, req, err)
	}
}
