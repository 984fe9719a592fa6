// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"testing"

	"github.com/shoalnet/shoal"
)

// TestUsage: every replica that runs is measured, under its own name; others are not.
func TestUsage(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		oneWeb(s, 3)
		p.system.board.set(&cell{}, shoal.ReplicaStatus{ID: shoal.ReplicaID{9}, Service: "late", Phase: shoal.PhaseRunning, Container: "gone"}, shoal.Resources{}, false)
		got, err := p.system.Usage(s.t.Context())
		if err != nil || len(got) != 3 {
			t.Fatalf("Usage = %+v, %v, want three replicas", got, err)
		}
		claims := map[shoal.ReplicaID]bool{}
		for _, c := range p.View().ClaimsOf("web") {
			claims[c.Replica] = true
		}
		for _, u := range got {
			if !claims[u.Replica] || u.MemBytes == 0 {
				t.Errorf("Usage has %+v, which is no replica of web", u)
			}
		}
	})
}
