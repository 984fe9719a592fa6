// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/blocks"
)

const (
	// maxAsk bounds a request: blocks.MaxHeads heads and as many samples, 40 bytes each.
	maxAsk = 512 << 10
	// maxFrame bounds a batch: one block of any size, or batchBytes of smaller ones,
	// with the chains of their authors.
	maxFrame = 4 << 20
	// batchBytes and batchBlocks fill a batch; answerBytes ends an answer, so that one
	// stream does not hold a slot for ever.
	batchBytes  = 256 << 10
	batchBlocks = 128
	answerBytes = 32 << 20
	// Streams answered at a time, of all peers and of one: who opens many and says
	// nothing keeps nobody else out. An ack is waited for, so there may be more of those.
	syncSlots, syncSlotsEach = 64, 8
	ackSlots, ackSlotsEach   = 1024, 128
)

// serve begins to answer syncs and asks for confirmation. The function it returns
// ends that, and returns when the last answer has ended; ctx must have ended by then.
func (s *Store) serve(ctx context.Context) (end func()) {
	syncs := desk{store: s, door: door{limit: syncSlots}, each: syncSlotsEach, answer: s.answerSync}
	acks := desk{store: s, door: door{limit: ackSlots}, each: ackSlotsEach, answer: s.answerAck}
	s.deps.Host.SetStreamHandler(SyncProtocol, func(st network.Stream) { syncs.handle(ctx, st) })
	s.deps.Host.SetStreamHandler(AckProtocol, func(st network.Stream) { acks.handle(ctx, st) })
	return func() {
		s.deps.Host.RemoveStreamHandler(SyncProtocol)
		s.deps.Host.RemoveStreamHandler(AckProtocol)
		syncs.door.close()
		acks.door.close()
	}
}

// desk answers the streams of one protocol, a bounded number at a time.
type desk struct {
	store  *Store
	door   door
	each   int // streams of one peer
	answer func(context.Context, *conn) error

	mu   sync.Mutex
	busy map[shoal.PeerID]int // guarded by mu; streams being answered
}

// enter takes a place for a stream of a peer.
func (d *desk) enter(p shoal.PeerID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[p] >= d.each || !d.door.enter() {
		return false
	}
	if d.busy == nil {
		d.busy = map[shoal.PeerID]int{}
	}
	d.busy[p]++
	return true
}

func (d *desk) leave(p shoal.PeerID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[p]--; d.busy[p] == 0 {
		delete(d.busy, p)
	}
	d.door.leave()
}

func (d *desk) handle(ctx context.Context, st network.Stream) {
	from := idOf(st.Conn().RemotePeer())
	if !d.store.allowed(from) || !d.enter(from) {
		_ = st.Reset() // it is refused; there is nobody to tell
		return
	}
	defer d.leave(from)
	c := d.store.wrap(ctx, st)
	err := d.answer(ctx, c)
	c.end(&err)
	if err != nil && ctx.Err() == nil {
		d.store.deps.Log.Debug("stream not answered", logkey.Peer, string(from), "protocol", string(st.Protocol()), logkey.Err, err)
	}
}

// door counts who is inside. Once closed nobody comes in, and close returns when the
// last one left: what they use may be taken down then.
type door struct {
	limit int // who finds this many inside stays out; 0: no limit

	mu     sync.Mutex
	inside int  // guarded by mu
	closed bool // guarded by mu
	empty  sync.WaitGroup
}

func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.limit > 0 && d.inside >= d.limit {
		return false
	}
	d.inside++
	d.empty.Add(1)
	return true
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	d.empty.Done()
}

func (d *door) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.empty.Wait()
}

// answerSync sends a peer what we have and it lacks.
func (s *Store) answerSync(ctx context.Context, c *conn) error {
	var req blocks.Request
	if err := c.read(&req, maxAsk); err != nil {
		return err
	}
	if req.Cluster != s.cfg.Cluster || req.Epoch != epoch || !s.conduct.mayAsk(s.deps.Clock.Mono(), c.peer) {
		return c.write(&blocks.Reply{State: blocks.StateRefused})
	}
	own := s.committed()
	mine := told(own.heads)
	if len(mine) == len(own.heads) && slices.EqualFunc(req.Heads, mine, slices.Equal[[]byte]) {
		return c.write(&blocks.Reply{State: blocks.StateEqual})
	}
	have, all, err := s.known(ctx, c, req.Heads)
	if err != nil {
		return err
	}
	if !all {
		// It has what we lack: we will pull that. To tell what it lacks of ours we need
		// to know how far down we agree.
		s.wantSync(c.peer)
		var again blocks.Request
		err := c.ask(&blocks.Reply{State: blocks.StateSamples, Heads: mine}, &again)
		if errors.Is(err, io.EOF) {
			return nil // it lacks nothing
		}
		if err != nil {
			return err
		}
		if have, _, err = s.known(ctx, c, slices.Concat(again.Heads, again.Samples)); err != nil {
			return err
		}
	}
	missing, err := s.rows.missing(ctx, own.heads, have)
	if err != nil {
		return err
	}
	if err := c.write(&blocks.Reply{State: blocks.StateFollows, Heads: mine}); err != nil {
		return err
	}
	return s.send(ctx, c, missing)
}

// known returns those of the named blocks that are on disk here, and whether all are.
func (s *Store) known(ctx context.Context, c *conn, raw [][]byte) ([]cid.Cid, bool, error) {
	cids, err := c.cids(raw)
	if err != nil {
		return nil, false, err
	}
	have := make([]cid.Cid, 0, len(cids))
	for _, c := range cids {
		here, err := s.rows.has(ctx, c)
		if err != nil {
			return nil, false, err
		}
		if here {
			have = append(have, c)
		}
	}
	return have, len(have) == len(cids), nil
}

// send streams blocks in batches, each with the chains of authors that were not in
// one before.
func (s *Store) send(ctx context.Context, c *conn, list []cid.Cid) error {
	sent := map[shoal.PeerID]bool{}
	total := 0
	for {
		var batch blocks.Batch
		for size := 0; len(list) > 0 && size < batchBytes && len(batch.Blocks) < batchBlocks; list = list[1:] {
			b, err := s.rows.block(ctx, list[0])
			if err != nil {
				return fmt.Errorf("send block: %w", err)
			}
			batch.Blocks = append(batch.Blocks, blocks.Block{CID: b.cid.Bytes(), Data: b.data})
			batch.Chains = append(batch.Chains, s.chains.authors(b, sent)...)
			size += len(b.data)
			total += len(b.data)
		}
		batch.More = len(list) > 0 && total >= answerBytes
		batch.End = len(list) == 0 || batch.More
		if err := c.write(&batch); err != nil {
			return err
		}
		if batch.End {
			return nil
		}
	}
}
