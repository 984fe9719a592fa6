// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"testing"

	"github.com/shoalnet/shoal"
)

// lossKit is 1,000 peers with 100,000 claims of 951 services, of which ten peers
// have died that held 1,000 slots: one of each of 950 services and 50 of the last.
func lossKit(zones int) *kit {
	const peers, services, claims, lost = 1000, 951, 100_000, 10
	k := newKit(0)
	for i := range peers {
		k.addPeer(fmt.Sprintf("12D3KooWpeer%040d", i), fmt.Sprintf("zone-%d", i%zones)).Facts.Capacity = shoal.Resources{CPUMilli: 200_000, MemBytes: 200 * gib}
	}
	at := 0
	for i := range services {
		n := 105
		if i == services-1 {
			n = claims - len(k.claims)
		}
		name := fmt.Sprintf("service-%04d", i)
		k.service(name, n)
		for slot := range n {
			holder := lost + at%(peers-lost)
			if slot == 0 || i == services-1 && slot < 50 {
				holder = (i + slot) % lost
			} else {
				at++
			}
			k.minted++
			c := shoal.Claim{
				Holder: k.peers[holder].ID, Service: name, Slot: slot,
				Revision: shoal.RevisionID{Seq: 1, Author: "op"}, Since: shoal.HLC{WallMilli: 1},
			}
			c.Replica[0], c.Replica[1], c.Replica[2] = byte(k.minted>>16), byte(k.minted>>8), byte(k.minted)
			k.claims = append(k.claims, c)
		}
	}
	for i := range lost {
		k.dead(k.peers[i].ID, later-7e9)
	}
	return k
}

// BenchmarkDecideLoss aims at less than 50 ms (DESIGN.md section 14).
func BenchmarkDecideLoss(b *testing.B) {
	for _, zones := range []int{1, 10} {
		b.Run(fmt.Sprintf("zones=%d", zones), func(b *testing.B) { benchLoss(b, lossKit(zones)) })
	}
}

func benchLoss(b *testing.B, k *kit) {
	cfg := LAN()
	self := k.peers[11].ID
	m := k.seasoned(self, later, cfg)
	v := k.view(self)
	for b.Loop() {
		Decide(v, m, self, later, cfg)
	}
	plan, _ := Decide(v, m, self, later, cfg)
	open, services := 0, make(map[string]bool)
	for _, c := range k.claims {
		if k.lives[c.Holder].State == shoal.LifeDead {
			open++
			services[c.Service] = true
		}
	}
	b.ReportMetric(float64(open), "lost")
	b.ReportMetric(float64(len(services)), "services")
	b.ReportMetric(float64(len(plan.Claims)), "claims")
}

func BenchmarkDecideQuiet(b *testing.B) {
	k := lossKit(10)
	for i := range k.peers {
		k.alive(k.peers[i].ID)
	}
	self := k.peers[11].ID
	m := k.seasoned(self, later, LAN())
	v := k.view(self)
	for b.Loop() {
		Decide(v, m, self, later, LAN())
	}
}

func BenchmarkNewView(b *testing.B) {
	k := lossKit(10)
	v := k.view(k.peers[11].ID)
	for b.Loop() {
		shoal.NewView(v.Self(), v.Desired(), k.lives, k.states)
	}
}
