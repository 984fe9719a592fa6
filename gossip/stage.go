// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"fmt"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// stage lies between go-ds-crdt and the datastore and holds back every write until
// flush, which hands all of them down as one batch and syncs once. So whatever
// merging a block changes (about six rows an element, and the heads) is on disk as
// a whole or not at all, and costs one disk sync. Reads see held-back writes;
// queries do not: they are only made while nothing is held back.
//
// Only the writer goroutine makes go-ds-crdt work and flushes, but go-ds-crdt does
// its part on goroutines of its own, so a mutex guards the overlay.
type stage struct {
	base  ds.Batching
	hooks *hooks

	mu    sync.RWMutex
	held  map[ds.Key][]byte // guarded by mu; nil value with gone set: deleted
	gone  map[ds.Key]bool   // guarded by mu
	order []ds.Key          // guarded by mu; first touched first
}

var _ ds.Batching = (*stage)(nil)

func newStage(base ds.Batching, h *hooks) *stage {
	s := &stage{base: base, hooks: h}
	s.reset()
	return s
}

func (s *stage) reset() {
	s.held, s.gone, s.order = map[ds.Key][]byte{}, map[ds.Key]bool{}, nil
}

// drop forgets everything held back.
func (s *stage) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reset()
}

// empty reports whether nothing is held back.
func (s *stage) empty() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.order) == 0
}

// flush writes what is held back as one batch and syncs it. On an error everything
// is still held back: the caller drops it. go-ds-crdt must be at rest.
func (s *stage) flush(ctx context.Context) error {
	s.mu.RLock()
	order, held, gone := s.order, s.held, s.gone // at rest: nobody adds until reset
	s.mu.RUnlock()
	if len(order) == 0 {
		return nil
	}
	b, err := s.base.Batch(ctx)
	if err != nil {
		return fmt.Errorf("begin batch: %w", err)
	}
	s.hooks.at("before batch")
	for _, k := range order {
		if gone[k] {
			err = b.Delete(ctx, k)
		} else {
			err = b.Put(ctx, k, held[k])
		}
		if err != nil {
			return fmt.Errorf("fill batch: %w", err)
		}
	}
	s.hooks.at("after batch")
	if err := s.hooks.around("commit", func() error { return b.Commit(ctx) }); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	if err := s.hooks.around("sync", func() error { return s.base.Sync(ctx, ds.NewKey("/")) }); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	s.drop()
	return nil
}

// Put implements [ds.Write].
func (s *stage) Put(_ context.Context, k ds.Key, v []byte) error {
	return s.change(k, func() {
		s.held[k] = v
		delete(s.gone, k)
	})
}

// Delete implements [ds.Write].
func (s *stage) Delete(_ context.Context, k ds.Key) error {
	return s.change(k, func() {
		delete(s.held, k)
		s.gone[k] = true
	})
}

// change carries out what becomes of a row.
func (s *stage) change(k ds.Key, f func()) error {
	held := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.touch(k)
		f()
		return nil
	}
	if s.hooks.moment == nil {
		return held()
	}
	return s.hooks.around(stepOf(k), held)
}

func (s *stage) touch(k ds.Key) {
	if _, ok := s.held[k]; !ok && !s.gone[k] {
		s.order = append(s.order, k)
	}
}

// look answers from the overlay; known is false where the base must be asked.
func (s *stage) look(k ds.Key) (v []byte, present, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone[k] {
		return nil, false, true
	}
	v, ok := s.held[k]
	return v, ok, ok
}

// Get implements [ds.Read].
func (s *stage) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	v, present, known := s.look(k)
	switch {
	case !known:
		return s.base.Get(ctx, k)
	case !present:
		return nil, ds.ErrNotFound
	}
	return v, nil
}

// Has implements [ds.Read].
func (s *stage) Has(ctx context.Context, k ds.Key) (bool, error) {
	if _, present, known := s.look(k); known {
		return present, nil
	}
	return s.base.Has(ctx, k)
}

// GetSize implements [ds.Read].
func (s *stage) GetSize(ctx context.Context, k ds.Key) (int, error) {
	v, present, known := s.look(k)
	switch {
	case !known:
		return s.base.GetSize(ctx, k)
	case !present:
		return -1, ds.ErrNotFound
	}
	return len(v), nil
}

// Query implements [ds.Read] on what is flushed.
func (s *stage) Query(ctx context.Context, q query.Query) (query.Results, error) {
	return s.base.Query(ctx, q)
}

// Sync implements [ds.Datastore]: only flush syncs.
func (s *stage) Sync(context.Context, ds.Key) error { return nil }

// Close implements [ds.Datastore]; the base belongs to whoever opened it.
func (s *stage) Close() error { return nil }

// Batch implements [ds.Batching].
func (s *stage) Batch(context.Context) (ds.Batch, error) { return &stageBatch{stage: s}, nil }

// stageBatch collects operations and applies them to the stage together.
type stageBatch struct {
	stage *stage
	ops   []func(context.Context) error
}

func (b *stageBatch) Put(_ context.Context, k ds.Key, v []byte) error {
	b.ops = append(b.ops, func(ctx context.Context) error { return b.stage.Put(ctx, k, v) })
	return nil
}

func (b *stageBatch) Delete(_ context.Context, k ds.Key) error {
	b.ops = append(b.ops, func(ctx context.Context) error { return b.stage.Delete(ctx, k) })
	return nil
}

func (b *stageBatch) Commit(ctx context.Context) error {
	for _, op := range b.ops {
		if err := op(ctx); err != nil {
			return err
		}
	}
	b.ops = nil
	return nil
}
