// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package blocks is the codec of what carries records between stores: the delta
// inside a block (in go-ds-crdt's wire form), the push on the topic, the frames of
// the sync stream and the confirmation of a durable copy. Package gossip is its
// only user: encode with [Marshal], decode with [Unmarshal], frame on a stream with
// [Write] and [Read].
//
// It checks form only: decoders refuse unknown fields where the form is fixed,
// tombstones, and more items than the limits below. It never judges content,
// signatures or order, and it does no I/O but on the streams it is given.
package blocks

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Limits of what a decoder accepts.
const (
	MaxElements = 2048 // elements of one delta
	MaxHeads    = 4096 // heads or samples in one message
	MaxBlocks   = 512  // blocks in one push or batch
	MaxChains   = 512  // admission chains in one push or batch
	MaxChain    = 64   // envelopes in one admission chain
)

// ErrTombstone says that a delta deletes something; nothing in Shoal does.
var ErrTombstone = errors.New("delta holds a tombstone")

// Element is one key and value of a delta.
type Element struct {
	Key   string
	Value []byte
}

// Delta is the payload of a block. Priority is the block's height in the DAG.
type Delta struct {
	Elements []Element
	Priority uint64
}

// Block is a dag-pb node and the CID its sender claims for it.
type Block struct {
	CID  []byte
	Data []byte
}

// Chain is a peer's admission chain: the signed member records, as envelopes, that
// lead from the cluster key to the peer.
type Chain struct {
	Peer      shoal.PeerID
	Envelopes [][]byte
}

// Message is one of this package's wire messages.
type Message interface {
	toWire() proto.Message
	blank() proto.Message
	fromWire(proto.Message) error
}

// Marshal encodes m. It never fails: all fields are bytes and numbers, or valid UTF-8.
func Marshal(m Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.toWire())
	if err != nil { // only invalid UTF-8 in a string, which the callers' keys and IDs never hold
		panic(fmt.Sprintf("blocks: marshal %T: %v", m, err))
	}
	return raw
}

// Unmarshal decodes raw into m, within the limits of this package.
func Unmarshal(raw []byte, m Message) error {
	w := m.blank()
	err := proto.Unmarshal(raw, w)
	if err == nil {
		err = m.fromWire(w)
	}
	if err != nil {
		return fmt.Errorf("decode %T: %w", m, err)
	}
	return nil
}

func (d *Delta) toWire() proto.Message {
	w := &shoalv1.CrdtDelta{Priority: d.Priority, Elements: make([]*shoalv1.CrdtElement, len(d.Elements))}
	for i, e := range d.Elements {
		w.Elements[i] = &shoalv1.CrdtElement{Key: e.Key, Value: e.Value}
	}
	return w
}

func (d *Delta) blank() proto.Message { return &shoalv1.CrdtDelta{} }

// fromWire is strict: go-ds-crdt will read the same bytes, so nothing may hide in them.
func (d *Delta) fromWire(m proto.Message) error {
	w := m.(*shoalv1.CrdtDelta)
	switch {
	case len(w.Tombstones) > 0:
		return ErrTombstone
	case len(w.ProtoReflect().GetUnknown()) > 0:
		return errors.New("unknown field in delta")
	case len(w.Elements) > MaxElements:
		return fmt.Errorf("%d elements, limit %d", len(w.Elements), MaxElements)
	}
	d.Priority, d.Elements = w.Priority, make([]Element, len(w.Elements))
	for i, e := range w.Elements {
		if e.Id != "" || len(e.ProtoReflect().GetUnknown()) > 0 {
			return errors.New("unknown field in element")
		}
		d.Elements[i] = Element{Key: e.Key, Value: e.Value}
	}
	return nil
}

// Heads is the payload that go-ds-crdt hands to, and takes from, its broadcaster.
type Heads struct{ CIDs [][]byte }

func (h *Heads) toWire() proto.Message {
	w := &shoalv1.CrdtHeads{Heads: make([]*shoalv1.CrdtHead, len(h.CIDs))}
	for i, c := range h.CIDs {
		w.Heads[i] = &shoalv1.CrdtHead{Cid: c}
	}
	return w
}

func (h *Heads) blank() proto.Message { return &shoalv1.CrdtHeads{} }

func (h *Heads) fromWire(m proto.Message) error { //nolint:unparam // the interface's signature
	w := m.(*shoalv1.CrdtHeads)
	h.CIDs = make([][]byte, len(w.Heads))
	for i, c := range w.Heads {
		h.CIDs[i] = c.Cid
	}
	return nil
}

func (c *Chain) toWire() proto.Message { return chainToWire(*c) }

func (c *Chain) blank() proto.Message { return &shoalv1.SyncChain{} }

func (c *Chain) fromWire(m proto.Message) error {
	w := m.(*shoalv1.SyncChain)
	var err error
	*c, err = chainFromWire(w)
	return err
}

func chainToWire(c Chain) *shoalv1.SyncChain {
	return &shoalv1.SyncChain{Peer: string(c.Peer), Envelopes: c.Envelopes}
}

func chainFromWire(w *shoalv1.SyncChain) (Chain, error) {
	if len(w.GetEnvelopes()) > MaxChain {
		return Chain{}, fmt.Errorf("%d links in an admission chain, limit %d", len(w.GetEnvelopes()), MaxChain)
	}
	return Chain{Peer: shoal.PeerID(w.GetPeer()), Envelopes: w.GetEnvelopes()}, nil
}

func blocksToWire(in []Block) []*shoalv1.SyncBlock {
	out := make([]*shoalv1.SyncBlock, len(in))
	for i, b := range in {
		out[i] = &shoalv1.SyncBlock{Cid: b.CID, Data: b.Data}
	}
	return out
}

func blocksFromWire(in []*shoalv1.SyncBlock) ([]Block, error) {
	if len(in) > MaxBlocks {
		return nil, fmt.Errorf("%d blocks, limit %d", len(in), MaxBlocks)
	}
	out := make([]Block, len(in))
	for i, b := range in {
		out[i] = Block{CID: b.GetCid(), Data: b.GetData()}
	}
	return out, nil
}

func chainsToWire(in []Chain) []*shoalv1.SyncChain {
	out := make([]*shoalv1.SyncChain, len(in))
	for i, c := range in {
		out[i] = chainToWire(c)
	}
	return out
}

func chainsFromWire(in []*shoalv1.SyncChain) ([]Chain, error) {
	if len(in) > MaxChains {
		return nil, fmt.Errorf("%d admission chains, limit %d", len(in), MaxChains)
	}
	out := make([]Chain, len(in))
	for i, w := range in {
		c, err := chainFromWire(w)
		if err != nil {
			return nil, err
		}
		out[i] = c
	}
	return out, nil
}
