// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"context"
	"fmt"

	"github.com/shoalnet/shoal"
)

// LastWords implements [shoal.Remote]: of each replica that failed, also those of earlier
// revisions, two lines; of a "sick:..." one what its health check said, too.
func (c *Cluster) LastWords(_ context.Context, peer shoal.PeerID, service string) ([]shoal.LastWords, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost[peer] {
		return nil, fmt.Errorf("last words: dial: no route: %w", shoal.ErrUnreachable)
	}
	return append([]shoal.LastWords(nil), c.words[target{peer, service}]...), nil
}

// target is a service on a peer.
type target struct {
	peer    shoal.PeerID
	service string
}

// keep notes what a replica had said that failed, once; c.mu is held.
func (c *Cluster) keep(holder shoal.PeerID, st *shoal.ReplicaStatus) {
	at := target{holder, st.Service}
	for _, w := range c.words[at] {
		if w.Replica == st.ID {
			return
		}
	}
	w := shoal.LastWords{
		Service: st.Service, Slot: st.Slot, Replica: st.ID, Revision: st.Revision, Time: c.clock.Wall(), Reason: st.Reason,
		Lines: []string{"listening on :80", "panic: no configuration at /etc/app.conf"},
	}
	if st.Health == shoal.HealthUnhealthy {
		w.Check = "connect: connection refused"
	}
	c.words[at] = append(c.words[at], w)
}
