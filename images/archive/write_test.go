// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/images/swarm"
)

// list returns the entries of a tar.
func list(t testing.TB, raw []byte) (names []string, bodies map[string][]byte) {
	t.Helper()
	bodies = map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Format != tar.FormatUSTAR {
			t.Errorf("%s is of %v, of user %d, in the format %v", h.Name, h.ModTime, h.Uid, h.Format)
		}
		names = append(names, h.Name)
		if bodies[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func writeOCI(t testing.TB, s *blobs.Store, f Found, name string) []byte {
	t.Helper()
	var buf bytes.Buffer
	told := int64(0)
	if err := WriteOCI(t.Context(), &buf, sourceOf(s), descriptor(t, s, f), name, func(n int64) { told = n }); err != nil {
		t.Fatal(err)
	}
	if told != int64(buf.Len()) {
		t.Errorf("progress was told %d bytes of %d", told, buf.Len())
	}
	return buf.Bytes()
}

func writeDocker(t testing.TB, s *blobs.Store, f Found, names ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	told := int64(0)
	if err := WriteDocker(t.Context(), &buf, sourceOf(s), descriptor(t, s, f), names, func(n int64) { told = n }); err != nil {
		t.Fatal(err)
	}
	if told != int64(buf.Len()) {
		t.Errorf("progress was told %d bytes of %d", told, buf.Len())
	}
	return buf.Bytes()
}

func TestRoundTripOCI(t *testing.T) {
	_, whole := multi(t)
	for name, raw := range map[string][]byte{"index": tarOf(t, whole...), "saved": tarOf(t, legacy(t, "app:v1")...)} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, 0)
			first := read(t, s, raw)[0]
			out := writeOCI(t, s, first, "app:v1")
			if !bytes.Equal(out, writeOCI(t, s, first, "app:v1")) {
				t.Error("the same image gave other bytes")
			}
			second := read(t, newStore(t, 0), out)
			if diff := cmp.Diff([]Found{first}, second); diff != "" {
				t.Errorf("what was written is read as (-was +is)\n%s", diff)
			}
			names, bodies := list(t, out)
			if want := []string{"oci-layout", "index.json", "blobs/", "blobs/sha256/", "blobs/sha256/" + first.Digest.String()[7:]}; !slices.Equal(names[:5], want) || len(names) != 4+len(first.Blobs) {
				t.Errorf("entries = %q, want %q and the blobs", names, want)
			}
			var index struct {
				Manifests []struct {
					MediaType   string
					Annotations map[string]string
				}
			}
			if err := json.Unmarshal(bodies["index.json"], &index); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"io.containerd.image.name": "docker.io/library/app:v1", "org.opencontainers.image.ref.name": "v1"}
			if diff := cmp.Diff(want, index.Manifests[0].Annotations); diff != "" || index.Manifests[0].MediaType != first.MediaType {
				t.Errorf("index.json says %+v", index.Manifests)
			}
			if nameless := read(t, newStore(t, 0), writeOCI(t, s, first, "")); nameless[0].Names != nil || nameless[0].Digest != first.Digest {
				t.Errorf("written without a name it is %+v", nameless)
			}
		})
	}
}

func TestRoundTripDocker(t *testing.T) {
	s := newStore(t, 0)
	first := read(t, s, tarOf(t, legacy(t, "app:v1")...))[0]
	out := writeDocker(t, s, first, "app:v1", "docker.io/library/app:v2", "app")
	second := read(t, newStore(t, 0), out)
	want := first
	want.Names = []string{"app:v1", "app:v2", "app:latest"}
	if diff := cmp.Diff([]Found{want}, second); diff != "" {
		t.Errorf("what was written is read as (-was +is)\n%s", diff)
	}
	names, _ := list(t, out)
	if len(names) != 2+2*2 || names[0] != "manifest.json" {
		t.Errorf("entries = %q, want manifest.json, the configuration and two layers, one of them there once though used twice", names)
	}
	// A stranger's reader agrees.
	img, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out)), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := img.ConfigName()
	if err != nil || id.String() != first.Blobs[1].String() {
		t.Errorf("go-containerregistry reads the configuration %v, %v, want %s", id, err, first.Blobs[1])
	}
	if layers, err := img.Layers(); err != nil || len(layers) != 3 {
		t.Errorf("go-containerregistry reads %d layers, %v, want 3", len(layers), err)
	}
}

// TestWriteDockerUnpacksZstd: engines of 20.10 cannot.
func TestWriteDockerUnpacksZstd(t *testing.T) {
	for kind, layer := range map[string]func([]byte) []byte{
		typeZstdLayer:                            func(b []byte) []byte { return zst(t, b) },
		typeGzipLayer:                            func(b []byte) []byte { return gz(t, b) },
		"application/vnd.oci.image.layer.v1.tar": func(b []byte) []byte { return b },
	} {
		m, e := ociImage(t, "amd64", kind, layer)
		s := newStore(t, 0)
		found := read(t, s, tarOf(t, layoutOf(e, desc(manifest.TypeManifest, m, ""))...))
		if found[0].Digest != blobs.DigestOf(m) {
			t.Fatalf("%s: Read = %s, want %s", kind, found[0].Digest, sum(m))
		}
		_, bodies := list(t, writeDocker(t, s, found[0], "app:v1"))
		got := bodies[hex(e[2].body)+"/layer.tar"]
		want := e[2].body
		if kind == typeZstdLayer {
			want = layerTar(t, 'm', ociLayerBytes)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the layer was written as %d bytes of form %v, want %d", kind, len(got), sniff(got), len(want))
		}
	}
}

// TestWriteWhileArriving writes an image whose layer comes chunk by chunk.
func TestWriteWhileArriving(t *testing.T) {
	s, late := newStore(t, 0), newStore(t, 0)
	plain := layerTar(t, 1, 5<<20)
	c := config("amd64", plain)
	found := read(t, s, tarOf(t, entry{name: "c", body: c}, entry{name: "1", body: gz(t, plain)}, saved("c", nil, "1")))[0]
	for _, d := range found.Blobs[:2] {
		if _, err := late.Put(contents(t, s, d)); err != nil {
			t.Fatal(err)
		}
	}
	layer := found.Blobs[2]
	size, chunks, err := s.ChunkList(layer)
	if err != nil || len(chunks) < 2 {
		t.Fatalf("ChunkList = %d chunks, %v, want some", len(chunks), err)
	}
	if _, err := late.Begin(layer, size, chunks); err != nil {
		t.Fatal(err)
	}
	done := make(chan []byte)
	go func() { done <- writeDocker(t, late, found, "app:v1") }()
	body := contents(t, s, layer)
	for i := range chunks {
		if _, err := late.WriteChunk(layer, i, body[i*swarm.ChunkBytes:min((i+1)*swarm.ChunkBytes, len(body))]); err != nil {
			t.Error(err)
		}
	}
	if got := read(t, newStore(t, 0), <-done); got[0].Digest != found.Digest {
		t.Errorf("the image is %s, was %s", got[0].Digest, found.Digest)
	}
}

func TestWriteEndsWithItsContext(t *testing.T) {
	s := newStore(t, 0)
	found := read(t, s, tarOf(t, legacy(t, "app:v1")...))[0]
	late := newStore(t, 0)
	layer := found.Blobs[2]
	for _, d := range found.Blobs {
		if d == layer {
			size, chunks, err := s.ChunkList(d)
			if err != nil {
				t.Fatal(err)
			}
			_, err = late.Begin(d, size, chunks)
			if err != nil {
				t.Fatal(err)
			}
		} else if _, err := late.Put(contents(t, s, d)); err != nil {
			t.Fatal(err)
		}
	}
	root := descriptor(t, s, found)
	for name, write := range map[string]func(context.Context) error{
		"oci":    func(ctx context.Context) error { return WriteOCI(ctx, io.Discard, sourceOf(late), root, "", nil) },
		"docker": func(ctx context.Context) error { return WriteDocker(ctx, io.Discard, sourceOf(late), root, nil, nil) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := write(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: a layer that never comes = %v", name, err)
		}
		cancel()
	}
}

func TestWriteRefuses(t *testing.T) {
	s := newStore(t, 0)
	root, whole := multi(t)
	index := descriptor(t, s, read(t, s, tarOf(t, whole...))[0])
	one := descriptor(t, s, read(t, s, tarOf(t, legacy(t, "app:v1")...))[0])
	absent, wrongSize := one, one
	absent.Digest, wrongSize.Size = sum([]byte("nobody has it")), one.Size+1
	artifact := fmt.Appendf(nil, `{"schemaVersion":2,"config":%s,"layers":[]}`, desc("application/vnd.oci.empty.v1+json", []byte("{}"), ""))
	for _, b := range [][]byte{artifact, []byte("{}")} {
		if _, err := s.Put(b); err != nil {
			t.Fatal(err)
		}
	}
	chart := manifest.Descriptor{Digest: sum(artifact), Size: int64(len(artifact))}
	docker := func(read Source, d manifest.Descriptor, names ...string) error {
		return WriteDocker(t.Context(), io.Discard, read, d, names, nil)
	}
	oci := func(read Source, d manifest.Descriptor, name string) error {
		return WriteOCI(t.Context(), io.Discard, read, d, name, nil)
	}
	good := sourceOf(s)
	liar := func(ctx context.Context, d blobs.Digest) (io.ReadCloser, int64, error) {
		r, size, err := good(ctx, d)
		if size < 2000 { // documents are what they are
			return r, size, err
		}
		b, err := io.ReadAll(r)
		b[len(b)/2] ^= 1
		return struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(b), r}, size, err
	}
	for _, tt := range []struct {
		name string
		err  error
		is   error  // nil: an InvalidError
		why  string // part of it
	}{
		{"index for docker", docker(good, index), nil, "image is for several platforms, and a Docker archive for one; say which"},
		{"artifact", docker(good, chart), nil, "has 0 layers and a configuration of 0: no engine can run it"},
		{"bad name", docker(good, one, "A B"), nil, `"A B" is no name with a tag`},
		{"name of a digest", docker(good, one, "app@"+one.Digest), nil, "is no name with a tag"},
		{"bad name in a layout", oci(good, one, "A B"), nil, `"A B" is no name of an image`},
		{"other size", oci(good, wrongSize, ""), nil, "is said to have"},
		{"huge manifest", oci(good, manifest.Descriptor{Digest: one.Digest, Size: 1 << 30}, ""), nil, "at most 4194304 are taken"},
		{"absent", oci(good, absent, ""), shoal.ErrNotFound, absent.Digest},
		{"absent for docker", docker(good, absent), shoal.ErrNotFound, absent.Digest},
		{"lying source", oci(liar, one, ""), blobs.ErrMismatch, "write blobs/sha256/"},
		{"lying source for docker", docker(liar, one), blobs.ErrMismatch, "/layer.tar"},
	} {
		var invalid *shoal.InvalidError
		if tt.is == nil && !errors.As(tt.err, &invalid) || tt.is != nil && !errors.Is(tt.err, tt.is) || !strings.Contains(fmt.Sprint(tt.err), tt.why) {
			t.Errorf("%s: %v, want %v with %q", tt.name, tt.err, tt.is, tt.why)
		}
	}
	if blobs.DigestOf(root).String() != index.Digest {
		t.Errorf("index = %s, want %s", index.Digest, sum(root))
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string][2]string{
		"app":                    {"docker.io/library/app:latest", "latest"},
		"docker.io/library/app":  {"docker.io/library/app:latest", "latest"},
		"me/app:v1":              {"docker.io/me/app:v1", "v1"},
		"localhost/app:v1":       {"localhost/app:v1", "v1"},
		"127.0.0.1:5050/app":     {"127.0.0.1:5050/app:latest", "latest"},
		"ghcr.io/a/b/c:x":        {"ghcr.io/a/b/c:x", "x"},
		"app@" + sum([]byte("")): {"docker.io/library/app@" + sum([]byte("")), ""},
	} {
		if full, tag := fullName(name), tagOf(name); full != want[0] || tag != want[1] {
			t.Errorf("%s = %q, %q, want %q", name, full, tag, want)
		}
	}
	for name, want := range map[string]bool{
		"app": true, "app:v1": true, "a/b/c": true, "host:5000/app": true, "": false, "App": false, "a b": false, "../a": false, "a//b": false,
		"a:": false, "a@sha256:x": false, strings.Repeat("a", 600): false, "a\x00": false,
	} {
		if isName(name) != want {
			t.Errorf("isName(%q) = %v", name, !want)
		}
	}
}
