// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

// mdnsName is what peers call themselves on the local network; the cluster's name
// stays out of it.
const mdnsName = "_shoal._udp"

// discover asks the local network for addresses. It finds members that moved, never
// new ones: who is a member is said by records alone.
func (l *Links) discover() (stop func(), err error) {
	service := mdns.NewMdnsService(l.host, mdnsName, found{l})
	if err := service.Start(); err != nil {
		return nil, fmt.Errorf("start local discovery: %w", err)
	}
	return func() { _ = service.Close() }, nil // its Close reports nothing
}

// found takes answers from the local network.
type found struct{ l *Links }

// HandlePeerFound implements mdns.Notifee.
func (f found) HandlePeerFound(info peer.AddrInfo) {
	if !f.l.gate.isMember(info.ID) {
		return
	}
	f.l.sawAt(info.ID, info.Addrs...)
	f.l.poke()
}
