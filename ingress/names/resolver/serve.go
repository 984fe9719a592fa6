// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A socket that fails so often in a row is broken; in between we wait a little, as for
// memory or descriptors that come back.
const (
	maxFailures = 100
	failPause   = 10 * time.Millisecond
)

// again decides about an error of a socket: go on, or return.
func again(ctx context.Context, failures *int, err error) bool {
	*failures++
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || *failures >= maxFailures {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(failPause):
		return true
	}
}

// servePackets answers datagrams: ours at once, foreign ones each on its own.
func (s *Server) servePackets(ctx context.Context, pc net.PacketConn) error {
	var under sync.WaitGroup
	defer under.Wait()
	buf, failures := make([]byte, maxQuestion), 0
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if again(ctx, &failures, err) {
				continue
			}
			return ended(ctx, "read questions", err)
		}
		failures = 0
		client := clientOf(from)
		if !s.admit(client) {
			continue
		}
		reply, a := s.local(client, buf[:n], false)
		if a != nil {
			var land func()
			if land, reply = s.lift(client, a); land != nil {
				under.Go(func() {
					defer land()
					send(pc, s.foreign(ctx, client, a), from)
				})
				continue
			}
		}
		send(pc, reply, from)
	}
}

// send answers a datagram. If that fails the client asks again, as if it had been lost.
func send(pc net.PacketConn, reply []byte, to net.Addr) {
	if reply != nil {
		_, _ = pc.WriteTo(reply, to)
	}
}

// ended returns nil if ctx ended, else what went wrong.
func ended(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// serveConns answers connections.
func (s *Server) serveConns(ctx context.Context, l net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	failures := 0
	for {
		conn, err := l.Accept()
		if err != nil {
			if again(ctx, &failures, err) {
				continue
			}
			return ended(ctx, "accept", err)
		}
		failures = 0
		client := clientOf(conn.RemoteAddr())
		hangUp, ok := s.greet(client)
		if !ok {
			_ = conn.Close()
			continue
		}
		open.Go(func() {
			defer hangUp()
			s.serveConn(ctx, conn, client)
		})
	}
}

// greet decides about a new connection.
func (s *Server) greet(client netip.Addr) (hangUp func(), ok bool) {
	if !s.deps.Allowed(client) {
		s.count.asked.Add(1)
		s.count.refuse(Stranger)
		return nil, false
	}
	hangUp, ok = s.clients.connect(client, time.Now())
	if !ok {
		s.count.asked.Add(1)
		s.count.refuse(Busy)
	}
	return hangUp, ok
}

// serveConn answers the questions of a connection one after the other, until the client
// has no more, is too slow, asks too much, or sends what is no question.
func (s *Server) serveConn(ctx context.Context, conn net.Conn, client netip.Addr) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close()
	}()
	for answered := false; ; answered = true {
		packet, begun, err := s.readMessage(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) && (begun || !answered) {
			s.count.refuse(Slow)
		}
		if err != nil || !s.admit(client) {
			return
		}
		reply, a := s.local(client, packet, true)
		if a != nil {
			var land func()
			if land, reply = s.lift(client, a); land != nil {
				reply = s.foreign(ctx, client, a)
				land()
			}
		}
		if reply == nil {
			return
		}
		if conn.SetWriteDeadline(time.Now().Add(s.cfg.Idle)) != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// readMessage reads one message within Idle from now, however it is cut up. begun: a part of
// it came.
func (s *Server) readMessage(conn net.Conn) (packet []byte, begun bool, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(s.cfg.Idle)); err != nil {
		return nil, false, err
	}
	var size [2]byte
	if n, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, n > 0, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > maxQuestion {
		s.count.asked.Add(1)
		s.count.refuse(Malformed)
		return nil, true, fmt.Errorf("a question of %d bytes", n)
	}
	packet = make([]byte, n)
	_, err = io.ReadFull(conn, packet)
	return packet, true, err
}
