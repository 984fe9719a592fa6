// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

const (
	lengthBytes = 2     // ahead of a datagram on a stream
	maxDatagram = 65507 // bytes of one: 65,535 less the headers of IPv4 and UDP
	// sendTimeout ends a flow whose stream takes nothing: the next datagram opens another.
	sendTimeout = 10 * time.Second
)

// packets is one side of a UDP flow. A datagram comes and goes in a buffer that begins
// with room for its length.
type packets interface {
	// send sends one. The error ends the flow; errDropped does not.
	send(b []byte) error
	// recv waits for one; the caller puts the buffer back, also with an error.
	recv(p *pools) (piece, error)
	// end ends it, also a send or recv under way. It may be called twice.
	end()
}

// errDropped says that a datagram could not be sent, and others may be.
var errDropped = errors.New("datagram dropped")

// datagram returns what came, with the room ahead.
func (p piece) datagram() []byte { return (*p.buf)[:lengthBytes+p.n] }

// socketPackets is a socket that is connected to a container.
type socketPackets struct {
	net.Conn
	waiter
}

func newSocketPackets(conn net.Conn) packets {
	p := &socketPackets{Conn: conn}
	if s, ok := conn.(syscall.Conn); ok {
		p.waiter = newWaiter(s)
	}
	return p
}

func (s *socketPackets) send(b []byte) error {
	_, err := s.Write(b[lengthBytes:])
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, net.ErrClosed):
		return err
	}
	return fmt.Errorf("%w: %w", errDropped, err)
}

func (s *socketPackets) recv(p *pools) (piece, error) { return s.read(p.packet, lengthBytes) }

func (s *socketPackets) end() { _ = s.Close() }

// streamPackets is a stream of another member.
type streamPackets struct{ network.Stream }

func (s *streamPackets) send(b []byte) error {
	if err := s.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return writeDatagram(s.Stream, b)
}

func (s *streamPackets) recv(p *pools) (piece, error) { return readDatagram(s.Stream, p.packet) }

func (s *streamPackets) end() {
	_ = s.Close()
	_ = s.SetDeadline(time.Now())
}

// writeDatagram sends a datagram that begins with room for its length, in one call.
func writeDatagram(w io.Writer, b []byte) error {
	n := len(b) - lengthBytes
	if n > maxDatagram {
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", errDropped, n, maxDatagram)
	}
	binary.BigEndian.PutUint16(b, uint16(n))
	_, err := w.Write(b)
	return err
}

// readDatagram waits for the next datagram without a buffer in hand. io.EOF: the stream
// ended between two.
func readDatagram(r io.Reader, from *pool) (piece, error) {
	var head [lengthBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return piece{}, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > maxDatagram {
		return piece{}, fmt.Errorf("a datagram of %d bytes, at most %d are allowed", n, maxDatagram)
	}
	p := piece{buf: from.get(), n: n, of: from}
	if _, err := io.ReadFull(r, p.datagram()[lengthBytes:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return p, err
	}
	return p, nil
}

// packets returns the way to a replica as one of datagrams.
func (f far) packets() packets {
	if f.stream != nil {
		return &streamPackets{f.stream}
	}
	return newSocketPackets(f.conn)
}

// relay carries the datagrams of a flow between a stream and a container of this peer.
// The asker ends it; one that forgets to is not waited for forever.
func (c *Carrier) relay(ctx context.Context, s network.Stream, conn net.Conn) *Refusal {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	near, far := packets(&streamPackets{s}), newSocketPackets(conn)
	idle := newIdleTimer(c.deps.Clock, 2*c.cfg.FlowIdle, func() { cancel(nil) })
	defer idle.stop()
	stop := context.AfterFunc(ctx, func() {
		if isBroken(ctx) { // only so the asker learns that nobody listens
			_ = s.Reset()
		}
		near.end()
		far.end()
	})
	defer stop()
	v := &c.server.counts
	var back sync.WaitGroup
	back.Go(func() {
		cancel(c.passOn(near, far, ReplicaBroke, ClientBroke, v, func(n int) {
			idle.touch()
			v.out.Add(uint64(n))
		}))
	})
	cancel(c.passOn(far, near, ClientBroke, ReplicaBroke, v, func(n int) {
		idle.touch()
		v.in.Add(uint64(n))
	}))
	back.Wait()
	why, _ := errors.AsType[*Refusal](context.Cause(ctx))
	return why
}

// isBroken reports whether ctx ended for a reason that is counted.
func isBroken(ctx context.Context) bool {
	_, ok := errors.AsType[*Refusal](context.Cause(ctx))
	return ok
}

// passOn passes datagrams on until one side ends or breaks: nil, or why.
func (c *Carrier) passOn(to, from packets, ifFrom, ifTo Reason, counts *counts, passed func(n int)) error {
	for {
		p, err := from.recv(c.pools)
		if err == nil {
			passed(p.n)
			err = to.send(p.datagram())
			p.put()
			switch {
			case err == nil:
			case errors.Is(err, errDropped):
				counts.fail(Dropped)
			default:
				return because(ifTo, err)
			}
			continue
		}
		p.put()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return because(ifFrom, err)
	}
}
