// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"context"
	"fmt"
	"io"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/tree"
)

// CopyFrom implements [shoal.Remote]: a replica has the files that CopyTo put there.
func (c *Cluster) CopyFrom(_ context.Context, peer shoal.PeerID, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error {
	files, err := c.filesOf(peer, at)
	if err != nil {
		return err
	}
	st, err := files.Stat(path)
	if err != nil {
		return err
	}
	if err := stat(st); err != nil {
		return err
	}
	return files.Archive(path, w)
}

// CopyTo implements [shoal.Remote].
func (c *Cluster) CopyTo(_ context.Context, peer shoal.PeerID, at shoal.Target, dir string, archive io.ReadCloser) error {
	defer func() { _ = archive.Close() }() // it was only read from
	files, err := c.filesOf(peer, at)
	if err != nil {
		return err
	}
	return files.Unpack(dir, archive)
}

func (c *Cluster) filesOf(peer shoal.PeerID, at shoal.Target) (*tree.Tree, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost[peer] {
		return nil, fmt.Errorf("copy: dial: no route: %w", shoal.ErrUnreachable)
	}
	if c.files[at] == nil {
		c.files[at] = &tree.Tree{}
	}
	return c.files[at], nil
}
