// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"io"
	"net/http"
	"testing"

	"github.com/shoalnet/shoal/images/blobs"
)

// BenchmarkPull reads a blob over HTTP.
func BenchmarkPull(b *testing.B) {
	s := serve(b, Config{})
	layer := content(1, 64<<20)
	path := "/v2/app/blobs/" + s.push(layer)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		body := s.stream(b.Context(), path, "")
		if n, err := io.Copy(io.Discard, body); err != nil || n != int64(len(layer)) {
			b.Fatalf("read %d bytes, %v", n, err)
		}
		body.Close()
	}
}

// BenchmarkPush writes a blob as docker does, hashed twice and synced; then it is removed.
func BenchmarkPush(b *testing.B) {
	s := serve(b, Config{})
	layer := content(1, 64<<20)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
		s.want(http.StatusAccepted, http.MethodPatch, s.location(begun), layer, chunked)
		s.want(http.StatusCreated, http.MethodPut, withDigest(s.location(begun), layer), nil, nil)
		if err := s.store.Remove(blobs.DigestOf(layer)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHead is what a push asks first for every layer.
func BenchmarkHead(b *testing.B) {
	s := serve(b, Config{})
	path := "/v2/app/blobs/" + s.push([]byte("a layer"))
	for b.Loop() {
		s.want(http.StatusOK, http.MethodHead, path, nil, nil)
	}
}
