// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// write makes files below a directory, and returns it.
func write(t *testing.T, dir string, files ...string) string {
	t.Helper()
	for _, f := range files {
		at := filepath.Join(dir, f)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(f), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestImageSource(t *testing.T) {
	t.Chdir(write(t, t.TempDir(), "app.tar", "plain", "sub/file", "UP.tgz", "lib/oci-layout"))
	a, _, stderr := newApp()
	for arg, want := range map[string]struct{ kind, fails, says string }{
		"-":              {kind: "file"},
		"app:v1":         {kind: "ref"},
		"plain":          {kind: "ref"},
		"UP":             {kind: "ref"}, // the daemon says that it is none
		"app.tar":        {kind: "file"},
		"UP.tgz":         {kind: "file"},
		"./plain":        {kind: "file"},
		"sub/file":       {kind: "file", says: "sub/file is a file here, and taken for an archive; the image of that name is sub/file:latest\n"},
		"sub/nosuch":     {kind: "ref"},
		"lib":            {kind: "file", says: "lib is a directory here, and taken for an OCI layout; the image of that name is lib:latest\n"},
		"./lib":          {kind: "file"},
		"lib/":           {kind: "file"},
		"lib:latest":     {kind: "ref"},
		"app.tar:latest": {kind: "ref"},
		"none.tar":       {fails: "there is no file none.tar; an image of that name is written none.tar:latest"},
		"NONE.tar":       {fails: "read NONE.tar: no such file or directory"},
		"./none":         {fails: "read ./none: no such file or directory"},
		"/none/app":      {fails: "read /none/app: no such file or directory"},
		"..":             {kind: "file"},
		"":               {kind: "ref"},
	} {
		stderr.Reset()
		src, err := a.imageSource(arg)
		switch {
		case want.fails != "":
			if err == nil || err.Error() != want.fails {
				t.Errorf("imageSource(%q) = %v, want %s", arg, err, want.fails)
			}
		case err != nil || (src.open != nil) != (want.kind == "file"):
			t.Errorf("imageSource(%q) = %+v, %v, want a %s", arg, src, err, want.kind)
		case stderr.String() != want.says:
			t.Errorf("imageSource(%q) says %q, want %q", arg, stderr, want.says)
		}
	}
}

// entries are the names and contents of an archive.
func entries(t *testing.T, from io.Reader) (names []string, contents string) {
	t.Helper()
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil || h.Typeflag != tar.TypeReg || h.Uid != 0 || !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Fatalf("entry %+v, %v, want a plain file of nobody and no time", h, err)
		}
		names, contents = append(names, h.Name), contents+string(content)
	}
}

func TestOpenLayout(t *testing.T) {
	want := []string{"oci-layout", "index.json", "blobs/sha256/aa", "blobs/sha256/bb", "blobs/sha512/cc"}
	dir := write(t, t.TempDir(), append(slices.Clone(want), "ingest/half", "README")...)
	archive, err := openLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	names, contents := entries(t, archive)
	if !slices.Equal(names, want) || contents != strings.Join(want, "") {
		t.Errorf("openLayout = %q with %q, want %q", names, contents, want)
	}
	if err := archive.Close(); err != nil {
		t.Error(err)
	}
	left, err := openLayout(dir) // and nobody reads it: what writes it ends all the same
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("aa", filepath.Join(dir, "blobs/sha256/link")); err != nil {
		t.Fatal(err)
	}
	if _, err := openLayout(dir); err == nil || !strings.HasSuffix(err.Error(), "blobs/sha256/link is no file, but a link, a device or the like") {
		t.Errorf("openLayout with a link = %v", err)
	}
}

// A file that becomes a link between the look and the read is not read through it.
func TestPackLayoutOfWhatChanged(t *testing.T) {
	dir := write(t, t.TempDir(), "secret", "layout/blob")
	root, err := os.OpenRoot(filepath.Join(dir, "layout"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := errors.Join(os.Remove(filepath.Join(dir, "layout/blob")), os.Symlink("../secret", filepath.Join(dir, "layout/blob"))); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := packLayout(root, []string{"blob"}, &out); err == nil || strings.Contains(out.String(), "secret") {
		t.Errorf("packLayout of a link to outside = %v, with %d bytes, want an error and nothing", err, out.Len())
	}
}

func TestSniff(t *testing.T) {
	var good bytes.Buffer
	w := tar.NewWriter(&good)
	long := strings.Repeat("long/", 100) // has a header of its own
	err := w.WriteHeader(&tar.Header{Name: long, Typeflag: tar.TypeDir, Mode: 0o755})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		good.String():                      "",
		"\x1f\x8b":                         "",
		"\x28\xb5\x2f\xfd":                 "",
		strings.Repeat("\x00", 1024):       "", // it has nothing in it, which is for the daemon to say
		"":                                 "x is empty; " + wantedArchive,
		"PK\x03\x04":                       "x is a zip archive; " + wantedArchive,
		"BZh9":                             "x is compressed with bzip2, which is not taken; decompress it first: bzip2 -dc FILE | shoal image push -",
		strings.Repeat("no archive\n", 99): "x is no tar archive; " + wantedArchive,
	} {
		got, err := sniff(t.Context(), "x", io.NopCloser(strings.NewReader(text)))
		if want != "" {
			if err == nil || err.Error() != want || exitCode(err) != exitUsage {
				t.Errorf("sniff(%.20q) = %v, want %s", text, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("sniff(%.20q) = %v", text, err)
			continue
		}
		if all, err := io.ReadAll(got); err != nil || string(all) != text {
			t.Errorf("sniff(%.20q) then has %d bytes of %d, %v", text, len(all), len(text), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, _ := io.Pipe() // nothing comes
	if _, err := sniff(ctx, "x", r); err == nil || err.Error() != "interrupted; nothing was taken" {
		t.Errorf("sniff(interrupted) = %v", err)
	}
}

func FuzzNotAnArchive(f *testing.F) {
	for _, s := range []string{"", "PK\x03\x04", "\x1f\x8b", "BZh", strings.Repeat("\x00", block), strings.Repeat("a", block)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		head = head[:min(len(head), block)]
		what := notAnArchive(head)
		_, err := tar.NewReader(bytes.NewReader(head)).Next()
		if what != "" && err == nil {
			t.Errorf("notAnArchive(%q) = %s, but it is one", head, what)
		}
		if strings.ContainsAny(what, "\n\x00") {
			t.Errorf("notAnArchive(%q) = %q, want one clean line", head, what)
		}
	})
}

func TestMoving(t *testing.T) {
	p := shoal.ImageProgress{What: "fetch", Done: 120e6, Total: 269e6, Rate: 40e6, Peers: 3}
	for _, c := range []struct {
		isLive, isQuiet bool
		step            time.Duration
		want            string
	}{
		{false, false, time.Second, "pull app:v1, fetch: 120.0/269.0 MB, 40.0 MB/s from 3 peers, 4s left\n"}, // once of six
		{true, false, 150 * time.Millisecond, strings.Repeat("\r\x1b[Kpull app:v1, fetch: 120.0/269.0 MB, 40.0 ", 3) + "\r\x1b[K"},
		{false, true, time.Minute, ""},
		{true, true, time.Minute, ""},
		{true, false, time.Millisecond, ""},
	} {
		a, _, stderr := newApp()
		now := time.Unix(0, 0)
		a.now, a.quiet, a.width = func() time.Time { return now }, c.isQuiet, 42
		m := a.moving("pull app:v1")
		m.isLive = c.isLive
		for range 6 {
			now = now.Add(c.step)
			m.tell(p)
		}
		m.end()
		if stderr.String() != c.want {
			t.Errorf("moving every %s, live %v, quiet %v, says %q, want %q", c.step, c.isLive, c.isQuiet, stderr, c.want)
		}
	}
}

// TestExportToATerminal: its other end is one too, says Linux.
func TestExportToATerminal(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tty.Close() }()
	a, _, stderr := newApp()
	a.out, a.in = tty, tty
	if code := a.run(t.Context(), []string{"image", "export", "app:v1"}); code != exitUsage || stderr.String() != "error: an archive is nothing for a terminal; write it to a file: shoal image export app:v1 -o image.tar\n" {
		t.Errorf("export to a terminal = %d, %q", code, stderr)
	}
	stderr.Reset()
	if code := a.run(t.Context(), []string{"image", "push", "-"}); code != exitUsage || stderr.String() != "error: an archive cannot be typed; pipe one in: docker save IMAGE | shoal image push -\n" {
		t.Errorf("push from a terminal = %d, %q", code, stderr)
	}
}

func TestWriteWhole(t *testing.T) {
	at := filepath.Join(write(t, t.TempDir(), "old.tar"), "old.tar")
	broken := errors.New("no more")
	if err := writeWhole(at, func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return broken }); !errors.Is(err, broken) {
		t.Errorf("writeWhole of what breaks = %v", err)
	}
	if got, err := os.ReadFile(at); err != nil || string(got) != "old.tar" {
		t.Errorf("after it there is %q, %v, want what was there", got, err)
	}
	if err := writeWhole(at, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(at); err != nil || string(got) != "new" {
		t.Errorf("then there is %q, %v, want new", got, err)
	}
	if left, err := os.ReadDir(filepath.Dir(at)); err != nil || len(left) != 1 {
		t.Errorf("beside it there is %v, %v, want nothing", left, err)
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		have, of int64
		want     string
	}{{0, 10, ""}, {10, 10, "whole"}, {1, 1e9, "1%"}, {45, 100, "45%"}, {1e9 - 1, 1e9, "99%"}, {0, 0, ""}} {
		if got := share(c.have, c.of); got != c.want {
			t.Errorf("share(%d, %d) = %q, want %q", c.have, c.of, got, c.want)
		}
	}
	for name, want := range map[string]string{"app:v1": "app", "127.0.0.1:5050/app": "127.0.0.1:5050/app", "127.0.0.1:5050/a/b:c": "127.0.0.1:5050/a/b"} {
		if got := repository(name); got != want {
			t.Errorf("repository(%q) = %q, want %q", name, got, want)
		}
	}
	if got := imageLabels(api.Image{Name: "a/b:c", Pinned: true}); len(got) != 3 || got["tag"] != "c" || got["repository"] != "a/b" || got["pinned"] != "true" {
		t.Errorf("imageLabels = %v", got)
	}
}
