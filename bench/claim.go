// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// clusterFile is in every run's directory and names its cluster once there is one, so
// that the next run finds the containers of one that was killed.
const clusterFile = "cluster"

// socketsFile names the directory of a run's sockets.
const socketsFile = "sockets"

// claim makes the directory this run's own and removes what a run left there that was
// killed. Daemons end with their bench, their containers do not. unlock removes it.
func (b *bench) claim(ctx context.Context) (unlock func() error, err error) {
	if err := os.Mkdir(b.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	mark := filepath.Join(b.dir, clusterFile)
	cluster, err := os.ReadFile(mark)
	entries, listing := os.ReadDir(b.dir)
	if errors.Is(err, fs.ErrNotExist) && len(entries) > 0 || listing != nil {
		return nil, fmt.Errorf("%s is not a directory of the bench's; choose another one with -dir", b.dir)
	}
	lock, err := os.Open(b.dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another bench runs in %s; wait for it: %w", b.dir, err), lock.Close())
	}
	if left, err := os.ReadFile(filepath.Join(b.dir, socketsFile)); err == nil {
		_ = os.RemoveAll(string(left)) // a leftover in /tmp harms nobody
	}
	if len(cluster) > 0 {
		e, err := openEngine(ctx, b.docker)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("remove what a killed bench left: %w", err), lock.Close())
		}
		if err := errors.Join(e.sweep(ctx, string(cluster)), e.close(ctx)); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(b.dir, e.Name())); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	if b.sockets, err = os.MkdirTemp("", "shoal-bench-"); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	unlock = func() error { return errors.Join(os.RemoveAll(b.sockets), os.RemoveAll(b.dir), lock.Close()) }
	return unlock, errors.Join(os.WriteFile(mark, nil, 0o600), os.WriteFile(filepath.Join(b.dir, socketsFile), []byte(b.sockets), 0o600))
}
