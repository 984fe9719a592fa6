// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"io"
	"testing"

	"github.com/shoalnet/shoal/images/swarm"
)

const benchChunks = 256

// BenchmarkWriteChunk writes 256 MiB in chunks: each verified, synced every 32, the whole
// hashed and renamed.
func BenchmarkWriteChunk(b *testing.B) {
	blob := content(1, benchChunks*swarm.ChunkBytes)
	list, d := chunkList(blob), DigestOf(blob)
	b.SetBytes(int64(len(blob)))
	for b.Loop() {
		s, _ := newStore(b, Config{})
		if _, err := s.Begin(d, int64(len(blob)), list); err != nil {
			b.Fatal(err)
		}
		for i := range list {
			if _, err := s.WriteChunk(d, (i*7)%len(list), chunk(blob, (i*7)%len(list))); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Remove(d); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpload writes 256 MiB as a stream.
func BenchmarkUpload(b *testing.B) {
	blob := content(1, benchChunks*swarm.ChunkBytes)
	b.SetBytes(int64(len(blob)))
	for b.Loop() {
		s, _ := newStore(b, Config{})
		if err := s.Remove(mustPut(b, s, blob)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads 256 MiB by chunk from the page cache.
func BenchmarkRead(b *testing.B) {
	blob := content(1, benchChunks*swarm.ChunkBytes)
	s, _ := newStore(b, Config{})
	d := mustPut(b, s, blob)
	r, err := s.Read(b.Context(), d)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, swarm.ChunkBytes)
	b.SetBytes(int64(len(blob)))
	for b.Loop() {
		for i := range benchChunks {
			if _, err := r.ReadAt(buf, int64(i)*swarm.ChunkBytes); err != nil && err != io.EOF { //nolint:errorlint // as it is returned
				b.Fatal(err)
			}
		}
	}
}
