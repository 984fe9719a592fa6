// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// files is the little that an identity needs of a disk. Names are relative, with
// forward slashes. write is atomic and durable: after a crash the file holds either
// the old or the new content, whole.
type files interface {
	read(name string) ([]byte, error) // fs.ErrNotExist when absent
	write(name string, data []byte, mode fs.FileMode) error
	move(from, to string) error // absent: no error
	list(dir string) ([]string, error)
	mode(name string) (fs.FileMode, error)
	lock() error
	close() error
}

// diskFiles keeps files below a directory.
type diskFiles struct {
	dir  string
	held *os.File // the locked lock file, nil while unlocked
}

func (d *diskFiles) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

func (d *diskFiles) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d *diskFiles) mode(name string) (fs.FileMode, error) {
	st, err := os.Stat(d.path(name))
	if err != nil {
		return 0, err
	}
	return st.Mode().Perm(), nil
}

// write makes a temporary file beside the target, syncs it, renames it over the
// target and syncs the directory.
func (d *diskFiles) write(name string, data []byte, mode fs.FileMode) error {
	target := d.path(name)
	if err := makeDirs(filepath.Dir(target)); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".tmp-*")
	if err != nil {
		return err
	}
	err = fill(tmp, data, mode)
	if err == nil {
		err = os.Rename(tmp.Name(), target)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(filepath.Dir(target))
}

func fill(f *os.File, data []byte, mode fs.FileMode) error {
	err := f.Chmod(mode)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (d *diskFiles) move(from, to string) error {
	target := d.path(to)
	if err := makeDirs(filepath.Dir(target)); err != nil {
		return err
	}
	err := os.Rename(d.path(from), target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(target)), syncDir(filepath.Dir(d.path(from))))
}

func (d *diskFiles) list(dir string) ([]string, error) {
	entries, err := os.ReadDir(d.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, err
}

func (d *diskFiles) close() error {
	if d.held == nil {
		return nil
	}
	err := d.held.Close() // closing it lets the flock go
	d.held = nil
	return err
}

// makeDirs is os.MkdirAll for private directories that also syncs the parent, so
// that a new directory survives a power cut.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

// memFiles keeps files in memory: for simulation, where disks would stop the
// virtual time. It outlives a simulated restart of its peer.
type memFiles struct {
	mu    sync.Mutex // guards the rest
	data  map[string][]byte
	modes map[string]fs.FileMode
	held  bool
}

func newMemFiles() *memFiles {
	return &memFiles{data: map[string][]byte{}, modes: map[string]fs.FileMode{}}
}

func (m *memFiles) read(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.data[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return slices.Clone(data), nil
}

func (m *memFiles) write(name string, data []byte, mode fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data[name], m.modes[name] = slices.Clone(data), mode
	return nil
}

func (m *memFiles) move(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if data, ok := m.data[from]; ok {
		m.data[to], m.modes[to] = data, m.modes[from]
		delete(m.data, from)
		delete(m.modes, from)
	}
	return nil
}

func (m *memFiles) list(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.data)) {
		rest, ok := strings.CutPrefix(path.Clean(name), dir+"/")
		if dir == "." {
			rest, ok = path.Clean(name), true
		}
		first, _, _ := strings.Cut(rest, "/")
		if ok && !slices.Contains(out, first) {
			out = append(out, first)
		}
	}
	return out, nil
}

func (m *memFiles) mode(name string) (fs.FileMode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mode, ok := m.modes[name]
	if !ok {
		return 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return mode, nil
}

func (m *memFiles) lock() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return &LockedError{Dir: "(memory)", PID: os.Getpid()}
	}
	m.held = true
	return nil
}

func (m *memFiles) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = false
	return nil
}
