// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	crdt "github.com/ipfs/go-ds-crdt"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/shoalnet/shoal/proto/blocks"
)

const (
	// crdtWorkers walk blocks; ours come one by one, so more would only wait.
	crdtWorkers = 2
	// never: blocks are announced and repaired by us, not by go-ds-crdt's timers.
	never = 365 * 24 * time.Hour
	// crdtTimeout bounds reads of blocks, which are all local.
	crdtTimeout = 10 * time.Second
)

// errTorn says that the rows of a store contradict each other: something wrote or
// lost single rows, which our own batches cannot.
var errTorn = errors.New("store is torn")

// engine is go-ds-crdt, made synchronous: a block is handed over once it is verified
// and all its parents are there, the call returns when it is merged, and nothing is
// written before flush. All methods are for the writer goroutine only.
//
// That keeps go-ds-crdt away from what FACTS section 2 lists: no fetch that blocks,
// no block marked processed before its parents, no two writers that read the same
// heads, no heads that are not tips, no half of a merge on disk.
type engine struct {
	log   *slog.Logger
	stage *stage
	rows  *blockRows // sees what is not flushed yet
	pump  *pump
	crdt  *crdt.Datastore
}

// openEngine starts go-ds-crdt on rows; close ends it.
func openEngine(ctx context.Context, rows ds.Batching, h *hooks, log *slog.Logger) (*engine, error) {
	st := newStage(rows, h)
	e := &engine{log: log, stage: st, rows: newBlockRows(st)}
	if err := e.start(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *engine) start(ctx context.Context) error {
	e.pump = newPump()
	var err error
	e.crdt, err = crdt.New(e.stage, crdtSpace, e.rows, e.pump, &crdt.Options{
		Logger:              crdtLog{e.log},
		RebroadcastInterval: never,
		NumWorkers:          crdtWorkers,
		DAGSyncerTimeout:    crdtTimeout,
		MaxBatchDeltaSize:   2 * maxBlockBytes, // the writer bounds blocks; this must not split them
		RepairInterval:      0,
	})
	if err != nil {
		return fmt.Errorf("%w: start go-ds-crdt: %w", errTorn, err)
	}
	return e.flush(ctx)
}

func (e *engine) close() error { return e.crdt.Close() }

// restart drops what is not flushed: go-ds-crdt keeps heads in memory, so it must
// read them again.
func (e *engine) restart(ctx context.Context) error {
	err := e.close()
	e.stage.drop()
	e.rows.forget()
	return errors.Join(err, e.start(ctx))
}

// commit writes elements as one new block on top of all heads.
func (e *engine) commit(ctx context.Context, elems []blocks.Element) (*block, error) {
	if len(elems) == 0 {
		return nil, errors.New("commit of an empty block") // go-ds-crdt would publish what others left
	}
	if heads, _ := e.heads(ctx); len(heads) > maxLinks {
		return e.gather(ctx, heads, elems)
	}
	b, err := e.crdt.Batch(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin block: %w", err)
	}
	for _, el := range elems {
		if err := b.Put(ctx, ds.RawKey(el.Key), el.Value); err != nil {
			return nil, fmt.Errorf("add %s to block: %w", el.Key, err)
		}
	}
	if err := b.Commit(ctx); err != nil {
		return nil, fmt.Errorf("commit block: %w", err)
	}
	heads, _ := e.heads(ctx)
	if len(heads) != 1 {
		return nil, fmt.Errorf("%w: %d heads after a commit", errTorn, len(heads))
	}
	made, err := e.rows.block(ctx, heads[0])
	if err != nil {
		return nil, err
	}
	above, err := e.highest(ctx, made.links)
	if err == nil && made.delta.Priority != above+1 { // others would refuse it
		err = fmt.Errorf("%w: block of height %d on parents of height %d", errTorn, made.delta.Priority, above)
	}
	return made, err
}

// gather writes elements as a block on top of as many heads as a block may link, the
// highest. go-ds-crdt links all there are; a member that writes block after block on
// nothing could make those more than anybody takes, and everybody would be unable to
// write.
func (e *engine) gather(ctx context.Context, heads []cid.Cid, elems []blocks.Element) (*block, error) {
	at := make([]placed, len(heads))
	for i, c := range heads {
		r, err := e.rows.ref(ctx, c)
		if err != nil {
			return nil, err
		}
		at[i] = placed{c, r}
	}
	slices.SortFunc(at, func(a, b placed) int { return cmp.Compare(b.height, a.height) })
	nd := merkledag.NodeWithData(blocks.Marshal(&blocks.Delta{Elements: elems, Priority: at[0].height + 1}))
	if err := nd.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		return nil, fmt.Errorf("make block: %w", err)
	}
	for _, p := range at[:maxLinks] {
		if err := nd.AddRawLink("", &ipld.Link{Cid: p.cid}); err != nil {
			return nil, fmt.Errorf("make block: %w", err)
		}
	}
	b, err := decodeBlock(nd.RawData())
	if err != nil {
		return nil, fmt.Errorf("make block: %w", err)
	}
	if err := e.take(ctx, b); err != nil {
		return nil, err
	}
	return b, e.absorb(ctx, []*block{b})
}

// highest returns the greatest height of these blocks, 0 for none.
func (e *engine) highest(ctx context.Context, cids []cid.Cid) (uint64, error) {
	high := uint64(0)
	for _, c := range cids {
		r, err := e.rows.ref(ctx, c)
		if err != nil {
			return 0, err
		}
		high = max(high, r.height)
	}
	return high, nil
}

// take stores a verified block whose parents are here; absorb makes it count.
func (e *engine) take(ctx context.Context, b *block) error {
	if err := e.rows.put(ctx, b); err != nil {
		return fmt.Errorf("store block %s: %w", b.cid, err)
	}
	return nil
}

// absorb merges taken blocks, parents first.
func (e *engine) absorb(ctx context.Context, in []*block) error {
	if len(in) == 0 {
		return nil
	}
	tips := make(map[cid.Cid]bool, len(in))
	cids := make([][]byte, len(in))
	for i, b := range in {
		cids[i], tips[b.cid] = b.cid.Bytes(), true
		for _, l := range b.links {
			delete(tips, l)
		}
	}
	if heads, _ := e.heads(ctx); len(heads) == 0 {
		// Without heads go-ds-crdt makes all it is handed heads: hand it the root alone.
		if err := e.pump.hand(ctx, cids[:1]); err != nil {
			return err
		}
		cids = cids[1:]
	}
	if len(cids) > 0 {
		if err := e.pump.hand(ctx, cids); err != nil {
			return err
		}
	}
	heads, _ := e.heads(ctx)
	for _, h := range heads {
		delete(tips, h)
	}
	if len(tips) > 0 || e.crdt.IsDirty(ctx) {
		return fmt.Errorf("%w: go-ds-crdt did not merge %d of %d blocks", errTorn, len(tips), len(in))
	}
	return nil
}

// heads returns the tips of the DAG, sorted, and the greatest height.
func (e *engine) heads(ctx context.Context) ([]cid.Cid, uint64) {
	s := e.crdt.InternalStats(ctx)
	return s.Heads, s.MaxHeight
}

func (e *engine) flush(ctx context.Context) error { return e.stage.flush(ctx) }
