// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"net"
	"syscall"
)

// pathMTU returns the largest packet that the kernel would send to ip, from its
// routes and what routers told it (IP_MTU of a connected socket, ip(7)); 0: unknown.
// Nothing is sent.
func pathMTU(ip net.IP) int {
	c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: ip, Port: 9})
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }() // nothing was sent
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	level, option := syscall.IPPROTO_IP, syscall.IP_MTU
	if ip.To4() == nil {
		level, option = syscall.IPPROTO_IPV6, syscall.IPV6_MTU
	}
	mtu := 0
	if err := raw.Control(func(fd uintptr) {
		if n, err := syscall.GetsockoptInt(int(fd), level, option); err == nil {
			mtu = n
		}
	}); err != nil {
		return 0
	}
	return mtu
}
