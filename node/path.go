// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
)

// path says for people how a peer is connected.
func (p *Peer) path(id shoal.PeerID) string {
	at, err := peer.Decode(string(id))
	if err != nil {
		return "none"
	}
	conns := p.links.Host().Network().ConnsToPeer(at)
	for _, c := range conns {
		if !c.Stat().Limited {
			return "direct"
		}
	}
	if len(conns) > 0 {
		return "relayed"
	}
	return "none"
}
