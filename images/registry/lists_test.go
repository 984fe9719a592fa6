// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// next returns the path that a Link names, "" if none.
func next(a answered) string {
	link, ok := strings.CutSuffix(a.Header.Get("Link"), `>; rel="next"`)
	if !ok {
		return ""
	}
	return strings.TrimPrefix(link, "<")
}

func TestLists(t *testing.T) {
	s := serve(t, Config{})
	for _, tag := range []string{"b", "a", "c", "B", "e", "d"} {
		if err := s.room.SetTag(t.Context(), "app", tag, manifest.Descriptor{}); err != nil {
			t.Fatal(err)
		}
	}
	s.room.tags["empty"] = map[string][]manifest.Descriptor{}
	for _, tt := range []struct {
		path string
		want string
		next string
	}{
		{"/v2/app/tags/list", `{"name":"app","tags":["B","a","b","c","d","e"]}`, ""},
		{"/v2/app/tags/list?n=0", `{"name":"app","tags":[]}`, ""},
		{"/v2/app/tags/list?n=4", `{"name":"app","tags":["B","a","b","c"]}`, "/v2/app/tags/list?last=c&n=4"},
		{"/v2/app/tags/list?last=c&n=4", `{"name":"app","tags":["d","e"]}`, ""},
		{"/v2/app/tags/list?n=6", `{"name":"app","tags":["B","a","b","c","d","e"]}`, ""},
		{"/v2/app/tags/list?n=99999999999", `{"name":"app","tags":["B","a","b","c","d","e"]}`, ""},
		{"/v2/app/tags/list?last=bb", `{"name":"app","tags":["c","d","e"]}`, ""},
		{"/v2/app/tags/list?last=z", `{"name":"app","tags":[]}`, ""},
		{"/v2/empty/tags/list", `{"name":"empty","tags":[]}`, ""},
		{"/v2/_catalog", `{"repositories":["app","empty"]}`, ""},
		{"/v2/_catalog?n=1", `{"repositories":["app"]}`, "/v2/_catalog?last=app&n=1"},
		{"/v2/_catalog?last=app&n=1", `{"repositories":["empty"]}`, ""},
	} {
		a := s.want(http.StatusOK, http.MethodGet, tt.path, nil, nil)
		if string(a.body) != tt.want || next(a) != tt.next {
			t.Errorf("GET %s = %s, next %q, want %s, %q", tt.path, a.body, next(a), tt.want, tt.next)
		}
	}
	for _, n := range []string{"-1", "x", "1.5", url.QueryEscape("99999999999999999999")} {
		s.want(http.StatusBadRequest, http.MethodGet, "/v2/app/tags/list?n="+n, nil, nil)
	}
}

// TestReferrers: they are found by subject, which need not be here, also by the registry's
// next life, and by what came otherwise than by a push.
func TestReferrers(t *testing.T) {
	dir := t.TempDir()
	s := serveDir(t, dir, openStore, Config{}, newRoom())
	subject := imageOf([]byte("{}"), "")
	about := string(desc(manifest.TypeManifest, subject).bytes())
	config := []byte("{}")
	s.push(config)
	signature := imageOf(config, `{"artifactType":"a/signature","annotations":{"k":"v"},"subject":`+about+`}`)
	plain := imageOf(config, `{"subject":`+about+`}`)
	list := doc{"schemaVersion": 2, "mediaType": manifest.TypeIndex, "manifests": []doc{}, "subject": desc(manifest.TypeManifest, subject)}.bytes()
	path := "/v2/app/referrers/" + blobs.DigestOf(subject).String()

	entries := func(query, filtered string) []string {
		t.Helper()
		a := s.want(http.StatusOK, http.MethodGet, path+query, nil, nil)
		var index struct {
			SchemaVersion int
			MediaType     string
			Manifests     []descriptor
		}
		if err := json.Unmarshal(a.body, &index); err != nil || index.SchemaVersion != 2 || index.MediaType != manifest.TypeIndex || index.Manifests == nil {
			t.Fatalf("GET referrers = %s, %v", a.body, err)
		}
		if a.Header.Get("Content-Type") != manifest.TypeIndex || a.Header.Get("Oci-Filters-Applied") != filtered {
			t.Errorf("header = %v", a.Header)
		}
		var out []string
		for _, d := range index.Manifests {
			out = append(out, fmt.Sprint(d.MediaType, " ", d.ArtifactType, " ", d.Annotations, " ", d.Digest, " ", d.Size))
		}
		return out
	}
	line := func(mediaType, kind, notes string, raw []byte) string {
		return fmt.Sprint(mediaType, " ", kind, " ", notes, " ", blobs.DigestOf(raw), " ", len(raw))
	}
	expect := func(got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(asSet(want), asSet(got)); diff != "" {
			t.Errorf("referrers (-want +got):\n%s", diff)
		}
	}
	expect(entries("", ""))
	a := s.put(http.StatusCreated, blobs.DigestOf(signature).String(), manifest.TypeManifest, signature)
	if got := a.Header.Get("Oci-Subject"); got != blobs.DigestOf(subject).String() {
		t.Errorf("OCI-Subject = %q", got)
	}
	s.put(http.StatusCreated, "plain", "", plain)
	s.put(http.StatusCreated, "list", manifest.TypeIndex, list)
	all := []string{
		line(manifest.TypeManifest, "a/signature", "map[k:v]", signature),
		line(manifest.TypeManifest, "application/vnd.oci.image.config.v1+json", "map[]", plain),
		line(manifest.TypeIndex, "", "map[]", list),
	}
	expect(entries("", ""), all...)
	expect(entries("?artifactType=a/signature", "artifactType"), all[0])
	expect(entries("?artifactType=none", "artifactType"))

	s.stop()
	s = serveDir(t, dir, openStore, Config{}, s.room)
	expect(entries("", ""), all...)
	if got := s.Referrers(blobs.DigestOf(subject)); len(got) != 3 {
		t.Errorf("Referrers = %v, want 3", got)
	}

	s.want(http.StatusAccepted, http.MethodDelete, "/v2/app/manifests/"+blobs.DigestOf(plain).String(), nil, nil)
	if err := s.store.Remove(blobs.DigestOf(list)); err != nil { // as Collect does
		t.Fatal(err)
	}
	expect(entries("", ""), all[0])
	other := imageOf(config, `{"artifactType":"a/bill","subject":`+about+`}`)
	d, err := s.store.Put(other)
	if err == nil {
		err = s.Manifested(t.Context(), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	expect(entries("", ""), all[0], line(manifest.TypeManifest, "a/bill", "map[]", other))
	if err := s.Manifested(t.Context(), blobs.DigestOf(config)); !isInvalid(err) {
		t.Errorf("Manifested of a configuration = %v, want an InvalidError", err)
	}
}

func asSet(lines []string) map[string]bool {
	out := map[string]bool{}
	for _, l := range lines {
		out[l] = true
	}
	return out
}

// TestReferrerPages: annotations are as large as manifests, so an answer is bounded.
func TestReferrerPages(t *testing.T) {
	s := serve(t, Config{})
	config := []byte("{}")
	s.push(config)
	about := string(desc(manifest.TypeManifest, []byte("subject")).bytes())
	const n, size = 5, 400 << 10
	for i := range n {
		raw := imageOf(config, fmt.Sprintf(`{"annotations":{"n":"%d","fill":%q},"subject":%s}`, i, strings.Repeat("x", size), about))
		s.put(http.StatusCreated, blobs.DigestOf(raw).String(), manifest.TypeManifest, raw)
	}
	seen, pages := map[string]bool{}, 0
	for path := "/v2/app/referrers/" + blobs.DigestOf([]byte("subject")).String(); path != ""; pages++ {
		a := s.want(http.StatusOK, http.MethodGet, path, nil, nil)
		if len(a.body) > pageBytes+1000 {
			t.Errorf("page has %d bytes, want at most about %d", len(a.body), pageBytes)
		}
		var index struct{ Manifests []descriptor }
		if err := json.Unmarshal(a.body, &index); err != nil {
			t.Fatal(err)
		}
		for _, d := range index.Manifests {
			seen[d.Digest] = true
		}
		path = next(a)
	}
	if len(seen) != n || pages != 3 {
		t.Errorf("%d referrers in %d pages, want %d in 3", len(seen), pages, n)
	}
}
