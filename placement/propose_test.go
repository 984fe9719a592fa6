// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
	"testing"

	"github.com/shoalnet/shoal"
)

func proposed(k *kit, wanted ...Wanted) []Placed { return Propose(k.view("p000"), wanted) }

func TestProposeKeepsHolders(t *testing.T) {
	k := newKit(3)
	svc := k.service("web", 3)
	k.hold("web", 0, "p002")
	k.hold("web", 1, "p002")
	k.hold("web", 2, "p002")
	p := proposed(k, Wanted{Spec: svc.Spec, Replicas: 5})[0]
	if !slices.Equal(p.Slots[:3], []shoal.PeerID{"p002", "p002", "p002"}) || !slices.Equal(p.New, []bool{false, false, false, true, true}) {
		t.Errorf("Propose = %+v, want slots 0-2 where they are", p)
	}
	if p.Slots[3] == "p002" || p.Slots[4] == "p002" || p.Slots[3] == p.Slots[4] {
		t.Errorf("Propose = %+v, want slots 3 and 4 on the two empty peers", p)
	}
	k.dead("p002", 0)
	p = proposed(k, Wanted{Spec: svc.Spec, Replicas: 3})[0]
	if slices.Contains(p.Slots, "p002") || slices.Contains(p.New, false) {
		t.Errorf("Propose = %+v, want nothing left on the dead peer", p)
	}
	svc.Spec.OnPartition = shoal.PartitionSticky
	p = proposed(k, Wanted{Spec: svc.Spec, Replicas: 3})[0]
	if slices.Contains(p.New, true) {
		t.Errorf("Propose = %+v, want a sticky service left where it is", p)
	}
}

// TestProposeCountsClaimsOnTheirWay: what earlier wishes proposed and nobody has
// claimed yet is load too.
func TestProposeCountsClaimsOnTheirWay(t *testing.T) {
	k := newKit(2)
	k.peers[0].Facts.Capacity = shoal.Resources{CPUMilli: 2000, MemBytes: 2 * gib}
	k.peers[1].Facts.Capacity = shoal.Resources{CPUMilli: 2000, MemBytes: 2 * gib}
	k.service("first", 2).Proposed = []shoal.PeerID{"p000", "p000"}
	spec := k.service("second", 2).Spec
	k.services = k.services[:1]
	if got, want := proposed(k, Wanted{Spec: spec, Replicas: 2})[0].Slots, []shoal.PeerID{"p001", "p001"}; !slices.Equal(got, want) {
		t.Errorf("Propose = %v, want %v", got, want)
	}
}

// TestProposeForgetsHistory: what an earlier wish proposed for slots that are not
// wanted any more binds nobody.
func TestProposeForgetsHistory(t *testing.T) {
	k := newKit(2)
	svc := k.service("web", 1)
	svc.Proposed = []shoal.PeerID{"p000", "p000", "p000"}
	k.hold("web", 0, "p000")
	if got, want := proposed(k, Wanted{Spec: svc.Spec, Replicas: 2})[0].Slots, []shoal.PeerID{"p000", "p001"}; !slices.Equal(got, want) {
		t.Errorf("Propose = %v, want %v", got, want)
	}
}

// TestProposeTogether: the services of one wish know of each other, whatever their
// order; the larger goes first.
func TestProposeTogether(t *testing.T) {
	k := newKit(2)
	for i := range k.peers {
		k.peers[i].Facts.Capacity = shoal.Resources{CPUMilli: 64000, MemBytes: 4 * gib}
	}
	small, large := k.service("a", 2).Spec, k.service("z", 2).Spec
	k.services = nil
	small.Reservations.MemBytes, large.Reservations.MemBytes = gib, 3*gib
	got := proposed(k, Wanted{Spec: small, Replicas: 2}, Wanted{Spec: large, Replicas: 2})
	if got[0].Service != "a" || got[1].Service != "z" || got[1].Slots[0] == got[1].Slots[1] || len(got[0].Unplaced)+len(got[1].Unplaced) > 0 {
		t.Errorf("Propose = %+v, want a large and a small one on each peer", got)
	}
}

func TestBinpack(t *testing.T) {
	k := newKit(3)
	for i := range k.peers {
		k.peers[i].Facts.Capacity = shoal.Resources{CPUMilli: 64000, MemBytes: 4 * gib}
	}
	spec := k.service("web", 1).Spec
	k.hold("web", 0, "p001")
	more := spec
	more.Name, more.Strategy = "more", shoal.StrategyBinpack
	want := []shoal.PeerID{"p001", "p001", "p001"}
	got := proposed(k, Wanted{Spec: more, Replicas: 4})[0].Slots
	if !slices.Equal(got[:3], want) || got[3] == "p001" {
		t.Errorf("binpack = %v, want the most loaded peer filled first", got)
	}
}

// TestSpread: fewest replicas of the service first, then least loaded.
func TestSpread(t *testing.T) {
	k := newKit(3)
	spec := k.service("web", 1).Spec
	k.service("other", 3)
	k.hold("web", 0, "p000")
	for slot := range 3 {
		k.hold("other", slot, "p001")
	}
	if got, want := proposed(k, Wanted{Spec: spec, Replicas: 3})[0].Slots, []shoal.PeerID{"p000", "p002", "p001"}; !slices.Equal(got, want) {
		t.Errorf("spread = %v, want %v", got, want)
	}
}
