// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/shoalnet/shoal"
)

// udpBuffer is what the kernel may hold of datagrams that nobody has read yet, if it
// grants that much.
const udpBuffer = 1 << 20

// Listener is a port on which a service answers.
type Listener struct {
	tcp *net.TCPListener
	udp *net.UDPConn
}

// Listen takes a port; port 0 takes any. The address is that clients use: 0.0.0.0 is all
// of IPv4 and nothing of IPv6. protocol is TCP or UDP. shoal.ErrConflict: somebody has the
// port. shoal.ErrRefused: this process may not take it.
func Listen(ctx context.Context, addr netip.AddrPort, protocol string) (*Listener, error) {
	addr = plain(addr)
	family := "4"
	if addr.Addr().Is6() {
		family = "6"
	}
	var l Listener
	var err error
	switch protocol {
	case TCP:
		var got net.Listener
		lc := net.ListenConfig{KeepAlive: -1} // TCP knows how often
		lc.SetMultipathTCP(false)             // a path more to this peer is none to the replica
		if got, err = lc.Listen(ctx, TCP+family, addr.String()); err == nil {
			l.tcp = got.(*net.TCPListener)
		}
	case UDP:
		var got net.PacketConn
		var lc net.ListenConfig
		if got, err = lc.ListenPacket(ctx, UDP+family, addr.String()); err == nil {
			l.udp = got.(*net.UDPConn)
			_ = l.udp.SetReadBuffer(udpBuffer) // it works with less
		}
	default:
		return nil, &shoal.InvalidError{Field: "protocol", Why: fmt.Sprintf("must be tcp or udp, got %q", protocol)}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = fmt.Errorf("%w: %w", shoal.ErrConflict, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		err = fmt.Errorf("%w: %w", shoal.ErrRefused, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s/%s: %w", addr, protocol, err)
	}
	return &l, nil
}

// Addr returns the address taken.
func (l *Listener) Addr() netip.AddrPort {
	if l.tcp != nil {
		return portOf(l.tcp.Addr())
	}
	return portOf(l.udp.LocalAddr())
}

// Close gives the port back: nobody new is let in, and open TCP connections go on. It may
// be called twice.
func (l *Listener) Close() error {
	var err error
	if l.tcp != nil {
		err = l.tcp.Close()
	} else {
		err = l.udp.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Serve carries what comes in until ctx ends, which also breaks what is open, or until the
// Listener is closed and the last connection is over. It returns after all it started has
// ended, with the port given back.
func (l *Listener) Serve(ctx context.Context, c *Carrier, to Dest) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if l.tcp == nil {
		return errors.Join(c.UDP(ctx, l.udp, to), l.Close())
	}
	open := &crowd{most: c.cfg.Conns, mostPerClient: c.cfg.ConnsPerClient, clients: map[netip.Addr]int{}}
	var conns sync.WaitGroup
	defer conns.Wait()
	var wait backOff
	for {
		conn, err := l.tcp.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil: // such as too many open files: those that wait in the kernel may be served later
			wait.pause(ctx)
			continue
		}
		wait.reset()
		client := clientOf(portOf(conn.RemoteAddr()).Addr())
		if !open.enter(client) {
			to.Service.counts.fail(TooMany)
			(&tcpEnd{TCPConn: conn}).reset()
			continue
		}
		conns.Go(func() {
			defer open.leave(client)
			_ = c.TCP(ctx, conn, to) // counted
		})
	}
}

// crowd counts the connections of a listener.
type crowd struct {
	most, mostPerClient int

	mu      sync.Mutex // guards what follows
	open    int
	clients map[netip.Addr]int
}

func (w *crowd) enter(client netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open >= w.most || w.clients[client] >= w.mostPerClient {
		return false
	}
	w.open++
	w.clients[client]++
	return true
}

func (w *crowd) leave(client netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open--
	if w.clients[client]--; w.clients[client] == 0 {
		delete(w.clients, client)
	}
}

// backOff waits longer after each further error in a row (the times of net/http).
type backOff struct{ last time.Duration }

func (b *backOff) reset() { b.last = 0 }

func (b *backOff) pause(ctx context.Context) {
	b.last = min(max(2*b.last, 5*time.Millisecond), time.Second)
	t := time.NewTimer(b.last)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
