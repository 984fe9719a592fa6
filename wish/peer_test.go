// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

func change(p *place, what shoal.PeerChange) shoal.Wish {
	return shoal.Wish{Peer: &shoal.PeerWish{Peer: p.self, Change: what}}
}

// line is a change as a plan shows it.
func line(ch shoal.Change) string {
	return string(ch.Kind) + " " + strings.Join(append(ch.Details, ch.Notes...), ", ")
}

// marks returns what is in force on q as p sees it: "", "cordoned" or "draining".
func (p *place) marks(q *place) string {
	peer, _ := p.store.Desired().Peer(q.self)
	switch {
	case peer.Draining:
		return "draining"
	case peer.Cordoned:
		return "cordoned"
	}
	return ""
}

// hold makes p claim slots of a service.
func (p *place) hold(t *testing.T, service string, slots ...int) {
	t.Helper()
	svc, _ := p.store.Desired().Service(service)
	body := &shoal.ClaimBody{Peer: p.self, Service: service}
	for _, slot := range slots {
		body.Holds = append(body.Holds, shoal.Holding{Slot: slot, Replica: shoal.ReplicaID{byte(slot + 1)}, Revision: svc.Revision})
	}
	write(t, p.store, body)
}

func TestMarks(t *testing.T) {
	steps := []struct {
		ask   shoal.PeerChange
		want  string // plan line
		after string
	}{
		{shoal.PeerUncordon, "= is not cordoned", ""},
		{shoal.PeerUndrain, "= is not drained", ""},
		{shoal.PeerCordon, "~ cordon", "cordoned"},
		{shoal.PeerCordon, "= already cordoned", "cordoned"},
		{shoal.PeerUndrain, "= is not drained, stays cordoned; shoal uncordon lifts that", "cordoned"},
		{shoal.PeerDrain, "~ drain (0 replicas move)", "draining"},
		{shoal.PeerDrain, "= already drained", "draining"},
		{shoal.PeerUndrain, "~ undrain, stays cordoned; shoal uncordon lifts that", "cordoned"},
		{shoal.PeerUncordon, "~ uncordon", ""},
		{shoal.PeerDrain, "~ drain (0 replicas move)", "draining"},
		{shoal.PeerCordon, "~ cordon, which stays when it is undrained", "draining"},
		{shoal.PeerUndrain, "~ undrain, stays cordoned; shoal uncordon lifts that", "cordoned"},
		{shoal.PeerDrain, "~ drain (0 replicas move)", "draining"},
		{shoal.PeerUncordon, "~ undrain, uncordon", ""},
	}
	// by one operator, and by two in turns, who lift what the other laid
	for name, by := range map[string][]int{"one": {0}, "two": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			peers := cluster(t, 3)
			for i, s := range steps {
				p := peers[by[i%len(by)]]
				w := change(peers[2], s.ask)
				plan, err := p.Plan(context.Background(), w)
				if err != nil {
					t.Fatalf("step %d: Plan(%s): %v", i, s.ask, err)
				}
				if got := line(p.must(t, w)); got != s.want || got != line(plan.Changes[0]) {
					t.Errorf("step %d: %s = %q, planned %q, want %q", i, s.ask, got, line(plan.Changes[0]), s.want)
				}
				exchange(peers)
				if got := peers[2].marks(peers[2]); got != s.after {
					t.Errorf("step %d: after %s = %q, want %q", i, s.ask, got, s.after)
				}
			}
			q, _ := peers[0].store.Desired().Peer(peers[2].self)
			for author, said := range q.By {
				if len(said.Laid)+len(said.Lifts) > 3 {
					t.Errorf("%s says %+v, want only what still matters", author.Short(), said)
				}
			}
		})
	}
}

// A mark laid on the other side of a split survives being lifted on this one.
func TestLiftedUnseen(t *testing.T) {
	peers := cluster(t, 3)
	a, b, target := peers[0], peers[1], peers[2]
	a.must(t, change(target, shoal.PeerCordon))
	exchange(peers)
	b.must(t, change(target, shoal.PeerDrain)) // not seen by a
	a.must(t, change(target, shoal.PeerUncordon))
	if got := a.marks(target); got != "" {
		t.Errorf("before healing = %q, want none", got)
	}
	exchange(peers)
	if got := a.marks(target); got != "draining" {
		t.Errorf("after healing = %q, want draining", got)
	}
}

func TestDrainSaysWhatMoves(t *testing.T) {
	peers := cluster(t, 2)
	a, b := peers[0], peers[1]
	db := spec("db", 2)
	db.Setup.Mounts = []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}
	agent := spec("agent", 0)
	agent.Mode = shoal.ModeGlobal
	a.must(t, deploy(spec("web", 3), db, agent))
	exchange(peers)
	b.hold(t, "web", 0, 2)
	b.hold(t, "db", 1)
	b.hold(t, "agent", 0)
	exchange(peers)
	ch := a.must(t, change(b, shoal.PeerDrain))
	if got, want := line(ch), "~ drain (2 replicas move, 1 of a global service ends), db/1 stays: its data is there"; got != want || ch.Replicas != 3 {
		t.Errorf("drain = %q of %d, want %q of 3", got, ch.Replicas, want)
	}
	if ch.Peer != b.self || ch.Service != "" {
		t.Errorf("drain is about %q and %q, want the peer alone", ch.Peer, ch.Service)
	}
}

// TestDrainOfJobs: one that has ended is not handed over, and keeps nobody.
func TestDrainOfJobs(t *testing.T) {
	peers := cluster(t, 2)
	a, b := peers[0], peers[1]
	job := spec("job", 2)
	job.Restart.Condition = shoal.RestartNone
	rev := a.must(t, deploy(job)).Revision
	exchange(peers)
	b.hold(t, "job", 0, 1)
	exchange(peers)
	say := func(phases ...shoal.Phase) {
		st := &shoal.PeerState{}
		for slot, ph := range phases {
			st.Replicas = append(st.Replicas, shoal.ReplicaStatus{ID: shoal.ReplicaID{byte(slot + 1)}, Service: "job", Slot: slot, Revision: rev, Phase: ph})
		}
		a.states = map[shoal.PeerID]*shoal.PeerState{b.self: st}
	}
	remove := shoal.Wish{Peer: &shoal.PeerWish{Peer: b.self, Change: shoal.PeerRemove}}
	say(shoal.PhaseStopped, shoal.PhaseReady)
	if ch := a.must(t, change(b, shoal.PeerDrain)); line(ch) != "~ drain (1 replica moves)" || ch.Replicas != 1 {
		t.Errorf("drain = %q of %d, want that one moves", line(ch), ch.Replicas)
	}
	if _, err := a.Plan(context.Background(), remove); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("rm while one runs = %v, want it refused", err)
	}
	say(shoal.PhaseStopped, shoal.PhaseStopped)
	if got, want := line(a.must(t, remove)), "- remove from the cluster, 2 slots are placed anew"; got != want {
		t.Errorf("rm = %q, want %q", got, want)
	}
}

func TestEdits(t *testing.T) {
	peers := cluster(t, 2)
	a, b := peers[0], peers[1]
	edit := func(name string, set map[string]string, unset ...string) shoal.Wish {
		return shoal.Wish{Peer: &shoal.PeerWish{Peer: b.self, Change: shoal.PeerEdit, Name: name, Set: set, Unset: unset}}
	}
	zone := func(v string) map[string]string { return map[string]string{"zone": v} }
	steps := []struct {
		by   *place
		ask  shoal.Wish
		want string
		name string
		zone string
	}{
		{a, edit("osaka", zone("x")), "~ name b -> osaka, label zone=x", "osaka", "x"},
		{b, edit("osaka", zone("x")), "= already so", "osaka", "x"},
		{b, edit("", zone("y"), "disk", "disk"), "~ label zone x -> y", "osaka", "y"},
		{a, edit("kyoto", nil, "zone"), "~ name osaka -> kyoto, label zone-", "kyoto", ""},
		{b, edit("b", nil, "zone"), "~ name kyoto -> b", "b", ""},
		{a, edit("", zone("z")), "~ label zone=z", "b", "z"},
	}
	for i, s := range steps {
		if got := line(s.by.must(t, s.ask)); got != s.want {
			t.Errorf("step %d = %q, want %q", i, got, s.want)
		}
		exchange(peers)
		p, _ := a.store.Desired().Peer(b.self)
		if p.Facts.Name != s.name || p.Facts.Labels["zone"] != s.zone || p.Own.Name != "b" {
			t.Errorf("step %d: %+v of its own %+v, want name %q and zone %q", i, p.Facts, p.Own, s.name, s.zone)
		}
	}
	refused := map[string]struct {
		ask  shoal.Wish
		want string
	}{
		"a taken name":       {edit("a", nil), `the name "a" is taken by peer ` + a.self.Short() + `: conflict; choose another one, or rename that peer first`},
		"no name":            {edit("Osaka", nil), `name must match [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?, got "Osaka"`},
		"nothing":            {edit("", nil), "name or labels must be given"},
		"both":               {edit("", zone("x"), "zone"), `label "zone" is both set and taken away`},
		"an operator's key":  {edit("", map[string]string{"a!": "b"}), `label "a!=b" is not KEY=VALUE of letters, digits and . _ : / -`},
		"the machine's own":  {edit("", map[string]string{"platform": "linux/arm64"}), "label platform is given by the machine and cannot be set"},
		"a value with space": {edit("", zone(" x")), `label "zone= x" is not KEY=VALUE of letters, digits and . _ : / -`},
	}
	for name, tt := range refused {
		if _, err := a.Submit(context.Background(), tt.ask, shoal.UpdateOptions{}); err == nil || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%s = %v, want %q", name, err, tt.want)
		}
	}
}

func TestRemovePeer(t *testing.T) {
	ask := func(p *place, force bool) shoal.Wish {
		return shoal.Wish{Peer: &shoal.PeerWish{Peer: p.self, Change: shoal.PeerRemove, Force: force}}
	}
	refused := func(p *place, w shoal.Wish, want string) {
		t.Helper()
		if _, err := p.Submit(context.Background(), w, shoal.UpdateOptions{}); !errors.Is(err, shoal.ErrRefused) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("Submit = %v, want a refusal: %q", err, want)
		}
	}
	peers := cluster(t, 3)
	a, b, c := peers[0], peers[1], peers[2]
	db := spec("db", 2)
	db.Setup.Mounts = []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}
	a.must(t, deploy(spec("web", 3), db))
	a.must(t, change(b, shoal.PeerDrain))
	exchange(peers)
	b.hold(t, "web", 0)
	exchange(peers)

	refused(a, ask(a, true), `a cannot remove itself: refused; run "shoal leave" on it`)
	refused(a, ask(b, false), "b is alive and holds 1 slot: refused; drain it first: shoal drain b, or remove it with --force")
	b.hold(t, "web")
	write(t, b.store, &shoal.ClaimBody{Peer: b.self, Service: "db", Data: []int{0, 1, 7}}) // 7 is not wanted
	exchange(peers)
	refused(a, ask(b, false), "b has the data of db/0, db/1, which no other peer has: refused; remove the service, or give the data up with --force")
	c.hold(t, "db", 1)
	exchange(peers)
	if got, want := line(a.must(t, ask(b, true))), "- remove from the cluster, db/0 begins without its data, which stays on that machine"; got != want {
		t.Errorf("rm = %q, want %q", got, want)
	}
	write(t, b.store, &shoal.ClaimBody{Peer: b.self, Service: "web", Holds: []shoal.Holding{{Slot: 1}}})
	exchange(peers)
	for _, p := range peers {
		d := p.store.Desired()
		q, _ := d.Peer(b.self)
		if !q.Removed || len(q.Removal) == 0 {
			t.Errorf("b = %+v, want it removed, with the proof", q)
		}
		if slices.ContainsFunc(d.Claims, func(c shoal.Claim) bool { return c.Holder == b.self }) {
			t.Error("what b wrote after its removal counts")
		}
	}
	if got := line(c.must(t, ask(b, false))); got != "= already removed" {
		t.Errorf("rm again = %q, want nothing to do", got)
	}
	refused(c, change(b, shoal.PeerCordon), "peer b was removed from the cluster: refused")
	refused(b, ask(c, true), "ask an operator (a, c)")
}

func TestPeerWishesRefused(t *testing.T) {
	peers := cluster(t, 2, shoal.RoleOperator, shoal.RolePeer)
	submit := func(p *place, w *shoal.PeerWish) error {
		_, err := p.Submit(context.Background(), shoal.Wish{Peer: w}, shoal.UpdateOptions{})
		return err
	}
	if err := submit(peers[1], &shoal.PeerWish{Peer: peers[0].self, Change: shoal.PeerCordon}); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("a role-peer peer's wish = %v, want ErrRefused", err)
	}
	if err := submit(peers[0], &shoal.PeerWish{Peer: "nobody", Change: shoal.PeerCordon}); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("a stranger = %v, want ErrNotFound", err)
	}
	err := submit(peers[0], &shoal.PeerWish{Peer: peers[1].self, Change: "paint"})
	if _, ok := errors.AsType[*shoal.InvalidError](err); !ok {
		t.Errorf("an unknown change = %v, want an *InvalidError", err)
	}
	if d := peers[0].store.Desired(); slices.ContainsFunc(d.Peers, func(p shoal.Peer) bool { return len(p.By) > 0 }) {
		t.Error("something was written")
	}
}
