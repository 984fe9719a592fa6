// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/blocks"
)

const (
	// maxAckWait bounds how long a peer is asked to wait for a block.
	maxAckWait = 60 * time.Second
	// ackPull is how long a block is waited for before it is pulled from who asks.
	ackPull = 200 * time.Millisecond
	// ackLook is how often members that connected since are asked too.
	ackLook = 500 * time.Millisecond
	// maxAsked bounds the peers asked for one block.
	maxAsked = 64
)

// askAcks asks the members around whether a block is durable at theirs, and returns
// how many said so: at once when enough have, at the latest after timeout.
func (s *Store) askAcks(ctx context.Context, c cid.Cid, enough int, timeout time.Duration) int {
	if s.deps.Host == nil {
		return 0
	}
	timeout = min(timeout, maxAckWait)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	yes := make(chan struct{}, maxAsked)
	asked := map[shoal.PeerID]bool{}
	look := time.NewTicker(ackLook)
	defer look.Stop()
	for n := 0; ; {
		for _, p := range s.connected() {
			if asked[p] || len(asked) >= maxAsked {
				continue
			}
			asked[p] = true
			wg.Go(func() {
				if err := s.askAck(ctx, p, c, timeout); err != nil {
					s.deps.Log.Debug("block not confirmed", logkey.Peer, string(p), logkey.Err, err)
					return
				}
				yes <- struct{}{}
			})
		}
		select {
		case <-yes:
			if n++; n >= enough {
				return n
			}
		case <-look.C:
		case <-ctx.Done():
			return n
		case <-s.stopped:
			return n
		}
	}
}

// askAck returns nil when the peer confirmed.
func (s *Store) askAck(ctx context.Context, p shoal.PeerID, c cid.Cid, wait time.Duration) (err error) {
	id, err := peer.Decode(string(p))
	if err != nil {
		return err
	}
	conn, err := s.dial(ctx, id, AckProtocol)
	if err != nil {
		return err
	}
	defer conn.end(&err)
	conn.longer = wait
	var reply blocks.AckReply
	req := blocks.AckRequest{Cluster: s.cfg.Cluster, CID: c.Bytes(), WaitMillis: uint32(wait.Milliseconds())}
	if err := conn.ask(&req, &reply); err != nil {
		return err
	}
	if !reply.Durable {
		return fmt.Errorf("block %s is not durable there", c)
	}
	return nil
}

// answerAck waits until a block is on disk here and says so. If the push does not
// come soon the block is pulled from who asks.
func (s *Store) answerAck(ctx context.Context, c *conn) error {
	var req blocks.AckRequest
	if err := c.read(&req, maxAsk); err != nil {
		return err
	}
	want, err := c.cids([][]byte{req.CID})
	if err != nil {
		return err
	}
	if req.Cluster != s.cfg.Cluster {
		return c.write(&blocks.AckReply{})
	}
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(req.WaitMillis)*time.Millisecond, maxAckWait))
	defer cancel()
	pull := time.NewTimer(ackPull)
	defer pull.Stop()
	for {
		grown := s.grown.wait()
		lacks, err := s.lacks(ctx, want)
		if err != nil {
			return err
		}
		if !lacks {
			return c.write(&blocks.AckReply{Durable: true})
		}
		select {
		case <-grown:
		case <-pull.C:
			s.wantSync(c.peer)
		case <-ctx.Done():
			return c.write(&blocks.AckReply{})
		}
	}
}
