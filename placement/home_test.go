// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// keeper adds a service with a volume.
func (k *kit) keeper(name string, n int) *shoal.Service {
	s := k.service(name, n)
	s.Spec.Setup.Mounts = []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}
	return s
}

// TestHomedSlotsStayHome: whatever is proposed, who lives and who is marked, nobody
// but its home claims a slot with data, and no replica of one moves to another slot.
func TestHomedSlotsStayHome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawCluster(t)
		for i := range k.services {
			s := &k.services[i]
			for range s.Replicas {
				p := rapid.IntRange(0, len(k.peers)-1).Draw(t, "proposed")
				s.Proposed = append(s.Proposed, k.peers[p].ID)
			}
		}
		for i := range k.peers[1:] {
			p := &k.peers[i+1]
			switch rapid.IntRange(0, 6).Draw(t, "state") {
			case 0:
				k.dead(p.ID, later-time.Minute)
			case 1:
				p.Draining = true
			case 2:
				p.Facts.Leaving, p.Facts.Addrs = true, []string{"here"}
			case 3:
				p.Removed = true
			}
		}
		homes := make(map[slotKey]shoal.PeerID)
		for i := range k.services {
			name := k.services[i].Spec.Name
			for _, x := range Slots(k.view(k.peers[0].ID), name) {
				homes[slotKey{name, x.Slot}] = x.Home
			}
		}
		for id, plan := range k.decideAll(LAN()) {
			for _, c := range plan.Claims {
				if home := homes[slotKey{c.Service, c.Slot}]; home != "" && home != id {
					t.Fatalf("%s claims %s/%d, whose data is on %s", id, c.Service, c.Slot, home)
				}
				s := k.services[slices.IndexFunc(k.services, func(s shoal.Service) bool { return s.Spec.Name == c.Service })]
				if s.Spec.StaysHome() && !c.Reuse.IsZero() {
					t.Fatalf("%s moves a replica with data to %s/%d", id, c.Service, c.Slot)
				}
			}
		}
	})
}

// TestProposeNamesHomes: a proposal for a slot with data names its home, or nobody.
func TestProposeNamesHomes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawCluster(t)
		v := k.view(k.peers[0].ID)
		for i := range k.services {
			s := &k.services[i]
			placed := Propose(v, []Wanted{{Spec: s.Spec, Replicas: s.Replicas}})[0]
			for _, x := range Slots(v, s.Spec.Name) {
				if x.Home != "" && placed.Slots[x.Slot] != x.Home && placed.Slots[x.Slot] != "" {
					t.Fatalf("%s/%d is proposed to %s, its data is on %s", s.Spec.Name, x.Slot, placed.Slots[x.Slot], x.Home)
				}
			}
		}
	})
}

func TestLeavesData(t *testing.T) {
	for _, c := range []struct {
		name  string
		phase shoal.Phase
		ran   int // restarts
		known bool
		plain bool
		want  bool
	}{
		{name: "ready", phase: shoal.PhaseReady, want: true},
		{name: "never created", phase: shoal.PhaseFailed},
		{name: "failed after it ran", phase: shoal.PhaseFailed, ran: 1, want: true},
		{name: "still pulling", phase: shoal.PhasePulling},
		{name: "pulling a new revision where an old one ran", phase: shoal.PhasePulling, known: true, want: true},
		{name: "without a volume", phase: shoal.PhaseReady, plain: true},
	} {
		k := newKit(2)
		s := k.keeper("db", 1)
		if c.plain {
			s.Spec.Setup.Mounts = nil
		}
		claim := k.hold("db", 0, "p001")
		k.phase(claim, c.phase)
		k.states["p001"].Replicas[0].Restarts = c.ran
		k.home("db", 0, "p001", c.known)
		s.Replicas = 0
		plan, _ := Decide(k.view("p001"), k.seasoned("p001", later, LAN()), "p001", later, LAN())
		if len(plan.Releases) != 1 || plan.Releases[0].Data != c.want {
			t.Errorf("%s: releases = %+v, want one with Data %v", c.name, plan.Releases, c.want)
		}
	}
}

// TestDataYields: who loses a slot gives up what it began there, or two peers would
// count as its home.
func TestDataYields(t *testing.T) {
	k := newKit(3)
	k.keeper("db", 1)
	k.hold("db", 0, "p000")
	late := k.hold("db", 0, "p001")
	m := k.seasoned("p001", later, LAN())
	_, m = Decide(k.view("p001"), m, "p001", later, LAN())
	plan, _ := Decide(k.view("p001"), m, "p001", later+time.Minute, LAN())
	wantDrops(t, "the loser", plan, "db/0>p000")
	if plan.Releases[0].Data || plan.Releases[0].Replica != late.Replica {
		t.Errorf("the loser's release = %+v, want one without data", plan.Releases[0])
	}
}

// TestRolloutKeepsData: a holder that cannot run the new revision keeps the old one
// where another peer would take over a service without data.
func TestRolloutKeepsData(t *testing.T) {
	k := newKit(2)
	s := k.keeper("db", 1)
	k.hold("db", 0, "p000")
	s.Revision, s.Spec.Image = shoal.RevisionID{Seq: 2, Author: "op"}, "db:2"
	k.states["p000"].Images = []string{"db:1"}
	k.states["p001"] = &shoal.PeerState{Images: []string{"db:2"}}
	for id, plan := range k.decideAll(LAN()) {
		if len(plan.Claims)+len(plan.Releases) > 0 {
			t.Errorf("%s plans %+v %+v, want nothing", id, plan.Claims, plan.Releases)
		}
	}
	k.states["p000"].Images = []string{"db:1", "db:2"}
	plan := k.decideAll(LAN())["p000"]
	wantClaims(t, "with the image", plan, "db/0")
	if !plan.Claims[0].Data {
		t.Error("a change in place does not say that the data is here")
	}
}

func TestWaitsForItsHome(t *testing.T) {
	k := newKit(3)
	k.keeper("db", 1)
	k.home("db", 0, "p001", true)
	for _, c := range []struct {
		what  string
		setup func(p *shoal.Peer)
		want  string
	}{
		{"full", func(p *shoal.Peer) { p.Facts.Capacity.MemBytes = gib / 2 }, "waits for its data on p001, which has 512 MiB of 512 MiB free, needs 1 GiB"},
		{"draining", func(p *shoal.Peer) { p.Draining = true }, "waits for its data on p001, which is draining"},
		{"silent", func(p *shoal.Peer) { k.dead(p.ID, later-time.Minute) }, "waits for its data on p001, which is not heard"},
		{"without engine", func(p *shoal.Peer) {
			k.states[p.ID] = &shoal.PeerState{Engine: shoal.EngineStatus{Down: true, Reason: "no answer for 9s"}}
		}, "waits for its data on p001: its engine is down: no answer for 9s"},
	} {
		old := k.peers[1]
		c.setup(&k.peers[1])
		plan := k.decideAll(LAN())["p000"]
		if got := strings.Join(sentences(plan, "db", 0), "; "); got != c.want || len(plan.Claims) > 0 {
			t.Errorf("%s: says %q and claims %v, want %q", c.what, got, plan.Claims, c.want)
		}
		slots := Slots(k.view("p000"), "db")
		if len(slots) != 1 || slots[0].Home != "p001" || strings.Join(slots[0].Waits, "; ") != c.want {
			t.Errorf("%s: Slots = %+v, want %q", c.what, slots, c.want)
		}
		k.peers[1] = old
		k.alive("p001")
		delete(k.states, "p001")
	}
}

func TestSlots(t *testing.T) {
	k := newKit(3)
	s := k.service("web", 2)
	s.Proposed = []shoal.PeerID{"p000", "p001"}
	k.hold("web", 0, "p002")
	k.hold("web", 0, "p001")
	k.hold("web", 5, "p000")
	k.dead("p002", later)
	got := Slots(k.view("p000"), "web")
	if len(got) != 3 || got[2].Slot != 5 || got[1].Proposed != "p001" || len(got[1].Holders) != 0 {
		t.Fatalf("Slots = %+v, want 0, 1 and 5", got)
	}
	if !slices.Equal(got[0].Holders, []shoal.PeerID{"p001", "p002"}) {
		t.Errorf("holders of 0 = %v, want the living one first", got[0].Holders)
	}
	if Slots(k.view("p000"), "nosuch") != nil {
		t.Error("Slots of no service is not nil")
	}
}
