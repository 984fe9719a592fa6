// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

// ErrMismatch says that a chunk is not what the list says, or a blob not what its digest says.
var ErrMismatch = errors.New("content does not have its digest")

// Store is a directory of blobs. It is safe for concurrent use. Its methods return
// shoal.ErrNotFound for a blob that is not there, and fs.ErrClosed after Close.
type Store struct {
	dir   string
	cfg   Config
	clock shoal.Clock
	fs    disk

	// files orders what makes, renames and removes files, and is held meanwhile; it is
	// taken before mu. No blob's data is read, written or synced under it.
	files sync.Mutex

	mu      sync.Mutex // guards what follows, and what entries and parts say
	blobs   map[Digest]*entry
	refs    map[Digest][]Digest
	uploads map[string]*upload
	used    int64         // bytes promised to blobs and uploads
	turn    uint64        // counts uses
	changed chan struct{} // closed when a blob became whole or went
	closed  bool
}

// entry is one blob.
type entry struct {
	digest  Digest
	size    int64
	part    *part // nil: complete
	leases  int
	turn    uint64        // of the last use: the order of removal
	touched time.Duration // when that was, or when the store was opened
	stamped time.Time     // the same as the file says it, roughly; complete blobs only
}

// stampEvery is how stale a blob's file may be about its last use.
const stampEvery = time.Minute

// Info is what is known about a blob.
type Info struct {
	Digest   Digest
	Size     int64
	Have     int64 // bytes here
	Complete bool
	Grows    bool // the hashes of its chunks are not known before it is complete
	Leases   int
	Refs     []Digest // what the caller said that it refers to
}

// Usage is the room that blobs and uploads take.
type Usage struct {
	Bytes int64 // partial blobs at their full size
	Limit int64 // 0: none
	Blobs int
}

func (s *Store) lookup(d Digest) (*entry, error) {
	if s.closed {
		return nil, fs.ErrClosed
	}
	if e := s.blobs[d]; e != nil {
		return e, nil
	}
	return nil, shoal.ErrNotFound
}

func (s *Store) touch(e *entry) {
	s.turn++
	e.turn, e.touched = s.turn, s.clock.Mono()
}

func (s *Store) info(e *entry) Info {
	i := Info{Digest: e.digest, Size: e.size, Have: e.size, Complete: e.part == nil, Leases: e.leases, Refs: slices.Clone(s.refs[e.digest])}
	if e.part != nil {
		i.Have, i.Grows = 0, e.part.grows
		for c := range e.part.list {
			if e.part.have.Has(c) {
				i.Have += int64(chunkLen(e.size, c))
			}
		}
	}
	return i
}

// Stat returns what is known about a blob, whole or partial. It does not count as a use.
func (s *Store) Stat(d Digest) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.lookup(d)
	if err != nil {
		return Info{}, wrap("stat blob", d, err)
	}
	return s.info(e), nil
}

// List returns all blobs, sorted by digest.
func (s *Store) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Info, 0, len(s.blobs))
	for _, e := range s.blobs {
		out = append(out, s.info(e))
	}
	slices.SortFunc(out, func(a, b Info) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return out
}

// Changed returns a channel that is closed when the next blob becomes whole, or is removed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// tell closes the channel of Changed. The caller holds mu.
func (s *Store) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Usage returns the room that is taken.
func (s *Store) Usage() (Usage, error) {
	limit, err := s.limit()
	if err != nil {
		return Usage{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{Bytes: s.used, Limit: limit, Blobs: len(s.blobs)}, nil
}

// Disk returns how large the disk is that the store is on, in bytes.
func (s *Store) Disk() (int64, error) {
	_, total, err := s.fs.Room(s.dir)
	return total, wrap("measure disk of", s.dir, err)
}

// limit returns the bytes that blobs may take, 0 for no limit.
func (s *Store) limit() (int64, error) {
	limit := s.cfg.Limit
	if s.cfg.Share > 0 {
		_, total, err := s.fs.Room(s.dir)
		if err != nil {
			return 0, wrap("measure disk of", s.dir, err)
		}
		if share := max(1, int64(s.cfg.Share*float64(total))); limit == 0 || share < limit {
			limit = share
		}
	}
	return limit, nil
}

// promise takes n bytes of the limit. The caller holds mu.
func (s *Store) promise(n, limit int64) error {
	if limit > 0 && n > limit-s.used {
		return noSpace(fmt.Errorf("blobs take %d of %d bytes and %d more are asked for", s.used, limit, n))
	}
	s.used += n
	return nil
}

// free fails if less than n bytes, what partial blobs lack, and the reserve are free on
// the disk.
func (s *Store) free(n int64) error {
	s.mu.Lock()
	owed := int64(0)
	for _, e := range s.blobs {
		if e.part != nil {
			owed += min(e.size, int64(e.part.missing)*swarm.ChunkBytes)
		}
	}
	s.mu.Unlock()
	room, total, err := s.fs.Room(s.dir)
	if err != nil {
		return err
	}
	reserve := s.cfg.Reserve
	if s.cfg.ReserveShare > 0 {
		reserve = min(reserve, int64(s.cfg.ReserveShare*float64(total)))
	}
	if n > room-reserve-owed {
		return noSpace(fmt.Errorf("%d bytes are free under %s, %d of them kept in reserve and %d for blobs that arrive, and %d are asked for",
			room, s.dir, reserve, owed, n))
	}
	return nil
}

// Lease keeps a blob, whole or partial, from being removed until release is called, and
// counts as a use at both ends. release may be called twice.
func (s *Store) Lease(d Digest) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.lookup(d)
	if err != nil {
		return nil, wrap("lease blob", d, err)
	}
	return s.lease(e), nil
}

func (s *Store) lease(e *entry) func() {
	e.leases++
	s.touch(e)
	return sync.OnceFunc(func() { s.release(e) })
}

func (s *Store) release(e *entry) {
	s.mu.Lock()
	e.leases--
	s.touch(e)
	now := s.clock.Wall()
	stale := e.part == nil && s.blobs[e.digest] == e && now.Sub(e.stamped).Abs() >= stampEvery
	if stale {
		e.stamped = now
	}
	s.mu.Unlock()
	if stale {
		_ = s.fs.Stamp(s.blobPath(e.digest), now) // only the order of removal after a restart depends on it
	}
}

// SetRefs says what a complete blob, a manifest or an index, refers to; that is kept on
// disk. What is referred to need not be here. No refs: it refers to nothing.
func (s *Store) SetRefs(d Digest, refs []Digest) error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	e, err := s.lookup(d)
	if err == nil && e.part != nil {
		err = fmt.Errorf("%w: it is not complete", shoal.ErrNotFound)
	}
	s.mu.Unlock()
	if err == nil {
		err = s.writeRefs(d, refs)
	}
	if err != nil {
		return wrap("set references of blob", d, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(refs) == 0 {
		delete(s.refs, d)
	} else {
		s.refs[d] = slices.Clone(refs)
	}
	return nil
}

func (s *Store) writeRefs(d Digest, refs []Digest) error {
	if len(refs) == 0 {
		return s.removeFile(s.refsPath(d))
	}
	return s.replace(s.refsPath(d), packDigests(int64(len(refs)), refs))
}

// Remove removes a blob, whole or partial, and its references. shoal.ErrConflict: it is
// leased.
func (s *Store) Remove(d Digest) error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	e, err := s.lookup(d)
	if err == nil && e.leases > 0 {
		err = fmt.Errorf("%w: it is in use", shoal.ErrConflict)
	}
	if err == nil {
		s.forget(e, shoal.ErrNotFound)
	}
	s.mu.Unlock()
	if err == nil {
		err = s.unlink(e)
	}
	return wrap("remove blob", d, err)
}

// forget takes a blob out of the books; who waits for its chunks gets why. The caller
// holds files and mu, and calls unlink after it let go of mu.
func (s *Store) forget(e *entry, why error) {
	delete(s.blobs, e.digest)
	delete(s.refs, e.digest)
	s.used -= e.size
	if e.part != nil {
		e.part.finish(why)
		return
	}
	s.tell()
}

// unlink removes the files of a blob that was forgotten. The caller holds files.
func (s *Store) unlink(e *entry) error {
	err := s.removeFile(s.refsPath(e.digest))
	if e.part == nil {
		err = errors.Join(err, s.removeFile(s.blobPath(e.digest)))
	} else {
		err = errors.Join(err, e.part.close(), s.removeFile(s.dataPath(e.digest)), s.removeFile(s.logPath(e.digest)))
	}
	return errors.Join(err, s.removeFile(s.listPath(e.digest)))
}

func (s *Store) removeFile(path string) error {
	if err := s.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Close lets go of the directory. Readers and uploads that are open fail from then on;
// what they wrote stays. It may be called twice.
func (s *Store) Close() error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var parts []*part
	for _, e := range s.blobs {
		if e.part != nil {
			e.part.finish(fs.ErrClosed)
			parts = append(parts, e.part)
		}
	}
	var open []*upload
	for _, u := range s.uploads {
		open = append(open, u)
	}
	s.mu.Unlock()
	var err error
	for _, p := range parts {
		err = errors.Join(err, p.close())
	}
	for _, u := range open {
		err = errors.Join(err, u.close())
	}
	return err
}

// chunkLen returns the length of chunk i of a blob of size bytes.
func chunkLen(size int64, i int) int {
	return int(min(swarm.ChunkBytes, size-int64(i)*swarm.ChunkBytes))
}

// chunksOf returns how many chunks a blob has.
func chunksOf(size int64) int64 { return (size + swarm.ChunkBytes - 1) / swarm.ChunkBytes }

func (s *Store) blobPath(d Digest) string {
	return filepath.Join(s.dir, blobDir, d.hex()[:2], d.hex())
}
func (s *Store) dataPath(d Digest) string    { return filepath.Join(s.dir, partDir, d.hex()+".data") }
func (s *Store) logPath(d Digest) string     { return filepath.Join(s.dir, partDir, d.hex()+".log") }
func (s *Store) listPath(d Digest) string    { return filepath.Join(s.dir, listDir, d.hex()) }
func (s *Store) refsPath(d Digest) string    { return filepath.Join(s.dir, refsDir, d.hex()) }
func (s *Store) uploadPath(id string) string { return filepath.Join(s.dir, uploadDir, id) }

// byTurn orders by last use, the oldest first.
func byTurn(a, b *entry) int { return cmp.Compare(a.turn, b.turn) }
