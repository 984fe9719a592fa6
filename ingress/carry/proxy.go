// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The PROXY protocol, version 2 (haproxy.org/download/2.8/doc/proxy-protocol.txt, section
// 2.2): signature, version and command, family and transport, length, addresses.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyHead      = len(proxySignature) + 4
	proxyLocal     = 0x20
	proxyProxied   = 0x21
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
	proxyMost      = 2048 // bytes of addresses and extensions that are read; the form allows 65,535
)

// ErrNotProxy says that what was read does not begin with a PROXY header, or with one that
// is broken.
var ErrNotProxy = errors.New("no PROXY header")

// ProxyHeader returns the header of a TCP connection from client to reached. Without one
// of them it is LOCAL: take the addresses of the socket. If one is IPv6, both are.
func ProxyHeader(client, reached netip.AddrPort) []byte {
	b := make([]byte, 0, proxyHead+2*16+4)
	b = append(b, proxySignature...)
	client, reached = plain(client), plain(reached)
	switch {
	case !client.IsValid() || !reached.IsValid():
		return append(b, proxyLocal, 0, 0, 0)
	case client.Addr().Is4() && reached.Addr().Is4():
		b = append(b, proxyProxied, proxyTCP4, 0, 2*4+4)
		b = append(b, client.Addr().AsSlice()...)
		b = append(b, reached.Addr().AsSlice()...)
	default:
		b = append(b, proxyProxied, proxyTCP6, 0, 2*16+4)
		from, to := client.Addr().As16(), reached.Addr().As16()
		b = append(b, from[:]...)
		b = append(b, to[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, client.Port())
	return binary.BigEndian.AppendUint16(b, reached.Port())
}

// ParseProxyHeader reads the header that b begins with: both addresses, zero for a LOCAL
// one, and its length. Extensions are skipped. ErrNotProxy (wrapped): there is none, it is
// not whole, or not of TCP.
func ParseProxyHeader(b []byte) (client, reached netip.AddrPort, size int, err error) {
	bad := func(why string) (netip.AddrPort, netip.AddrPort, int, error) {
		return netip.AddrPort{}, netip.AddrPort{}, 0, fmt.Errorf("%w: %s", ErrNotProxy, why)
	}
	if len(b) < proxyHead || string(b[:len(proxySignature)]) != proxySignature {
		return bad("other signature")
	}
	command, family := b[12], b[13]
	n := int(binary.BigEndian.Uint16(b[14:16]))
	if n > proxyMost || len(b) < proxyHead+n {
		return bad("not whole")
	}
	body := b[proxyHead : proxyHead+n]
	width := 4
	switch {
	case command == proxyLocal:
		return netip.AddrPort{}, netip.AddrPort{}, proxyHead + n, nil
	case command != proxyProxied:
		return bad("other version or command")
	case family == proxyTCP6:
		width = 16
	case family != proxyTCP4:
		return bad("not of TCP")
	}
	if len(body) < 2*width+4 {
		return bad("addresses are cut")
	}
	from, _ := netip.AddrFromSlice(body[:width])
	to, _ := netip.AddrFromSlice(body[width : 2*width])
	client = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(body[2*width:]))
	reached = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(body[2*width+2:]))
	return client, reached, proxyHead + n, nil
}
