// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
)

// chunked makes a request's length unknown, as docker sends layers.
func chunked(req *http.Request) { req.ContentLength = -1 }

// has checks that the registry gives a blob back.
func (s *served) has(b []byte) {
	s.t.Helper()
	got := s.want(http.StatusOK, http.MethodGet, "/v2/app/blobs/"+blobs.DigestOf(b).String(), nil, nil)
	if !bytes.Equal(got.body, b) {
		s.t.Errorf("GET blob = %d other bytes, want %d", len(got.body), len(b))
	}
}

// withDigest adds the digest that ends an upload.
func withDigest(location string, b []byte) string {
	return location + "?digest=" + blobs.DigestOf(b).String()
}

// TestPushAsDocker: HEAD, POST, one PATCH without length or range, a PUT without body.
func TestPushAsDocker(t *testing.T) {
	s := serve(t, Config{})
	layer := content(1, 3<<20)
	d := blobs.DigestOf(layer).String()
	s.want(http.StatusNotFound, http.MethodHead, "/v2/app/blobs/"+d, nil, nil)
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	sent := s.want(http.StatusAccepted, http.MethodPatch, s.location(begun), layer, chunked)
	if got, want := sent.Header.Get("Range"), fmt.Sprintf("0-%d", len(layer)-1); got != want {
		t.Errorf("Range = %q, want %q", got, want)
	}
	done := s.want(http.StatusCreated, http.MethodPut, withDigest(s.location(sent), layer), nil, nil)
	if got := done.Header.Get("Docker-Content-Digest"); got != d {
		t.Errorf("Docker-Content-Digest = %q, want %q", got, d)
	}
	if got := s.location(done); !strings.HasSuffix(got, "/v2/app/blobs/"+d) {
		t.Errorf("Location = %q", got)
	}
	s.has(layer)
	head := s.want(http.StatusOK, http.MethodHead, "/v2/other/blobs/"+d, nil, nil)
	if head.ContentLength != int64(len(layer)) {
		t.Errorf("HEAD: Content-Length = %d, want %d", head.ContentLength, len(layer))
	}
}

func TestPushInOneRequest(t *testing.T) {
	s := serve(t, Config{})
	for _, b := range [][]byte{{}, []byte("x"), content(2, 1<<20+1)} {
		s.push(b)
		s.has(b)
	}
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	b := content(3, 100)
	s.want(http.StatusCreated, http.MethodPut, withDigest(s.location(begun), b), b, nil)
	s.has(b)
}

// TestPushInChunks: each chunk follows the last; another is 416, and the upload goes on.
func TestPushInChunks(t *testing.T) {
	s := serve(t, Config{})
	b := content(4, 1000)
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	at := s.location(begun)
	chunk := func(method string, from, to, want int) {
		t.Helper()
		path := at
		if method == http.MethodPut {
			path = withDigest(at, b)
		}
		s.want(want, method, path, b[from:to], header("Content-Range", fmt.Sprintf("%d-%d", from, to-1)))
	}
	chunk(http.MethodPatch, 500, 600, http.StatusRequestedRangeNotSatisfiable)
	chunk(http.MethodPatch, 0, 1, http.StatusAccepted)
	chunk(http.MethodPatch, 0, 1, http.StatusRequestedRangeNotSatisfiable)
	chunk(http.MethodPatch, 1, 500, http.StatusAccepted)
	chunk(http.MethodPut, 600, 1000, http.StatusRequestedRangeNotSatisfiable)
	got := s.want(http.StatusNoContent, http.MethodGet, at, nil, nil)
	if r := got.Header.Get("Range"); r != "0-499" {
		t.Errorf("Range = %q, want 0-499", r)
	}
	for bad, want := range map[string]int{"500-600": 400, "x-y": 400, "bytes 500-999/1000": 400} {
		s.want(want, http.MethodPatch, at, b[500:], header("Content-Range", bad))
	}
	chunk(http.MethodPut, 500, 1000, http.StatusCreated)
	s.has(b)
	s.want(http.StatusNotFound, http.MethodGet, at, nil, nil)
}

func TestPushWrongDigest(t *testing.T) {
	s := serve(t, Config{})
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	at := s.location(begun)
	s.want(http.StatusAccepted, http.MethodPatch, at, []byte("this"), nil)
	a := s.want(http.StatusBadRequest, http.MethodPut, withDigest(at, []byte("that")), nil, nil)
	if code, _ := a.fault(); code != codeDigestInvalid {
		t.Errorf("code = %s, want %s", code, codeDigestInvalid)
	}
	for _, path := range []string{
		"/v2/app/blobs/uploads/?digest=sha512:" + strings.Repeat("0", 128),
		"/v2/app/blobs/uploads/?digest=md5:x",
		"/v2/app/blobs/uploads/?mount=nothing&from=other",
	} {
		a := s.want(http.StatusBadRequest, http.MethodPost, path, nil, nil)
		if code, text := a.fault(); code != codeDigestInvalid || !strings.Contains(text, "sha256") {
			t.Errorf("POST %s = %s %s, want %s that names sha256", path, code, text, codeDigestInvalid)
		}
	}
	s.want(http.StatusBadRequest, http.MethodPost, withDigest("/v2/app/blobs/uploads/", []byte("that")), []byte("this"), nil)
}

// TestPushResumes: an upload outlives the registry, with every byte that came.
func TestPushResumes(t *testing.T) {
	dir, b := t.TempDir(), content(5, 3<<20)
	s := serveDir(t, dir, openStore, Config{}, newRoom())
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	at := strings.TrimPrefix(s.location(begun), "http://"+s.addr)
	s.want(http.StatusAccepted, http.MethodPatch, at, b[:2<<20], chunked)
	s.stop()

	s = serveDir(t, dir, openStore, Config{}, newRoom())
	got := s.want(http.StatusNoContent, http.MethodGet, at, nil, nil)
	if r := got.Header.Get("Range"); r != "0-2097151" {
		t.Errorf("Range = %q, want 0-2097151", r)
	}
	s.want(http.StatusAccepted, http.MethodPatch, at, b[2<<20:], nil)
	s.want(http.StatusCreated, http.MethodPut, withDigest(at, b), nil, nil)
	s.has(b)
}

func TestPushCancel(t *testing.T) {
	s := serve(t, Config{})
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	at := s.location(begun)
	s.want(http.StatusAccepted, http.MethodPatch, at, []byte("some"), nil)
	s.want(http.StatusNoContent, http.MethodDelete, at, nil, nil)
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		a := s.want(http.StatusNotFound, method, at, []byte("x"), nil)
		if code, _ := a.fault(); code != codeUploadUnknown {
			t.Errorf("%s after DELETE = %s, want %s", method, code, codeUploadUnknown)
		}
	}
	for _, id := range []string{"Li4vLi4vZXRj", "AA", "%2e%2e"} { // "../../etc", NUL, ".."
		if a := s.do(http.MethodDelete, "/v2/app/blobs/uploads/"+id, nil, nil); a.StatusCode != http.StatusNotFound {
			t.Errorf("DELETE upload %s = %d, want 404", id, a.StatusCode)
		}
	}
	if usage, err := s.store.Usage(); err != nil || usage.Bytes != 0 {
		t.Errorf("Usage = %+v, %v, want none", usage, err)
	}
}

// TestPushTogether: many clients push one layer, and each is told that it is there.
func TestPushTogether(t *testing.T) {
	s := serve(t, Config{})
	layer := content(6, 2<<20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { s.push(layer) })
	}
	wg.Wait()
	s.has(layer)
	if usage, err := s.store.Usage(); err != nil || usage.Bytes != int64(len(layer)) {
		t.Errorf("Usage = %+v, %v, want %d bytes", usage, err, len(layer))
	}
}

// TestMount: of what is here it takes no bytes, from whatever repository; of what is not
// it becomes an upload.
func TestMount(t *testing.T) {
	s := serve(t, Config{})
	d := s.push([]byte("a layer"))
	for _, query := range []string{"?mount=" + d + "&from=app", "?mount=" + d} {
		a := s.want(http.StatusCreated, http.MethodPost, "/v2/other/blobs/uploads/"+query, nil, nil)
		if got := s.location(a); !strings.HasSuffix(got, "/v2/other/blobs/"+d) {
			t.Errorf("Location = %q", got)
		}
	}
	absent := []byte("absent")
	a := s.want(http.StatusAccepted, http.MethodPost, "/v2/other/blobs/uploads/?from=app&mount="+blobs.DigestOf(absent).String(), nil, nil)
	s.want(http.StatusCreated, http.MethodPut, withDigest(s.location(a), absent), absent, nil)
}

// TestUploadsBound: as many are written as may be; those that rest make room, and are
// resumed.
func TestUploadsBound(t *testing.T) {
	s := serve(t, Config{MaxUploads: 2})
	var at []string
	for i := range 4 {
		begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
		at = append(at, s.location(begun))
		s.want(http.StatusAccepted, http.MethodPatch, at[i], []byte{byte(i)}, nil)
	}
	if n := len(s.uploads.open); n != 2 {
		t.Errorf("%d uploads are open, want 2", n)
	}
	for i := range at {
		s.want(http.StatusCreated, http.MethodPut, withDigest(at[i], []byte{byte(i)}), nil, nil)
	}

	// Two that are being written leave no place for a third.
	busy := []*session{}
	for range 2 {
		one, err := s.uploads.begin()
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, one)
	}
	a := s.want(http.StatusTooManyRequests, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	if code, text := a.fault(); code != codeTooMany || !strings.Contains(text, "2 uploads are being written") {
		t.Errorf("third upload = %s %s", code, text)
	}
	if _, err := s.uploads.acquire(busy[0].up.ID()); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("acquire of what is written = %v, want ErrConflict", err)
	}
	for _, one := range busy {
		s.uploads.release(one)
	}
	s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
}

// TestUploadsRest: one that nobody writes is closed, and one without a byte removed.
func TestUploadsRest(t *testing.T) {
	s := serve(t, Config{})
	some := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	s.want(http.StatusAccepted, http.MethodPatch, s.location(some), []byte("some"), nil)
	none := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	if err := s.uploads.closeIdle(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if n := len(s.uploads.open); n != 0 {
		t.Errorf("%d uploads are open, want none", n)
	}
	s.want(http.StatusNotFound, http.MethodGet, s.location(none), nil, nil)
	s.want(http.StatusCreated, http.MethodPut, withDigest(s.location(some), []byte("some")), nil, nil)
}

// TestPushTooLarge: what is not taken leaves nothing behind, and docker, which does not try
// again after DENIED, shows why.
func TestPushTooLarge(t *testing.T) {
	for name, tt := range map[string]struct {
		limits blobs.Config
		cfg    Config
		text   string
	}{
		"a blob's bound": {openStore, Config{MaxBlob: 1000}, "blob is larger than 1000 bytes"},
		"the store":      {blobs.Config{Expire: time.Hour, Limit: 1000}, Config{}, "shoal image gc"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveDir(t, t.TempDir(), tt.limits, tt.cfg, newRoom())
			s.push(content(7, 900))
			large := content(8, 2000)
			check := func(a answered) {
				t.Helper()
				if code, text := a.fault(); a.StatusCode != http.StatusForbidden || code != codeDenied || !strings.Contains(text, tt.text) || strings.Contains(text, "\n") {
					t.Errorf("push = %d %s %q, want 403 %s with %q", a.StatusCode, code, text, codeDenied, tt.text)
				}
			}
			check(s.do(http.MethodPost, withDigest("/v2/app/blobs/uploads/", large), large, nil))
			for _, method := range []string{http.MethodPatch, http.MethodPut} {
				begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
				check(s.do(method, withDigest(s.location(begun), large), large, chunked))
				s.want(http.StatusNotFound, http.MethodGet, s.location(begun), nil, nil)
			}
			if usage, err := s.store.Usage(); err != nil || usage.Bytes != 900 {
				t.Errorf("Usage = %+v, %v, want 900 bytes", usage, err)
			}
		})
	}
}

// TestMakeRoom: a push that finds no room asks for some, and goes on where it was.
func TestMakeRoom(t *testing.T) {
	var s *served
	asked := 0
	cfg := Config{MakeRoom: func(_ context.Context, size int64) {
		asked++
		if _, err := s.store.Collect(blobs.Keep{MayLose: func(blobs.Digest) bool { return true }}, size); !errors.Is(err, shoal.ErrNoSpace) {
			t.Errorf("Collect = %v, want ErrNoSpace: %d bytes never fit", err, size)
		}
	}}
	s = serveDir(t, t.TempDir(), blobs.Config{Expire: time.Hour, Limit: 3 << 20}, cfg, newRoom())
	s.push(content(9, 2<<20))
	b := content(10, 5<<19)
	s.push(b)
	s.has(b)
	if asked != 1 {
		t.Errorf("asked for room %d times, want 1", asked)
	}
}

// TestPushBreaksOff: a client that is gone in the middle leaves nothing but the upload,
// which another life of the registry resumes.
func TestPushBreaksOff(t *testing.T) {
	dir, b := t.TempDir(), content(11, 2<<20)
	s := serveDir(t, dir, openStore, Config{}, newRoom())
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	at := strings.TrimPrefix(s.location(begun), "http://"+s.addr)
	s.want(http.StatusAccepted, http.MethodPatch, at, b[:1<<20], nil)
	body := io.MultiReader(bytes.NewReader(b[1<<20:3<<19]), iotest.ErrReader(errors.New("gone")))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, s.location(begun), body)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("PATCH = %d, want it cut", resp.StatusCode)
	}
	s.stop()

	s = serveDir(t, dir, openStore, Config{}, newRoom())
	got := s.want(http.StatusNoContent, http.MethodGet, at, nil, nil)
	var last int
	if _, err := fmt.Sscanf(got.Header.Get("Range"), "0-%d", &last); err != nil || last+1 < 1<<20 || last+1 > 3<<19 {
		t.Fatalf("Range = %q, %v, want 1 to 1.5 MiB", got.Header.Get("Range"), err)
	}
	s.want(http.StatusCreated, http.MethodPut, withDigest(at, b), b[last+1:], nil)
	s.has(b)
}
