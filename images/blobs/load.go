// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// What lies in the directory.
const (
	blobDir   = "blobs/sha256" // complete, in 256 directories by the first two digits
	partDir   = "parts"        // X.data, of the blob's size, and X.log, its journal
	listDir   = "lists"        // the size and the hashes of the chunks
	refsDir   = "refs"
	uploadDir = "uploads"
	tmpSuffix = ".tmp"
)

// Open opens the store in dir, and makes it if it is absent. Of what an unclean end left,
// it keeps what it can prove and removes the rest. It reads few chunks and no whole blob.
func Open(dir string, cfg Config, clock shoal.Clock) (*Store, error) {
	return open(dir, cfg, clock, osDisk{})
}

func open(dir string, cfg Config, clock shoal.Clock, d disk) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{
		dir: dir, cfg: cfg, clock: clock, fs: d,
		blobs: map[Digest]*entry{}, refs: map[Digest][]Digest{}, uploads: map[string]*upload{},
		changed: make(chan struct{}),
	}
	for _, step := range []func() error{s.makeDirs, s.loadBlobs, s.loadParts, s.loadLists, s.loadRefs, s.loadUploads} {
		if err := step(); err != nil {
			return nil, wrap("open blobs in", dir, err)
		}
	}
	return s, nil
}

func (s *Store) makeDirs() error {
	for _, dir := range []string{blobDir, partDir, listDir, refsDir, uploadDir} {
		if err := s.fs.Mkdir(filepath.Join(s.dir, dir)); err != nil {
			return err
		}
	}
	return s.fs.SyncDir(s.dir)
}

// names calls fn for each file of a directory of files that are named by digests. What has
// no such name is removed, and what fn does not want.
func (s *Store) names(dir, suffix string, fn func(Digest, fs.FileInfo) (keep bool, err error)) error {
	infos, err := s.fs.List(filepath.Join(s.dir, dir))
	if err != nil {
		return err
	}
	for _, info := range infos {
		text, ok := strings.CutSuffix(info.Name(), suffix)
		if !ok && !strings.HasSuffix(info.Name(), tmpSuffix) {
			continue
		}
		keep := false
		if d, isDigest := fromHex(text); isDigest && info.Mode().IsRegular() {
			if keep, err = fn(d, info); err != nil {
				return err
			}
		}
		if !keep {
			if err := s.removeFile(filepath.Join(s.dir, dir, info.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadBlobs finds the complete blobs. A file gets there by a rename after its data was
// synced and hashed, so it is what its name says.
func (s *Store) loadBlobs() error {
	dirs, err := s.fs.List(filepath.Join(s.dir, blobDir))
	if err != nil {
		return err
	}
	for _, sub := range dirs {
		if !sub.IsDir() {
			continue // not ours
		}
		err := s.names(filepath.Join(blobDir, sub.Name()), "", func(d Digest, info fs.FileInfo) (bool, error) {
			if sub.Name() != d.hex()[:2] {
				return false, nil
			}
			s.blobs[d] = &entry{digest: d, size: info.Size(), touched: s.clock.Mono(), stamped: info.ModTime()}
			s.used += info.Size()
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	order := make([]*entry, 0, len(s.blobs))
	for _, e := range s.blobs {
		order = append(order, e)
	}
	slices.SortFunc(order, func(a, b *entry) int {
		if c := a.stamped.Compare(b.stamped); c != 0 {
			return c
		}
		return bytes.Compare(a.digest[:], b.digest[:])
	})
	for _, e := range order {
		s.turn++
		e.turn = s.turn
	}
	return nil
}

// loadParts finds the partial blobs: a data file of the right size with its list.
func (s *Store) loadParts() error {
	err := s.names(partDir, ".data", func(d Digest, info fs.FileInfo) (bool, error) {
		size, list, err := s.readList(d)
		if err != nil {
			return false, err
		}
		if s.blobs[d] != nil || list == nil || info.Size() != size {
			return false, nil
		}
		have, err := s.recover(d, size, list)
		if err != nil {
			return false, fmt.Errorf("read partial blob %s: %w", d, err)
		}
		e := &entry{digest: d, size: size, part: newPart(list, have)}
		s.touch(e)
		s.blobs[d] = e
		s.used += size
		return true, nil
	})
	if err != nil {
		return err
	}
	return s.names(partDir, ".log", func(d Digest, _ fs.FileInfo) (bool, error) {
		return s.blobs[d] != nil && s.blobs[d].part != nil, nil
	})
}

func (s *Store) loadLists() error {
	return s.names(listDir, "", func(d Digest, _ fs.FileInfo) (bool, error) { return s.blobs[d] != nil, nil })
}

func (s *Store) loadRefs() error {
	return s.names(refsDir, "", func(d Digest, info fs.FileInfo) (bool, error) {
		raw, err := s.readFile(s.refsPath(d), info.Size())
		if err != nil {
			return false, err
		}
		n, refs, ok := unpackDigests(raw)
		if !ok || n != int64(len(refs)) || s.blobs[d] == nil || s.blobs[d].part != nil {
			return false, nil
		}
		s.refs[d] = refs
		return true, nil
	})
}

// readList returns the size and chunk list of a blob; a nil list if there is none that is
// sound.
func (s *Store) readList(d Digest) (int64, []Digest, error) {
	raw, err := s.readFile(s.listPath(d), packedBytes(maxChunks))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	size, list, ok := unpackDigests(raw)
	if !ok || size < 1 || chunksOf(size) != int64(len(list)) {
		return 0, nil, nil
	}
	return size, list, nil
}

// packedBytes returns the length of what packDigests makes of n digests.
func packedBytes(n int64) int64 { return 8 + n*int64(len(Digest{})) + 4 }

// packDigests returns a number, digests, and a checksum of both.
func packDigests(number int64, list []Digest) []byte {
	raw := binary.LittleEndian.AppendUint64(make([]byte, 0, packedBytes(int64(len(list)))), uint64(number))
	for _, d := range list {
		raw = append(raw, d[:]...)
	}
	return binary.LittleEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
}

func unpackDigests(raw []byte) (number int64, list []Digest, ok bool) {
	rest := len(raw) - int(packedBytes(0))
	if rest < 0 || rest%len(Digest{}) != 0 {
		return 0, nil, false
	}
	body, sum := raw[:len(raw)-4], raw[len(raw)-4:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return 0, nil, false
	}
	list = []Digest{}
	for at := 8; at < len(body); at += len(Digest{}) {
		list = append(list, Digest(body[at:at+len(Digest{})]))
	}
	return int64(binary.LittleEndian.Uint64(raw)), list, true
}
