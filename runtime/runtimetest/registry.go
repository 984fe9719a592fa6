// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoalnet/shoal"
)

// content is an image that no engine has seen before, in the forms it travels in.
type content struct {
	id       string            // digest of its configuration
	digest   string            // of its manifest
	blobs    map[string][]byte // by digest, the manifest included
	layer    string            // digest of its first layer as the registry has it
	config   []byte
	layers   [][]byte // as tars
	manifest []byte
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// newContent makes an image of two layers of random bytes.
func newContent(t testing.TB) *content {
	t.Helper()
	c := &content{blobs: make(map[string][]byte)}
	type blob struct {
		MediaType string `json:"mediaType"`
		Size      int    `json:"size"`
		Digest    string `json:"digest"`
	}
	add := func(kind string, raw []byte) blob {
		c.blobs[sha256Of(raw)] = raw
		return blob{MediaType: "application/vnd.docker." + kind, Size: len(raw), Digest: sha256Of(raw)}
	}
	var diffs []string
	var layers []blob
	for i := range 2 {
		raw := make([]byte, 300_000)
		_, _ = rand.Read(raw) // never fails
		files := tarOf(t, map[string][]byte{fmt.Sprintf("part%d", i): raw})
		c.layers, diffs = append(c.layers, files), append(diffs, sha256Of(files))
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		if _, err := z.Write(files); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		layers = append(layers, add("image.rootfs.diff.tar.gzip", zipped.Bytes()))
	}
	c.layer = layers[0].Digest
	c.config = mustJSON(t, map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/part0"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	c.id = sha256Of(c.config)
	c.manifest = mustJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": add("container.image.v1+json", c.config), "layers": layers,
	})
	c.digest = sha256Of(c.manifest)
	c.blobs[c.digest] = c.manifest
	return c
}

const manifestType = "application/vnd.docker.distribution.manifest.v2+json"

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func tarOf(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, raw := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(raw)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// archive is what docker save writes of it under a name.
func (c *content) archive(t testing.TB, name string) []byte {
	t.Helper()
	config := strings.TrimPrefix(c.id, "sha256:") + ".json"
	files := map[string][]byte{config: c.config}
	var layers []string
	for i, raw := range c.layers {
		layer := fmt.Sprintf("layer%d/layer.tar", i)
		files[layer], layers = raw, append(layers, layer)
	}
	files["manifest.json"] = mustJSON(t, []map[string]any{{"Config": config, "RepoTags": []string{name}, "Layers": layers}})
	return tarOf(t, files)
}

// registry serves one image read-only under any name, to who logs in.
type registry struct {
	login shoal.RegistryLogin

	mu    sync.Mutex // guards all below
	blobs map[string][]byte
	gate  chan struct{} // not nil: layers are held back until it is closed
	asked []string
}

// serve runs a registry on loopback until the test ends.
func (c *content) serve(t testing.TB) *registry {
	t.Helper()
	r := &registry{blobs: maps.Clone(c.blobs)}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.login = shoal.RegistryLogin{Address: s.Listener.Addr().String(), User: "shoal", Password: "secret"}
	return r
}

// ServeHTTP implements http.Handler: what the OCI distribution specification asks for
// under "Pulling manifests" and "Pulling blobs".
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	fail := func(status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, strings.ToLower(strings.ReplaceAll(code, "_", " "))) // the engine may hang up
	}
	if user, password, _ := req.BasicAuth(); user != r.login.User || password != r.login.Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="shoal"`)
		fail(http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	parts := strings.Split(req.URL.Path, "/")
	if req.URL.Path == "/v2/" || len(parts) < 4 {
		return
	}
	kind, digest := parts[len(parts)-2], parts[len(parts)-1]
	r.mu.Lock()
	raw, ok := r.blobs[digest]
	gate := r.gate
	r.asked = append(r.asked, digest)
	r.mu.Unlock()
	if !ok {
		fail(http.StatusNotFound, map[string]string{"manifests": "MANIFEST_UNKNOWN"}[kind]+map[string]string{"blobs": "BLOB_UNKNOWN"}[kind])
		return
	}
	if gate != nil && kind == "blobs" {
		select {
		case <-gate:
		case <-req.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if kind == "manifests" {
		w.Header().Set("Content-Type", manifestType)
	}
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
	_, _ = io.Copy(w, bytes.NewReader(raw)) // the engine may hang up
}

// change replaces a blob, or with nil takes it away.
func (r *registry) change(digest string, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest] = raw
	if raw == nil {
		delete(r.blobs, digest)
	}
}

// hold holds layers back until the gate is closed.
func (r *registry) hold(gate chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = gate
}

// wasAsked reports whether anybody asked for a blob.
func (r *registry) wasAsked(digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.asked, digest)
}
