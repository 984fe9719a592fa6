// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/images/swarm"
)

// put pushes a manifest and checks the status.
func (s *served) put(status int, ref, mediaType string, raw []byte) answered {
	s.t.Helper()
	return s.want(status, http.MethodPut, "/v2/app/manifests/"+ref, raw, func(req *http.Request) {
		if mediaType != "" {
			req.Header.Set("Content-Type", mediaType)
		}
	})
}

func TestManifest(t *testing.T) {
	s := serve(t, Config{})
	layer := []byte("a layer")
	raw := s.image(layer)
	d := blobs.DigestOf(raw)
	a := s.put(http.StatusCreated, "v1", manifest.TypeManifest, raw)
	if got := s.location(a); !strings.HasSuffix(got, "/v2/app/manifests/"+d.String()) {
		t.Errorf("Location = %q", got)
	}
	want := manifest.Descriptor{MediaType: manifest.TypeManifest, Digest: d.String(), Size: int64(len(raw))}
	if got, err := s.room.Tag(t.Context(), "app", "v1"); err != nil || got != want {
		t.Errorf("Tag = %+v, %v, want %+v", got, err, want)
	}
	info, err := s.store.Stat(d)
	if err != nil || !slices.Contains(info.Refs, blobs.DigestOf(layer)) || len(info.Refs) != 2 {
		t.Errorf("Stat = %+v, %v, want references to config and layer", info, err)
	}
	for _, ref := range []string{"v1", d.String()} {
		got := s.want(http.StatusOK, http.MethodGet, "/v2/app/manifests/"+ref, nil, nil)
		head := s.want(http.StatusOK, http.MethodHead, "/v2/app/manifests/"+ref, nil, nil)
		if !bytes.Equal(got.body, raw) {
			t.Errorf("GET %s = %s", ref, got.body)
		}
		for _, a := range []answered{got, head} {
			if a.Header.Get("Content-Type") != manifest.TypeManifest || a.Header.Get("Docker-Content-Digest") != d.String() || a.ContentLength != int64(len(raw)) {
				t.Errorf("%s %s: header = %v", a.Request.Method, ref, a.Header)
			}
		}
	}
	s.put(http.StatusBadRequest, blobs.DigestOf(nil).String(), manifest.TypeManifest, raw)
	for name, mediaType := range map[string]string{
		"silent": "", "parameter": manifest.TypeManifest + "; charset=utf-8", "octets": octets,
	} {
		s.put(http.StatusCreated, name, mediaType, raw)
		if got, _ := s.room.Tag(t.Context(), "app", name); got.MediaType != manifest.TypeManifest {
			t.Errorf("sent as %q it is %q", mediaType, got.MediaType)
		}
	}
	blob := s.want(http.StatusNotFound, http.MethodGet, "/v2/app/manifests/"+blobs.DigestOf(layer).String(), nil, nil)
	if code, _ := blob.fault(); code != codeManifestUnknown {
		t.Errorf("a layer as manifest = %s, want %s", code, codeManifestUnknown)
	}
}

// TestDockerManifest: Docker's schema 2 names its own type.
func TestDockerManifest(t *testing.T) {
	s := serve(t, Config{})
	config := []byte("{}")
	s.push(config)
	raw := doc{"schemaVersion": 2, "mediaType": manifest.TypeDockerManifest, "config": desc("application/vnd.docker.container.image.v1+json", config), "layers": []doc{}}
	s.put(http.StatusCreated, "v1", manifest.TypeDockerManifest, raw.bytes())
	list := doc{"schemaVersion": 2, "mediaType": manifest.TypeDockerList, "manifests": []doc{desc(manifest.TypeDockerManifest, raw.bytes())}}
	s.put(http.StatusCreated, "all", manifest.TypeDockerList, list.bytes())
	got := s.want(http.StatusOK, http.MethodGet, "/v2/app/manifests/all", nil, nil)
	if got.Header.Get("Content-Type") != manifest.TypeDockerList {
		t.Errorf("Content-Type = %q", got.Header.Get("Content-Type"))
	}
	delete(raw, "mediaType")
	a := s.put(http.StatusBadRequest, "v2", manifest.TypeDockerManifest, raw.bytes())
	if code, text := a.fault(); code != codeManifestInvalid || !strings.HasPrefix(text, "mediaType is missing") {
		t.Errorf("without its type = %s %s", code, text)
	}
}

// TestBadManifests: FAILURES section 2, items 36, 39 and 40. Nothing of them is kept, and
// no name changes.
func TestBadManifests(t *testing.T) {
	s := serve(t, Config{})
	config, layer := []byte("{}"), []byte("a layer")
	s.push(config)
	s.push(layer)
	good := string(imageOf(config, "", layer))
	wrongSize := strings.Replace(good, `"size":7`, `"size":8`, 1)
	manyLayers := imageOf(config, "", slices.Repeat([][]byte{layer}, 1000)...)
	largeConfig := strings.Replace(good, `"size":2`, `"size":52428800`, 1)
	absent := blobs.DigestOf([]byte("absent")).String()
	before, err := s.store.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, mediaType, raw string
		status               int
		code, text           string
	}{
		{"not JSON", manifest.TypeManifest, "hello", 400, codeManifestInvalid, "not JSON"},
		{"nothing", manifest.TypeManifest, "", 400, codeManifestInvalid, "not JSON"},
		{"deep", manifest.TypeManifest, strings.Repeat("[", 100_000), 400, codeManifestInvalid, "not JSON"},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, 400, codeManifestInvalid, "schema 1"},
		{"other type", "application/json", good, 400, codeManifestInvalid, "it was sent as"},
		{"two readings", manifest.TypeManifest, `{"schemaVersion":2,"config":{},"manifests":[]}`, 400, codeManifestInvalid, "another a manifest"},
		{"foreign layer", manifest.TypeManifest, strings.Replace(good, `layer.v1.tar+gzip"`, `layer.v1.tar+gzip","urls":["http://169.254.169.254/"]`, 1), 400, codeManifestInvalid, "never done"},
		{"nondistributable", manifest.TypeManifest, strings.Replace(good, "layer.v1", "layer.nondistributable.v1", 1), 400, codeManifestInvalid, "never done"},
		{"other digest", manifest.TypeManifest, strings.Replace(good, "sha256:", "sha512:", 1), 400, codeManifestInvalid, "must be sha256"},
		{"1,000 layers", manifest.TypeManifest, string(manyLayers), 400, codeManifestInvalid, "at most 256"},
		{"config of 50 MiB", manifest.TypeManifest, largeConfig, 400, codeManifestInvalid, "config.size is 52428800 bytes"},
		{"wrong size", manifest.TypeManifest, wrongSize, 400, codeManifestInvalid, "size is 8, but"},
		{"long artifact type", manifest.TypeManifest, string(imageOf(config, `{"artifactType":"`+strings.Repeat("a", 300)+`"}`)), 400, codeManifestInvalid, "at most 255"},
		{"too large", manifest.TypeManifest, good + strings.Repeat(" ", manifest.MaxBytes), 413, codeManifestInvalid, "4194304"},
		{"absent layer", manifest.TypeManifest, string(imageOf(config, "", layer, []byte("absent"))), 404, codeManifestBlobUnknown, absent},
		{"absent platform", manifest.TypeIndex, string(doc{"schemaVersion": 2, "manifests": []doc{desc(manifest.TypeManifest, []byte("absent"))}}.bytes()), 404, codeManifestBlobUnknown, absent},
	} {
		for _, edit := range []func(*http.Request){nil, chunked} {
			a := s.do(http.MethodPut, "/v2/app/manifests/v1", []byte(tt.raw), func(req *http.Request) {
				req.Header.Set("Content-Type", tt.mediaType)
				if edit != nil {
					edit(req)
				}
			})
			if code, text := a.fault(); a.StatusCode != tt.status || code != tt.code || !strings.Contains(text, tt.text) || strings.Contains(text, "\n") || len(text) > 800 {
				t.Errorf("%s: PUT = %d %s %q, want %d %s with %q", tt.name, a.StatusCode, code, text, tt.status, tt.code, tt.text)
			}
		}
	}
	after, err := s.store.Usage()
	if err != nil || after != before {
		t.Errorf("Usage = %+v, %v, want %+v as before", after, err, before)
	}
	if len(s.room.tags) != 0 {
		t.Errorf("names = %v, want none", s.room.tags)
	}
}

// TestManyMissing: an error names some of what is missing, and the search ends there.
func TestManyMissing(t *testing.T) {
	s := serve(t, Config{})
	var layers [][]byte
	for i := range 200 {
		layers = append(layers, fmt.Append(nil, i))
	}
	s.put(http.StatusNotFound, "v1", manifest.TypeManifest, imageOf([]byte("{}"), "", layers...))
	if n := len(s.room.needed); n != maxNamed {
		t.Errorf("%d blobs were asked for, want %d", n, maxNamed)
	}
}

// TestManifestOfOthers: what other peers have comes before the name is given.
func TestManifestOfOthers(t *testing.T) {
	s := serve(t, Config{})
	config, layer := []byte("{}"), content(1, swarm.ChunkBytes+1)
	s.push(config)
	began := make(chan func(int), 1)
	s.room.need = func(context.Context, blobs.Digest, int64) error {
		select {
		case began <- s.arrive(layer):
		default:
		}
		return nil
	}
	go func() {
		put := <-began
		put(1)
		if tags, _ := s.room.Tags(t.Context(), "app"); len(tags) != 0 {
			t.Errorf("tags = %v before the layer is whole", tags)
		}
		put(0)
	}()
	s.put(http.StatusCreated, "v1", manifest.TypeManifest, imageOf(config, "", layer))
	if info, err := s.store.Stat(blobs.DigestOf(layer)); err != nil || !info.Complete || info.Leases != 0 {
		t.Errorf("Stat of the layer = %+v, %v, want it whole and let go", info, err)
	}
}

// TestPullManifest: a manifest that is at another peer comes, and what it refers to is
// known to the store from then on.
func TestPullManifest(t *testing.T) {
	s := serve(t, Config{})
	raw := imageOf([]byte("{}"), "", []byte("a layer"))
	d := blobs.DigestOf(raw)
	s.room.need = func(_ context.Context, asked blobs.Digest, size int64) error {
		if asked != d || size != int64(len(raw)) {
			return fmt.Errorf("blob %s of %d bytes: %w", asked, size, shoal.ErrNotFound)
		}
		_, err := s.store.Put(raw)
		return err
	}
	if err := s.room.SetTag(t.Context(), "app", "v1", manifest.Descriptor{MediaType: manifest.TypeManifest, Digest: d.String(), Size: int64(len(raw))}); err != nil {
		t.Fatal(err)
	}
	got := s.want(http.StatusOK, http.MethodGet, "/v2/app/manifests/v1", nil, nil)
	if !bytes.Equal(got.body, raw) {
		t.Errorf("GET = %s", got.body)
	}
	if info, err := s.store.Stat(d); err != nil || len(info.Refs) != 2 {
		t.Errorf("Stat = %+v, %v, want 2 references", info, err)
	}
}

// TestTagErrors: what the room says of names is shown as it says it (item 41).
func TestTagErrors(t *testing.T) {
	s := serve(t, Config{})
	raw := s.image()
	one, two := blobs.DigestOf([]byte("1")).String(), blobs.DigestOf([]byte("2")).String()
	s.room.tags["app"] = map[string][]manifest.Descriptor{"v1": {{Digest: one}, {Digest: two}}}
	a := s.want(http.StatusConflict, http.MethodGet, "/v2/app/manifests/v1", nil, nil)
	if code, text := a.fault(); code != codeConflict || !strings.Contains(text, one) || !strings.Contains(text, two) {
		t.Errorf("two digests = %s %s", code, text)
	}
	s.room.refuse = fmt.Errorf("%w: this peer is an observer", shoal.ErrRefused)
	for method, body := range map[string][]byte{http.MethodPut: raw, http.MethodDelete: nil} {
		a := s.want(http.StatusForbidden, method, "/v2/app/manifests/v1", body, nil)
		if code, text := a.fault(); code != codeDenied || !strings.Contains(text, "an observer") {
			t.Errorf("%s = %s %s", method, code, text)
		}
	}
}

// TestDelete: nothing is removed that something else needs, and then no name changes.
func TestDelete(t *testing.T) {
	s := serve(t, Config{})
	layer := []byte("a layer")
	raw := s.image(layer)
	d := blobs.DigestOf(raw)
	s.put(http.StatusCreated, "v1", manifest.TypeManifest, raw)
	s.put(http.StatusCreated, "v2", manifest.TypeManifest, raw)
	index := doc{"schemaVersion": 2, "mediaType": manifest.TypeIndex, "manifests": []doc{desc(manifest.TypeManifest, raw)}}.bytes()
	s.put(http.StatusCreated, "all", manifest.TypeIndex, index)

	refused := func(path, text string) {
		t.Helper()
		a := s.want(http.StatusMethodNotAllowed, http.MethodDelete, path, nil, nil)
		if _, got := a.fault(); !strings.Contains(got, text) || a.Header.Get("Allow") == "" {
			t.Errorf("DELETE %s = %q, want it to name %s", path, got, text)
		}
	}
	refused("/v2/app/blobs/"+blobs.DigestOf(layer).String(), d.String())
	refused("/v2/app/manifests/"+d.String(), blobs.DigestOf(index).String())
	s.want(http.StatusAccepted, http.MethodDelete, "/v2/app/manifests/all", nil, nil)
	s.want(http.StatusAccepted, http.MethodDelete, "/v2/app/manifests/"+blobs.DigestOf(index).String(), nil, nil)
	s.room.keep[d] = fmt.Errorf("service web needs it: %w", shoal.ErrConflict)
	refused("/v2/app/manifests/"+d.String(), "service web")
	if tags, _ := s.room.Tags(t.Context(), "app"); len(tags) != 2 {
		t.Errorf("tags = %v, want v1 and v2", tags)
	}

	delete(s.room.keep, d)
	s.want(http.StatusAccepted, http.MethodDelete, "/v2/app/manifests/v1", nil, nil)
	s.want(http.StatusNotFound, http.MethodDelete, "/v2/app/manifests/v1", nil, nil)
	s.want(http.StatusAccepted, http.MethodDelete, "/v2/app/manifests/"+d.String(), nil, nil)
	for _, ref := range []string{"v2", d.String()} {
		s.want(http.StatusNotFound, http.MethodGet, "/v2/app/manifests/"+ref, nil, nil)
		s.want(http.StatusNotFound, http.MethodDelete, "/v2/app/manifests/"+ref, nil, nil)
	}
	path := "/v2/app/blobs/" + blobs.DigestOf(layer).String()
	s.want(http.StatusAccepted, http.MethodDelete, path, nil, nil)
	s.want(http.StatusNotFound, http.MethodDelete, path, nil, nil)
}

// TestDeleteWaits: what is being sent is removed once that has ended.
func TestDeleteWaits(t *testing.T) {
	s := serve(t, Config{})
	s.push([]byte("in use"))
	digest := blobs.DigestOf([]byte("in use"))
	release, err := s.store.Lease(digest)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(3*removeAgain, release)
	began := time.Now()
	s.want(http.StatusAccepted, http.MethodDelete, "/v2/app/blobs/"+digest.String(), nil, nil)
	if took := time.Since(began); took < 3*removeAgain {
		t.Errorf("it was removed after %s, while it was in use", took)
	}
	s.want(http.StatusNotFound, http.MethodHead, "/v2/app/blobs/"+digest.String(), nil, nil)
}
