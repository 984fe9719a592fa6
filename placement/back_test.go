// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// updating returns a kit where a peer has claimed the new revision of its slot, but runs
// the replica of the old one until the new image is there.
func updating(peers int) (k *kit, fresh shoal.Claim, old shoal.ReplicaStatus) {
	k = newKit(peers)
	k.service("web", 1).Revision.Seq = 2
	was := k.hold("web", 0, "p000")
	fresh = k.hold("web", 0, "p000")
	fresh.Revision.Seq = 2
	k.claims = []shoal.Claim{fresh}
	k.phase(fresh, shoal.PhasePulling)
	st := k.states["p000"]
	i := slices.IndexFunc(st.Replicas, func(r shoal.ReplicaStatus) bool { return r.ID == was.Replica })
	st.Replicas[i].Revision = was.Revision
	return k, fresh, st.Replicas[i]
}

// refuse has a peer decline a revision.
func (k *kit) refuse(id shoal.PeerID, seq uint64, why string) {
	st := *k.states[id]
	st.Refusals = []shoal.Refusal{{Service: "web", Revision: shoal.RevisionID{Seq: seq, Author: "op"}, Reason: why}}
	k.states[id] = &st
}

// TestRefusedUpdateGoesBack: the slot of an update that this peer refuses goes back to
// the replica that still runs in it, and no slot is let go for that.
func TestRefusedUpdateGoesBack(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*shoal.ReplicaStatus)
		back   bool
	}{
		"ready":              {func(*shoal.ReplicaStatus) {}, true},
		"running":            {func(r *shoal.ReplicaStatus) { r.Phase = shoal.PhaseRunning }, true},
		"stopping":           {func(r *shoal.ReplicaStatus) { r.Phase = shoal.PhaseStopping }, false},
		"failed":             {func(r *shoal.ReplicaStatus) { r.Phase = shoal.PhaseFailed }, false},
		"in another slot":    {func(r *shoal.ReplicaStatus) { r.Slot = 1 }, false},
		"of a newer one":     {func(r *shoal.ReplicaStatus) { r.Revision.Seq = 3 }, false},
		"of another service": {func(r *shoal.ReplicaStatus) { r.Service = "api" }, false},
	} {
		k, fresh, old := updating(1)
		for i := range k.states["p000"].Replicas {
			if r := &k.states["p000"].Replicas[i]; r.ID == old.ID {
				c.change(r)
			}
		}
		k.refuse("p000", 2, "image web:2 is nowhere")
		p := newSteps(t, k, "p000").at(0)
		if !c.back {
			wantDrops(t, what, p, "web/0>")
			continue
		}
		want := NewClaim{Service: "web", Revision: old.Revision, Reuse: old.ID, Replaces: fresh.Replica}
		if len(p.Claims) != 1 || p.Claims[0] != want || len(p.Releases) != 0 || !slices.Contains(p.Start, old.ID) {
			t.Errorf("%s: plan = %+v, want %+v", what, p, want)
		}
	}
}

// TestRefusedUpdateStaysBack while the refusal lasts: then the slot changes again.
func TestRefusedUpdateStaysBack(t *testing.T) {
	k, _, old := updating(1)
	k.refuse("p000", 2, "image web:2 is nowhere")
	me := newSteps(t, k, "p000")
	refusals := k.states["p000"].Refusals
	k.apply("p000", me.at(0))
	st := *k.states["p000"]
	st.Refusals = refusals
	k.states["p000"] = &st
	if len(k.claims) != 1 || k.claims[0].Replica != old.ID || k.claims[0].Revision.Seq != 1 {
		t.Fatalf("claims = %+v, want that of the old replica", k.claims)
	}
	for d := time.Duration(0); d < time.Minute; d += time.Second {
		p := me.at(d)
		if len(p.Claims)+len(p.Releases) != 0 || !slices.Contains(p.Start, old.ID) {
			t.Fatalf("after %s: %+v, want nothing changed", d, p)
		}
	}
	if got := Slots(k.view("p000"), "web")[0].Behind; got != "keeps revision 1: image web:2 is nowhere" {
		t.Errorf("behind = %q", got)
	}
	st.Refusals = nil
	p := me.at(2 * time.Minute)
	if len(p.Claims) != 1 || p.Claims[0].Revision.Seq != 2 || p.Claims[0].Replaces != old.ID {
		t.Errorf("after the refusal: %+v, want the new revision claimed again", p)
	}
}

// TestNewerRevisionIsNotOvertaken: who takes a slot at the new revision from a peer that
// cannot have it does not yield to the old replica that runs there until then.
func TestNewerRevisionIsNotOvertaken(t *testing.T) {
	k, _, _ := updating(2)
	k.refuse("p000", 2, "image web:2 is nowhere")
	holder, other := newSteps(t, k, "p000"), newSteps(t, k, "p001")
	refusals := k.states["p000"].Refusals
	k.apply("p000", holder.at(0))
	k.states["p000"].Refusals = refusals
	p := other.at(0)
	wantClaims(t, "the other peer", p, "web/0")
	k.apply("p001", p)
	taken := k.claims[1]
	k.phase(taken, shoal.PhasePulling)
	for d := time.Second; d < 20*time.Second; d += time.Second {
		p := other.at(d)
		wantDrops(t, "the other peer, pulling", p)
		if !slices.Contains(p.Start, taken.Replica) {
			t.Fatalf("after %s the other peer does not start it: %+v", d, p)
		}
		wantDrops(t, "the holder, meanwhile", holder.at(d))
	}
	k.phase(taken, shoal.PhaseReady)
	wantDrops(t, "the holder, at last", holder.at(time.Minute), "web/0>p001")
}
