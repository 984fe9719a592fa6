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
			defer b.leave(s.From.Addr())
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

// admit judges a connection, and counts it if it is admitted: leave ends that.
func (b *Bridge) admit(c *net.TCPConn, meant func(*net.TCPConn) (netip.AddrPort, error)) (Stream, Reason) {
	from := unmapped(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	if !isContainer(b.network, from.Addr()) {
		return Stream{}, Stranger
	}
	to, err := meant(c)
	if err != nil || !isVirtual(b.network, to.Addr()) {
		return Stream{}, Astray
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conns >= b.cfg.Conns || b.byClient[from.Addr()] >= b.cfg.ConnsPerContainer {
		return Stream{}, Busy
	}
	b.conns++
	b.byClient[from.Addr()]++
	return Stream{Conn: c, From: from, To: to}, admitted
}

func (b *Bridge) leave(client netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns--
	if b.byClient[client]--; b.byClient[client] == 0 {
		delete(b.byClient, client)
	}
}

// refuse resets a connection: it shows as refused, not as a server that said nothing.
func refuse(c *net.TCPConn) {
	_ = c.SetLinger(0) // it is closed either way
	_ = c.Close()      // as above
}

// guarded is the socket of an endpoint. It shows only what containers of the network send.
type guarded struct {
	net.PacketConn
	udp    *net.UDPConn // the same
	bridge *Bridge
}

// ReadFrom implements net.PacketConn.
func (g *guarded) ReadFrom(buffer []byte) (int, net.Addr, error) {
	n, from, err := g.ReadFromUDPAddrPort(buffer)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadFromUDPAddrPort is ReadFrom as net.UDPConn has it, which allocates nothing.
func (g *guarded) ReadFromUDPAddrPort(buffer []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := g.udp.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return n, netip.AddrPort{}, err
		}
		if from = unmapped(from); isContainer(g.bridge.network, from.Addr()) {
			g.bridge.count.datagrams.Add(1)
			return n, from, nil
		}
		g.bridge.count.refuse(Stranger)
	}
}

// WriteToUDPAddrPort is WriteTo as net.UDPConn has it.
func (g *guarded) WriteToUDPAddrPort(data []byte, to netip.AddrPort) (int, error) {
	return g.udp.WriteToUDPAddrPort(data, to)
}
