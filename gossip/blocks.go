// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/boxo/ipld/merkledag"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/blocks"
)

const (
	// maxBlockBytes bounds a block that comes in, links included.
	maxBlockBytes = 256 << 10
	// maxUpdateBytes bounds the records of a block we write (DESIGN section 7).
	maxUpdateBytes = 128 << 10
	// maxLinks bounds a block's parents. A block links all heads of its author, so it
	// bounds concurrency: 2,048 links are 90 KiB and fit beside maxUpdateBytes.
	maxLinks = 2048
	// maxRefs bounds the cache of heights and links; about 150 bytes each.
	maxRefs = 8192
)

// Rows beside go-ds-crdt's own, which lie under crdtSpace.
var (
	crdtSpace  = ds.NewKey("/c").ChildString(strconv.Itoa(epoch)) // /c/<epoch>: go-ds-crdt's own rows
	blockSpace = ds.NewKey("/k")                                  // /k/<multihash>: the block
	orderSpace = ds.NewKey("/o")                                  // /o/<height, 16 hex digits>/<multihash>: empty
	chainSpace = ds.NewKey("/a")                                  // /a/<peer>: its admission chain
)

// block is a decoded block. Its records are set once it passed intake.
type block struct {
	cid     cid.Cid
	data    []byte
	links   []cid.Cid
	delta   blocks.Delta
	records []*shoal.Record // by element
}

// decodeBlock takes a block apart: form only.
func decodeBlock(data []byte) (*block, error) {
	if len(data) > maxBlockBytes {
		return nil, fmt.Errorf("%d bytes, limit %d", len(data), maxBlockBytes)
	}
	c, err := merkledag.V1CidPrefix().Sum(data)
	if err != nil {
		return nil, fmt.Errorf("hash block: %w", err)
	}
	node, err := toNode(c, data)
	if err != nil {
		return nil, err
	}
	b := &block{cid: c, data: data, links: make([]cid.Cid, len(node.Links()))}
	if len(b.links) > maxLinks {
		return nil, fmt.Errorf("%d links, limit %d", len(b.links), maxLinks)
	}
	seen := make(map[cid.Cid]bool, len(b.links))
	for i, l := range node.Links() {
		if l.Name != "" || l.Cid.Prefix() != c.Prefix() || seen[l.Cid] {
			return nil, fmt.Errorf("link %d is not a plain link to a block", i)
		}
		b.links[i], seen[l.Cid] = l.Cid, true
	}
	if err := blocks.Unmarshal(node.Data(), &b.delta); err != nil {
		return nil, err
	}
	return b, nil
}

func toNode(c cid.Cid, data []byte) (*merkledag.ProtoNode, error) {
	raw, err := blockformat.NewBlockWithCid(data, c)
	if err != nil {
		return nil, fmt.Errorf("wrap block: %w", err)
	}
	nd, err := merkledag.DecodeProtobufBlock(raw)
	if err != nil {
		return nil, fmt.Errorf("decode block: %w", err)
	}
	pn, ok := nd.(*merkledag.ProtoNode)
	if !ok {
		return nil, errors.New("block is not dag-pb")
	}
	return pn, nil
}

// ref is what walking the DAG needs of a block.
type ref struct {
	height uint64
	links  []cid.Cid
}

// blockRows reads and writes blocks in a datastore: the stage's for the writer and
// go-ds-crdt, the base's for whoever must see only what is on disk. It is the
// offline DAGService that go-ds-crdt works on: a block that is not here is an error
// at once, never a wait.
type blockRows struct {
	rows ds.Batching

	mu   sync.Mutex
	refs map[cid.Cid]ref // guarded by mu; a cache, emptied when full
}

var _ ipld.DAGService = (*blockRows)(nil)

func newBlockRows(rows ds.Batching) *blockRows {
	return &blockRows{rows: rows, refs: map[cid.Cid]ref{}}
}

func blockKey(c cid.Cid) ds.Key { return blockSpace.Child(dshelp.MultihashToDsKey(c.Hash())) }

func heightSpace(h uint64) ds.Key { return orderSpace.ChildString(fmt.Sprintf("%016x", h)) }

func (r *blockRows) has(ctx context.Context, c cid.Cid) (bool, error) {
	r.mu.Lock()
	_, ok := r.refs[c]
	r.mu.Unlock()
	if ok {
		return true, nil
	}
	return r.rows.Has(ctx, blockKey(c))
}

func (r *blockRows) data(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := r.rows.Get(ctx, blockKey(c))
	if errors.Is(err, ds.ErrNotFound) {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	return data, err
}

// put stores a block and its place in the order.
func (r *blockRows) put(ctx context.Context, b *block) error {
	if err := r.rows.Put(ctx, blockKey(b.cid), b.data); err != nil {
		return err
	}
	r.remember(b)
	return r.rows.Put(ctx, heightSpace(b.delta.Priority).Child(dshelp.MultihashToDsKey(b.cid.Hash())), nil)
}

func (r *blockRows) remember(b *block) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refs) >= maxRefs {
		clear(r.refs)
	}
	r.refs[b.cid] = ref{b.delta.Priority, b.links}
}

// forget empties the cache, for when blocks were dropped before they were flushed.
func (r *blockRows) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.refs)
}

// ref returns a block's height and links. ipld.ErrNotFound: it is not here.
func (r *blockRows) ref(ctx context.Context, c cid.Cid) (ref, error) {
	r.mu.Lock()
	known, ok := r.refs[c]
	r.mu.Unlock()
	if ok {
		return known, nil
	}
	b, err := r.block(ctx, c)
	if err != nil {
		return ref{}, err
	}
	r.remember(b)
	return ref{b.delta.Priority, b.links}, nil
}

func (r *blockRows) block(ctx context.Context, c cid.Cid) (*block, error) {
	data, err := r.data(ctx, c)
	if err != nil {
		return nil, err
	}
	b, err := decodeBlock(data)
	if err != nil {
		return nil, fmt.Errorf("read block %s: %w", c, err)
	}
	if b.cid != c {
		return nil, fmt.Errorf("read block %s: its bytes are those of %s", c, b.cid)
	}
	return b, nil
}

// all returns every block, parents before children.
func (r *blockRows) all(ctx context.Context) ([]cid.Cid, error) { return r.ordered(ctx, orderSpace, 0) }

// at returns the first few blocks of one height.
func (r *blockRows) at(ctx context.Context, height uint64, limit int) ([]cid.Cid, error) {
	return r.ordered(ctx, heightSpace(height), limit)
}

// ordered lists the blocks of rows under a key, at most limit of them; 0: all.
func (r *blockRows) ordered(ctx context.Context, space ds.Key, limit int) ([]cid.Cid, error) {
	res, err := r.rows.Query(ctx, query.Query{
		Prefix: space.String(), KeysOnly: true, Limit: limit, Orders: []query.Order{query.OrderByKey{}},
	})
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	rows, err := res.Rest()
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	out := make([]cid.Cid, 0, len(rows))
	for _, row := range rows {
		c, err := cidOfRow(row.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: list blocks: %w", errTorn, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// cidOfRow reads the CID that a row's key ends in.
func cidOfRow(key string) (cid.Cid, error) {
	c, err := dshelp.DsKeyToCidV1(ds.RawKey(key[strings.LastIndexByte(key, '/'):]), cid.DagProtobuf)
	if err != nil {
		return cid.Undef, fmt.Errorf("row %q: %w", key, err)
	}
	return c, nil
}

// Get implements [ipld.NodeGetter].
func (r *blockRows) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	data, err := r.data(ctx, c)
	if err != nil {
		return nil, err
	}
	return toNode(c, data)
}

// GetMany implements [ipld.NodeGetter].
func (r *blockRows) GetMany(ctx context.Context, cids []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cids))
	for _, c := range cids {
		nd, err := r.Get(ctx, c)
		out <- &ipld.NodeOption{Node: nd, Err: err}
	}
	close(out)
	return out
}

// Add implements [ipld.NodeAdder]; go-ds-crdt calls it for the blocks it makes.
func (r *blockRows) Add(ctx context.Context, nd ipld.Node) error {
	b, err := decodeBlock(nd.RawData())
	if err != nil {
		return fmt.Errorf("store own block: %w", err)
	}
	return r.put(ctx, b)
}

// AddMany implements [ipld.NodeAdder].
func (r *blockRows) AddMany(ctx context.Context, nds []ipld.Node) error {
	for _, nd := range nds {
		if err := r.Add(ctx, nd); err != nil {
			return err
		}
	}
	return nil
}

// errNeverRemoved: the store only grows.
var errNeverRemoved = errors.New("blocks are never removed")

// Remove implements [ipld.DAGService].
func (r *blockRows) Remove(context.Context, cid.Cid) error { return errNeverRemoved }

// RemoveMany implements [ipld.DAGService].
func (r *blockRows) RemoveMany(context.Context, []cid.Cid) error { return errNeverRemoved }
