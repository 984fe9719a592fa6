// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

// archive packs files whose content is their name.
func archive(t testing.TB, names ...string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, n := range names {
		if err := w.WriteHeader(&tar.Header{Name: n, Mode: 0o640, Size: int64(len(n)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// files reads an archive: "NAME" of a directory, "NAME=CONTENT" of a file.
func files(t testing.TB, from io.Reader) (out []string) {
	t.Helper()
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		content, readErr := io.ReadAll(r)
		if err := errors.Join(err, readErr); err != nil {
			t.Fatalf("the archive cannot be read: %v", err)
		}
		if h.Typeflag == tar.TypeReg {
			h.Name += "=" + string(content)
		}
		out = append(out, h.Name)
	}
}

func copies(t *testing.T, f *Fixture) {
	ctx := t.Context()
	id := f.create(t, f.Container(&f.Steady)) // it need not run
	if err := f.Engine.CopyTo(ctx, id, "/", io.NopCloser(archive(t, "copied/a.txt", "copied/b.txt"))); err != nil {
		t.Fatalf("CopyTo = %v", err)
	}
	var stat shoal.PathStat
	var out bytes.Buffer
	keep := func(s shoal.PathStat) error { stat = s; return nil }
	if err := f.Engine.CopyFrom(ctx, id, "/copied", keep, &out); err != nil || stat.Name != "copied" || !stat.Mode.IsDir() {
		t.Errorf("CopyFrom of a directory = %v, stat %+v", err, stat)
	}
	got := files(t, &out)
	slices.Sort(got)
	if want := []string{"copied/", "copied/a.txt=copied/a.txt", "copied/b.txt=copied/b.txt"}; !slices.Equal(got, want) {
		t.Errorf("CopyFrom of a directory has %q, want %q", got, want)
	}
	out.Reset()
	if err := f.Engine.CopyFrom(ctx, id, "/copied/a.txt", keep, &out); err != nil || stat.Name != "a.txt" || !stat.Mode.IsRegular() || stat.Bytes != 12 {
		t.Errorf("CopyFrom of a file = %v, stat %+v", err, stat)
	}
	if got := files(t, &out); !slices.Equal(got, []string{"a.txt=copied/a.txt"}) {
		t.Errorf("CopyFrom of a file has %q", got)
	}
	copyErrors(t, f, id)
}

func copyErrors(t *testing.T, f *Fixture, id string) {
	ctx := t.Context()
	fine := func(shoal.PathStat) error { return nil }
	enough := errors.New("enough")
	if err := f.Engine.CopyFrom(ctx, id, "/copied", func(shoal.PathStat) error { return enough }, io.Discard); !errors.Is(err, enough) {
		t.Errorf("CopyFrom whose stat is enough = %v, want that error", err)
	}
	for what, c := range map[string]struct {
		got, want error
	}{
		"CopyFrom of nothing":                {f.Engine.CopyFrom(ctx, id, "/nosuch", fine, io.Discard), shoal.ErrNotFound},
		"CopyTo of nothing":                  {f.Engine.CopyTo(ctx, id, "/nosuch", io.NopCloser(archive(t, "a"))), shoal.ErrNotFound},
		"CopyFrom of an absent container":    {f.Engine.CopyFrom(ctx, strings.Repeat("0", 64), "/", fine, io.Discard), shoal.ErrNotFound},
		"CopyTo with a source that breaks":   {f.Engine.CopyTo(ctx, id, "/", io.NopCloser(io.MultiReader(archive(t, "a"), broken{enough}))), enough},
		"CopyFrom to a writer that is done":  {f.Engine.CopyFrom(ctx, id, "/copied", fine, broken{enough}), enough},
		"CopyFrom of a path that is nowhere": {f.Engine.CopyFrom(ctx, id, "copied", fine, io.Discard), errInvalid},
		"CopyTo of a file":                   {f.Engine.CopyTo(ctx, id, "/copied/a.txt", io.NopCloser(archive(t, "a"))), errInvalid},
	} {
		if !matches(c.got, c.want) {
			t.Errorf("%s = %v, want %v", what, c.got, c.want)
		}
	}
}

var errInvalid = errors.New("an InvalidError")

func matches(got, want error) bool {
	_, isInvalid := errors.AsType[*shoal.InvalidError](got)
	return errors.Is(got, want) || errors.Is(want, errInvalid) && isInvalid
}

// broken fails.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error)  { return 0, b.err }
func (b broken) Write([]byte) (int, error) { return 0, b.err }
