// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package tree is the file system of a container in memory: what the twins of an engine
// and of a cluster have for "shoal cp". It answers with the errors of shoal.Console. It
// refuses to be more: no rights, no links that are followed, no times.
package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/shoalnet/shoal"
)

// Tree is a tree of files. The zero one has an empty root. It is safe for concurrent use.
type Tree struct {
	mu    sync.Mutex
	nodes map[string]node // by absolute path, without the root
}

type node struct {
	header tar.Header
	data   []byte
}

// Stat says what is at a path.
func (t *Tree) Stat(at string) (shoal.PathStat, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.at(at)
	if err != nil {
		return shoal.PathStat{}, err
	}
	return shoal.PathStat{
		Name: path.Base(at), Bytes: n.header.Size, Mode: n.header.FileInfo().Mode(), Link: n.header.Linkname,
	}, nil
}

func (t *Tree) at(at string) (node, error) {
	if err := shoal.CheckPath(at); err != nil {
		return node{}, err
	}
	at = path.Clean(at)
	if at == "/" {
		return node{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}, nil
	}
	n, ok := t.nodes[at]
	if !ok {
		return n, fmt.Errorf("there is no %s: %w", at, shoal.ErrNotFound)
	}
	return n, nil
}

// Archive writes what is at a path and below, the path's last element first in every name.
func (t *Tree) Archive(at string, w io.Writer) error {
	t.mu.Lock()
	root, err := t.at(at)
	nodes := maps.Clone(t.nodes)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	at = path.Clean(at)
	out := tar.NewWriter(w)
	write := func(name string, n node) error {
		n.header.Name = name
		if n.header.Typeflag == tar.TypeDir {
			n.header.Name += "/"
		}
		if err := out.WriteHeader(&n.header); err != nil {
			return err
		}
		_, err := out.Write(n.data)
		return err
	}
	base := path.Base(at)
	if err := write(base, root); err != nil {
		return err
	}
	under := strings.TrimSuffix(at, "/") + "/"
	for _, p := range slices.Sorted(maps.Keys(nodes)) {
		if rest, ok := strings.CutPrefix(p, under); ok {
			if err := write(path.Join(base, rest), nodes[p]); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// Unpack puts what is in an archive below a directory.
func (t *Tree) Unpack(dir string, archive io.Reader) error {
	t.mu.Lock()
	n, err := t.at(dir)
	t.mu.Unlock()
	switch {
	case err != nil:
		return err
	case n.header.Typeflag != tar.TypeDir:
		return &shoal.InvalidError{Field: "path", Why: fmt.Sprintf("%s is no directory", dir)}
	}
	in := tar.NewReader(archive)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, archive) // padding
			return err
		}
		var data bytes.Buffer
		if err == nil {
			_, err = io.Copy(&data, in)
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &shoal.InvalidError{Field: "archive", Why: "is no tar archive, or not all of one"}
		}
		if err != nil {
			return err
		}
		t.put(path.Join(dir, path.Clean("/"+h.Name)), node{header: *h, data: data.Bytes()})
	}
}

// put adds a node and the directories above it.
func (t *Tree) put(at string, n node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodes == nil {
		t.nodes = map[string]node{}
	}
	if at == "/" {
		return
	}
	t.nodes[at] = n
	for up := path.Dir(at); up != "/"; up = path.Dir(up) {
		if _, ok := t.nodes[up]; !ok {
			t.nodes[up] = node{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
		}
	}
}
