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
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
)

func TestRange(t *testing.T) {
	s := serve(t, Config{})
	b := content(1, 2048)
	path := "/v2/app/blobs/" + s.push(b)
	for _, tt := range []struct {
		in     string
		status int
		out    string // Content-Range
		body   []byte
	}{
		{"bytes=0-0", 206, "bytes 0-0/2048", b[:1]},
		{"bytes=500-1499", 206, "bytes 500-1499/2048", b[500:1500]},
		{"bytes=500-", 206, "bytes 500-2047/2048", b[500:]},
		{"bytes=-500", 206, "bytes 1548-2047/2048", b[1548:]},
		{"bytes=-5000", 206, "bytes 0-2047/2048", b},
		{"bytes=2000-5000", 206, "bytes 2000-2047/2048", b[2000:]},
		{"bytes=2048-", 416, "bytes */2048", nil},
		{"bytes=500-0", 416, "bytes */2048", nil},
		{"bytes=-0", 416, "bytes */2048", nil},
		{"bytes=0-1,5-6", 200, "", b},
		{"rows=0-1", 200, "", b},
		{"", 200, "", b},
	} {
		a := s.want(tt.status, http.MethodGet, path, nil, header("Range", tt.in))
		if got := a.Header.Get("Content-Range"); got != tt.out {
			t.Errorf("%s: Content-Range = %q, want %q", tt.in, got, tt.out)
		}
		if tt.body != nil && (!bytes.Equal(a.body, tt.body) || a.ContentLength != int64(len(tt.body))) {
			t.Errorf("%s: %d other bytes, want %d", tt.in, len(a.body), len(tt.body))
		}
		if a.Header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%s: Accept-Ranges = %q", tt.in, a.Header.Get("Accept-Ranges"))
		}
	}
	a := s.want(http.StatusOK, http.MethodGet, path, nil, func(req *http.Request) {
		req.Header.Set("Range", "bytes=0-1")
		req.Header.Set("If-Range", `"x"`)
	})
	if !bytes.Equal(a.body, b) {
		t.Errorf("If-Range: %d bytes, want all", len(a.body))
	}
	s.want(http.StatusNotFound, http.MethodGet, "/v2/app/blobs/"+blobs.DigestOf(nil).String(), nil, header("Range", "bytes=-1"))
}

// TestPullArriving: what is asked for comes to the store, the answer begins before it is
// whole, HEAD says its size at once, and a range waits for its own chunks only.
func TestPullArriving(t *testing.T) {
	s := serve(t, Config{})
	b := content(2, 2*swarm.ChunkBytes+5)
	d := blobs.DigestOf(b)
	var put func(int)
	s.room.need = func(_ context.Context, asked blobs.Digest, _ int64) error {
		if asked == d && put == nil {
			put = s.arrive(b)
		}
		return nil
	}
	path := "/v2/app/blobs/" + d.String()
	if a := s.want(http.StatusOK, http.MethodHead, path, nil, nil); a.ContentLength != int64(len(b)) {
		t.Errorf("HEAD: Content-Length = %d, want %d", a.ContentLength, len(b))
	}
	put(2)
	tail := s.want(http.StatusPartialContent, http.MethodGet, path, nil, header("Range", "bytes=-5"))
	if !bytes.Equal(tail.body, b[len(b)-5:]) {
		t.Errorf("range of what is here = %d other bytes", len(tail.body))
	}

	put(0)
	body := s.stream(t.Context(), path, "")
	defer body.Close()
	first := make([]byte, swarm.ChunkBytes)
	if _, err := io.ReadFull(body, first); err != nil || !bytes.Equal(first, b[:swarm.ChunkBytes]) {
		t.Fatalf("first chunk of an arriving blob = %v", err)
	}
	put(1)
	rest, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(rest, b[swarm.ChunkBytes:]) {
		t.Errorf("the rest = %d bytes, %v", len(rest), err)
	}
	s.room.mu.Lock()
	n := len(s.room.needed)
	s.room.mu.Unlock()
	s.has(b)
	if len(s.room.needed) != n {
		t.Errorf("a blob that is whole was asked for")
	}
}

// TestPullGone: who waits for a blob and goes leaves nothing: no lease, no goroutine (see
// TestMain). One that the registry leaves behind is told by a cut connection.
func TestPullGone(t *testing.T) {
	s := serve(t, Config{})
	b := content(3, 2*swarm.ChunkBytes)
	d := blobs.DigestOf(b)
	put := s.arrive(b)
	put(0)
	s.room.need = func(context.Context, blobs.Digest, int64) error { return nil }
	path := "/v2/app/blobs/" + d.String()

	ctx, cancel := context.WithCancel(t.Context())
	body := s.stream(ctx, path, "")
	if _, err := io.ReadFull(body, make([]byte, swarm.ChunkBytes)); err != nil {
		t.Fatal(err)
	}
	cancel()
	body.Close()

	body = s.stream(t.Context(), path, "")
	defer body.Close()
	if err := s.store.Remove(d); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Remove while it is read = %v, want ErrConflict", err)
	}
	go s.stop()
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("read while the registry ends = %d bytes and no error", n)
	}
	s.stop()
}

func TestPullErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{fmt.Errorf("blob: %w", shoal.ErrNotFound), 404, codeBlobUnknown},
		{fmt.Errorf("blob: %w", shoal.ErrNoSpace), 403, codeDenied},
		{fmt.Errorf("blob: %w", shoal.ErrRefused), 403, codeDenied},
		{fmt.Errorf("blob: %w", shoal.ErrUnreachable), 503, codeUnavailable},
		{fmt.Errorf("blob: %w", shoal.ErrNotMember), 403, codeDenied},
		{errors.Join(errors.New("one"), errors.New("two")), 500, codeUnknown},
	} {
		s := serve(t, Config{})
		s.room.need = func(context.Context, blobs.Digest, int64) error { return tt.err }
		a := s.want(tt.status, http.MethodGet, "/v2/app/blobs/"+blobs.DigestOf(nil).String(), nil, nil)
		if code, text := a.fault(); code != tt.code || !strings.Contains(text, strings.Split(tt.err.Error(), "\n")[0]) {
			t.Errorf("%v = %s %q, want %s", tt.err, code, text, tt.code)
		}
	}
}

// TestPaths: what no path of the specification is, or names nothing that can be.
func TestPaths(t *testing.T) {
	s := serve(t, Config{})
	none := strings.Repeat("0", 64)
	for _, tt := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/", 404, codeNameUnknown},
		{"GET", "/v3/", 404, codeNameUnknown},
		{"GET", "/v2/app", 404, codeUnknown},
		{"GET", "/v2/App/tags/list", 400, codeNameInvalid},
		{"GET", "/v2/../tags/list", 400, codeNameInvalid},
		{"GET", "/v2/a//b/tags/list", 400, codeNameInvalid},
		{"GET", "/v2/" + strings.Repeat("a", 256) + "/tags/list", 400, codeNameInvalid},
		{"GET", "/v2/app/blobs/sha256:" + none[1:], 400, codeDigestInvalid},
		{"GET", "/v2/app/blobs/sha256:" + strings.ToUpper("a"+none[1:]), 400, codeDigestInvalid},
		{"GET", "/v2/app/blobs/sha512:" + none + none, 400, codeDigestInvalid},
		{"GET", "/v2/app/blobs/" + none, 400, codeDigestInvalid},
		{"GET", "/v2/app/manifests/sha512:" + none + none, 400, codeDigestInvalid},
		{"GET", "/v2/app/manifests/.x", 404, codeUnknown},
		{"GET", "/v2/app/manifests/v1", 404, codeManifestUnknown},
		{"GET", "/v2/app/manifests/sha256:" + none, 404, codeManifestUnknown},
		{"GET", "/v2/app/referrers/x", 400, codeDigestInvalid},
		{"GET", "/v2/app/tags/list", 404, codeNameUnknown},
		{"PUT", "/v2/app/tags/list", 405, codeUnknown},
		{"PUT", "/v2/app/blobs/sha256:" + none, 405, codeUnknown},
		{"GET", "/v2/app/blobs/uploads/", 405, codeUnknown},
		{"DELETE", "/v2/_catalog", 405, codeUnknown},
		{"PUT", "/v2/app/blobs/uploads/AA", 400, codeDigestInvalid},
	} {
		a := s.want(tt.status, tt.method, tt.path, nil, nil)
		if code, text := a.fault(); code != tt.code || text == "" {
			t.Errorf("%s %s = %s %q, want %s", tt.method, tt.path, code, text, tt.code)
		}
		if a.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
			t.Errorf("%s %s: has no version of the API", tt.method, tt.path)
		}
	}
}

// stream begins a GET and returns its body.
func (s *served) stream(ctx context.Context, path, ranged string) io.ReadCloser {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode >= 300 {
		s.t.Fatalf("GET %s = %d", path, resp.StatusCode)
	}
	return resp.Body
}
