// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shoalnet/shoal"
)

// file is what the store does with an open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// disk is what the store does with its directory; tests cut it off at every step.
type disk interface {
	Open(path string, flag int) (file, error)
	Mkdir(path string) error
	Rename(from, to string) error
	Remove(path string) error
	Stamp(path string, at time.Time) error
	List(path string) ([]fs.FileInfo, error) // empty if it is absent
	SyncDir(path string) error
	Room(path string) (free, total int64, err error)
}

// osDisk is the machine's.
type osDisk struct{}

func (osDisk) Open(path string, flag int) (file, error) { return os.OpenFile(path, flag, 0o600) }
func (osDisk) Mkdir(path string) error                  { return os.MkdirAll(path, 0o700) }
func (osDisk) Rename(from, to string) error             { return os.Rename(from, to) }
func (osDisk) Remove(path string) error                 { return os.Remove(path) }
func (osDisk) Stamp(path string, at time.Time) error    { return os.Chtimes(path, at, at) }

func (osDisk) List(path string) ([]fs.FileInfo, error) {
	names, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	infos := make([]fs.FileInfo, 0, len(names))
	for _, n := range names {
		info, err := n.Info()
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (osDisk) SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osDisk) Room(path string) (free, total int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	size := int64(st.Bsize) // narrower on other systems
	return int64(st.Bavail) * size, int64(st.Blocks) * size, nil
}

// replace writes a small file so that after a crash it is the old one or the new one.
func (s *Store) replace(path string, content []byte) error {
	tmp := path + tmpSuffix
	err := s.writeFile(tmp, content)
	if err == nil {
		err = s.fs.Rename(tmp, path)
	}
	if err != nil {
		_ = s.fs.Remove(tmp) // of no use; opening removes it, too
		return err
	}
	return s.fs.SyncDir(filepath.Dir(path))
}

func (s *Store) writeFile(path string, content []byte) error {
	f, err := s.fs.Open(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	return errors.Join(err, f.Sync(), f.Close())
}

// readFile returns the first limit bytes of a file at most.
func (s *Store) readFile(path string, limit int64) ([]byte, error) {
	f, err := s.fs.Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, 0, limit))
	return raw, errors.Join(err, f.Close())
}

// wrap says which blob an error is about, and tells a full disk as shoal.ErrNoSpace.
func wrap(what string, name any, err error) error {
	if err == nil {
		return nil
	}
	if (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && !errors.Is(err, shoal.ErrNoSpace) {
		err = noSpace(err)
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}

func noSpace(why error) error {
	return &shoal.AdviceError{Err: fmt.Errorf("%w: %w", shoal.ErrNoSpace, why), Advice: "run shoal image gc, free some, or raise the limit of images"}
}
