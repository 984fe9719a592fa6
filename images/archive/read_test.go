// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// want is one image that Read should find.
type want struct {
	names     string // separated by spaces
	mediaType string
	platforms string
	blobs     int
	digest    string // "": Read makes the manifest
}

func TestReadForms(t *testing.T) {
	one, two := layerTar(t, 1, 3000), layerTar(t, 2, 70000)
	c := config("amd64", one, two)
	docker := want{names: "app:v1", mediaType: manifest.TypeDockerManifest, platforms: "linux/amd64", blobs: 4}
	amd, amdEntries := gzImage(t, "amd64")
	oci := want{names: "app:v1", mediaType: manifest.TypeManifest, platforms: "linux/amd64", blobs: 3, digest: sum(amd)}
	containerd := `,"annotations":{"io.containerd.image.name":"docker.io/library/app:v1"}`
	amdDesc := desc(manifest.TypeManifest, amd, containerd)
	root, whole := multi(t)
	pair := want{names: "app:v1", mediaType: manifest.TypeIndex, platforms: "linux/amd64 linux/arm64", blobs: 10, digest: sum(root)}
	in2 := index(desc(manifest.TypeIndex, root, ""))
	in3 := index(desc(manifest.TypeIndex, in2, ""))
	arm, armEntries := gzImage(t, "arm64")
	plain, plainEntries := ociImage(t, "amd64", "application/vnd.oci.image.layer.v1.tar", func(b []byte) []byte { return b })
	plainSaved := saved(plainEntries[1].name, []string{"app:v1"}, plainEntries[2].name)
	armPlain, armPlainEntries := ociImage(t, "arm64", "application/vnd.oci.image.layer.v1.tar", func(b []byte) []byte { return b })

	for _, tt := range []struct {
		name string
		raw  []byte
		want []want
	}{
		{"docker save of 20.10", tarOf(t, legacy(t, "app:v1")...), []want{{names: "app:v1", mediaType: manifest.TypeDockerManifest, platforms: "linux/amd64", blobs: 4}}},
		{"gzipped", gz(t, tarOf(t, legacy(t, "app:v1")...)), []want{docker}},
		{"with zstd", zst(t, tarOf(t, legacy(t, "app:v1")...)), []want{docker}},
		{"of no name", tarOf(t, legacy(t)...), []want{{mediaType: manifest.TypeDockerManifest, platforms: "linux/amd64", blobs: 4}}},
		{"of many names", tarOf(t, legacy(t, "docker.io/library/app:v1", "app:v1", "127.0.0.1:5050/a/b:x", "c/d")...), []want{
			{names: "app:v1 127.0.0.1:5050/a/b:x c/d:latest", mediaType: manifest.TypeDockerManifest, platforms: "linux/amd64", blobs: 4},
		}},
		{"podman's", tarOf(
			t, entry{name: hex(one) + ".tar", body: one}, entry{name: hex(two) + ".tar", body: two}, entry{name: hex(c) + ".json", body: c},
			entry{name: "x/layer.tar", kind: tar.TypeSymlink, link: "../" + hex(one) + ".tar"},
			saved(hex(c)+".json", []string{"app:v1"}, hex(one)+".tar", hex(two)+".tar"),
		), []want{docker}},
		{"manifest first, with ./", tarOf(
			t, entry{name: "./", kind: tar.TypeDir}, saved("config.json", []string{"app:v1"}, "./1.tar", "2.tar"),
			entry{name: "./config.json", body: c}, entry{name: "./1.tar", body: one}, entry{name: "./2.tar", body: two},
		), []want{docker}},
		{"layers with gzip and zstd", tarOf(
			t, entry{name: "c.json", body: c}, entry{name: "1", body: gz(t, one)}, entry{name: "2", body: zst(t, two)}, saved("c.json", []string{"app:v1"}, "1", "2"),
		), []want{{names: "app:v1", mediaType: manifest.TypeManifest, platforms: "linux/amd64", blobs: 4}}},
		{"two images that share a layer, and one of them again", tarOf(
			t, entry{name: "1.tar", body: one}, entry{name: "2.tar", body: two}, entry{name: "c.json", body: c}, entry{name: "d.json", body: config("arm64", one)},
			file("manifest.json", `[{"Config":"c.json","RepoTags":["app:v1"],"Layers":["1.tar","2.tar"]},{"Config":"d.json","RepoTags":["b"],"Layers":["1.tar"]},{"Config":"c.json","RepoTags":["c"],"Layers":["1.tar","2.tar"]}]`),
		), []want{
			{names: "app:v1 c:latest", mediaType: manifest.TypeDockerManifest, platforms: "linux/amd64", blobs: 4},
			{names: "b:latest", mediaType: manifest.TypeDockerManifest, platforms: "linux/arm64", blobs: 3},
		}},
		{"git's comment", tarOf(t, append([]entry{{name: "pax_global_header", kind: tar.TypeXGlobalHeader, pax: map[string]string{"comment": "x"}}}, legacy(t, "app:v1")...)...), []want{docker}},

		{"layout", tarOf(t, layoutOf(amdEntries, amdDesc)...), []want{oci}},
		{"layout that says no version", tarOf(t, append(slices.Clone(amdEntries), entry{name: "index.json", body: index(amdDesc)})...), []want{oci}},
		{"layout of a bare tag", tarOf(t, layoutOf(amdEntries, desc(manifest.TypeManifest, amd, `,"annotations":{"org.opencontainers.image.ref.name":"v1"}`))...), []want{
			{mediaType: manifest.TypeManifest, platforms: "linux/amd64", blobs: 3, digest: sum(amd)},
		}},
		{"layout of a whole name as its tag", tarOf(t, layoutOf(amdEntries, desc(manifest.TypeManifest, amd, `,"annotations":{"org.opencontainers.image.ref.name":"ghcr.io/x/app:v2"}`))...), []want{
			{names: "ghcr.io/x/app:v2", mediaType: manifest.TypeManifest, platforms: "linux/amd64", blobs: 3, digest: sum(amd)},
		}},
		{"layout of two names", tarOf(t, layoutOf(amdEntries, amdDesc, desc(manifest.TypeManifest, amd, `,"annotations":{"io.containerd.image.name":"docker.io/library/app:v2"}`))...), []want{
			{names: "app:v1 app:v2", mediaType: manifest.TypeManifest, platforms: "linux/amd64", blobs: 3, digest: sum(amd)},
		}},
		{"layout of two images", tarOf(t, layoutOf(slices.Concat(amdEntries, armEntries), amdDesc, desc(manifest.TypeManifest, arm, ""))...), []want{
			oci, {mediaType: manifest.TypeManifest, platforms: "linux/arm64", blobs: 3, digest: sum(arm)},
		}},
		{"layout of an index", tarOf(t, whole...), []want{pair}},
		{"indexes of depth 3", tarOf(t, layoutOf(append(without(whole[:len(whole)-2]), blob(in2), blob(in3)), desc(manifest.TypeIndex, in3, containerd))...), []want{
			{names: "app:v1", mediaType: manifest.TypeIndex, platforms: "linux/amd64 linux/arm64", blobs: 12, digest: sum(in3)},
		}},
		{"index of which one platform is there", tarOf(t, without(whole, arm)...), []want{oci}},

		{"both forms", tarOf(t, append(layoutOf(amdEntries, amdDesc), saved("blobs/sha256/"+hex(amdEntries[1].body), []string{"other:v1"}, amdEntries[2].name))...), []want{oci}},
		{"both forms, plain layers", tarOf(t, append(layoutOf(plainEntries, desc(manifest.TypeManifest, plain, "")), plainSaved)...), []want{
			{names: "app:v1", mediaType: manifest.TypeDockerManifest, platforms: "linux/amd64", blobs: 3},
		}},
		{"plain layers, but manifest.json has not all", tarOf(
			t, append(layoutOf(append(slices.Clone(plainEntries), without(armPlainEntries, plainEntries[2].body)...),
				desc(manifest.TypeManifest, plain, ""), desc(manifest.TypeManifest, armPlain, "")), plainSaved)...,
		), []want{
			{mediaType: manifest.TypeManifest, platforms: "linux/amd64", blobs: 3, digest: sum(plain)},
			{mediaType: manifest.TypeManifest, platforms: "linux/arm64", blobs: 3, digest: sum(armPlain)},
		}},
		{"both forms, index lacks its manifest", tarOf(t, append(without(layoutOf(amdEntries, amdDesc), amd), saved(amdEntries[1].name, []string{"app:v1"}, amdEntries[2].name))...), []want{
			{names: "app:v1", mediaType: manifest.TypeDockerManifest, platforms: "linux/amd64", blobs: 3},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t, 0)
			found := read(t, s, tt.raw)
			if len(found) != len(tt.want) {
				t.Fatalf("Read found %+v, want %+v", found, tt.want)
			}
			for i, f := range found {
				got := want{strings.Join(f.Names, " "), f.MediaType, strings.Join(f.Platforms, " "), len(f.Blobs), f.Digest.String()}
				if tt.want[i].digest == "" {
					got.digest = ""
				}
				if got != tt.want[i] {
					t.Errorf("image %d = %+v, want %+v", i, got, tt.want[i])
				}
			}
			again := read(t, s, tt.raw)
			for i := range again {
				if again[i].Digest != found[i].Digest {
					t.Errorf("read again, image %d has the digest %s, was %s", i, again[i].Digest, found[i].Digest)
				}
			}
			noUploads(t, s)
		})
	}
}

// noUploads fails if bytes are taken that belong to no blob.
func noUploads(t testing.TB, s *blobs.Store) {
	t.Helper()
	usage, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range s.List() {
		usage.Bytes -= info.Size
		if info.Leases != 0 {
			t.Errorf("blob %s has %d leases left", info.Digest, info.Leases)
		}
	}
	if usage.Bytes != 0 {
		t.Errorf("%d bytes of uploads are left", usage.Bytes)
	}
}

// TestReadOfOthers reads what go-containerregistry writes: gzipped layers, the
// configuration under its digest.
func TestReadOfOthers(t *testing.T) {
	img, err := random.Image(5000, 3)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("app:v1")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := tarball.Write(tag, img, &buf); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, 0)
	found := read(t, s, buf.Bytes())
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || !slices.Equal(found[0].Names, []string{"app:v1"}) || len(found[0].Blobs) != 5 {
		t.Fatalf("Read = %+v", found)
	}
	for i, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if got := found[0].Blobs[i+1].String(); got != d.Digest.String() {
			t.Errorf("blob %d = %s, want %s: what is compressed stays as it is", i, got, d.Digest)
		}
	}
}

func TestReadKnown(t *testing.T) {
	one, two := layerTar(t, 1, 3000), layerTar(t, 2, 70000)
	other := gz(t, one)
	known := func(d blobs.Digest) (manifest.Descriptor, bool) {
		switch d {
		case blobs.DigestOf(one):
			return manifest.Descriptor{Digest: sum(other), Size: int64(len(other))}, true
		case blobs.DigestOf(two):
			return manifest.Descriptor{Digest: sum(two), Size: 7}, true
		}
		return manifest.Descriptor{}, false
	}
	plain, plainEntries := ociImage(t, "amd64", "application/vnd.oci.image.layer.v1.tar", func([]byte) []byte { return one })
	c := config("amd64", one)
	plainEntries[1] = blob(c)
	for name, raw := range map[string][]byte{
		"legacy":          tarOf(t, legacy(t, "app:v1")...),
		"blobs of layers": tarOf(t, append(layoutOf(plainEntries, desc(manifest.TypeManifest, plain, "")), saved(plainEntries[1].name, []string{"app:v1"}, plainEntries[2].name))...),
	} {
		t.Run(name, func(t *testing.T) {
			for _, has := range []bool{true, false} {
				s := newStore(t, 0)
				if has {
					if _, err := s.Put(other); err != nil {
						t.Fatal(err)
					}
				}
				found, err := Read(t.Context(), bytes.NewReader(raw), s, Limits{}, known, nil)
				if err != nil {
					t.Fatal(err)
				}
				checkWhole(t, s, found[0])
				if got := slices.Contains(found[0].Blobs, blobs.DigestOf(other)); got != has {
					t.Errorf("the layer that the store has is used: %v, want %v", got, has)
				}
				if _, err := s.Stat(blobs.DigestOf(one)); err == nil {
					t.Error("the plain layer was left in the store")
				}
				if !has {
					continue
				}
				for _, info := range s.List() {
					if !slices.Contains(found[0].Blobs, info.Digest) && info.Digest != blobs.DigestOf(plain) {
						t.Errorf("blob %s of %d bytes was stored for nothing", info.Digest, info.Size)
					}
				}
			}
		})
	}
}

// TestReadRemovesOnlyItsOwn: plain layers go once they are compressed, not those of others.
func TestReadRemovesOnlyItsOwn(t *testing.T) {
	m, e := ociImage(t, "amd64", "application/vnd.oci.image.layer.v1.tar", func(b []byte) []byte { return b })
	raw := tarOf(t, append(layoutOf(e, desc(manifest.TypeManifest, m, "")), saved(e[1].name, []string{"app:v1"}, e[2].name))...)
	for _, before := range []bool{false, true} {
		s := newStore(t, 0)
		if before {
			if _, err := s.Put(e[2].body); err != nil {
				t.Fatal(err)
			}
		}
		found := read(t, s, raw)
		if _, err := s.Stat(blobs.DigestOf(e[2].body)); (err == nil) != before || len(found[0].Blobs) != 3 {
			t.Errorf("there before: %v; after: %v", before, err)
		}
	}
}

// TestLayerDigest pins what a layer is compressed to: peers of one version agree on its
// digest. When a library changes it, the same layer gets a second digest in clusters that
// have the first one, and nothing worse.
func TestLayerDigest(t *testing.T) {
	plain := layerTar(t, 3, 1<<20)
	digests := map[string]bool{}
	for _, r := range []io.Reader{bytes.NewReader(plain), iotest.OneByteReader(bytes.NewReader(plain)), iotest.DataErrReader(bytes.NewReader(plain)), iotest.HalfReader(bytes.NewReader(plain))} {
		var buf bytes.Buffer
		if err := squeeze(&buf, r); err != nil {
			t.Fatal(err)
		}
		digests[sum(buf.Bytes())] = true
		if name := buf.Bytes()[3]; name != 0 || !bytes.Equal(buf.Bytes()[4:8], make([]byte, 4)) {
			t.Errorf("header % x has flags or a time", buf.Bytes()[:10])
		}
	}
	const want = "sha256:37fe511f02cc88c9220f6e903d6ccf9a3d1773a6ef8cf44937cf1c1259e90a15"
	if len(digests) != 1 || !digests[want] {
		t.Errorf("compressed layers have the digests %v, want %s", digests, want)
	}
}

func TestReadProgress(t *testing.T) {
	raw := tarOf(t, entry{name: "c.json", body: config("amd64", layerTar(t, 1, 4<<20))}, entry{name: "1", body: layerTar(t, 1, 4<<20)}, saved("c.json", nil, "1"))
	var told []int64
	if _, err := Read(t.Context(), bytes.NewReader(raw), newStore(t, 0), Limits{}, nil, func(n int64) { told = append(told, n) }); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(told) || len(told) < 4 || told[len(told)-1] != int64(len(raw)) {
		t.Errorf("progress was told %v, want up to %d", told, len(raw))
	}
}

// TestReadIsNotToBlame: errors of others are not the archive's.
func TestReadIsNotToBlame(t *testing.T) {
	raw := tarOf(t, legacy(t, "app:v1")...)
	var invalid *shoal.InvalidError
	gone := errors.New("connection lost")
	for _, raw := range [][]byte{raw, gz(t, raw)} {
		for _, n := range []int{0, 100, 5000} {
			r := io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(gone))
			if _, err := Read(t.Context(), r, newStore(t, 0), Limits{}, nil, nil); !errors.Is(err, gone) || errors.As(err, &invalid) {
				t.Errorf("lost after %d bytes: Read = %v", n, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, bytes.NewReader(raw), newStore(t, 0), Limits{}, nil, nil); !errors.Is(err, context.Canceled) || errors.As(err, &invalid) {
		t.Errorf("cancelled: Read = %v", err)
	}
	s := newStore(t, 20000)
	if _, err := Read(t.Context(), bytes.NewReader(raw), s, Limits{}, nil, nil); !errors.Is(err, shoal.ErrNoSpace) || errors.As(err, &invalid) {
		t.Errorf("full: Read = %v", err)
	}
	noUploads(t, s)
	if _, err := Read(t.Context(), bytes.NewReader(raw), s, Limits{Ratio: -1}, nil, nil); err == nil || !strings.Contains(err.Error(), "limits.ratio must not be negative") {
		t.Errorf("negative limit: Read = %v", err)
	}
}

// TestReadHoldsWhatItStores: what is there counts as used until all is.
func TestReadHoldsWhatItStores(t *testing.T) {
	s := newStore(t, 0)
	raw := tarOf(t, legacy(t, "app:v1")...)
	leased := 0
	r := &hook{r: iotest.OneByteReader(bytes.NewReader(raw)), fn: func() {
		for _, info := range s.List() {
			if info.Leases == 1 {
				leased = max(leased, len(s.List()))
			} else {
				t.Fatalf("blob %s has %d leases during Read", info.Digest, info.Leases)
			}
		}
	}}
	if _, err := Read(t.Context(), r, s, Limits{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if leased != 3 { // two layers and the configuration
		t.Errorf("%d blobs were held at once, want 3", leased)
	}
}

type hook struct {
	r  io.Reader
	fn func()
	n  int
}

func (h *hook) Read(p []byte) (int, error) {
	if h.n++; h.n%512 == 0 {
		h.fn()
	}
	return h.r.Read(p)
}

// BenchmarkRead reads docker save of one layer of 256 MiB, of which gzip makes a third.
func BenchmarkRead(b *testing.B) {
	raw := benchArchive(b)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		b.StopTimer()
		s := newStore(b, 0)
		b.StartTimer()
		if _, err := Read(b.Context(), bytes.NewReader(raw), s, Limits{}, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// benchArchive has a layer of which a quarter is random, a quarter zeros, half text.
func benchArchive(tb testing.TB) []byte {
	tb.Helper()
	body := make([]byte, 256<<20)
	for at := 0; at < len(body); at += 4 << 20 {
		copy(body[at:], layerTar(tb, byte(at>>22), 2<<20)[:1<<20])
		text := body[at+2<<20 : at+2<<20]
		for j := 0; len(text) < 2<<20-100; j++ {
			text = fmt.Appendf(text, "%d: the quick brown fox %d jumps over %x the lazy dog\n", j, at*j, j*7919)
		}
	}
	plain := tarOf(tb, entry{name: "data", body: body})
	return tarOf(tb, entry{name: "c.json", body: config("amd64", plain)}, entry{name: "1/layer.tar", body: plain}, saved("c.json", []string{"app:v1"}, "1/layer.tar"))
}
