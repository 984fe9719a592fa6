// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"

	"github.com/shoalnet/shoal"
)

// path says for listings how a member is reached, with the relay by name, and how many
// of the last pings there were lost.
func (p *Peer) path(id shoal.PeerID, name func(shoal.PeerID) string) (way string, pings, lost int) {
	at := p.links.Path(id)
	return at.Text(name), at.Pings, at.Lost
}

// wayTo says for people how a member is reached.
func (p *Peer) wayTo(id shoal.PeerID) string {
	return cmp.Or(p.links.Path(id).Text(shoal.PeerID.Short), "none")
}
