// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package brake

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// BenchmarkLook looks at 1,000 peers with 100 replicas each: all well, and with a service
// that fails on all of them.
func BenchmarkLook(b *testing.B) {
	for _, failing := range []bool{false, true} {
		b.Run(fmt.Sprintf("failing=%t", failing), func(b *testing.B) {
			d := &shoal.Desired{}
			lives, states := map[shoal.PeerID]shoal.Life{}, map[shoal.PeerID]*shoal.PeerState{}
			rev := shoal.RevisionID{Seq: 1, Author: "p"}
			for i := range 1000 {
				id := shoal.PeerID(fmt.Sprintf("p%04d", i))
				d.Peers = append(d.Peers, shoal.Peer{ID: id})
				lives[id], states[id] = shoal.Life{State: shoal.LifeAlive}, &shoal.PeerState{}
			}
			for s := range 100 {
				name := fmt.Sprintf("s%02d", s)
				d.Services = append(d.Services, shoal.Service{Spec: shoal.Spec{Name: name}, Revision: rev, Replicas: 1000})
				for i, p := range d.Peers {
					st := shoal.ReplicaStatus{ID: shoal.ReplicaID{byte(s), byte(i >> 8), byte(i)}, Service: name, Slot: i, Revision: rev, Phase: shoal.PhaseReady}
					if failing && s == 7 {
						st.Phase, st.Failures = shoal.PhasePending, 2
					}
					d.Claims = append(d.Claims, shoal.Claim{Service: name, Slot: i, Holder: p.ID, Replica: st.ID, Revision: rev})
					states[p.ID].Replicas = append(states[p.ID].Replicas, st)
				}
			}
			v := shoal.NewView("p0000", d, lives, states)
			var m Memory
			for b.Loop() {
				_, m, _ = Look(v, m, time.Hour)
			}
		})
	}
}
