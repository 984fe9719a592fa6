// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func archive(t *testing.T, files ...string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f, Mode: 0o640, Size: int64(len(f)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func names(t *testing.T, from io.Reader) (out []string) {
	t.Helper()
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

func TestTree(t *testing.T) {
	var tree Tree
	if err := tree.Unpack("/", archive(t, "etc/app/a.conf", "etc/app/b.conf", "etc/motd")); err != nil {
		t.Fatal(err)
	}
	if err := tree.Unpack("/etc", archive(t, "../../hosts")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"/etc/app":        {"app/", "app/a.conf", "app/b.conf"},
		"/etc/app/a.conf": {"a.conf"},
		"/etc/hosts":      {"hosts"},
		"/":               {"//", "/etc/", "/etc/app/", "/etc/app/a.conf", "/etc/app/b.conf", "/etc/hosts", "/etc/motd"},
	} {
		var out bytes.Buffer
		if err := tree.Archive(path, &out); err != nil {
			t.Errorf("Archive(%s) = %v", path, err)
			continue
		}
		if diff := cmp.Diff(want, names(t, &out)); diff != "" {
			t.Errorf("Archive(%s) (-want +got):\n%s", path, diff)
		}
	}
	if s, err := tree.Stat("/etc/motd"); err != nil || s != (shoal.PathStat{Name: "motd", Bytes: 8, Mode: 0o640}) {
		t.Errorf("Stat = %+v, %v", s, err)
	}
	if s, err := tree.Stat("/etc/"); err != nil || !s.Mode.IsDir() || s.Mode != fs.ModeDir|0o755 {
		t.Errorf("Stat of a directory = %+v, %v", s, err)
	}
}

func TestTreeErrors(t *testing.T) {
	var tree Tree
	if err := tree.Unpack("/", archive(t, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Stat("/b"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Stat of nothing = %v", err)
	}
	if err := tree.Archive("/b", io.Discard); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Archive of nothing = %v", err)
	}
	if err := tree.Unpack("/b", archive(t, "c")); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Unpack into nothing = %v", err)
	}
	for what, err := range map[string]error{
		"into a file":  tree.Unpack("/a", archive(t, "c")),
		"of no tar":    tree.Unpack("/", strings.NewReader(strings.Repeat("x", 1024))),
		"of no path":   tree.Unpack("a", archive(t, "c")),
		"of NUL":       tree.Unpack("/a\x00", archive(t, "c")),
		"of much path": tree.Unpack("/"+strings.Repeat("a", 5000), archive(t, "c")),
	} {
		if _, ok := errors.AsType[*shoal.InvalidError](err); !ok {
			t.Errorf("Unpack %s = %v, want an InvalidError", what, err)
		}
	}
}
