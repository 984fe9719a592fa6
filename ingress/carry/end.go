// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// Sizes of buffers. One side of a stream waits with a small one, for nothing tells when
// it has bytes; what follows a full small one is read into a large one, which fits the
// frames of yamux. A small one of 1 KiB or 4 KiB is as fast.
const (
	smallBytes  = 2 << 10
	largeBytes  = 64 << 10
	packetBytes = 64 << 10 // a datagram and its length
)

// pool keeps buffers of one size.
type pool struct{ sync.Pool }

func newPool(size int) *pool {
	return &pool{sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

func (p *pool) get() *[]byte { return p.Get().(*[]byte) }

// pools are shared by all connections of a Carrier.
type pools struct{ small, large, packet *pool }

func newPools() *pools {
	return &pools{small: newPool(smallBytes), large: newPool(largeBytes), packet: newPool(packetBytes)}
}

// end is one side of a connection.
type end interface {
	io.Writer
	// next waits for bytes and returns them in a buffer of the pool, which the caller puts
	// back, also with an error. It prefers a large buffer if more is known to come.
	next(p *pools, more bool) (piece, error)
	// CloseWrite says that no more comes, and leaves the other way open.
	CloseWrite() error
	// Close ends both ways after a CloseWrite, and discards nothing that was written.
	Close() error
	// reset breaks the connection so that the other side cannot take it for its end.
	reset()
}

// piece is some bytes in a buffer.
type piece struct {
	buf *[]byte
	n   int
	of  *pool
}

func (p piece) bytes() []byte { return (*p.buf)[:p.n] }

// isFull reports whether there may be more at once.
func (p piece) isFull() bool { return p.n == len(*p.buf) }

func (p piece) put() {
	if p.buf != nil {
		p.of.Put(p.buf)
	}
}

// nextOf is end.next for what can only be waited for with a buffer in hand.
func nextOf(r io.Reader, p *pools, more bool) (piece, error) {
	from := p.small
	if more {
		from = p.large
	}
	out := piece{buf: from.get(), of: from}
	var err error
	out.n, err = r.Read(*out.buf)
	if out.n > 0 {
		err = nil // it comes again
	}
	return out, err
}

// tcpEnd is a TCP connection of this machine.
type tcpEnd struct {
	*net.TCPConn
	waiter
}

// keepAlive probes a silent connection; four probes without an answer break it.
func keepAlive(every time.Duration) net.KeepAliveConfig {
	const probes = 3 // after the first
	return net.KeepAliveConfig{Enable: true, Idle: every, Interval: every, Count: probes}
}

func (e *tcpEnd) next(p *pools, more bool) (piece, error) { return e.wait(e.TCPConn, p, more) }

func (e *tcpEnd) reset() {
	_ = e.SetLinger(0) // nothing to do if it is closed
	_ = e.Close()
}

// streamEnd is a stream of another member.
type streamEnd struct{ network.Stream }

func (e *streamEnd) next(p *pools, more bool) (piece, error) { return nextOf(e.Stream, p, more) }

func (e *streamEnd) reset() { _ = e.Reset() }

// otherEnd is any other connection, such as one of a command's socket.
type otherEnd struct{ net.Conn }

func (e *otherEnd) next(p *pools, more bool) (piece, error) { return nextOf(e.Conn, p, more) }

// CloseWrite closes all if the connection knows no half.
func (e *otherEnd) CloseWrite() error {
	if half, ok := e.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return e.Close()
}

func (e *otherEnd) reset() { _ = e.Close() }

func newEnd(conn net.Conn) end {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return &otherEnd{conn}
	}
	return &tcpEnd{TCPConn: tcp, waiter: newWaiter(tcp)}
}
