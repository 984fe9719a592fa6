// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/tree"
)

// CopyFrom implements [shoal.Console] with what CopyTo put there.
func (t *Twin) CopyFrom(ctx context.Context, id, path string, stat func(shoal.PathStat) error, w io.Writer) error {
	what := fmt.Sprintf("copy %s from %s", path, short(id))
	files, err := t.filesOf(ctx, what, id)
	if err != nil {
		return err
	}
	st, err := files.Stat(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := stat(st); err != nil {
		return err
	}
	return files.Archive(path, w)
}

// CopyTo implements [shoal.Console].
func (t *Twin) CopyTo(ctx context.Context, id, dir string, archive io.ReadCloser) error {
	defer func() { _ = archive.Close() }() // it was only read from
	what := fmt.Sprintf("copy to %s in %s", dir, short(id))
	files, err := t.filesOf(ctx, what, id)
	if err != nil {
		return err
	}
	return files.Unpack(dir, archive)
}

func (t *Twin) filesOf(ctx context.Context, what, id string) (*tree.Tree, error) {
	if err := t.enter(ctx, what, func(l Latency) time.Duration { return l.Call }); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.own(id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return &c.files, nil
}
