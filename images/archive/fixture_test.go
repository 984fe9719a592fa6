// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t testing.TB, limit int64) *blobs.Store {
	t.Helper()
	return openStore(t, t.TempDir(), limit)
}

// quickStore is for a few kilobytes at a time, thousands of times. It lies in memory where
// that can be had: the store waits for the disk with every blob.
func quickStore(t testing.TB) *blobs.Store {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shoal-archive-") //nolint:usetesting // t.TempDir is on the disk
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return openStore(t, dir, 0)
}

func openStore(t testing.TB, dir string, limit int64) *blobs.Store {
	t.Helper()
	s, err := blobs.Open(dir, blobs.Config{Limit: limit, Expire: time.Hour}, shoal.NewSystemClock())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// entry is one entry of a tar: a file, unless kind says otherwise.
type entry struct {
	name string
	body []byte
	kind byte
	link string
	pax  map[string]string
}

func file(name, body string) entry { return entry{name: name, body: []byte(body)} }

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.body)), Mode: 0o644, PAXRecords: e.pax}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.kind == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: e.kind, PAXRecords: e.pax}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// layerTar is a layer of about size bytes, half of them random, that a seed determines.
func layerTar(t testing.TB, seed byte, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(body[:size/2]) // never fails
	return tarOf(t, entry{name: fmt.Sprintf("etc/%d", seed), body: body})
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zst(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func sum(b []byte) string { return blobs.DigestOf(b).String() }
func hex(b []byte) string { return strings.TrimPrefix(sum(b), "sha256:") }

// config is a configuration with a health check, which only Docker's have.
func config(arch string, plain ...[]byte) []byte {
	ids := []string{}
	for _, p := range plain {
		ids = append(ids, sum(p))
	}
	raw, _ := json.Marshal(ids) // of strings
	return fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":%s}}`, arch, raw)
}

// saved returns the manifest.json of one image.
func saved(config string, tags []string, layers ...string) entry {
	raw, _ := json.Marshal([]savedImage{{Config: config, RepoTags: tags, Layers: layers}}) // of strings
	return file("manifest.json", string(raw))
}

// legacy is what docker save of 20.10 writes, about two layers, the first there twice.
func legacy(t testing.TB, tags ...string) []entry {
	t.Helper()
	return legacyOf(layerTar(t, 1, 3000), layerTar(t, 2, 70000), tags...)
}

func legacyOf(one, two []byte, tags ...string) []entry {
	c := config("amd64", one, two, one)
	a, b, d := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("d", 64)
	return []entry{
		{name: d + "/", kind: tar.TypeDir},
		{name: d + "/layer.tar", kind: tar.TypeSymlink, link: "../" + a + "/layer.tar"},
		{name: a + "/", kind: tar.TypeDir},
		file(a+"/VERSION", "1.0"), file(a+"/json", `{"id":"a"}`),
		{name: a + "/layer.tar", body: one},
		{name: b + "/", kind: tar.TypeDir},
		file(b+"/VERSION", "1.0"), file(b+"/json", `{"id":"b"}`),
		{name: b + "/layer.tar", body: two},
		{name: hex(c) + ".json", body: c},
		saved(hex(c)+".json", tags, a+"/layer.tar", b+"/layer.tar", d+"/layer.tar"),
		file("repositories", `{}`),
	}
}

func desc(mediaType string, b []byte, more string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, mediaType, sum(b), len(b), more)
}

func platform(arch string) string {
	return fmt.Sprintf(`,"platform":{"os":"linux","architecture":%q}`, arch)
}

func blob(b []byte) entry { return entry{name: "blobs/sha256/" + hex(b), body: b} }

func index(descs ...string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, manifest.TypeIndex, strings.Join(descs, ","))
}

const ociLayerBytes = 1000

// ociImage returns the manifest of an image for a platform and the entries of its blobs.
func ociImage(t testing.TB, arch, layerType string, layer func([]byte) []byte) ([]byte, []entry) {
	t.Helper()
	plain := layerTar(t, arch[1], ociLayerBytes)
	l, c := layer(plain), config(arch, plain)
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, manifest.TypeManifest, desc(typeConfig, c, ""), desc(layerType, l, ""))
	return m, []entry{blob(m), blob(c), blob(l)}
}

// gzImage is an ociImage as they mostly are.
func gzImage(t testing.TB, arch string) ([]byte, []entry) {
	t.Helper()
	return ociImage(t, arch, typeGzipLayer, func(b []byte) []byte { return gz(t, b) })
}

var layoutFile = file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)

// layoutOf adds what makes an OCI layout of blobs.
func layoutOf(entries []entry, descs ...string) []entry {
	return append(slices.Clone(entries), layoutFile, entry{name: "index.json", body: index(descs...)})
}

// multi is a layout of an index of two platforms and an attestation.
func multi(t testing.TB) (root []byte, entries []entry) {
	t.Helper()
	amd, e1 := gzImage(t, "amd64")
	arm, e2 := gzImage(t, "arm64")
	statement := []byte(`{"_type":"in-toto"}`)
	c := []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + sum(statement) + `"]}}`)
	att := fmt.Appendf(nil, `{"schemaVersion":2,"config":%s,"layers":[%s]}`, desc(typeConfig, c, ""), desc("application/vnd.in-toto+json", statement, ""))
	root = index(desc(manifest.TypeManifest, amd, platform("amd64")), desc(manifest.TypeManifest, arm, platform("arm64")),
		desc(manifest.TypeManifest, att, `,"platform":{"os":"unknown","architecture":"unknown"}`))
	entries = slices.Concat(e1, e2, []entry{blob(c), blob(statement), blob(att), blob(root)})
	return root, layoutOf(entries, desc(manifest.TypeIndex, root, `,"annotations":{"io.containerd.image.name":"docker.io/library/app:v1","org.opencontainers.image.ref.name":"v1"}`))
}

func without(entries []entry, bodies ...[]byte) []entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool {
		return slices.ContainsFunc(bodies, func(b []byte) bool { return e.name == "blobs/sha256/"+hex(b) })
	})
}

func read(t testing.TB, s *blobs.Store, raw []byte) []Found {
	t.Helper()
	found, err := Read(context.Background(), bytes.NewReader(raw), s, Limits{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		checkWhole(t, s, f)
	}
	return found
}

// checkWhole fails unless an image's blobs are all in the store, are what their digests
// say, and are referred to by its manifests.
func checkWhole(t testing.TB, s *blobs.Store, f Found) {
	t.Helper()
	if len(f.Blobs) == 0 || f.Blobs[0] != f.Digest {
		t.Fatalf("Blobs = %v, want %s first", f.Blobs, f.Digest)
	}
	size := int64(0)
	referred := map[blobs.Digest]bool{f.Digest: true}
	for i, d := range f.Blobs {
		if slices.Contains(f.Blobs[:i], d) {
			t.Errorf("Blobs has %s twice", d)
		}
		b := contents(t, s, d)
		if blobs.DigestOf(b) != d {
			t.Errorf("blob %s has the digest %s", d, sum(b))
		}
		size += int64(len(b))
		info, err := s.Stat(d)
		if err != nil || info.Leases != 0 {
			t.Errorf("Stat(%s) = %+v, %v, want no lease", d, info, err)
		}
		for _, r := range info.Refs {
			referred[r] = true
		}
	}
	if size != f.Size {
		t.Errorf("Size = %d, want %d", f.Size, size)
	}
	if len(referred) != len(f.Blobs) {
		t.Errorf("manifests refer to %d blobs, want all %d", len(referred), len(f.Blobs))
	}
}

func contents(t testing.TB, s *blobs.Store, d blobs.Digest) []byte {
	t.Helper()
	r, err := s.Read(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r.Stream(0, -1))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sourceOf reads from a store.
func sourceOf(s *blobs.Store) Source {
	return func(ctx context.Context, d blobs.Digest) (io.ReadCloser, int64, error) {
		r, err := s.Read(ctx, d)
		if err != nil {
			return nil, 0, err
		}
		return struct {
			io.Reader
			io.Closer
		}{r.Stream(0, -1), r}, r.Size(), nil
	}
}

func descriptor(t testing.TB, s *blobs.Store, f Found) manifest.Descriptor {
	t.Helper()
	return manifest.Descriptor{MediaType: f.MediaType, Digest: f.Digest.String(), Size: int64(len(contents(t, s, f.Digest)))}
}
