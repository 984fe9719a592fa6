// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"hash"
	"io"
	"sync"

	"github.com/shoalnet/shoal/images/swarm"
)

// catchUp is how many chunks that came out of turn one write reads back and hashes: about
// 3 ms, so that no writer pays for all that waited for its chunk.
const catchUp = 4

// running is the SHA-256 of a partial blob's first chunks. It follows the chunks while they
// come, as far as there is no gap, so that at the end only the rest is read. It lives in
// memory only: after a restart it begins anew, from what is in the file.
type running struct {
	mu   sync.Mutex // guards what follows; it is held while a chunk is read and hashed
	sum  hash.Hash
	next int // how many chunks are in it
}

// follow adds chunk i, which is verified and in the file, if it is its turn, and a few after
// it that are here. If another call is at it, it leaves all that to that one and to the end.
func (s *Store) follow(e *entry, p *part, i int, chunk []byte) {
	r := &p.running
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if i == r.next {
		r.add(chunk)
	}
	for range catchUp {
		if !s.has(p, r.next) || r.read(p.data, e.size) != nil {
			return // the end reads it again, and says what is wrong
		}
	}
}

// has reports whether chunk i of a partial blob is here.
func (s *Store) has(p *part, i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return i < p.have.Len() && p.have.Has(i)
}

// digest returns the SHA-256 of all size bytes once they are in f; it waits for who is at it.
func (r *running) digest(f file, size int64) (Digest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for int64(r.next) < chunksOf(size) {
		if err := r.read(f, size); err != nil {
			return Digest{}, err
		}
	}
	return Digest(r.sum.Sum(nil)), nil
}

// add hashes the next chunk. The caller holds mu.
func (r *running) add(chunk []byte) {
	r.sum.Write(chunk)
	r.next++
}

// read hashes the next chunk as it is in the file. The caller holds mu.
func (r *running) read(f file, size int64) error {
	buf := readBuffers.Get().(*[swarm.ChunkBytes]byte)
	defer readBuffers.Put(buf)
	chunk := buf[:chunkLen(size, r.next)]
	if n, err := f.ReadAt(chunk, int64(r.next)*swarm.ChunkBytes); n < len(chunk) {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	r.add(chunk)
	return nil
}

var readBuffers = sync.Pool{New: func() any { return new([swarm.ChunkBytes]byte) }}
