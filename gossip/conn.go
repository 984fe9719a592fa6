// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/blocks"
	"github.com/shoalnet/shoal/proto/frame"
)

// Protocols between stores.
const (
	SyncProtocol protocol.ID = "/shoal/sync/1"
	AckProtocol  protocol.ID = "/shoal/ack/1"
)

// conn is a stream with a deadline on every frame and its bytes counted. It breaks
// when the context it was made with ends.
type conn struct {
	store  *Store
	stream network.Stream
	peer   shoal.PeerID
	forget func() bool // stops watching the context
	longer time.Duration
}

func (s *Store) dial(ctx context.Context, id peer.ID, p protocol.ID) (*conn, error) {
	st, err := s.deps.Host.NewStream(ctx, id, p)
	if err != nil {
		return nil, fmt.Errorf("open %s stream: %w", p, err)
	}
	return s.wrap(ctx, st), nil
}

func (s *Store) wrap(ctx context.Context, st network.Stream) *conn {
	return &conn{
		store: s, stream: st, peer: idOf(st.Conn().RemotePeer()),
		forget: context.AfterFunc(ctx, func() { _ = st.Reset() }), // whoever uses it sees the error
	}
}

// end closes the stream, or breaks it after an error.
func (c *conn) end(err *error) {
	c.forget()
	if *err != nil || c.stream.Close() != nil {
		_ = c.stream.Reset() // nothing more to be had from it
	}
}

func (c *conn) deadline() time.Time {
	return time.Now().Add(c.store.cfg.FrameTimeout + c.longer)
}

func (c *conn) read(m blocks.Message, limit int) error {
	if err := c.stream.SetReadDeadline(c.deadline()); err != nil {
		return err
	}
	err := blocks.Read(c, m, limit)
	if errors.Is(err, frame.ErrTooLarge) || errors.Is(err, frame.ErrMalformed) {
		c.store.refuse(c.peer, refuse(reasonForm, "%w", err))
	}
	return err
}

// cids reads names of blocks that came in a message.
func (c *conn) cids(raw [][]byte) ([]cid.Cid, error) {
	out, err := cidsOf(raw)
	if err != nil {
		c.store.refuse(c.peer, refuse(reasonForm, "%w", err))
	}
	return out, err
}

func (c *conn) write(m blocks.Message) error {
	if err := c.stream.SetWriteDeadline(c.deadline()); err != nil {
		return err
	}
	return blocks.Write(c, m, maxFrame)
}

// ask writes one message and reads the next.
func (c *conn) ask(m, answer blocks.Message) error {
	if err := c.write(m); err != nil {
		return err
	}
	return c.read(answer, maxAsk)
}

// Read implements [io.Reader].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	c.store.count.syncIn.Add(uint64(n))
	return n, err
}

// Write implements [io.Writer].
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.stream.Write(p)
	c.store.count.syncOut.Add(uint64(n))
	return n, err
}
