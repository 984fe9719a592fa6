// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"cmp"
	"container/heap"
	"context"
	"slices"

	"github.com/ipfs/go-cid"
)

const (
	// sampleLevels is how many exponentially growing distances samples are taken at:
	// they reach 2^20 levels down.
	sampleLevels = 20
	// samplesPerLevel bounds the samples of one level; more blocks than this on one
	// level are rare, and missing some only costs blocks sent twice.
	samplesPerLevel = 4
)

// missing returns the blocks that are reachable from heads and not from have,
// parents before children. All of heads and have must be here. It reads no more of
// the DAG than down to the lowest such block: heights grow strictly from parent to
// child, so going down by height, a block's whole "already there" is known when it
// is met.
func (r *blockRows) missing(ctx context.Context, heads, have []cid.Cid) ([]cid.Cid, error) {
	if len(have) == 0 {
		return r.all(ctx) // every block here is complete and reachable
	}
	w := walk{rows: r, there: map[cid.Cid]bool{}}
	for _, c := range have {
		if err := w.meet(ctx, c, true); err != nil {
			return nil, err
		}
	}
	for _, c := range heads {
		if err := w.meet(ctx, c, false); err != nil {
			return nil, err
		}
	}
	var out []placed
	for w.wanted > 0 {
		at := heap.Pop(&w.queue).(placed)
		there := w.there[at.cid]
		if !there {
			w.wanted--
			out = append(out, at)
		}
		for _, parent := range at.links {
			if err := w.meet(ctx, parent, there); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(out, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.height, b.height), cmp.Compare(a.cid.KeyString(), b.cid.KeyString()))
	})
	cids := make([]cid.Cid, len(out))
	for i, p := range out {
		cids[i] = p.cid
	}
	return cids, nil
}

// samples returns blocks at distance 1, 2, 4, ... below height, for a peer that does
// not know our heads.
func (r *blockRows) samples(ctx context.Context, height uint64) ([]cid.Cid, error) {
	var out []cid.Cid
	for i := range sampleLevels {
		d := uint64(1) << i
		if d >= height {
			break
		}
		level, err := r.at(ctx, height-d, samplesPerLevel)
		if err != nil {
			return nil, err
		}
		out = append(out, level...)
	}
	return out, nil
}

type placed struct {
	cid cid.Cid
	ref
}

// walk goes down the DAG by height.
type walk struct {
	rows   *blockRows
	queue  byHeight
	there  map[cid.Cid]bool // met blocks; true: the other side has it
	wanted int              // queued blocks that the other side lacks
}

func (w *walk) meet(ctx context.Context, c cid.Cid, there bool) error {
	was, met := w.there[c]
	switch {
	case met && was == there, met && was:
		return nil
	case met: // still queued, as all its children lie above it
		w.there[c] = true
		w.wanted--
		return nil
	}
	at, err := w.rows.ref(ctx, c)
	if err != nil {
		return err
	}
	w.there[c] = there
	if !there {
		w.wanted++
	}
	heap.Push(&w.queue, placed{c, at})
	return nil
}

// byHeight is a heap, highest block first.
type byHeight []placed

func (q byHeight) Len() int           { return len(q) }
func (q byHeight) Less(i, j int) bool { return q[i].height > q[j].height }
func (q byHeight) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push implements [heap.Interface].
func (q *byHeight) Push(x any) { *q = append(*q, x.(placed)) }

// Pop implements [heap.Interface].
func (q *byHeight) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
