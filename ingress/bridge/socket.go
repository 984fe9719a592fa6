// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bridge

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// onDevice makes sockets that see only what arrives on one interface, whatever other
// interfaces a sender can reach their address by.
func onDevice(device string) *net.ListenConfig {
	return &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if outer := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }); outer != nil {
			return outer
		}
		return err
	}}
}

// Listen takes a TCP port for what arrives on one interface only. Who may not gets a
// *shoal.AdviceError that wraps shoal.ErrRefused.
func Listen(ctx context.Context, device string, at netip.AddrPort) (*net.TCPListener, error) {
	l, err := onDevice(device).Listen(ctx, "tcp4", at.String())
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", device, permitted(err))
	}
	return l.(*net.TCPListener), nil
}

// ListenPacket is Listen for UDP.
func ListenPacket(ctx context.Context, device string, at netip.AddrPort) (*net.UDPConn, error) {
	c, err := onDevice(device).ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", device, permitted(err))
	}
	return c.(*net.UDPConn), nil
}

// localOf is where a connection that nobody redirected was meant to go.
func localOf(c *net.TCPConn) (netip.AddrPort, error) {
	return unmapped(c.LocalAddr().(*net.TCPAddr).AddrPort()), nil
}

// originalOf is where a redirected connection was meant to go: SO_ORIGINAL_DST.
func originalOf(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var to netip.AddrPort
	outer := raw.Control(func(fd uintptr) {
		// The library has no getsockopt for a sockaddr_in; this one takes 20 bytes of
		// anything, of which the kernel fills 16: family, port, address.
		var m *unix.IPv6Mreq
		if m, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Multiaddr[4:8])), binary.BigEndian.Uint16(m.Multiaddr[2:4]))
		}
	})
	if outer != nil {
		return netip.AddrPort{}, outer
	}
	return to, err
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
