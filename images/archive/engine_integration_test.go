//go:build integration

// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/internal/pack"
)

// engine runs the docker command.
func engine(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "docker", args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// TestEngine takes an image through a real engine: docker save, Read, WriteDocker, docker
// load, and it is the same image and runs. Its layers come plain, with gzip and with zstd.
func TestEngine(t *testing.T) {
	first, again := "shoal-archive-test-"+strings.ToLower(rand.Text()[:8])+":1", "shoal-archive-test-"+strings.ToLower(rand.Text()[:8])+":2"
	binary, err := pack.Build(t.Context(), "../../examples/hello")
	if err != nil {
		t.Fatal(err)
	}
	img, err := pack.Image(binary, pack.Options{Path: "/hello"})
	if err != nil {
		t.Fatal(err)
	}
	more, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar(t, 1, 1<<20))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, more); err != nil {
		t.Fatal(err)
	}
	var loaded bytes.Buffer
	if err := pack.Tar(&loaded, first, img); err != nil {
		t.Fatal(err)
	}
	engine(t, loaded.Bytes(), "load")
	remove := func(ref string) { _ = exec.Command("docker", "image", "rm", "-f", ref).Run() } // it may be gone
	defer remove(first)
	id := strings.TrimSpace(string(engine(t, nil, "image", "inspect", "-f", "{{.Id}}", first)))
	raw := engine(t, nil, "save", first)
	remove(first)

	s := newStore(t, 0)
	found := read(t, s, raw)
	if len(found) != 1 || !slices.Equal(found[0].Names, []string{first}) || len(found[0].Blobs) != 4 || found[0].Blobs[1].String() != id {
		t.Fatalf("docker save of %s is read as %+v", id, found)
	}
	loadAs := func(raw []byte) {
		t.Helper()
		defer remove(again)
		engine(t, raw, "load")
		if got := strings.TrimSpace(string(engine(t, nil, "image", "inspect", "-f", "{{.Id}}", again))); got != id {
			t.Errorf("the engine loads %s, want %s", got, id)
		}
		engine(t, nil, "run", "--rm", "--network", "none", again, "quit", "-code", "0")
	}
	loadAs(writeDocker(t, s, found[0], again))
	pull(t, s, found[0], id)

	// The same with layers that the engine of 20.10 cannot read.
	squeezed := newStore(t, 0)
	_, bodies := list(t, writeDocker(t, s, found[0], again))
	var list []savedImage
	if err := json.Unmarshal(bodies["manifest.json"], &list); err != nil {
		t.Fatal(err)
	}
	entries := []entry{file("manifest.json", string(bodies["manifest.json"])), file(list[0].Config, string(bodies[list[0].Config]))}
	for _, name := range list[0].Layers {
		plain, err := gzip.NewReader(bytes.NewReader(bodies[name]))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{name: name, body: zst(t, raw)})
	}
	packed := tarOf(t, entries...)
	z := read(t, squeezed, packed)
	if z[0].MediaType != manifest.TypeManifest || z[0].Blobs[1].String() != id {
		t.Fatalf("with zstd it is read as %+v", z)
	}
	loadAs(writeDocker(t, squeezed, z[0], again))
}

// pull has the engine pull the manifest that Read made, from a registry.
func pull(t *testing.T, s *blobs.Store, f Found, id string) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug))))
	defer server.Close()
	put := func(url, contentType string, body []byte) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("PUT %s: %s", url, resp.Status)
		}
	}
	for _, d := range f.Blobs[1:] {
		resp, err := server.Client().Post(server.URL+"/v2/app/blobs/uploads/", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		put(server.URL+resp.Header.Get("Location")+"?digest="+d.String(), "application/octet-stream", contents(t, s, d))
	}
	put(server.URL+"/v2/app/manifests/"+f.Digest.String(), f.MediaType, contents(t, s, f.Digest))
	ref := strings.TrimPrefix(server.URL, "http://") + "/app@" + f.Digest.String()
	engine(t, nil, "pull", "-q", ref)
	defer func() { engine(t, nil, "image", "rm", ref) }()
	if got := strings.TrimSpace(string(engine(t, nil, "image", "inspect", "-f", "{{.Id}}", ref))); got != id {
		t.Errorf("the engine pulls %s, want %s", got, id)
	}
}
