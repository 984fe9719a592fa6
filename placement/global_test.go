// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// numbers returns "peer:slot" of all claims, by peer.
func numbers(k *kit) []string {
	var out []string
	for _, c := range k.claims {
		out = append(out, fmt.Sprintf("%s:%d", c.Holder, c.Slot))
	}
	slices.Sort(out)
	return out
}

func TestGlobal(t *testing.T) {
	k := newKit(4)
	k.service("agent", 0).Spec.Mode = shoal.ModeGlobal
	k.peers[1].Cordoned = true
	settle(t, k)
	if got, want := numbers(k), []string{"p000:0", "p002:1", "p003:2"}; !slices.Equal(got, want) {
		t.Fatalf("global = %v, want %v", got, want)
	}
	k.addPeer("a", "") // comes first in every order, and changes nobody's number
	k.peers[1].Cordoned = false
	settle(t, k)
	if got, want := numbers(k), []string{"a:3", "p000:0", "p001:4", "p002:1", "p003:2"}; !slices.Equal(got, want) {
		t.Fatalf("after a newcomer = %v, want %v", got, want)
	}
	k.dead("p000", later-time.Minute)
	settle(t, k)
	if got := numbers(k); len(got) != 5 {
		t.Fatalf("a death moves global replicas: %v", got)
	}
	k.alive("p000")
	k.peers[2].Draining = true
	settle(t, k)
	if got, want := numbers(k), []string{"a:3", "p000:0", "p001:4", "p003:2"}; !slices.Equal(got, want) {
		t.Fatalf("after a drain = %v, want %v", got, want)
	}
	k.services[0].Spec.Constraints = []shoal.Selector{{Key: "peer", Op: shoal.OpNotEqual, Values: []string{"p003"}}}
	settle(t, k)
	if got, want := numbers(k), []string{"a:3", "p000:0", "p001:4"}; !slices.Equal(got, want) {
		t.Fatalf("after a constraint = %v, want %v", got, want)
	}
}

// TestGlobalNumberTwice: two sides of a split gave the same number; the loser takes
// a free one and keeps running.
func TestGlobalNumberTwice(t *testing.T) {
	k := newKit(2)
	k.service("agent", 0).Spec.Mode = shoal.ModeGlobal
	k.hold("agent", 0, "p000")
	mine := k.hold("agent", 0, "p001")
	s := newSteps(t, k, "p001")
	wantClaims(t, "at once", s.at(0))
	p := s.at(LAN().Settle)
	want := NewClaim{Service: "agent", Slot: 1, Revision: mine.Revision, Reuse: mine.Replica, LeavesSlot: 0, YieldTo: "p000"}
	if len(p.Claims) != 1 || p.Claims[0] != want || len(p.Releases) != 0 {
		t.Errorf("plan = %+v, want the claim %+v", p, want)
	}
	wantClaims(t, "the winner", newSteps(t, k, "p000").at(LAN().Settle))
}

func TestProposeGlobal(t *testing.T) {
	k := newKit(3)
	k.peers[1].Draining = true
	spec := shoal.Spec{Name: "agent", Mode: shoal.ModeGlobal}
	placed := Propose(k.view("p000"), []Wanted{{Spec: spec}})[0]
	if want := []shoal.PeerID{"p000", "p002"}; !slices.Equal(placed.Slots, want) {
		t.Errorf("Propose = %v, want %v", placed.Slots, want)
	}
}

// TestRollout changes slots in waves, each holder its own, and never more at once
// than allowed.
func TestRollout(t *testing.T) {
	k := newKit(3)
	k.service("web", 6).Spec.Rollout.Parallelism = 2
	settle(t, k)
	k.services[0].Revision = shoal.RevisionID{Seq: 2, Author: "op"}
	k.services[0].Wish = k.services[0].Revision
	holders := make(map[int]shoal.PeerID)
	for _, c := range k.claims {
		holders[c.Slot] = c.Holder
	}
	for wave := range 3 {
		var changed []int
		plans := k.decideAll(LAN())
		for id, plan := range plans {
			for _, c := range plan.Claims {
				changed = append(changed, c.Slot)
				if holders[c.Slot] != id || c.Replaces.IsZero() || c.Revision.Seq != 2 {
					t.Errorf("%s changes %+v, held by %s", id, c, holders[c.Slot])
				}
			}
			if len(plan.Releases) > 0 {
				t.Errorf("%s releases %+v", id, plan.Releases)
			}
		}
		slices.Sort(changed)
		if want := []int{2 * wave, 2*wave + 1}; !slices.Equal(changed, want) {
			t.Fatalf("wave %d changes %v, want %v", wave, changed, want)
		}
		for id, plan := range plans {
			k.apply(id, plan)
		}
		first := slices.IndexFunc(k.claims, func(c shoal.Claim) bool { return c.Slot == 2*wave })
		k.phase(k.claims[first], shoal.PhaseStarting)
		for id, plan := range k.decideAll(LAN()) {
			if len(plan.Claims) > 1 {
				t.Errorf("wave %d: %s goes on to %+v while slot %d is not ready", wave, id, plan.Claims, 2*wave)
			}
		}
		k.phase(k.claims[first], shoal.PhaseReady)
	}
	for id, plan := range k.decideAll(LAN()) {
		if len(plan.Claims)+len(plan.Releases) > 0 {
			t.Errorf("after the rollout %s does %+v", id, plan)
		}
	}
}

// TestRolloutWhereTheHolderCannot: a peer without the new image hands its slot to
// one that has it, and stops the old one only when the new one is ready.
func TestRolloutWhereTheHolderCannot(t *testing.T) {
	k := newKit(2)
	k.service("web", 1).Spec.Image = "hello:2"
	c := k.hold("web", 0, "p000")
	k.services[0].Revision = shoal.RevisionID{Seq: 2, Author: "op"}
	st := *k.states["p000"]
	st.Images = []string{"hello:1"}
	k.states["p000"] = &st
	k.states["p001"] = &shoal.PeerState{Images: []string{"hello:1"}}
	for id, plan := range k.decideAll(LAN()) {
		if len(plan.Claims)+len(plan.Releases) > 0 {
			t.Errorf("nobody has the image, and %s does %+v", id, plan)
		}
	}
	k.states["p001"] = &shoal.PeerState{Images: []string{"hello:2"}}
	holder, other := newSteps(t, k, "p000"), newSteps(t, k, "p001")
	p := other.at(0)
	wantClaims(t, "the one with the image", p, "web/0")
	wantClaims(t, "the holder", holder.at(0))
	k.apply("p001", p)
	st = *k.states["p001"]
	st.Images = []string{"hello:2"}
	k.states["p001"] = &st
	k.phase(k.claims[1], shoal.PhaseStarting)
	if p := holder.at(time.Second); !slices.Contains(p.Start, c.Replica) || len(p.Releases) > 0 {
		t.Errorf("before the new one is ready: %+v", p)
	}
	k.phase(k.claims[1], shoal.PhaseReady)
	wantDrops(t, "ready", holder.at(time.Minute), "web/0>p001")
}

// TestGlobalRollout changes one peer after the other and passes over those that
// cannot.
func TestGlobalRollout(t *testing.T) {
	k := newKit(3)
	svc := k.service("agent", 0)
	svc.Spec.Mode, svc.Spec.Image = shoal.ModeGlobal, "agent:2"
	svc.Revision = shoal.RevisionID{Seq: 2, Author: "op"}
	for i := range k.peers {
		k.hold("agent", i, k.peers[i].ID)
	}
	st := *k.states["p000"] // has only the old image
	st.Images = []string{"agent:1"}
	k.states["p000"] = &st
	for _, id := range []shoal.PeerID{"p001", "p002"} {
		st := *k.states[id]
		st.Images = []string{"agent:2"}
		k.states[id] = &st
	}
	for _, turn := range []shoal.PeerID{"p001", "p002", ""} {
		for id, plan := range k.decideAll(LAN()) {
			if len(plan.Releases) > 0 || (len(plan.Claims) > 0) != (id == turn) {
				t.Fatalf("it is %q's turn, and %s does %+v", turn, id, plan)
			}
			if id == turn {
				images := k.states[id].Images
				k.apply(id, plan)
				k.states[id].Images = images
			}
		}
	}
}
