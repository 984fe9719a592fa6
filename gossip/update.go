// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
	"github.com/shoalnet/shoal/proto/blocks"
)

// The life of an update: it waits until the writer begins it or its caller takes it
// back, whichever is first.
const (
	updateWaits int32 = iota
	updateBegun
	updateTakenBack
)

// update is one call of Update or Inject on its way through the writer.
type update struct {
	fn       func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) // Update
	verbatim []fold.Entry                                            // Inject

	state atomic.Int32
	done  chan struct{} // closed by the writer; what is below may be read then
	ack   shoal.Ack
	cid   cid.Cid // of its block
	err   error
}

// begin is the writer's: it reports whether the update is to be carried out.
func (u *update) begin() bool {
	return u.state.CompareAndSwap(updateWaits, updateBegun) || u.state.Load() == updateBegun
}

// takeBack is the caller's: it reports whether nothing was and will be written.
func (u *update) takeBack() bool { return u.state.CompareAndSwap(updateWaits, updateTakenBack) }

// end answers; err replaces what the update would have answered.
func (u *update) end(err error) {
	if err != nil {
		u.ack, u.cid, u.err = shoal.Ack{}, cid.Undef, err
	}
	close(u.done)
}

// draft is our block in the making.
type draft struct {
	entries []fold.Entry
	bytes   int
	updates []*update
}

// holds reports whether a record with this key is in the draft: a block must not
// hold one twice.
func (d *draft) holds(key string) bool {
	return slices.ContainsFunc(d.entries, func(e fold.Entry) bool { return e.Record.Key() == key })
}

// takeUpdate runs one update on the turn's state and puts what it returns in our
// block, whole; when it does not fit, that block is closed and another begun.
func (w *writer) takeUpdate(ctx context.Context, t *turn, u *update) error {
	entries, err := w.entriesOf(ctx, t, u)
	size := 0
	for _, e := range entries {
		size += len(e.Envelope) + len(e.Record.Key())
	}
	if size > maxUpdateBytes || len(entries) > blocks.MaxElements {
		err = &shoal.InvalidError{Field: "update", Why: fmt.Sprintf(
			"has %d records of %d bytes, a block holds at most %d of %d", len(entries), size, blocks.MaxElements, maxUpdateBytes)}
	}
	if err != nil || len(entries) == 0 {
		if u.err = err; err != nil {
			u.ack = shoal.Ack{}
		}
		t.ended = append(t.ended, u)
		return nil
	}
	if t.draft.bytes+size > maxUpdateBytes || len(t.draft.entries)+len(entries) > blocks.MaxElements {
		if err := w.closeBlock(ctx, t); err != nil {
			return err
		}
	}
	u.ack.Wrote = true
	t.draft.entries = append(t.draft.entries, entries...)
	t.draft.bytes += size
	t.draft.updates = append(t.draft.updates, u)
	w.fold(t, entries)
	return nil
}

// entriesOf returns the records an update wants to write, none if it has nothing new.
func (w *writer) entriesOf(ctx context.Context, t *turn, u *update) ([]fold.Entry, error) {
	if u.fn == nil {
		var out []fold.Entry
		for _, e := range u.verbatim {
			known, err := w.engine.crdt.Has(ctx, ds.RawKey(e.Record.Key()))
			if err != nil {
				return nil, err
			}
			if !known && !t.draft.holds(e.Record.Key()) {
				out = append(out, e)
			}
		}
		return out, nil
	}
	as := w.stamper.Stamp()
	u.ack.HLC = as.HLC
	bodies, err := call(u.fn, t.desired, as)
	if err != nil || len(bodies) == 0 {
		return nil, err
	}
	return w.stamper.Seal(as, bodies, w.resolver.Complete)
}

// call runs a caller's function; its panic is that caller's error, not the writer's end.
func call(fn func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error), d *shoal.Desired, as shoal.Stamp) (out []shoal.Body, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("update panicked: %v", r)
		}
	}()
	return fn(d, as)
}

// closeBlock commits our block in the making on top of all heads.
func (w *writer) closeBlock(ctx context.Context, t *turn) error {
	if len(t.draft.entries) == 0 {
		return nil
	}
	elems := make([]blocks.Element, len(t.draft.entries))
	for i, e := range t.draft.entries {
		elems[i] = blocks.Element{Key: e.Record.Key(), Value: e.Envelope}
	}
	b, err := w.engine.commit(ctx, elems)
	if err != nil {
		return err
	}
	t.own = append(t.own, b)
	for _, u := range t.draft.updates {
		u.cid = b.cid
	}
	t.ended = append(t.ended, t.draft.updates...)
	t.draft = draft{}
	return nil
}
