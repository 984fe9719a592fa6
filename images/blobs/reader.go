// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"context"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/shoalnet/shoal/images/swarm"
)

// Reader reads one blob, whole or still arriving. It is safe for concurrent use and keeps
// the blob from being removed until it is closed.
type Reader struct {
	s       *Store
	ctx     context.Context // of the request that it serves, as io.ReaderAt takes none
	e       *entry
	release func()

	mu    sync.Mutex // guards what follows
	f     file
	isEnd bool
}

// Read opens a blob for reading. ctx bounds the waits of the whole Reader, which has to be
// closed. shoal.ErrNotFound: the blob is neither here nor was it begun.
func (s *Store) Read(ctx context.Context, d Digest) (*Reader, error) {
	s.files.Lock() // so that it is not renamed between a look at the books and the open
	defer s.files.Unlock()
	s.mu.Lock()
	e, err := s.lookup(d)
	if err != nil {
		s.mu.Unlock()
		return nil, wrap("read blob", d, err)
	}
	release, path := s.lease(e), s.dataPath(d)
	if e.part == nil {
		path = s.blobPath(d)
	}
	s.mu.Unlock()
	f, err := s.fs.Open(path, os.O_RDONLY)
	if err != nil {
		release()
		return nil, wrap("read blob", d, err)
	}
	return &Reader{s: s, ctx: ctx, e: e, release: release, f: f}, nil
}

// Size returns the blob's length in bytes.
func (r *Reader) Size() int64 { return r.e.size }

// ReadAt implements io.ReaderAt. It waits for chunks that are not here yet, until the
// Reader's context ends; then it returns that error and what it has. ErrMismatch,
// shoal.ErrNotFound: the partial blob was found false, or removed.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n := 0
	for n < len(p) && off < r.e.size {
		end := min((off/swarm.ChunkBytes+1)*swarm.ChunkBytes, r.e.size)
		part := p[n:min(int64(len(p)), int64(n)+end-off)]
		f, err := r.await(int(off / swarm.ChunkBytes))
		got := 0
		if err == nil {
			got, err = f.ReadAt(part, off)
		}
		n, off = n+got, off+int64(got)
		if got < len(part) {
			return n, wrap("read blob", r.e.digest, err)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Stream returns a reader of length bytes from off, all that follows if length is
// negative. It ends with the Reader.
func (r *Reader) Stream(off, length int64) io.Reader {
	if length < 0 || length > r.e.size-off {
		length = r.e.size - off
	}
	return io.NewSectionReader(r, off, length)
}

// Close ends the Reader; reads that wait are woken when their chunk comes or their context
// ends.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isEnd {
		return nil
	}
	r.isEnd = true
	r.release()
	return r.f.Close()
}

// await returns the file once chunk i is in it. A blob keeps its file when it becomes whole.
func (r *Reader) await(i int) (file, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		r.s.mu.Lock()
		p := r.e.part
		if p == nil {
			r.s.mu.Unlock()
			return r.file()
		}
		has, end, changed := p.have.Has(i), p.end, p.changed
		r.s.mu.Unlock()
		switch {
		case end != nil:
			return nil, end
		case has:
			return r.file()
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
		}
	}
}

func (r *Reader) file() (file, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isEnd {
		return nil, fs.ErrClosed
	}
	return r.f, nil
}
