// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

// maxChunks is what the scheduler takes: a blob of 1 TiB.
const maxChunks = 1 << 20

// errWhole ends a partial blob that is complete now; errLost one whose data the disk took
// and could not write.
var (
	errWhole = errors.New("blob is complete")
	errLost  = errors.New("the disk lost data")
)

// part is what an entry knows of a blob that is still arriving.
type part struct {
	// Guarded by the store's mu.
	list    []Digest // while it grows: of the chunks that are here
	grows   bool     // nobody told the list
	have    swarm.Bitmap
	missing int
	end     error         // why nothing more will come; nil while it may
	changed chan struct{} // closed at the next chunk, or at the end

	// Set by Begin under the store's mu, before anything is written.
	data, log file

	running running

	// growing makes writers of a part that grows take turns, for two may bring the same
	// chunk with other content, and keeps them out while a list is adopted. It is held
	// while a chunk is written, and taken before the store's mu and after files.
	growing sync.Mutex

	logMu    sync.Mutex // guards the journal's end
	records  int
	unsynced int
}

func newPart(list []Digest, have swarm.Bitmap) *part {
	p := &part{
		list: list, have: have, missing: len(list) - have.Count(), changed: make(chan struct{}),
		running: running{sum: sha256.New()},
	}
	if n := have.Count(); n > 0 {
		p.records = n + 1 // as journal writes it
	}
	return p
}

// wake tells who waits that something changed. The caller holds the store's mu.
func (p *part) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *part) finish(why error) {
	if p.end == nil {
		p.end = why
		p.wake()
	}
}

func (p *part) close() error {
	if p.data == nil {
		return nil
	}
	return errors.Join(p.data.Close(), p.log.Close())
}

// Begin prepares for the chunks of a blob of size bytes whose hashes are in list, takes its
// room, and returns which chunks are here already: those of an earlier life, all if it is
// complete. Called twice it is cheap. A list of an earlier Begin is kept on disk: another
// one is shoal.ErrConflict until the partial blob was removed. One that grows goes by the
// list from now on, or it is shoal.ErrConflict if a chunk that is here is not what the list
// says. shoal.ErrNoSpace: the limit or the disk does not allow it; nothing was taken.
// *shoal.InvalidError: size and list do not fit each other. ErrMismatch: all chunks were
// here and are not the blob, or it is empty and the digest is not; they were removed.
func (s *Store) Begin(d Digest, size int64, list []Digest) (swarm.Bitmap, error) {
	if size < 0 || size > maxChunks*swarm.ChunkBytes || chunksOf(size) != int64(len(list)) {
		return swarm.Bitmap{}, &shoal.InvalidError{Field: "chunks", Why: fmt.Sprintf("are %d for a blob of %d bytes", len(list), size)}
	}
	have, err := s.begin(d, size, list, false)
	if err == nil && have.Full() {
		err = s.complete(d)
	}
	if err != nil {
		return swarm.Bitmap{}, wrap("begin blob", d, err)
	}
	return have, nil
}

// begin makes a partial blob, or finds it. grows: list says only how many chunks there are.
func (s *Store) begin(d Digest, size int64, list []Digest, grows bool) (swarm.Bitmap, error) {
	limit, err := s.limit()
	if err != nil {
		return swarm.Bitmap{}, err
	}
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	e, err := s.lookup(d)
	if errors.Is(err, shoal.ErrNotFound) {
		if err = s.promise(size, limit); err == nil {
			s.mu.Unlock()
			return s.makePart(d, size, list, grows)
		}
	}
	defer s.mu.Unlock()
	switch {
	case err != nil:
		return swarm.Bitmap{}, err
	case e.size != size:
		return swarm.Bitmap{}, fmt.Errorf("%w: it is known with %d bytes, not %d", shoal.ErrConflict, e.size, size)
	case e.part == nil:
		full := swarm.NewBitmap(len(list))
		for i := range list {
			full.Set(i)
		}
		s.touch(e)
		return full, nil
	case !grows && e.part.grows:
		if err := s.adopt(e, list); err != nil {
			return swarm.Bitmap{}, err
		}
	case !grows && !slices.Equal(e.part.list, list):
		return swarm.Bitmap{}, fmt.Errorf("%w: it is arriving by another chunk list", shoal.ErrConflict)
	}
	s.touch(e)
	have := e.part.have.Clone()
	if e.part.data == nil {
		return have, s.reopen(e.part, d)
	}
	return have, nil
}

// reopen opens the files of a blob of an earlier life. The caller holds files, and mu,
// which is let go of meanwhile.
func (s *Store) reopen(p *part, d Digest) error {
	s.mu.Unlock()
	data, log, err := s.openPart(d)
	s.mu.Lock()
	p.data, p.log = data, log
	return err
}

// makePart makes the files of a new partial blob: first the list, without which the data
// is nothing to the next life; one that grows has none. The caller holds files, and took
// the room, which is given back on failure.
func (s *Store) makePart(d Digest, size int64, list []Digest, grows bool) (swarm.Bitmap, error) {
	have := swarm.NewBitmap(len(list))
	e := &entry{digest: d, size: size, part: newPart(slices.Clone(list), have)}
	e.part.grows = grows
	err := s.free(size)
	switch {
	case err != nil:
	case grows:
		err = s.removeFile(s.listPath(d)) // of another life, if it could not be removed then
	default:
		err = s.replace(s.listPath(d), packDigests(size, list))
	}
	if err == nil {
		e.part.data, e.part.log, err = s.openPart(d)
	}
	if err == nil {
		err = e.part.data.Truncate(size)
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Join(s.dir, partDir))
	}
	s.mu.Lock()
	if err == nil && s.closed {
		err = fs.ErrClosed
	}
	if err != nil {
		s.used -= size
		s.mu.Unlock()
		_ = s.unlink(e) // what is left is removed at the next opening
		return swarm.Bitmap{}, err
	}
	defer s.mu.Unlock()
	s.touch(e)
	s.blobs[d] = e
	return have.Clone(), nil
}

func (s *Store) openPart(d Digest) (data, log file, err error) {
	data, err = s.fs.Open(s.dataPath(d), os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, nil, err
	}
	log, err = s.fs.Open(s.logPath(d), os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, nil, errors.Join(err, data.Close())
	}
	return data, log, nil
}

// WriteChunk verifies a chunk of a blob that was begun and writes it; it can be read from
// then on. A chunk of a blob that grows is taken as it is. done: it was the last one, and
// the blob is complete, hashed and on disk. Called again for a chunk that is here it does
// nothing. ErrMismatch: the chunk is not what the list says, nothing was written; or, if
// [Store.Stat] does not find the blob any more, the list was false, or a chunk of one that
// grew, and all of it was removed. shoal.ErrNoSpace: what is here stays, unless the disk
// took data and lost it. After another error of the last chunk Begin tries again.
func (s *Store) WriteChunk(d Digest, i int, chunk []byte) (done bool, err error) {
	s.mu.Lock()
	e, err := s.lookup(d)
	if err == nil && e.part == nil {
		s.mu.Unlock()
		return true, nil
	}
	if err == nil {
		err = e.wants(i, len(chunk))
	}
	var p *part
	here := false
	if err == nil {
		p = e.part
		here = p.have.Has(i)
	}
	s.mu.Unlock()
	if err == nil && !here {
		done, err = s.writeChunk(e, p, i, chunk)
	}
	if err != nil {
		return false, wrap(fmt.Sprintf("write chunk %d of blob", i), d, err)
	}
	return done, nil
}

func (e *entry) wants(i, n int) error {
	switch {
	case e.part.data == nil:
		return fmt.Errorf("%w: it was not begun", shoal.ErrNotFound)
	case i < 0 || i >= len(e.part.list):
		return &shoal.InvalidError{Field: "chunk", Why: fmt.Sprintf("must be 0-%d, got %d", len(e.part.list)-1, i)}
	case n != chunkLen(e.size, i):
		return &shoal.InvalidError{Field: "chunk", Why: fmt.Sprintf("must have %d bytes, has %d", chunkLen(e.size, i), n)}
	}
	return nil
}

func (s *Store) writeChunk(e *entry, p *part, i int, chunk []byte) (done bool, err error) {
	here, last, err := s.take(e, p, i, chunk)
	switch {
	case errors.Is(err, errWhole):
		return true, nil
	case err != nil || here:
		return false, err
	}
	s.follow(e, p, i, chunk)
	if last {
		err = s.complete(e.digest)
		return err == nil, err
	}
	if err := p.prove(e.digest); err != nil {
		// The kernel forgets that it could not write: this file cannot be trusted again.
		return false, errors.Join(err, s.discard(e, err))
	}
	return false, nil
}

// take verifies a chunk, by the list or not at all if the part grows, and writes it. here:
// it came otherwise meanwhile. last: now all are here. The error is why the part ended, if
// it did.
func (s *Store) take(e *entry, p *part, i int, chunk []byte) (here, last bool, err error) {
	sum := DigestOf(chunk)
	if s.grows(p) {
		p.growing.Lock()
		defer p.growing.Unlock()
	}
	s.mu.Lock()
	here = p.have.Has(i)
	isFalse := !p.grows && p.list[i] != sum
	s.mu.Unlock()
	switch {
	case here:
		return true, false, nil
	case isFalse:
		return false, false, ErrMismatch
	}
	if _, err = p.data.WriteAt(chunk, int64(i)*swarm.ChunkBytes); err == nil {
		err = p.note(e.digest, i)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && p.end == nil && !p.have.Has(i) {
		p.have.Set(i)
		if p.grows {
			p.list[i] = sum
		}
		p.missing--
		p.wake()
		s.touch(e)
		last = p.missing == 0
	}
	if p.end != nil {
		return false, false, p.end
	}
	return false, last, err
}

// complete hashes a blob whose chunks are all here and gives it its name.
func (s *Store) complete(d Digest) error {
	s.mu.Lock()
	e, err := s.lookup(d)
	if err != nil || e.part == nil {
		s.mu.Unlock()
		return err
	}
	p := e.part
	s.mu.Unlock()
	sum, err := s.hash(p, e.size)
	switch {
	case err == nil && sum != d:
		return errors.Join(ErrMismatch, s.discard(e, ErrMismatch))
	case err == nil:
		err = s.name(e, p)
	case errors.Is(err, errLost):
		err = errors.Join(err, s.discard(e, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(p.end, errWhole) { // here, or by another call meanwhile
		return nil
	}
	return err
}

// hash syncs the data of a partial blob and returns its digest.
func (s *Store) hash(p *part, size int64) (Digest, error) {
	if err := p.data.Sync(); err != nil {
		return Digest{}, fmt.Errorf("%w: %w", errLost, err)
	}
	return p.running.digest(p.data, size)
}

// name makes a partial blob that was synced and hashed a complete one.
func (s *Store) name(e *entry, p *part) error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	end, grows, list := p.end, p.grows, p.list // it does not change any more
	s.mu.Unlock()
	if end != nil {
		return end
	}
	if grows {
		if err := s.replace(s.listPath(e.digest), packDigests(e.size, list)); err != nil {
			return err
		}
	}
	if err := s.settle(s.dataPath(e.digest), e.digest); err != nil {
		return err
	}
	s.mu.Lock()
	e.part, e.stamped = nil, s.clock.Wall()
	p.finish(errWhole)
	s.tell()
	s.mu.Unlock()
	_ = p.close()                         // it was synced
	_ = s.removeFile(s.logPath(e.digest)) // else the next opening does
	return nil
}

// settle renames a file that was synced and hashed to what it is. The caller holds files.
func (s *Store) settle(from string, d Digest) error {
	to := s.blobPath(d)
	if err := s.fs.Mkdir(filepath.Dir(to)); err != nil {
		return err
	}
	if err := s.fs.SyncDir(filepath.Join(s.dir, blobDir)); err != nil {
		return err
	}
	if err := s.fs.Rename(from, to); err != nil {
		return err
	}
	return s.fs.SyncDir(filepath.Dir(to))
}

// discard removes a partial blob that is false or lost, whoever uses it.
func (s *Store) discard(e *entry, why error) error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	same := s.blobs[e.digest] == e && e.part != nil && !s.closed
	if same {
		s.forget(e, why)
	}
	s.mu.Unlock()
	if !same {
		return nil
	}
	return s.unlink(e)
}

// Chunks returns which chunks of a blob are here, and a channel that is closed when that
// changes; nil if it is complete.
func (s *Store) Chunks(d Digest) (swarm.Bitmap, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.lookup(d)
	if err != nil {
		return swarm.Bitmap{}, nil, wrap("look at blob", d, err)
	}
	if e.part != nil {
		return e.part.have.Clone(), e.part.changed, nil
	}
	have := swarm.NewBitmap(int(chunksOf(e.size)))
	for i := range have.Len() {
		have.Set(i)
	}
	return have, nil, nil
}
