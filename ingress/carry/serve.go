// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/time/rate"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// server is what a Carrier knows of those it serves.
type server struct {
	counts counts

	mu    sync.Mutex // guards what follows
	open  int
	peers map[shoal.PeerID]*asker
}

// asker is a peer that has streams open here, or had a moment ago.
type asker struct {
	open int
	asks *rate.Limiter
}

// Serve connects a replica of this peer for the peer at the other end of a stream of
// [Protocol], and returns once that is over. The caller lets members in only. When ctx
// ends the stream is reset.
func (c *Carrier) Serve(ctx context.Context, s network.Stream) {
	peer := shoal.PeerID(s.Conn().RemotePeer().String())
	if err := c.serve(ctx, peer, s); err != nil {
		c.server.counts.fail(err.Reason)
		c.deps.Log.Debug("connection for another peer ended early", logkey.Peer, peer, logkey.Reason, err.Reason, logkey.Err, err)
	}
}

func (c *Carrier) serve(ctx context.Context, peer shoal.PeerID, s network.Stream) *Refusal {
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := s.SetDeadline(time.Now().Add(c.cfg.AskTimeout)); err != nil {
		_ = s.Reset()
		return because(ReplicaBroke, err)
	}
	if err := c.enter(peer); err != nil {
		refuse(s, err)
		return err
	}
	defer c.leave(peer)
	ask, err := hearAsk(s)
	if err != nil {
		why := because(Invalid, err)
		refuse(s, why)
		return why
	}
	conn, err := c.reach(ctx, peer, &ask)
	if err != nil {
		why := because(Unreachable, err)
		if why.Reason > Invalid { // a reason of ours, which no holder gives
			why = &Refusal{Reason: NotReady, Text: why.Error(), cause: why}
		}
		refuse(s, why)
		return why
	}
	defer c.uses.begin(ask.Replica, c.deps.Clock.Mono())()
	c.server.counts.begin()
	defer c.server.counts.end()
	if err := answered(s, c.cfg.AskTimeout); err != nil {
		_ = conn.Close() // nothing was sent
		_ = s.Reset()
		return because(ClientBroke, err)
	}
	stop() // what follows minds ctx itself
	if ask.Protocol == UDP {
		return c.relay(ctx, s, conn)
	}
	j := &join{near: &streamEnd{s}, far: newEnd(conn), pools: c.pools, clock: c.deps.Clock, counts: &c.server.counts}
	c.bound(j, c.cfg.Idle)
	defer j.idle.stop()
	if err := j.run(ctx); err != nil {
		return because(ReplicaBroke, err)
	}
	return nil
}

// answered says that the replica is connected; after that nothing has a deadline.
func answered(s network.Stream, timeout time.Duration) error {
	if err := s.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if err := answer(s, nil); err != nil {
		return err
	}
	return s.SetDeadline(time.Time{})
}

// refuse answers with a reason, if there is still somebody, and ends the stream.
func refuse(s network.Stream, why *Refusal) {
	if s.SetWriteDeadline(time.Now().Add(time.Second)) != nil || answer(s, why) != nil {
		_ = s.Reset()
		return
	}
	_ = s.CloseRead()
	_ = s.Close()
}

// Served returns what was counted of connections for other peers.
func (c *Carrier) Served() Served { return c.server.counts.served() }

// enter counts a stream of a peer, or refuses it.
func (c *Carrier) enter(peer shoal.PeerID) *Refusal {
	at := time.Time{}.Add(c.deps.Clock.Mono())
	v := &c.server
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.peers[peer]
	if a == nil {
		a = &asker{asks: rate.NewLimiter(rate.Limit(c.cfg.AsksPerSecond), int(2*c.cfg.AsksPerSecond)+1)}
		v.peers[peer] = a
	}
	busy := ""
	switch {
	case !a.asks.AllowN(at, 1):
		busy = fmt.Sprintf("peer %s asks more than %.0f times a second", peer.Short(), c.cfg.AsksPerSecond)
	case v.open >= c.cfg.Streams:
		busy = fmt.Sprintf("%d connections for other peers are open", v.open)
	case a.open >= c.cfg.StreamsPerPeer:
		busy = fmt.Sprintf("%d connections for peer %s are open", a.open, peer.Short())
	}
	if busy != "" {
		return &Refusal{Reason: Busy, Text: busy}
	}
	v.open++
	a.open++
	return nil
}

// leave is the end of what enter counted. Who has nothing open and could ask as often as
// ever is forgotten.
func (c *Carrier) leave(peer shoal.PeerID) {
	at := time.Time{}.Add(c.deps.Clock.Mono())
	v := &c.server
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.peers[peer]
	v.open--
	a.open--
	if a.open == 0 && a.asks.TokensAt(at) >= float64(a.asks.Burst()) {
		delete(v.peers, peer)
	}
}
