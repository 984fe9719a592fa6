// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// failer is a test or a property.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func tarOf(t failer, headers ...tar.Header) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = h.Name
		}
		h.Size, h.ModTime = int64(len(content)), time.Unix(1000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func newUnpacker(name string, flags copyFlags) *unpacker {
	a, _, _ := newApp()
	return &unpacker{copying: &copying{app: a, flags: flags, meter: meter{app: a}}, name: name}
}

// filesIn lists what is below a directory: "drwxr-xr-x NAME", "-rw-r--r-- NAME=CONTENT".
func filesIn(t failer, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(at string, _ fs.DirEntry, err error) error {
		if err != nil || at == dir {
			return err
		}
		st, err := os.Lstat(at)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, at) // both are absolute
		line := st.Mode().String() + " " + rel
		switch {
		case st.Mode().IsRegular():
			content, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			line += "=" + string(content)
		case st.Mode()&fs.ModeSymlink != 0:
			link, _ := os.Readlink(at) // it was a link just now
			line = "link " + rel + "->" + link
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	u := newUnpacker("etc", copyFlags{})
	err := u.unpack(dir, tarOf(t,
		tar.Header{Name: "conf/", Typeflag: tar.TypeDir, Mode: 0o555},
		tar.Header{Name: "conf/a", Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "conf/b", Typeflag: tar.TypeLink, Linkname: "conf/a"},
		tar.Header{Name: "conf/c", Typeflag: tar.TypeSymlink, Linkname: "../../etc/passwd"},
		tar.Header{Name: "conf/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "conf/pipe", Typeflag: tar.TypeFifo},
	))
	if err != nil || u.left != 2 || u.meter.files != 1 {
		t.Errorf("unpack = %v, %d left out, %d files; want 2 and 1", err, u.left, u.meter.files)
	}
	want := []string{"dr-xr-xr-x etc", "-rwxr-xr-x etc/a=conf/a", "-rwxr-xr-x etc/b=conf/a", "link etc/c->../../etc/passwd"}
	if diff := cmp.Diff(want, filesIn(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := os.Chmod(filepath.Join(dir, "etc"), 0o755); err != nil { // for who removes it
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "etc", "a")); err != nil || !st.ModTime().Equal(time.Unix(1000, 0)) {
		t.Errorf("the time of a file is %v, %v", st, err)
	}
}

// TestUnpackHostile: whatever an archive says, nothing is written outside the directory.
func TestUnpackHostile(t *testing.T) {
	names := []string{"x", "..", ".", "", "a", "/", "out"}
	tmp := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		outside := filepath.Join(tmp, rand.Text())
		dir := filepath.Join(outside, "out", "in")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		path := rapid.Map(rapid.SliceOfN(rapid.SampledFrom(names), 1, 5), func(s []string) string { return strings.Join(s, "/") })
		var headers []tar.Header
		for range rapid.IntRange(1, 8).Draw(t, "entries") {
			h := tar.Header{
				Name: path.Draw(t, "name"), Linkname: path.Draw(t, "link"), Mode: 0o7777,
				Typeflag: rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeBlock}).Draw(t, "type"),
			}
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag = tar.TypeDir // the writer refuses it
			}
			if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeBlock {
				h.Linkname = ""
			}
			headers = append(headers, h)
		}
		u := newUnpacker(rapid.SampledFrom([]string{".", "x", "name"}).Draw(t, "under"), copyFlags{})
		u.isWhole = rapid.Bool().Draw(t, "whole")
		if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = u.unpack(dir, tarOf(t, headers...)) // it may refuse
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("the directory itself has mode %v, %v", st.Mode(), err)
		}
		for _, f := range filesIn(t, outside) {
			mode, name, _ := strings.Cut(f, " ")
			if strings.Contains(name, ".shoal-cp-") {
				t.Errorf("%s is left behind", f)
			}
			inside := strings.HasPrefix(name, "out/in")
			if !inside && name != "out" {
				t.Errorf("%s is outside", f)
			}
			below, isBelow := strings.CutPrefix(name, "out/in/")
			below, _, _ = strings.Cut(below, "/")
			below, _, _ = strings.Cut(below, "=")
			below, _, _ = strings.Cut(below, "->")
			if isBelow && u.name != "." && below != "mine" && below != u.name {
				t.Errorf("%s is not below %s", f, u.name)
			}
			if inside && strings.ContainsAny(mode, "ugD") {
				t.Errorf("%s has a bit that nobody gave", f)
			}
		}
	})
}

func TestUnpackRefuses(t *testing.T) {
	broken := bytes.NewReader(make([]byte, 100))
	file := func(name string) io.Reader {
		return tarOf(t, tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600})
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "d", "e"), 0o755); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		dir, name string
		archive   io.Reader
		want      string
	}{
		"no archive":       {dir, "x", broken, "unexpected EOF"},
		"no directory":     {filepath.Join(dir, "nosuch"), "x", file("x"), "no such file or directory"},
		"over a directory": {dir, "d", file("x"), "something else than a file is there"},
		"over a device":    {"/dev", "null", file("x"), "something else than a file is there"},
	} {
		err := newUnpacker(c.name, copyFlags{}).unpack(c.dir, c.archive)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("unpack of %s = %v, want %q", what, err, c.want)
		}
	}
	if diff := cmp.Diff([]string{"drwxr-xr-x d", "drwxr-xr-x d/e"}, filesIn(t, dir)); diff != "" {
		t.Errorf("after refusals (-want +got):\n%s", diff)
	}
}

// TestUnpackThroughLinks: a directory of an archive is not what a link leads to that is
// there already, or that the archive itself made.
func TestUnpackThroughLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(dir, "conf", "old")); err != nil {
		t.Fatal(err)
	}
	before := filesIn(t, dir)
	for what, headers := range map[string][]tar.Header{
		"a file":      {{Name: "conf/old/.profile", Typeflag: tar.TypeReg, Mode: 0o644}},
		"a directory": {{Name: "conf/old/", Typeflag: tar.TypeDir, Mode: 0o777}},
		"a hard link": {{Name: "conf/hard", Typeflag: tar.TypeLink, Linkname: "conf/old/conf"}},
	} {
		err := newUnpacker("conf", copyFlags{}).unpack(dir, tarOf(t, headers...))
		if err == nil || !strings.Contains(err.Error(), "conf/old is a link") {
			t.Errorf("unpack of %s through a link = %v", what, err)
		}
	}
	if diff := cmp.Diff(before, filesIn(t, dir)); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
}

// TestLocalFound: a link is what it leads to, also one that leads nowhere.
func TestLocalFound(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(at("d"), 0o755), os.WriteFile(at("f"), nil, 0o600), os.Symlink("d/../f", at("to-f")), os.Symlink(at("d"), at("to-d")),
		os.Symlink("to-f", at("twice")), os.Symlink("nowhere", at("dangling")), os.Symlink("loop", at("loop")), os.Symlink("../f", at("d/up"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]found{
		"d/": {at("d"), true, true}, "f": {at("f"), true, false}, "to-f": {at("f"), true, false}, "to-d": {at("d"), true, true},
		"twice": {at("f"), true, false}, "dangling": {at("nowhere"), false, false}, "to-d/up": {at("f"), true, false}, "x": {at("x"), false, false},
	} {
		if got, err := localFound(dir + "/" + name); err != nil || got != want {
			t.Errorf("localFound(%s) = %+v, %v, want %+v", name, got, err, want)
		}
	}
	if got, err := localFound(at("loop")); err == nil {
		t.Errorf("localFound(loop) = %+v, want an error", got)
	}
}

// TestPackRoundTrip: what is packed is unpacked the same.
func TestPackRoundTrip(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for name, mode := range map[string]fs.FileMode{"a": 0o600, "d/b": 0o751, "d/e/c": 0o444} {
		if err := os.MkdirAll(filepath.Join(from, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte("it is "+name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("d/b", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	u := newUnpacker(".", copyFlags{})
	var out bytes.Buffer
	if err := (&packer{copying: u.copying, name: "x"}).pack(from, st, &out); err != nil {
		t.Fatal(err)
	}
	if err := u.unpack(to, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(filesIn(t, from), filesIn(t, to)); diff != "" {
		t.Errorf("unpacked (-packed +unpacked):\n%s", diff)
	}
}
