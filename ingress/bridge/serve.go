// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bridge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// pause is how long accepting rests when the process is out of files.
const pause = 50 * time.Millisecond

// accept hands out connections until the listener is closed.
func (b *Bridge) accept(ctx context.Context, group *sync.WaitGroup, l *net.TCPListener, meant func(*net.TCPConn) (netip.AddrPort, error)) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			rest(ctx, pause)
			continue
		}
		s, why := b.admit(c, meant)
		if why != admitted {
			b.count.refuse(why)
			refuse(c)
			continue
		}
		b.count.streams.Add(1)
		group.Go(func() {
			defer func() { <-b.slots }()
			defer c.Close() //nolint:errcheck // who carried it knows how it ended
			b.deps.Stream(ctx, s)
		})
	}
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// admit judges a connection, and takes a slot for it if it is admitted.
func (b *Bridge) admit(c *net.TCPConn, meant func(*net.TCPConn) (netip.AddrPort, error)) (Stream, Reason) {
	from := unmapped(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	if !isContainer(b.network, from.Addr()) {
		return Stream{}, Stranger
	}
	to, err := meant(c)
	if err != nil || !isVirtual(b.network, to.Addr()) {
		return Stream{}, Astray
	}
	select {
	case b.slots <- struct{}{}:
		return Stream{Conn: c, From: from, To: to}, admitted
	default:
		return Stream{}, Busy
	}
}

// refuse resets a connection: it shows as refused, not as a server that said nothing.
func refuse(c *net.TCPConn) {
	_ = c.SetLinger(0) // it is closed either way
	_ = c.Close()      // as above
}

// receive hands out datagrams until the socket is closed.
func (b *Bridge) receive(ctx context.Context, c *net.UDPConn, to netip.AddrPort) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			rest(ctx, pause)
			continue
		}
		from = unmapped(from)
		if !isContainer(b.network, from.Addr()) {
			b.count.refuse(Stranger)
			continue
		}
		b.count.datagrams.Add(1)
		b.deps.Datagram(Datagram{Data: buffer[:n], From: from, To: to, Reply: func(data []byte) error {
			_, err := c.WriteToUDPAddrPort(data, from)
			return err
		}})
	}
}
