// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// packed is an archive of one file.
func packed(t *testing.T, name, content string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCopy(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 2))
	large := strings.Repeat("0123456789abcdef", 64<<10)
	at := shoal.Target{Service: "web", Slot: 1}
	send := func(at shoal.Target, dir string, archive io.Reader) error {
		return c.CopyTo(t.Context(), at, dir, io.NopCloser(archive))
	}
	if err := send(at, "/", bytes.NewReader(packed(t, "large", large))); err != nil {
		t.Fatalf("CopyTo of %d bytes = %v", len(large), err)
	}
	if st, err := c.Stat(t.Context(), at, "/large"); err != nil || st != (shoal.PathStat{Name: "large", Bytes: int64(len(large)), Mode: 0o644}) {
		t.Errorf("Stat = %+v, %v", st, err)
	}
	var out bytes.Buffer
	fine := func(shoal.PathStat) error { return nil }
	err := c.CopyFrom(t.Context(), at, "/large", fine, &out)
	if err != nil {
		t.Errorf("CopyFrom = %v", err)
	}
	r := tar.NewReader(&out)
	_, err = r.Next()
	content, readErr := io.ReadAll(r)
	if err := errors.Join(err, readErr); err != nil || string(content) != large {
		t.Errorf("CopyFrom has %d bytes of %d, %v", len(content), len(large), err)
	}
	none := bytes.NewReader(nil)
	wantError(t, c.CopyFrom(t.Context(), at, "/nosuch", fine, io.Discard), api.CodeNotFound, "there is no /nosuch")
	wantError(t, c.CopyFrom(t.Context(), at, "large", fine, io.Discard), api.CodeInvalid, `path must begin with /, got "large"`)
	wantError(t, c.CopyFrom(t.Context(), shoal.Target{Service: "web", Slot: 7}, "/", fine, io.Discard), api.CodeNotFound, "no replica of web/7 is known here; this peer last synced 0 s ago; see shoal ps")
	wantError(t, send(at, "/nosuch", none), api.CodeNotFound, "there is no /nosuch")
	wantError(t, send(at, "/large", bytes.NewReader(packed(t, "large", large))), api.CodeInvalid, "path /large is no directory")
	wantError(t, send(at, "in", none), api.CodeInvalid, `path must begin with /, got "in"`)
	wantError(t, send(shoal.Target{Service: "nosuch"}, "/", none), api.CodeNotFound, `no service "nosuch" (known here: web); this peer last synced 0 s ago`)
	broken := errors.New("the disk is gone")
	if err := send(at, "/", io.MultiReader(bytes.NewReader(packed(t, "half", large)[:100<<10]), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("CopyTo of an archive that breaks = %v", err)
	}
	if _, err := c.Stat(t.Context(), at, "/half"); err == nil {
		t.Error("half a file is there")
	}
}

// TestCopyRefusedWhileIdle: who has nothing to send yet hears of a refusal.
func TestCopyRefusedWhileIdle(t *testing.T) {
	cluster := apitest.New("tokyo")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 1))
	archive, _ := io.Pipe() // nothing comes
	wantError(t, c.CopyTo(t.Context(), shoal.Target{Service: "web"}, "/nosuch", archive), api.CodeNotFound, "there is no /nosuch")
}

type failing struct{ err error }

// Read implements io.Reader.
func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestCopyLeft: the client goes with the archive under way; nothing stays behind, which
// TestMain checks.
func TestCopyLeft(t *testing.T) {
	cluster := apitest.New("tokyo")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 1))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	archive, _ := io.Pipe() // nothing comes
	err := c.CopyTo(ctx, shoal.Target{Service: "web"}, "/", archive)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("CopyTo whose context ended = %v, want %v", err, context.DeadlineExceeded)
	}
}
