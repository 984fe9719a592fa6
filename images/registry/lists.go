// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// Bounds of a page of a list; what is left is on the next, which a Link names.
const (
	pageNames = 10_000
	pageBytes = 1 << 20 // of referrers; clients take at least 4 MiB (distribution-spec v1.1, "Listing Referrers")
)

func (r *Registry) listRepositories(w http.ResponseWriter, req *http.Request) error {
	names, err := r.backend.Repositories(req.Context())
	if err != nil {
		return err
	}
	page, err := pageOf(w, req, names)
	if err != nil {
		return err
	}
	return answer(w, "application/json", struct {
		Repositories []string `json:"repositories"`
	}{page})
}

func (r *Registry) listTags(w http.ResponseWriter, req *http.Request, repo string) error {
	names, err := r.backend.Tags(req.Context(), repo)
	if err != nil {
		return unknown(codeNameUnknown, err)
	}
	page, err := pageOf(w, req, names)
	if err != nil {
		return err
	}
	return answer(w, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{repo, page})
}

// pageOf returns the names that n and last ask for (distribution-spec v1.1, "Listing
// Tags"), and says where the next page is.
func pageOf(w http.ResponseWriter, req *http.Request, names []string) ([]string, error) {
	query := req.URL.Query()
	n := pageNames
	if s := query.Get("n"); s != "" {
		v, ok := parseDecimal(s)
		if !ok {
			return nil, faultf(http.StatusBadRequest, codeUnsupported, "n must be a number, 0 or more, got %q", clip(s))
		}
		n = int(min(v, pageNames))
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	from, found := slices.BinarySearch(names, query.Get("last"))
	if found {
		from++
	}
	page := names[from:]
	if len(page) > n {
		page = page[:n]
		if n > 0 {
			linkNext(w, req, page[n-1], strconv.Itoa(n))
		}
	}
	return append([]string{}, page...), nil // not null
}

// linkNext names the next page, which begins after last.
func linkNext(w http.ResponseWriter, req *http.Request, last, n string) {
	query := req.URL.Query()
	query.Set("last", last)
	if n != "" {
		query.Set("n", n)
	}
	next := url.URL{Path: req.URL.Path, RawQuery: query.Encode()}
	w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, next.String()))
}

// descriptor is an entry of a list of referrers.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

func (r *Registry) listReferrers(w http.ResponseWriter, req *http.Request, ref string) error {
	subject, err := blobs.ParseDigest(ref)
	if err != nil {
		return err
	}
	query := req.URL.Query()
	want := query.Get("artifactType")
	page, size, last, more := []json.RawMessage{}, 0, query.Get("last"), false
	for _, d := range r.Referrers(subject) {
		if d.String() <= last {
			continue
		}
		entry, ok := r.referrer(req, d, subject)
		if !ok || want != "" && entry.ArtifactType != want {
			continue
		}
		one, err := json.Marshal(entry)
		if err != nil {
			return err
		}
		if size += len(one); size > pageBytes && len(page) > 0 {
			more = true
			break
		}
		page, last = append(page, one), d.String()
	}
	if more {
		linkNext(w, req, last, "")
	}
	if want != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return answer(w, manifest.TypeIndex, struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, manifest.TypeIndex, page})
}

// referrer reads a manifest that names subject; ok is false if it is gone.
func (r *Registry) referrer(req *http.Request, d, subject blobs.Digest) (_ descriptor, ok bool) {
	raw, m, err := r.read(req.Context(), d)
	if err != nil {
		r.referrers.remove(d, subject)
		return descriptor{}, false
	}
	kind := m.ArtifactType
	if kind == "" {
		kind = m.Config.MediaType // of an index it is ""
	}
	return descriptor{
		MediaType: m.MediaType, Digest: d.String(), Size: int64(len(raw)),
		ArtifactType: kind, Annotations: m.Annotations,
	}, true
}

func answer(w http.ResponseWriter, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, mediaType, body)
	return errDone
}
