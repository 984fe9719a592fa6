// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/exchange"
)

// Checks says how much room images take here, what moved between this peer and others
// since it started, and which of them sent what is not the blob. It may touch the disk.
func (r *Room) Checks() []shoal.Check {
	return []shoal.Check{r.roomCheck(), r.peersCheck(r.exchange.Stats())}
}

func (r *Room) roomCheck() shoal.Check {
	c := shoal.Check{Area: "images", Name: "room", State: shoal.CheckOK}
	u, err := r.store.Usage()
	if err != nil {
		c.State, c.Detail, c.Remedy = shoal.CheckFail, err.Error(), "see that the data directory (--data) can be read"
		return c
	}
	c.Detail = mib(u.Bytes) + " taken"
	if u.Limit > 0 {
		c.Detail += " of at most " + mib(u.Limit)
	}
	return c
}

func (r *Room) peersCheck(st exchange.Stats) shoal.Check {
	c := shoal.Check{Area: "images", Name: "peers", State: shoal.CheckOK}
	var got, sent int64
	sources, sinks := 0, 0
	var liars []string
	for _, p := range st.Peers {
		got, sent = got+p.Got, sent+p.Sent
		if p.Got > 0 {
			sources++
		}
		if p.Sent > 0 {
			sinks++
		}
		if p.Lied > 0 || p.Bad > 0 {
			liars = append(liars, r.nameOf(p.Peer))
		}
	}
	c.Detail = fmt.Sprintf("%s from %d, %s to %d since it started", mib(got), sources, mib(sent), sinks)
	if len(st.Refused) > 0 {
		var parts []string
		for _, why := range slices.Sorted(maps.Keys(st.Refused)) {
			parts = append(parts, fmt.Sprintf("%d %s", st.Refused[why], why))
		}
		c.Detail += "; messages not taken: " + strings.Join(parts, ", ")
	}
	if len(liars) > 0 {
		c.State = shoal.CheckWarn
		c.Detail += "; sent what is not the image: " + strings.Join(liars, ", ")
		c.Remedy = "nothing of it was kept; look at the memory and the disk of that machine, or at who runs it (shoal peer rm)"
	}
	return c
}

// nameOf is how users know a peer.
func (r *Room) nameOf(id shoal.PeerID) string {
	if p, ok := r.deps.Records.Desired().Peer(id); ok {
		return p.Name()
	}
	return id.Short()
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
