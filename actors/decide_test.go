// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// everything is a placement for tests that need one without rules: this peer holds
// all slots of all services, at their current revision.
func everything(self shoal.PeerID) DecideFunc {
	return func(v *shoal.View, m placement.Memory, _ shoal.PeerID, _ time.Duration, _ placement.Config) (placement.Plan, placement.Memory) {
		var plan placement.Plan
		held := make(map[string]map[int]shoal.Claim)
		for _, c := range v.ClaimsBy(self) {
			if held[c.Service] == nil {
				held[c.Service] = make(map[int]shoal.Claim)
			}
			held[c.Service][c.Slot] = c
			svc, ok := v.Service(c.Service)
			if !ok || c.Slot >= svc.Replicas {
				plan.Releases = append(plan.Releases, placement.Drop{Service: c.Service, Slot: c.Slot, Replica: c.Replica})
				continue
			}
			plan.Start = append(plan.Start, c.Replica)
		}
		for _, svc := range v.Services() {
			for slot := range svc.Replicas {
				c, ok := held[svc.Spec.Name][slot]
				if ok && c.Revision == svc.Revision {
					continue
				}
				plan.Claims = append(plan.Claims, placement.NewClaim{Service: svc.Spec.Name, Slot: slot, Revision: svc.Revision, Replaces: c.Replica})
			}
		}
		return plan, m
	}
}

// keepers is a placement that only keeps what is claimed.
func keepers(self shoal.PeerID) DecideFunc {
	return func(v *shoal.View, m placement.Memory, _ shoal.PeerID, _ time.Duration, _ placement.Config) (placement.Plan, placement.Memory) {
		var plan placement.Plan
		for _, c := range v.ClaimsBy(self) {
			plan.Start = append(plan.Start, c.Replica)
		}
		return plan, m
	}
}
