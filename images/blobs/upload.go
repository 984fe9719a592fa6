// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

// upload is what the store knows of a stream that is being written.
type upload struct {
	// Guarded by the store's mu.
	size    int64
	isOpen  bool
	touched time.Duration

	mu sync.Mutex // guards f
	f  file
}

func (u *upload) close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.f == nil {
		return nil
	}
	f := u.f
	u.f = nil
	return f.Close()
}

// Upload writes one blob as a stream. It is for one goroutine. It ends with Commit,
// Cancel, or Close, after which [Store.Resume] goes on with it.
type Upload struct {
	s     *Store
	id    string
	u     *upload
	whole hash.Hash
	chunk hash.Hash // of the bytes since the last chunk's end
	list  []Digest
	size  int64
}

// Upload begins a stream whose digest is told at its end.
func (s *Store) Upload() (*Upload, error) {
	id := rand.Text()
	up, err := s.openUpload(id, &upload{touched: s.clock.Mono(), isOpen: true}, os.O_CREATE|os.O_EXCL)
	return up, wrap("begin upload", id, err)
}

// Resume opens an upload that was closed, or that an earlier life left; it reads what is
// there. shoal.ErrNotFound: there is none of this ID; it may have expired.
// shoal.ErrConflict: it is being written.
func (s *Store) Resume(id string) (*Upload, error) {
	s.mu.Lock()
	u := s.uploads[id]
	err := shoal.ErrNotFound
	switch {
	case s.closed:
		err = fs.ErrClosed
	case u != nil && u.isOpen:
		err = fmt.Errorf("%w: it is being written", shoal.ErrConflict)
	case u != nil:
		err, u.isOpen, u.touched = nil, true, s.clock.Mono()
	}
	s.mu.Unlock()
	if err != nil {
		return nil, wrap("resume upload", id, err)
	}
	up, err := s.openUpload(id, u, 0)
	if err == nil {
		err = up.reread()
	}
	if err != nil {
		return nil, wrap("resume upload", id, errors.Join(err, u.close(), s.idle(u)))
	}
	return up, nil
}

func (s *Store) openUpload(id string, u *upload, flag int) (*Upload, error) {
	f, err := s.fs.Open(s.uploadPath(id), flag|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	u.f = f
	u.mu.Unlock()
	s.mu.Lock()
	isClosed := s.closed
	if !isClosed {
		s.uploads[id] = u
	}
	s.mu.Unlock()
	if isClosed {
		return nil, errors.Join(fs.ErrClosed, u.close())
	}
	return &Upload{s: s, id: id, u: u, whole: sha256.New(), chunk: sha256.New()}, nil
}

func (s *Store) idle(u *upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.isOpen, u.touched = false, s.clock.Mono()
	return nil
}

func (up *Upload) reread() error {
	f, err := up.file()
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for up.size < up.u.size {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), up.u.size-up.size)], up.size)
		up.sum(buf[:n])
		if err != nil && up.size < up.u.size {
			return err
		}
	}
	return nil
}

func (up *Upload) file() (file, error) {
	up.u.mu.Lock()
	defer up.u.mu.Unlock()
	if up.u.f == nil {
		return nil, fs.ErrClosed
	}
	return up.u.f, nil
}

// sum hashes what is in the file from size on.
func (up *Upload) sum(b []byte) {
	up.whole.Write(b)
	for len(b) > 0 {
		n := int(min(int64(len(b)), swarm.ChunkBytes-up.size%swarm.ChunkBytes))
		up.chunk.Write(b[:n])
		up.size += int64(n)
		b = b[n:]
		if up.size%swarm.ChunkBytes == 0 {
			up.list = append(up.list, Digest(up.chunk.Sum(nil)))
			up.chunk.Reset()
		}
	}
}

// ID names the upload for Resume.
func (up *Upload) ID() string { return up.id }

// Size returns how many bytes were written.
func (up *Upload) Size() int64 { return up.size }

// Write implements io.Writer. shoal.ErrNoSpace: the bytes that it counts are written and
// the stream may go on from there once room was made.
func (up *Upload) Write(b []byte) (int, error) {
	limit, err := up.s.limit()
	if err != nil {
		return 0, err
	}
	f, err := up.file()
	if err != nil {
		return 0, wrap("write upload", up.id, err)
	}
	n := 0
	if err = up.s.free(int64(len(b))); err == nil {
		up.s.mu.Lock()
		err = up.s.promise(int64(len(b)), limit)
		up.s.mu.Unlock()
	}
	if err == nil {
		n, err = f.WriteAt(b, up.size)
		up.sum(b[:n])
		up.s.mu.Lock()
		if up.s.uploads[up.id] == up.u {
			up.s.used -= int64(len(b) - n)
			up.u.size, up.u.touched = up.size, up.s.clock.Mono()
		} else { // it expired meanwhile
			up.s.used -= int64(len(b))
			err = fs.ErrClosed
		}
		up.s.mu.Unlock()
	}
	return n, wrap("write upload", up.id, err)
}

// Close keeps what was written for Resume, until it expires. After Commit or Cancel it
// does nothing.
func (up *Upload) Close() error {
	return errors.Join(up.u.close(), up.s.idle(up.u))
}

// Cancel removes what was written.
func (up *Upload) Cancel() error {
	up.s.files.Lock()
	defer up.s.files.Unlock()
	return wrap("cancel upload", up.id, up.s.dropUpload(up.id, up.u))
}

// dropUpload removes an upload. The caller holds files.
func (s *Store) dropUpload(id string, u *upload) error {
	err := u.close()
	s.mu.Lock()
	known := s.uploads[id] == u
	if known {
		delete(s.uploads, id)
		s.used -= u.size
	}
	s.mu.Unlock()
	if !known {
		return nil
	}
	return errors.Join(err, s.removeFile(s.uploadPath(id)))
}

// Commit makes what was written the blob d: it is on disk when Commit returns. ErrMismatch:
// it has another digest, and was removed. After another error it is there, closed.
func (up *Upload) Commit(d Digest) error {
	if Digest(up.whole.Sum(nil)) != d {
		return wrap("commit upload", up.id, errors.Join(fmt.Errorf("%w: not %s", ErrMismatch, d), up.Cancel()))
	}
	f, err := up.file()
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = up.feed(f, d)
	}
	if err == nil {
		err = up.settle(d)
	}
	return wrap("commit upload", up.id, errors.Join(err, up.Close()))
}

// feed writes the chunks of a blob that is also arriving otherwise, so that its readers
// get them. If they do not fit its list is false.
func (up *Upload) feed(f file, d Digest) error {
	have, changed, err := up.s.Chunks(d)
	if err != nil || changed == nil {
		return nil // the usual case: it is not arriving
	}
	list := up.chunks()
	if _, err := up.s.Begin(d, up.size, list); err == nil {
		buf := make([]byte, min(up.size, swarm.ChunkBytes))
		for i := range list {
			chunk := buf[:chunkLen(up.size, i)]
			if have.Has(i) {
				continue
			}
			if _, err := f.ReadAt(chunk, int64(i)*swarm.ChunkBytes); err != nil {
				return err
			}
			if _, err := up.s.WriteChunk(d, i, chunk); err != nil && !errors.Is(err, ErrMismatch) {
				return err
			}
		}
		return nil
	}
	up.s.mu.Lock()
	e := up.s.blobs[d]
	up.s.mu.Unlock()
	if e == nil {
		return nil
	}
	return up.s.discard(e, ErrMismatch)
}

// chunks returns the hashes of the chunks, the last one included.
func (up *Upload) chunks() []Digest {
	list := slices.Clip(up.list)
	if up.size%swarm.ChunkBytes != 0 {
		list = append(list, Digest(up.chunk.Sum(nil)))
	}
	return list
}

func (up *Upload) settle(d Digest) error {
	s := up.s
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	e := s.blobs[d]
	isClosed := s.closed || s.uploads[up.id] != up.u
	s.mu.Unlock()
	switch {
	case isClosed:
		return fs.ErrClosed
	case e != nil && e.part == nil:
		return s.dropUpload(up.id, up.u)
	case e != nil: // it began this moment
		s.mu.Lock()
		s.forget(e, shoal.ErrNotFound)
		s.mu.Unlock()
		if err := s.unlink(e); err != nil {
			return err
		}
	}
	if err := s.replace(s.listPath(d), packDigests(up.size, up.chunks())); err != nil {
		return err
	}
	if err := s.settle(s.uploadPath(up.id), d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, up.id)
	e = &entry{digest: d, size: up.size, stamped: s.clock.Wall()}
	s.touch(e)
	s.blobs[d] = e
	s.tell()
	return nil
}

// Put stores a small blob, as a manifest is, and returns its digest.
func (s *Store) Put(content []byte) (Digest, error) {
	d := DigestOf(content)
	up, err := s.Upload()
	if err != nil {
		return d, err
	}
	if _, err := up.Write(content); err != nil {
		return d, errors.Join(err, up.Cancel())
	}
	return d, up.Commit(d)
}

// ChunkList returns the size of a blob and the hashes of its chunks, which other peers need
// to fetch it. They are kept with the blob; if they were lost it is read. shoal.ErrNotFound:
// there is no such blob, or it grows, and they are not known yet.
func (s *Store) ChunkList(d Digest) (int64, []Digest, error) {
	size, list, err := s.chunkList(d)
	return size, list, wrap("list chunks of blob", d, err)
}

func (s *Store) chunkList(d Digest) (int64, []Digest, error) {
	s.mu.Lock()
	e, err := s.lookup(d)
	if err != nil {
		s.mu.Unlock()
		return 0, nil, err
	}
	size := e.size
	if p := e.part; p != nil {
		defer s.mu.Unlock()
		s.touch(e)
		if p.grows {
			return 0, nil, fmt.Errorf("%w: its chunks are not known before it is whole", shoal.ErrNotFound)
		}
		return size, slices.Clone(p.list), nil
	}
	release := s.lease(e)
	s.mu.Unlock()
	defer release()
	if n, list, err := s.readList(d); err != nil || list != nil && n == size || size == 0 {
		return size, list, err
	}
	f, err := s.fs.Open(s.blobPath(d), os.O_RDONLY)
	if err != nil {
		return 0, nil, err
	}
	list, err := hashChunks(f, size)
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, nil, err
	}
	s.files.Lock()
	defer s.files.Unlock()
	return size, list, s.replace(s.listPath(d), packDigests(size, list))
}

func hashChunks(f io.ReaderAt, size int64) ([]Digest, error) {
	list := make([]Digest, chunksOf(size))
	buf := make([]byte, min(size, swarm.ChunkBytes))
	for i := range list {
		chunk := buf[:chunkLen(size, i)]
		if _, err := f.ReadAt(chunk, int64(i)*swarm.ChunkBytes); err != nil {
			return nil, err
		}
		list[i] = DigestOf(chunk)
	}
	return list, nil
}

// loadUploads finds the uploads that an earlier life left.
func (s *Store) loadUploads() error {
	infos, err := s.fs.List(filepath.Join(s.dir, uploadDir))
	for _, info := range infos {
		s.uploads[info.Name()] = &upload{size: info.Size(), touched: s.clock.Mono()}
		s.used += info.Size()
	}
	return err
}
