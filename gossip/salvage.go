// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
	"github.com/ipfs/boxo/ipld/merkledag"

	"github.com/shoalnet/shoal/proto/blocks"
)

// remains are what is left of a damaged store. Nothing of it is verified: it passes
// intake like what strangers send.
type remains struct {
	blocks []blocks.Block
	chains []blocks.Chain
	seen   map[string]bool // keys
}

// readRows reads every table and log of a damaged database by itself, as far as each
// can be read. Which of several values of a row is newer does not matter: a block's
// key is its hash, and chains are only added. The error says what could not be read.
func readRows(ctx context.Context, a *aside) (remains, error) {
	db := a.files.PathJoin(a.dir, databaseDir)
	left := remains{seen: map[string]bool{}}
	names, err := a.files.List(db)
	if err != nil {
		return left, fmt.Errorf("list %s: %w", db, err)
	}
	var errs []error
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			if err := left.readTable(ctx, a.files, a.files.PathJoin(db, name)); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	logs, err := wal.Scan(wal.Dir{FS: a.files, Dirname: db})
	if err != nil {
		return left, errors.Join(append(errs, err)...)
	}
	for _, l := range logs {
		if err := left.readLog(l); err != nil {
			errs = append(errs, fmt.Errorf("log %s: %w", l.Num, err))
		}
	}
	return left, errors.Join(errs...)
}

// readTable reads a table from both ends: one bad place hides what lies between its
// neighbours only.
func (m *remains) readTable(ctx context.Context, files vfs.FS, name string) (err error) {
	f, err := files.Open(name)
	if err != nil {
		return err
	}
	src, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	var opts pebble.Options
	opts.EnsureDefaults()
	r, err := sstable.NewReader(ctx, src, opts.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, src.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for kv := it.First(); kv != nil; kv = it.Next() {
		if kv.Kind() == pebble.InternalKeyKindSet {
			if err := m.keepValue(kv.K.UserKey, kv.Value); err != nil {
				return err
			}
		}
	}
	if err := it.Error(); err == nil {
		return nil
	}
	for kv := it.Last(); kv != nil; kv = it.Prev() {
		if kv.Kind() == pebble.InternalKeyKindSet {
			if err := m.keepValue(kv.K.UserKey, kv.Value); err != nil {
				return err
			}
		}
	}
	return it.Error()
}

func (m *remains) keepValue(key []byte, value func([]byte) ([]byte, bool, error)) error {
	v, _, err := value(nil)
	if err == nil {
		m.keep(key, v)
	}
	return err
}

// readLog reads what was written last, up to the first bad place.
func (m *remains) readLog(l wal.LogicalLog) (err error) {
	r := l.OpenForRead()
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		rec, _, err := r.NextRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		batch, err := io.ReadAll(rec)
		if err != nil {
			return err
		}
		for rows := batchrepr.Read(batch); ; {
			kind, key, value, ok, err := rows.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if kind == pebble.InternalKeyKindSet {
				m.keep(key, value)
			}
		}
	}
}

// keep notes a row if it is a block or an admission chain.
func (m *remains) keep(key, value []byte) {
	k := string(key)
	switch {
	case m.seen[k]:
	case strings.HasPrefix(k, blockSpace.String()+"/"):
		c, err := merkledag.V1CidPrefix().Sum(value)
		if err != nil {
			return // of no use
		}
		m.seen[k] = true
		m.blocks = append(m.blocks, blocks.Block{CID: c.Bytes(), Data: slices.Clone(value)})
	case strings.HasPrefix(k, chainSpace.String()+"/"):
		var chain blocks.Chain
		if blocks.Unmarshal(slices.Clone(value), &chain) == nil {
			m.seen[k] = true
			m.chains = append(m.chains, chain)
		}
	}
}

// parentsFirst sorts blocks by height, which puts every block after its parents.
func parentsFirst(list []*block) []*block {
	slices.SortStableFunc(list, func(a, b *block) int { return cmp.Compare(a.delta.Priority, b.delta.Priority) })
	return list
}
