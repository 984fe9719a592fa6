// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blocks

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// State says how a sync stream goes on.
type State int

// The states; StateRefused is also what an unknown one decodes to.
const (
	StateRefused State = iota // other cluster or epoch, not a member, or busy
	StateEqual                // same heads, nothing follows
	StateSamples              // a head is unknown there: ask again with samples, or go
	StateFollows              // batches follow, the last with End set
)

type (
	// Push is what the records topic carries.
	Push struct {
		Blocks []Block
		Chains []Chain
	}
	// Request opens a sync stream, and asks again with samples.
	Request struct {
		Cluster shoal.PeerID
		Epoch   uint32
		Heads   [][]byte // CIDs
		Samples [][]byte // CIDs of ancestors
	}
	// Reply answers a Request.
	Reply struct {
		State State
		Heads [][]byte
	}
	// Batch is a part of the difference, parents before children. More, with End:
	// the answer was cut at its limit.
	Batch struct {
		Blocks []Block
		Chains []Chain
		End    bool
		More   bool
	}
	// AckRequest asks whether a block is durable at the other end.
	AckRequest struct {
		Cluster    shoal.PeerID
		CID        []byte
		WaitMillis uint32
	}
	// AckReply confirms or not.
	AckReply struct{ Durable bool }
)

func (p *Push) toWire() proto.Message {
	return &shoalv1.Push{Blocks: blocksToWire(p.Blocks), Chains: chainsToWire(p.Chains)}
}

func (p *Push) blank() proto.Message { return &shoalv1.Push{} }

func (p *Push) fromWire(m proto.Message) (err error) {
	w := m.(*shoalv1.Push)
	if p.Blocks, err = blocksFromWire(w.Blocks); err != nil {
		return err
	}
	p.Chains, err = chainsFromWire(w.Chains)
	return err
}

func (r *Request) toWire() proto.Message {
	return &shoalv1.SyncRequest{Cluster: string(r.Cluster), Epoch: r.Epoch, Heads: r.Heads, Samples: r.Samples}
}

func (r *Request) blank() proto.Message { return &shoalv1.SyncRequest{} }

func (r *Request) fromWire(m proto.Message) error {
	w := m.(*shoalv1.SyncRequest)
	if len(w.Heads) > MaxHeads || len(w.Samples) > MaxHeads {
		return fmt.Errorf("%d heads and %d samples, limit %d", len(w.Heads), len(w.Samples), MaxHeads)
	}
	*r = Request{Cluster: shoal.PeerID(w.Cluster), Epoch: w.Epoch, Heads: w.Heads, Samples: w.Samples}
	return nil
}

func (r *Reply) toWire() proto.Message {
	state := shoalv1.SyncState_SYNC_STATE_REFUSED
	switch r.State {
	case StateEqual:
		state = shoalv1.SyncState_SYNC_STATE_EQUAL
	case StateSamples:
		state = shoalv1.SyncState_SYNC_STATE_SAMPLES_WANTED
	case StateFollows:
		state = shoalv1.SyncState_SYNC_STATE_FOLLOWS
	case StateRefused:
	}
	return &shoalv1.SyncReply{State: state, Heads: r.Heads}
}

func (r *Reply) blank() proto.Message { return &shoalv1.SyncReply{} }

func (r *Reply) fromWire(m proto.Message) error {
	w := m.(*shoalv1.SyncReply)
	if len(w.Heads) > MaxHeads {
		return fmt.Errorf("%d heads, limit %d", len(w.Heads), MaxHeads)
	}
	*r = Reply{State: StateRefused, Heads: w.Heads}
	switch w.State {
	case shoalv1.SyncState_SYNC_STATE_EQUAL:
		r.State = StateEqual
	case shoalv1.SyncState_SYNC_STATE_SAMPLES_WANTED:
		r.State = StateSamples
	case shoalv1.SyncState_SYNC_STATE_FOLLOWS:
		r.State = StateFollows
	case shoalv1.SyncState_SYNC_STATE_UNSPECIFIED, shoalv1.SyncState_SYNC_STATE_REFUSED:
	}
	return nil
}

func (b *Batch) toWire() proto.Message {
	return &shoalv1.SyncBatch{Blocks: blocksToWire(b.Blocks), Chains: chainsToWire(b.Chains), End: b.End, More: b.More}
}

func (b *Batch) blank() proto.Message { return &shoalv1.SyncBatch{} }

func (b *Batch) fromWire(m proto.Message) (err error) {
	w := m.(*shoalv1.SyncBatch)
	*b = Batch{End: w.End, More: w.More}
	if b.Blocks, err = blocksFromWire(w.Blocks); err != nil {
		return err
	}
	b.Chains, err = chainsFromWire(w.Chains)
	return err
}

func (r *AckRequest) toWire() proto.Message {
	return &shoalv1.AckRequest{Cluster: string(r.Cluster), Cid: r.CID, WaitMillis: r.WaitMillis}
}

func (r *AckRequest) blank() proto.Message { return &shoalv1.AckRequest{} }

func (r *AckRequest) fromWire(m proto.Message) error { //nolint:unparam // the interface's signature
	w := m.(*shoalv1.AckRequest)
	*r = AckRequest{Cluster: shoal.PeerID(w.Cluster), CID: w.Cid, WaitMillis: w.WaitMillis}
	return nil
}

func (r *AckReply) toWire() proto.Message { return &shoalv1.AckReply{Durable: r.Durable} }

func (r *AckReply) blank() proto.Message { return &shoalv1.AckReply{} }

func (r *AckReply) fromWire(m proto.Message) error { //nolint:unparam // the interface's signature
	w := m.(*shoalv1.AckReply)
	r.Durable = w.Durable
	return nil
}

// Write sends m as one frame of at most limit bytes.
func Write(w io.Writer, m Message, limit int) error {
	return frame.Write(w, m.toWire(), limit)
}

// Read receives one frame of at most limit bytes into m. frame.ErrTooLarge
// (wrapped): it is longer, and was not read. frame.ErrMalformed (wrapped): it is no
// such message, or beyond a limit of this package.
func Read(r io.Reader, m Message, limit int) error {
	w := m.blank()
	if err := frame.Read(r, w, limit); err != nil {
		return err
	}
	if err := m.fromWire(w); err != nil {
		return fmt.Errorf("%w: %w", frame.ErrMalformed, err)
	}
	return nil
}
