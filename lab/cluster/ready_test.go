// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/plan"
)

// TestReadinessSpreads: that a replica is ready is known to whoever may send it a connection
// within 300 ms of its holder's knowing it.
func TestReadinessSpreads(t *testing.T) {
	t.Parallel()
	play(t, 8001, 5, func(w *world) {
		w.peers[0].deploy("web", 5)
		slowest := w.spread(10 * time.Second)
		t.Logf("ready is known everywhere after %v at most", slowest)
		if slowest > 300*time.Millisecond {
			t.Errorf("it took %v, at most 300ms is promised", slowest)
		}
	})
}

// spread waits until one replica of web for each peer is ready in everybody's balance, and
// returns the longest that one was so for its holder and not yet for somebody else.
func (w *world) spread(within time.Duration) (longest time.Duration) {
	w.t.Helper()
	first, known := map[shoal.ReplicaID]time.Time{}, map[shoal.ReplicaID]int{}
	at := map[[2]string]bool{} // by peer and replica: it was seen so
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		done := 0
		for _, p := range w.peers {
			for _, b := range plan.Backends(p.view(), "web").Backends {
				key := [2]string{p.addr, b.Replica.String()}
				if !b.Ready || at[key] {
					continue
				}
				if _, ok := first[b.Replica]; !ok && b.Holder == p.id.Self() {
					first[b.Replica] = time.Now()
				}
				if since, ok := first[b.Replica]; ok {
					at[key] = true
					known[b.Replica]++
					longest = max(longest, time.Since(since))
				}
			}
		}
		for _, n := range known {
			if n == len(w.peers) {
				done++
			}
		}
		switch {
		case done == len(w.peers):
			return longest
		case time.Since(begin) > within:
			w.t.Fatalf("not all replicas are known everywhere: %v", known)
		}
	}
}
