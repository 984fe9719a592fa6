// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
	"github.com/shoalnet/shoal/internal/logkey"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// pieceTime bounds how long a piece may take in either direction: 256 KiB at 70 kbit/s.
const pieceTime = 30 * time.Second

// dataPool is the data streams that we opened to one peer in one session.
type dataPool struct {
	x      *Exchange
	peer   shoal.PeerID
	places chan struct{} // one for each stream in use

	mu      sync.Mutex // guards what follows
	open    map[network.Stream]bool
	free    []network.Stream
	isEnded bool
}

func newDataPool(x *Exchange, p shoal.PeerID) *dataPool {
	return &dataPool{x: x, peer: p, places: make(chan struct{}, x.cfg.Streams), open: map[network.Stream]bool{}}
}

// take returns a stream that nobody else uses; it waits for one until ctx ends or stop is
// closed. It is given back by put.
func (p *dataPool) take(ctx context.Context, stop <-chan struct{}) (network.Stream, error) {
	if !enter(ctx, stop, p.places) {
		return nil, errTakenBack
	}
	p.mu.Lock()
	if len(p.free) > 0 {
		s := p.free[0] // the one used longest ago: the peer may still be busy with the others
		p.free = p.free[1:]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	s, err := p.dial(ctx)
	if err != nil {
		<-p.places
	}
	return s, err
}

func (p *dataPool) dial(ctx context.Context) (network.Stream, error) {
	id, err := peer.Decode(string(p.peer))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	s, err := p.x.deps.Host.NewStream(ctx, id, DataProtocol)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isEnded {
		_ = s.Reset() // nobody knows of it yet
		return nil, errSessionEnded
	}
	p.open[s] = true
	return s, nil
}

// put gives a stream back, or ends it if it is broken.
func (p *dataPool) put(s network.Stream, isBroken bool) {
	p.mu.Lock()
	isOver := isBroken || p.isEnded
	if isOver {
		delete(p.open, s)
	} else {
		p.free = append(p.free, s)
	}
	p.mu.Unlock()
	if isOver {
		_ = s.Reset() // it is of no use
	}
	<-p.places
}

// end breaks all streams off, also those in use.
func (p *dataPool) end() {
	p.mu.Lock()
	open := p.open
	p.isEnded, p.open, p.free = true, nil, nil
	p.mu.Unlock()
	for s := range open {
		_ = s.Reset() // the session is over
	}
}

// upload is one chunk that is being sent, or about to be.
type upload struct {
	peer  shoal.PeerID
	sess  *session
	ask   uint64
	chunk int
	off   int64
	size  int
	src   *blobs.Reader
	stop  chan struct{} // closed when it is taken back
}

var errTakenBack = errors.New("taken back")

// send carries out an upload; nil: the last byte was handed to the network.
func (x *Exchange) send(ctx context.Context, d blobs.Digest, u *upload) (err error) {
	s, err := u.sess.data.take(ctx, u.stop)
	if err != nil {
		return err
	}
	isBroken := false
	defer func() { u.sess.data.put(s, isBroken) }()
	release, ok := x.up.take(ctx, u.stop, x.cfg.Patience)
	if !ok {
		return errTakenBack
	}
	defer release()
	u.sess.send(&shoalv1.BlobHead{Blob: d[:], Ask: u.ask, Chunk: int64(u.chunk)})
	buf := x.pieces.Get().(*[]byte)
	defer x.pieces.Put(buf)
	out := appendBegin((*buf)[:0], begin{blob: d, ask: u.ask, chunk: u.chunk, length: u.size})
	for at := 0; at < u.size; {
		n := min(maxPiece, u.size-at)
		head := len(out)
		out = appendFrame(out, framePiece, n)
		out = out[:head+frameHead+n]
		_, err = u.src.ReadAt(out[head+frameHead:], u.off+int64(at))
		if err == nil {
			err = pace(ctx, x.upRate, n)
		}
		isStopped := isClosed(u.stop)
		if err != nil || isStopped {
			out = out[:head]
			if at > 0 { // it began: the stream can be used on
				out = appendFrame(out, frameBroken, 0)
			} else {
				out = out[:0]
			}
			isBroken = write(s, out) != nil
			if err == nil {
				err = errTakenBack
			}
			return err
		}
		if err := write(s, out); err != nil {
			isBroken = true
			if late, is := errors.AsType[net.Error](err); is && late.Timeout() {
				u.sess.end() // it takes nothing: its asks must not block those of others
			}
			return err
		}
		x.books.sent(u.peer, d, n)
		at += n
		out = out[:0]
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func write(s network.Stream, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := s.SetWriteDeadline(time.Now().Add(pieceTime)); err != nil {
		return err
	}
	_, err := s.Write(b)
	return err
}

// pace waits until n bytes may move.
func pace(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil {
		return nil
	}
	return l.WaitN(ctx, n)
}

// acceptData receives the chunks of one stream until it ends.
func (x *Exchange) acceptData(ctx context.Context, p shoal.PeerID, s network.Stream) {
	defer func() { _ = s.Reset() }() // nothing more is read from it
	x.mu.Lock()
	isFull := x.inbound[p] >= 2*x.cfg.Streams // those of a session that has just ended may linger
	if !isFull {
		x.inbound[p]++
	}
	x.mu.Unlock()
	if isFull {
		x.books.refuse("limit")
		return
	}
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.inbound[p]--; x.inbound[p] == 0 {
			delete(x.inbound, p)
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	d := &dataReader{r: s, unknown: func() { x.books.refuse("unknown") }}
	for {
		err := s.SetReadDeadline(time.Time{})
		var g begin
		if err == nil {
			g, err = d.begin()
		}
		if err == nil {
			err = x.receive(ctx, p, s, d, g)
		}
		if err != nil {
			if errors.Is(err, errForm) {
				x.books.refuse("form")
			}
			x.deps.Log.Debug("chunk stream ended", logkey.Peer, p, logkey.Err, err)
			return
		}
	}
}

// receive takes one chunk, or reads over it.
func (x *Exchange) receive(ctx context.Context, p shoal.PeerID, s network.Stream, d *dataReader, g begin) error {
	var t *task
	isDue := x.with(g.blob, false, func(found *task) error {
		t = found
		return t.expect(p, g)
	}) == nil
	came := func(n int) error {
		if err := s.SetReadDeadline(time.Now().Add(pieceTime)); err != nil {
			return err
		}
		return pace(ctx, x.downRate, n)
	}
	if !isDue {
		_, err := d.body(g.length, nil, came)
		return err
	}
	fail := func() { t.event(swarm.Event{Kind: swarm.EventFail, Peer: p, Ask: g.ask}) }
	select {
	case x.down <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	buf := x.buffers.Get().(*[swarm.ChunkBytes]byte)
	release := func() {
		x.buffers.Put(buf)
		<-x.down
	}
	last := x.deps.Clock.Mono()
	isWhole, err := d.body(g.length, buf[:], func(n int) error {
		if now := x.deps.Clock.Mono(); now-last >= time.Second {
			last = now
			t.event(swarm.Event{Kind: swarm.EventMore, Peer: p, Ask: g.ask})
		}
		return came(n)
	})
	if err != nil || !isWhole {
		release()
		fail()
		return err
	}
	// The stream does not wait for the disk: every so often a write syncs, and what follows
	// on the stream would be stuck behind it.
	isGoing := x.spawn(func(context.Context) {
		defer release()
		t.deliver(p, g, buf[:g.length])
	})
	if !isGoing {
		release()
		return ErrStopped
	}
	return nil
}

// expect decides whether a chunk that begins is wanted. The caller holds mu.
func (t *task) expect(p shoal.PeerID, g begin) error {
	n := t.peers[p]
	if t.sw == nil || n == nil || !n.isJoined || g.ask == 0 || g.ask > n.lastAsk {
		t.x.books.refuse("unasked")
		return shoal.ErrRefused
	}
	if g.chunk >= t.have.Len() || g.length != chunkLen(t.size, g.chunk) {
		t.x.books.refuse("range")
		return fmt.Errorf("%w: chunk %d of %d bytes", shoal.ErrRefused, g.chunk, g.length)
	}
	if t.have.Has(g.chunk) {
		t.step(swarm.Event{Kind: swarm.EventHead, Peer: p, Ask: g.ask, Chunk: g.chunk}) // which takes it back
		return shoal.ErrRefused
	}
	t.step(swarm.Event{Kind: swarm.EventHead, Peer: p, Ask: g.ask, Chunk: g.chunk})
	if !n.isJoined {
		return shoal.ErrRefused // it was a lie
	}
	return nil
}
