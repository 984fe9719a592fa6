// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// fail has the replica of a claim fail at its revision.
func (k *kit) fail(c shoal.Claim) {
	k.phase(c, shoal.PhasePending)
	rs := k.states[c.Holder].Replicas
	rs[len(rs)-1].Revision, rs[len(rs)-1].Failures = c.Revision, 1
}

// braked returns a kit of four peers with a slot of web each; the first two have gone to
// revision 2, and fail.
func braked(action shoal.FailureAction) *kit {
	k := newKit(4)
	s := k.service("web", 4)
	s.Revision.Seq = 2
	s.Spec.Rollout = shoal.Rollout{OnFailure: action, MaxFailureRatio: 900, MaxUnavailable: shoal.Share{N: 3}}
	for i := range 4 {
		c := k.hold("web", i, k.peers[i].ID)
		if i < 2 {
			c.Revision.Seq = 2
			k.claims[i] = c
			k.fail(c)
		}
	}
	return k
}

// TestBrakedWavesStop: while the new revision fails on most of its holders no slot
// follows, though its limit of failures is not reached; with continue they do.
func TestBrakedWavesStop(t *testing.T) {
	for action, follows := range map[shoal.FailureAction]bool{shoal.FailurePause: false, shoal.FailureRollback: false, shoal.FailureContinue: true} {
		p := braked(action).decideAll(LAN())["p002"]
		if got := len(p.Claims) == 1; got != follows {
			t.Errorf("%s: claims %v (reasons %v)", action, p.Claims, p.Reasons)
		}
		const why = "of web fails on 2 of 2 holders within 60s"
		got := strings.Join(sentences(p, "web", 3), "; ")
		if follows == strings.Contains(got, "keeps revision 1 for now: ") || !follows && !strings.Contains(got, why) {
			t.Errorf("%s: web/3 %q", action, got)
		}
		if got := strings.Join(sentences(p, "web", 0), "; "); !strings.Contains(got, "restarts slowly: ") || !strings.Contains(got, why) {
			t.Errorf("%s: web/0 %q", action, got)
		}
	}
}

// TestBrakedSlotStays: what fails everywhere is not let go by a peer that refuses it.
func TestBrakedSlotStays(t *testing.T) {
	k := newKit(3)
	k.service("web", 2)
	for i := range 2 {
		k.fail(k.hold("web", i, k.peers[i].ID))
	}
	k.refuse("p000", 1, "it does not start")
	wantDrops(t, "fails on both", k.decideAll(LAN())["p000"])
	k.phase(k.claims[1], shoal.PhaseReady)
	wantDrops(t, "fails here only", k.decideAll(LAN())["p000"], "web/0>")
}

// TestTroubledPeerKeeps: a peer in trouble takes no new slot, of a global service neither,
// and keeps and updates what it has.
func TestTroubledPeerKeeps(t *testing.T) {
	k := newKit(3)
	k.service("web", 2).Revision.Seq = 2
	k.service("api", 3)
	k.hold("web", 0, "p000")
	k.phase(k.hold("web", 1, "p001"), shoal.PhaseReady)
	k.states["p000"].Trouble = "3 services fail on it"
	plans := k.decideAll(LAN())
	if got := len(plans["p000"].Releases); got != 0 {
		t.Errorf("it lets go %v", plans["p000"].Releases)
	}
	wantClaims(t, "the one in trouble", plans["p000"], "web/0")
	api := 0
	for _, id := range []shoal.PeerID{"p001", "p002"} {
		for _, c := range plans[id].Claims {
			if c.Service == "api" {
				api++
			}
		}
	}
	if api != 3 {
		t.Errorf("%d slots of api were claimed by the others, want 3", api)
	}
	global := newKit(3)
	global.service("agent", 0).Spec.Mode = shoal.ModeGlobal
	global.states["p000"] = &shoal.PeerState{Trouble: "3 services fail on it"}
	plans = global.decideAll(LAN())
	wantClaims(t, "the one in trouble", plans["p000"])
	wantClaims(t, "another", plans["p001"], "agent/0")
	at := slices.IndexFunc(Explain(k.view("p001"), &k.services[1].Spec), func(v Verdict) bool {
		return v.Peer == "p000" && !v.Feasible && !v.Never && v.Reason == "takes no new slots: 3 services fail on it"
	})
	if at < 0 {
		t.Errorf("explain does not say why: %+v", Explain(k.view("p001"), &k.services[1].Spec))
	}
}

// TestBrakeIsLookedAtAgain: a decision is asked for when a verdict ends by time alone.
func TestBrakeIsLookedAtAgain(t *testing.T) {
	k := newKit(2)
	k.service("web", 2)
	for i := range 2 {
		c := k.hold("web", i, k.peers[i].ID)
		k.fail(c)
		k.states[c.Holder].Replicas[0].Phase = shoal.PhaseFailed
	}
	v := k.view("p000")
	p, m := Decide(v, k.seasoned("p000", later, LAN()), "p000", later, LAN())
	if len(p.Brakes) != 1 || p.Wake == 0 || p.Wake > later+time.Minute {
		t.Fatalf("brakes %v, wake %v", p.Brakes, p.Wake-later)
	}
	if p, _ = Decide(v, m, "p000", later+time.Minute, LAN()); len(p.Brakes) != 0 {
		t.Errorf("brakes %v after the window", p.Brakes)
	}
}
