// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// Rows of go-ds-crdt v0.6.8 that mend corrects.
var (
	crdtHeads     = crdtSpace.ChildString("h") // /c/h/<multihash>: height, as a varint
	crdtProcessed = crdtSpace.ChildString("b") // /c/b/<multihash>: empty
)

// mend is for after an unclean end: it lets go-ds-crdt repair, then checks that
// every block is merged and that the heads are the tips at their heights, and
// corrects what is not so. Our flushes are whole or absent, so it should find
// nothing; it returns how much it did. errTorn: blocks are missing or unreadable.
func (e *engine) mend(ctx context.Context) (int, error) {
	if err := e.crdt.Repair(ctx); err != nil {
		return 0, fmt.Errorf("%w: repair: %w", errTorn, err)
	}
	n, err := e.reorder(ctx)
	if err != nil {
		return 0, err
	}
	all, err := e.rows.all(ctx)
	if err != nil {
		return 0, err
	}
	tips := make(map[cid.Cid]uint64)
	for _, c := range all {
		b, err := e.rows.block(ctx, c)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errTorn, err)
		}
		whole, err := e.merged(ctx, b)
		if err != nil {
			return 0, err
		}
		if !whole {
			n++
			if err := e.again(ctx, c); err != nil {
				return 0, err
			}
		}
		tips[c] = b.delta.Priority
		for _, l := range b.links {
			delete(tips, l)
		}
	}
	if err := e.flush(ctx); err != nil {
		return 0, err
	}
	moved, err := e.mendHeads(ctx, tips)
	return n + moved, err
}

// reorder gives back to blocks their place in the order, which is how all but a reader
// that knows their names finds them, and returns how many had none.
func (e *engine) reorder(ctx context.Context) (int, error) {
	all, err := e.rows.all(ctx)
	if err != nil {
		return 0, err
	}
	placed := make(map[cid.Cid]bool, len(all))
	for _, c := range all {
		placed[c] = true
	}
	here, err := e.rows.ordered(ctx, blockSpace, 0)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range here {
		if placed[c] {
			continue
		}
		n++
		b, err := e.rows.block(ctx, c)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errTorn, err)
		}
		if err := e.rows.put(ctx, b); err != nil {
			return 0, err
		}
	}
	return n, e.flush(ctx)
}

// merged reports whether the set holds every element of b, whose parents must be here.
func (e *engine) merged(ctx context.Context, b *block) (bool, error) {
	for _, l := range b.links {
		ok, err := e.rows.has(ctx, l)
		if err != nil {
			return false, err
		}
		if !ok {
			return false, fmt.Errorf("%w: block %s is here without its parent %s", errTorn, b.cid, l)
		}
	}
	for _, el := range b.delta.Elements {
		ok, err := e.crdt.Has(ctx, ds.RawKey(el.Key))
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// again makes go-ds-crdt merge a block once more, by taking back its mark "processed".
func (e *engine) again(ctx context.Context, c cid.Cid) error {
	if err := e.stage.Delete(ctx, crdtProcessed.Child(dshelp.MultihashToDsKey(c.Hash()))); err != nil {
		return err
	}
	return e.pump.hand(ctx, [][]byte{c.Bytes()})
}

// mendHeads makes the tips heads and nothing else. go-ds-crdt's Repair leaves heads
// with the height of the block it repaired, below which others would refuse what we
// write next; merging a block again can make it a head though it is no tip.
func (e *engine) mendHeads(ctx context.Context, tips map[cid.Cid]uint64) (int, error) {
	heads, err := e.headRows(ctx)
	if err != nil {
		return 0, err
	}
	if maps.Equal(heads, tips) {
		return 0, nil
	}
	n := 0
	for c := range heads {
		if _, ok := tips[c]; ok {
			continue
		}
		n++
		if err := e.stage.Delete(ctx, crdtHeads.Child(dshelp.MultihashToDsKey(c.Hash()))); err != nil {
			return 0, err
		}
	}
	for c, height := range tips {
		if heads[c] == height {
			continue
		}
		n++
		row := binary.AppendUvarint(nil, height)
		if err := e.stage.Put(ctx, crdtHeads.Child(dshelp.MultihashToDsKey(c.Hash())), row); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(e.flush(ctx), e.close()); err != nil {
		return 0, err
	}
	return n, e.start(ctx) // it keeps a copy of the heads in memory
}

func (e *engine) headRows(ctx context.Context) (map[cid.Cid]uint64, error) {
	res, err := e.stage.Query(ctx, query.Query{Prefix: crdtHeads.String()})
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	rows, err := res.Rest()
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	heads := make(map[cid.Cid]uint64, len(rows))
	for _, row := range rows {
		c, err := cidOfRow(row.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: read heads: %w", errTorn, err)
		}
		heads[c], _ = binary.Uvarint(row.Value)
	}
	return heads, nil
}

// tips follows a store's blocks as they are read, parents first, and finds what is
// missing: rows can be lost though every row that is read is good.
type tips struct {
	seen, open map[cid.Cid]bool
}

func newTips(blocks int) *tips {
	return &tips{seen: make(map[cid.Cid]bool, blocks), open: map[cid.Cid]bool{}}
}

// add takes the next block. errTorn: a parent of it was not read before.
func (t *tips) add(b *block) error {
	for _, l := range b.links {
		if !t.seen[l] {
			return fmt.Errorf("%w: block %s is here without its parent %s", errTorn, b.cid, l)
		}
		delete(t.open, l)
	}
	t.seen[b.cid], t.open[b.cid] = true, true
	return nil
}

// are returns errTorn if the tips of what was read are others than these heads.
func (t *tips) are(heads []cid.Cid) error {
	for _, h := range heads {
		if !t.open[h] {
			return fmt.Errorf("%w: head %s is no tip, or not here", errTorn, h)
		}
	}
	if len(heads) != len(t.open) {
		return fmt.Errorf("%w: %d heads for %d tips", errTorn, len(heads), len(t.open))
	}
	return nil
}
