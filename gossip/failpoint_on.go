// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package gossip

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	ds "github.com/ipfs/go-datastore"
)

// killEnv says where this process kills itself: "before sync:12" is the twelfth time
// that it passes that failpoint. "forget" makes a store that acknowledges each turn one
// turn before it is written, to show that the kill loop would see that. It is read here
// and not in a command, as no command that ships knows of it.
const killEnv = "SHOAL_FAILPOINT"

// killer returns hooks that kill this process, as an environment variable asks for.
func killer() hooks {
	point, count, _ := strings.Cut(os.Getenv(killEnv), ":") //nolint:forbidigo // no build that ships has this file, so no command may know
	switch {
	case point == "":
		return hooks{}
	case point == "forget":
		return hooks{rows: func(rows ds.Batching) ds.Batching { return &forgetful{Batching: rows} }}
	case !slices.Contains(points(), point):
		panic("no such failpoint: " + point)
	}
	limit, _ := strconv.Atoi(count)
	var passed atomic.Int64
	return hooks{moment: func(at string) {
		if at == point && passed.Add(1) >= int64(limit) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // not one instruction more
		}
	}}
}

// forgetful writes each batch when the next one comes.
type forgetful struct {
	ds.Batching
	mu   sync.Mutex // guards last
	last *lateBatch
}

type lateBatch struct {
	ds.Batch
	to *forgetful
}

func (f *forgetful) Batch(ctx context.Context) (ds.Batch, error) {
	b, err := f.Batching.Batch(ctx)
	return &lateBatch{b, f}, err
}

func (b *lateBatch) Commit(ctx context.Context) error {
	b.to.mu.Lock()
	defer b.to.mu.Unlock()
	before := b.to.last
	b.to.last = b
	if before == nil {
		return nil
	}
	return before.Batch.Commit(ctx)
}
