// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// refused is a bad archive and what the user is told.
type refused struct {
	name string
	raw  []byte
	why  string // the message, or where digests are in it a part
}

// TestReadRefusesStreams is item 35 of the list of bad inputs: what is no tar at all.
func TestReadRefusesStreams(t *testing.T) {
	good := tarOf(t, legacy(t, "app:v1")...)
	zipped := gz(t, good)
	badSum := bytes.Clone(zipped)
	badSum[len(badSum)-8] ^= 1
	flipped := bytes.Clone(good)
	flipped[512*40] ^= 1 // in a layer
	checkRefused(t, []refused{
		{"nothing", nil, "archive is empty; give the tar that docker save writes, or a tar of an OCI layout"},
		{"gzip of nothing", gz(t, nil), "archive decompressed, is empty; give the tar that docker save writes, or a tar of an OCI layout"},
		{"text", []byte("hello, this is no tar"), "archive is not a tar; give the tar that docker save writes, or a tar of an OCI layout"},
		{"long text", []byte(strings.Repeat("hello ", 1000)), "archive is not a tar; give the tar that docker save writes, or a tar of an OCI layout"},
		{"gzip of text", gz(t, []byte("hello")), "archive decompressed, is not a tar; give the tar that docker save writes, or a tar of an OCI layout"},
		{"zip", []byte("PK\x03\x04" + strings.Repeat("x", 1000)), "archive is a zip file; give the tar that docker save writes, or a tar of an OCI layout"},
		{"xz", []byte("\xfd7zXZ\x00"), "archive is compressed with xz, which is not taken; decompress it first (xz -d)"},
		{"bzip2", []byte("BZh91AY"), "archive is compressed with bzip2, which is not taken; decompress it first (bzip2 -d)"},
		{"twice", gz(t, zipped), "archive is compressed twice; decompress it once first"},
		{"cut in an entry", good[:512*40], "archive ends too early, after 20480 bytes; it was cut short: copy or save it again"},
		{"cut between entries", good[:1024], "archive ends too early, after 1024 bytes; it was cut short: copy or save it again"},
		{"cut before its end", good[:len(good)-1024], "ends too early"},
		{"gzip cut", zipped[:len(zipped)/2], "ends too early"},
		{"gzip without its end", zipped[:len(zipped)-4], "ends too early"},
		{"gzip with a bad checksum", badSum, "does not have its checksum"},
		{"zstd cut", zst(t, good)[:9000], "ends too early"},
		{"header damaged", append(bytes.Clone(good[:1024]), append(bytes.Repeat([]byte("x"), 512), good[1536:]...)...), "has no valid tar header"},
		{"two tars", append(bytes.Clone(good), good...), "archive goes on after the end of its tar; give one archive at a time"},
		{"empty tar", make([]byte, 1024), "archive is a tar with nothing in it; save the image again"},
		{"tar of tar", tarOf(t, entry{name: "app.tar", body: good}), `archive holds another archive, "app.tar", and no image; unpack it and give that`},
		{"tar of tar.gz", tarOf(t, entry{name: "app.tar.gz", body: zipped}), `archive holds another archive, "app.tar.gz", and no image; unpack it and give that`},
		{"directory too much", tarOf(t, file("app/manifest.json", "[]")), `archive has "app/manifest.json", which belongs at its top; make the tar inside that directory (tar -C)`},
		{"a file system", tarOf(t, entry{name: "bin/", kind: tar.TypeDir}, file("bin/busybox", "\x7fELF"), file("etc/passwd", "root")), "docker export does not"},
		{"a bit in a layer", flipped, "is not what the configuration says"},
	})
}

// TestReadRefusesEntries is item 38: bombs, escapes, devices.
func TestReadRefusesEntries(t *testing.T) {
	good := legacy(t, "app:v1")
	with := func(e ...entry) []byte { return tarOf(t, append(e, good...)...) }
	many := make([]entry, 0, 30)
	for i := range 30 {
		many = append(many, file(fmt.Sprint(i), ""))
	}
	const export = "; give what docker save writes, not a file system (docker export)"
	const again = ": save the image again"
	checkRefused(t, []refused{
		{"absolute", with(file("/etc/passwd", "")), `archive entry "/etc/passwd" has an absolute name; nothing in an image's archive has` + again},
		{"traversal", with(file("a/../../etc/passwd", "")), `archive entry "a/../../etc/passwd" points out of the archive; nothing in an image's archive does` + again},
		{"long name", with(file(strings.Repeat("n", 600), "")), "has a name of 600 bytes, at most 512 are taken"},
		{"symlink out", with(entry{name: "x/layer.tar", kind: tar.TypeSymlink, link: "../../../etc/shadow"}), `archive entry "x/layer.tar" is a link to "../../etc/shadow", which is no file of the archive` + strings.Replace(again, ":", ";", 1)},
		{"symlink to the root", with(entry{name: "x/layer.tar", kind: tar.TypeSymlink, link: "/etc/shadow"}), `archive entry "x/layer.tar" is a link to "/etc/shadow"; only a layer.tar may be one, to another in the archive: give what docker save writes, not a file system (docker export)`},
		{"symlink to a link", with(entry{name: "x/layer.tar", kind: tar.TypeSymlink, link: "../y/layer.tar"}, entry{name: "y/layer.tar", kind: tar.TypeSymlink, link: "../x/layer.tar"}), "which is no file of the archive"},
		{"symlink elsewhere", with(entry{name: "bin", kind: tar.TypeSymlink, link: "usr/bin"}), `archive entry "bin" is a link to "usr/bin"; only a layer.tar may be one`},
		{"hard link", with(entry{name: "x/layer.tar", kind: tar.TypeLink, link: "y"}), `archive entry "x/layer.tar" is a hard link, which is not taken; make the tar with --hard-dereference`},
		{"device", with(entry{name: "dev/sda", kind: tar.TypeBlock}), `archive entry "dev/sda" is a device or a pipe, which no image's archive holds` + export},
		{"pipe", with(entry{name: "dev/p", kind: tar.TypeFifo}), "is a device or a pipe"},
		{"contiguous", with(entry{name: "x", kind: tar.TypeCont}), "is of the type '7'"},
		{"twice", with(file("manifest.json", "[]")), `archive has the entry "manifest.json" twice; two readers would see two images` + again},
		{"file and directory", with(file("x", ""), entry{name: "x/", kind: tar.TypeDir}), `has the entry "x" twice`},
		{"sparse", sparse("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "x", "GNU.sparse.realsize", "10737418240"), `archive entry "x" is a sparse file, which is not taken; make the tar without --sparse`},
		{"old sparse", oldSparse(), `archive entry "x" is a sparse file, which is not taken; make the tar without --sparse`},
		{"10 GB said, none there", hugeHeader(10 << 30), "archive entry \"x\" is 10737418240 bytes, at most 1048576 are taken; make the image smaller, or have the limit raised"},
		{"many entries", with(many...), "archive has more than 40 entries; save fewer images at a time"},
		{"many bytes", gz(t, with(file("x", strings.Repeat("x", 1<<20)), file("y", strings.Repeat("x", 1<<20)))), "archive is more than 2097152 bytes once it is decompressed; that is the limit: split it, or have the limit raised"},
		{"much JSON", with(file("index.json", "{"+strings.Repeat(" ", 1<<20)+"}")), "is 1048578 bytes, at most 1048576"},
	})
}

// hugeHeader is the header of a file that is larger than the tar.
func hugeHeader(size int64) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: size}) // into memory
	return append(buf.Bytes(), make([]byte, 1024)...)
}

// sparse is a tar of one sparse file in the form of PAX, which Go's writer refuses to make.
func sparse(records ...string) []byte {
	pax := ""
	for i := 0; i < len(records); i += 2 {
		line := " " + records[i] + "=" + records[i+1] + "\n"
		n := len(line) + 2
		pax += fmt.Sprint(n) + line
	}
	body := append([]byte("1\n0\n512\n"), make([]byte, 1016)...)
	return slices.Concat(rawEntry('x', "PaxHeaders/x", []byte(pax)), rawEntry('0', "x", body), make([]byte, 1024))
}

// oldSparse is one in the form of old GNU tars.
func oldSparse() []byte {
	e := rawEntry('S', "x", make([]byte, 512))
	copy(e[257:], "ustar  \x00")
	copy(e[386:], "00000000000\x0000000001000\x00")
	copy(e[483:], "00000001000\x00")
	checksum(e)
	return append(e, make([]byte, 1024)...)
}

// rawEntry writes a header by hand.
func rawEntry(kind byte, name string, body []byte) []byte {
	h := make([]byte, 512, 512+len(body)+512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(body), 0))
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	checksum(h)
	h = append(h, body...)
	return append(h, make([]byte, (512-len(body)%512)%512)...)
}

func checksum(h []byte) {
	copy(h[148:156], "        ")
	n := 0
	for _, c := range h[:512] {
		n += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", n))
}

// TestReadRefusesSaved is items 36, 39 and 40 of docker save.
func TestReadRefusesSaved(t *testing.T) {
	one, two := layerTar(t, 1, 3000), layerTar(t, 2, 70000)
	c := config("amd64", one, two)
	base := []entry{{name: "c.json", body: c}, {name: "1.tar", body: one}, {name: "2.tar", body: two}, {name: "2.gz", body: gz(t, two)}}
	with := func(e ...entry) []byte { return tarOf(t, append(e, base...)...) }
	list := func(raw string) []byte { return with(file("manifest.json", raw)) }
	layers := make([]string, 300)
	for i := range layers {
		layers[i] = "1.tar"
	}
	cut := gz(t, two)[:9000]
	checkRefused(t, []refused{
		{"not JSON", list("hello"), "archive has a manifest.json that is not what docker save writes: invalid character 'h' looking for beginning of value; save the image again"},
		{"no list", list(`{"Config":"c.json"}`), "that is not what docker save writes"},
		{"no image", list("[]"), "archive has a manifest.json that lists no image; save the image again"},
		{"many images", list("[" + strings.Repeat("{},", 200) + "{}]"), "archive has 201 images, at most 128 are taken; save fewer at a time"},
		{"bad name", with(saved("c.json", []string{"../../etc:x"}, "1.tar", "2.tar")), `archive names an image "../../etc:x", which is no name of an image; rename it (docker tag) and save it again`},
		{"no config", with(saved("d.json", nil, "1.tar", "2.tar")), `archive lists the configuration "d.json" but does not have it; it was cut short or changed: save the image again`},
		{"config is a layer", with(saved("1.tar", nil, "1.tar", "2.tar")), `archive configuration "1.tar" is not JSON; save the image again`},
		{"config is not JSON", with(file("d.json", "{hello"), saved("d.json", nil, "1.tar", "2.tar")), "config is not JSON"},
		{"config has another name", with(file(strings.Repeat("0", 64)+".json", string(c)), saved(strings.Repeat("0", 64)+".json", nil, "1.tar", "2.tar")), "has other content than its name says"},
		{"config outside", with(saved("../c.json", nil, "1.tar", "2.tar")), `archive lists the configuration "../c.json" but does not have it`},
		{"absent layer", with(saved("c.json", nil, "1.tar", "3.tar")), `archive lists the layer "3.tar" but does not have it; it was cut short or changed: save the image again`},
		{"fewer layers", with(saved("c.json", nil, "1.tar")), "archive lists 1 layers of an image whose configuration has 2; save the image again"},
		{"300 layers", with(saved("c.json", nil, layers...)), "archive has an image of 300 layers, at most 256 are taken; build it with fewer steps"},
		{"layers exchanged", with(saved("c.json", nil, "2.tar", "1.tar")), fmt.Sprintf(`archive layer "2.tar" is not what the configuration says: it unpacks to %s, not %s; the archive was damaged or changed: save the image again`, sum(two), sum(one))},
		{"gzipped layer of another", with(saved("c.json", nil, "2.gz", "2.tar")), `archive layer "2.gz" is not what the configuration says`},
		{"layer cut", with(entry{name: "cut.gz", body: cut}, saved("c.json", nil, "1.tar", "cut.gz")), "archive ends too early, in layer cut.gz; it was cut short: copy or save it again"},
		{"layer is text", with(file("x", "hello"), saved("c.json", nil, "1.tar", "x")), "archive layer x is neither a tar nor one compressed with gzip or zstd; save the image again"},
		{"foreign layer", list(`[{"Config":"c.json","Layers":["1.tar","2.tar"],"LayerSources":{"sha256:x":{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}}}]`), "archive has a layer that is to be fetched from an address that the image names; that is never done: build it with the layer in it"},
		{"layer with an address", list(`[{"Config":"c.json","Layers":["1.tar","2.tar"],"LayerSources":{"sha256:x":{"urls":["http://169.254.169.254/"]}}}]`), "that is never done"},
	})
}

// TestReadRefusesLayouts is the same of OCI layouts.
func TestReadRefusesLayouts(t *testing.T) {
	amd, e := gzImage(t, "amd64")
	d := desc(manifest.TypeManifest, amd, "")
	root, whole := multi(t)
	s390, e3 := gzImage(t, "s390x")
	three := index(desc(manifest.TypeManifest, amd, platform("amd64")), desc(manifest.TypeManifest, s390, platform("s390x")), desc(manifest.TypeManifest, []byte("{}"), platform("arm64")))
	nested := whole[:len(whole)-2]
	in := root
	for range 3 {
		in = index(desc(manifest.TypeIndex, in, ""))
		nested = append(nested, blob(in))
	}
	bad := slices.Clone(e)
	bad[2].body = append(bytes.Clone(bad[2].body), 0)
	url := bytes.Replace(amd, []byte(`"layers":[{`), []byte(`"layers":[{"urls":["http://169.254.169.254/"],`), 1)
	moreLayers := bytes.Replace(amd, []byte(`"layers":[`), []byte(`"layers":[`+desc(typeGzipLayer, e[2].body, "")+","), 1)
	thousand := bytes.Replace(amd, []byte(`"layers":[`), []byte(`"layers":[`+strings.Repeat(desc(typeGzipLayer, e[2].body, "")+",", 999)), 1)
	hugeConfig := bytes.Replace(amd, fmt.Appendf(nil, `"size":%d`, len(e[1].body)), []byte(`"size":52428800`), 1)
	layout := func(m []byte) []byte {
		return tarOf(t, layoutOf(append(slices.Clone(e), blob(m)), desc(manifest.TypeManifest, m, ""))...)
	}
	checkRefused(t, []refused{
		{"other version", tarOf(t, append(slices.Clone(e), file("oci-layout", `{"imageLayoutVersion":"2.0.0"}`), entry{name: "index.json", body: index(d)})...), `archive is an OCI layout of version "2.0.0", and only 1.0.0 is taken; write it with another tool`},
		{"not JSON", tarOf(t, append(slices.Clone(e), file("index.json", "hello"))...), "index.json: manifest is not JSON"},
		{"a manifest for an index", tarOf(t, append(slices.Clone(e), entry{name: "index.json", body: amd})...), "archive has an index.json that is no index; save the image again"},
		{"no image", tarOf(t, layoutOf(e)...), "archive has an index.json that lists no image; save the image again"},
		{"absent manifest", tarOf(t, without(layoutOf(e, d), amd)...), fmt.Sprintf("archive lists the blob %s but does not have it; it was cut short or changed: save the image again", sum(amd))},
		{"absent layer", tarOf(t, without(layoutOf(e, d), e[2].body)...), fmt.Sprintf("archive lists the blob %s but does not have it; it was cut short or changed: save the image again", sum(e[2].body))},
		{"damaged layer", tarOf(t, layoutOf(bad, d)...), fmt.Sprintf("archive blob %s has other content than its digest says; it was damaged or changed: save the image again", sum(e[2].body))},
		{"other size", tarOf(t, layoutOf(e, strings.Replace(d, `"size":`, `"size":1`, 1))...), fmt.Sprintf("archive has the blob %s of %d bytes, and lists it with 1%d; it was changed: save the image again", sum(amd), len(amd), len(amd))},
		{"two types", tarOf(t, layoutOf(e, strings.Replace(d, manifest.TypeManifest, manifest.TypeDockerManifest, 1))...), "but it was sent as"},
		{"a layer for an image", tarOf(t, layoutOf(e, desc("text/plain", e[2].body, ""))...), "manifest is not JSON"},
		{"address", layout(url), "layers[0] is to be fetched from an address that the image names; that is never done: build it with the layer in it"},
		{"layers that the configuration lacks", layout(moreLayers), "archive has an image of 2 layers whose configuration has 1; build it again"},
		{"1,000 layers", layout(thousand), "layers are 1000, at most 256 are taken"},
		{"configuration of 50 MB", layout(hugeConfig), "config.size is 52428800 bytes, at most 8388608 are taken"},
		{"indexes of depth 4", tarOf(t, layoutOf(nested, desc(manifest.TypeIndex, in, ""))...), "archive has indexes in one another deeper than 3; build the image with a plain index"},
		{"two of three platforms", tarOf(t, layoutOf(append(slices.Concat(e, e3), blob(three)), desc(manifest.TypeIndex, three, ""))...), fmt.Sprintf("archive has the image %s for linux/amd64, linux/s390x but not for linux/arm64; save all of its platforms or one", sum(three))},
		{"bad name", tarOf(t, layoutOf(e, desc(manifest.TypeManifest, amd, `,"annotations":{"io.containerd.image.name":"A B"}`))...), `archive names an image "A B"`},
		{"hostile index beside a good manifest.json", tarOf(t, append(layoutOf(append(slices.Clone(e), blob(url)), desc(manifest.TypeManifest, url, "")), saved(e[1].name, nil, e[2].name))...), "that is never done"},
	})
}

func checkRefused(t *testing.T, cases []refused) {
	t.Helper()
	limits := Limits{Bytes: 2 << 20, Entries: 40, Blob: 1 << 20}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t, 0)
			found, err := Read(t.Context(), bytes.NewReader(tt.raw), s, limits, nil, nil)
			var invalid *shoal.InvalidError
			if !errors.As(err, &invalid) || found != nil {
				t.Fatalf("Read = %+v, %v, want an InvalidError with %q", found, err, tt.why)
			}
			if text := err.Error(); !strings.Contains(text, tt.why) {
				t.Errorf("Read says %q,\nwant     %q", text, tt.why)
			}
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
				t.Errorf("the message is no line: %q", err)
			}
			noUploads(t, s)
			for _, info := range s.List() {
				if len(info.Refs) > 0 {
					t.Errorf("blob %s refers to something", info.Digest)
				}
			}
		})
	}
}

// TestReadRefusesBombs: what gets much larger when it is decompressed.
func TestReadRefusesBombs(t *testing.T) {
	zeros := func(t *testing.T, n int64) []byte {
		var buf bytes.Buffer
		h := &tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: n}
		r, w := io.Pipe()
		go func() {
			tw := tar.NewWriter(w)
			err := tw.WriteHeader(h)
			if err == nil {
				_, err = io.CopyN(tw, zeroReader{}, n)
			}
			w.CloseWithError(errors.Join(err, tw.Close()))
		}()
		if err := squeeze(&buf, r); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	bomb := zeros(t, 100<<20)
	c := config("amd64", []byte("?"))
	layer := tarOf(t, entry{name: "c.json", body: c}, entry{name: "1", body: bomb}, saved("c.json", nil, "1"))
	for _, tt := range []refused{
		{"archive", bomb, "archive is more than 200 times its size once it is decompressed, as bombs are; if it is honest give it uncompressed"},
		{"layer", layer, "archive layer 1 is more than 200 times its size once it is decompressed, as bombs are; if it is honest give it uncompressed"},
	} {
		if _, err := Read(t.Context(), bytes.NewReader(tt.raw), newStore(t, 0), Limits{}, nil, nil); err == nil || err.Error() != tt.why {
			t.Errorf("%s: Read = %v, want %q", tt.name, err, tt.why)
		}
	}
	if _, err := Read(t.Context(), bytes.NewReader(layer), newStore(t, 0), Limits{Blob: 80 << 20, Ratio: 2000}, nil, nil); err == nil ||
		!strings.HasPrefix(err.Error(), "archive layer 1 is more than 83886080 bytes once it is decompressed") {
		t.Errorf("large layer: Read = %v", err)
	}
	if _, err := Read(t.Context(), bytes.NewReader(bomb), newStore(t, 0), Limits{Ratio: 2000}, nil, nil); err == nil || !strings.Contains(err.Error(), "no image") {
		t.Errorf("a bomb that the limits allow: Read = %v", err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestReadDamaged cuts archives and flips their bits: what is found all the same is whole.
func TestReadDamaged(t *testing.T) {
	_, whole := multi(t)
	amd, e := gzImage(t, "amd64")
	raws := [][]byte{
		tarOf(t, legacy(t, "app:v1")...), gz(t, tarOf(t, legacy(t, "app:v1")...)), tarOf(t, whole...), zst(t, tarOf(t, whole...)),
		tarOf(t, append(layoutOf(e, desc(manifest.TypeManifest, amd, "")), saved(e[1].name, []string{"app:v1"}, e[2].name))...),
	}
	s := quickStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		raw := bytes.Clone(rapid.SampledFrom(raws).Draw(rt, "archive"))
		for range rapid.IntRange(0, 3).Draw(rt, "flips") {
			raw[rapid.IntRange(0, len(raw)-1).Draw(rt, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		}
		raw = raw[:rapid.IntRange(0, len(raw)).Draw(rt, "length")]
		checkRead(t, s, raw)
	})
}

// checkRead reads a hostile archive and leaves the store empty.
func checkRead(t testing.TB, s *blobs.Store, raw []byte) {
	t.Helper()
	found, err := Read(t.Context(), bytes.NewReader(raw), s, Limits{Bytes: 8 << 20}, nil, nil)
	var invalid *shoal.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		t.Errorf("Read = %v, want an InvalidError", err)
	}
	for _, f := range found {
		checkWhole(t, s, f)
	}
	noUploads(t, s)
	for _, info := range s.List() {
		if err := s.Remove(info.Digest); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzRead(f *testing.F) {
	amd, e := gzImage(f, "amd64")
	_, whole := multi(f)
	for _, entries := range [][]entry{
		legacyOf(layerTar(f, 1, 100), layerTar(f, 2, 600), "app:v1"), whole, layoutOf(e, desc(manifest.TypeManifest, amd, "")),
		append(layoutOf(e, desc(manifest.TypeManifest, amd, "")), saved(e[1].name, []string{"app:v1"}, e[2].name)),
	} {
		raw := tarOf(f, entries...)
		f.Add(raw)
		f.Add(gz(f, raw))
		f.Add(zst(f, raw))
	}
	f.Add(oldSparse())
	s := quickStore(f)
	f.Fuzz(func(t *testing.T, raw []byte) { checkRead(t, s, raw) })
}

func TestSniff(t *testing.T) {
	v7 := rawEntry('0', "x", nil)
	clear(v7[257:265])
	checksum(v7)
	for _, tt := range []struct {
		head string
		want form
	}{
		{"", formEmpty},
		{string(v7), formTar},
		{string(make([]byte, 512)), formTar},
		{string(make([]byte, 100)), formOther},
		{strings.Repeat("\x00", 148) + "        " + strings.Repeat("\x00", 400), formOther},
		{" \n{}", formJSON},
		{"[]", formOther},
		{"\x1f\x8b", formGzip},
	} {
		if got := sniff([]byte(tt.head)); got != tt.want {
			t.Errorf("sniff(%.20q...) = %v, want %v", tt.head, got, tt.want)
		}
	}
	if diff := cmp.Diff(formOther, sniff(bytes.Repeat([]byte("\x80"), 512))); diff != "" {
		t.Error(diff)
	}
}
