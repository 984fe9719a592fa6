// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// TestWhyASlotHasNoHolder: where its data is comes first, with how long its home has
// not been heard; then what holds for all peers; then what each says.
func TestWhyASlotHasNoHolder(t *testing.T) {
	desired := &shoal.Desired{Peers: []shoal.Peer{{ID: "osaka", Facts: shoal.PeerFacts{Name: "osaka"}}}}
	now := 100 * time.Second
	view := shoal.NewView("tokyo", desired, map[shoal.PeerID]shoal.Life{"osaka": {State: shoal.LifeDead, Heard: now - 41*time.Second}}, nil)
	lines := []shoal.ExplainLine{{Slot: -1, Peer: "osaka", Reason: "is not heard"}}
	for _, c := range []struct {
		name string
		x    shoal.Explanation
		want string
	}{
		{"home away", shoal.Explanation{Lines: lines, Slots: []shoal.ExplainSlot{{}, {Slot: 1, Home: "osaka", Waits: []string{"waits for its data on osaka, which is not heard", "more"}}}}, "waits for its data on osaka, not heard for 41s"},
		{"home full", shoal.Explanation{Lines: lines, Slots: []shoal.ExplainSlot{{Slot: 1, Home: "osaka", Waits: []string{"waits for its data on osaka, which has no room"}}}}, "waits for its data on osaka, which has no room"},
		{"another slot's home", shoal.Explanation{Lines: lines, Slots: []shoal.ExplainSlot{{Home: "osaka", Waits: []string{"waits for its data on osaka, which is not heard"}}}}, "1 peer: is not heard"},
		{"never", shoal.Explanation{Lines: lines, Never: "0 of 1 peers match zone=eu"}, "0 of 1 peers match zone=eu"},
		{"soon", shoal.Explanation{Lines: []shoal.ExplainLine{{Slot: -1, Peer: "osaka", Feasible: true}}}, "waiting for a peer to claim it"},
		{"the same of two containers", shoal.Explanation{Lines: []shoal.ExplainLine{
			{Slot: -1, Peer: "osaka", Reason: "start container 2226e83fe6d7: no"}, {Slot: -1, Peer: "tokyo", Reason: "start container 9774f95466e2: no"},
		}}, "2 peers: start container 2226e83fe6d7: no"},
		{"nothing known", shoal.Explanation{}, "no reason known here"},
	} {
		m := &moment{pane: newPane(view, now), explain: func(string) shoal.Explanation { return c.x }}
		if got := m.why("web", 1); got != c.want {
			t.Errorf("%s: why(web, 1) = %q, want %q", c.name, got, c.want)
		}
	}
}

// TestSilentHolderOfData: only a slot that stays with its holder waits for it.
func TestSilentHolderOfData(t *testing.T) {
	mounts := []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}
	const waits, silent = "waits for its data on osaka, not heard for 41s; last said pending", "osaka silent 41s; last said pending"
	for _, c := range []struct {
		name string
		edit func(svc *shoal.Service, d *shoal.Desired)
		want string
	}{
		{"data", func(*shoal.Service, *shoal.Desired) {}, waits},
		{"no data", func(svc *shoal.Service, _ *shoal.Desired) { svc.Spec.Setup.Mounts = nil }, silent},
		{"anywhere", func(svc *shoal.Service, _ *shoal.Desired) { svc.Spec.VolumesAnywhere = true }, silent},
		{"leaving", func(_ *shoal.Service, d *shoal.Desired) { d.Peers[0].Facts.Leaving = true }, silent},
		{"held elsewhere too", func(_ *shoal.Service, d *shoal.Desired) {
			d.Claims = append(d.Claims, shoal.Claim{Holder: "tokyo", Service: "db", Replica: shoal.ReplicaID{2}})
		}, silent},
	} {
		d := &shoal.Desired{
			Peers:  []shoal.Peer{{ID: "osaka", Facts: shoal.PeerFacts{Name: "osaka"}}, {ID: "tokyo", Facts: shoal.PeerFacts{Name: "tokyo"}}},
			Claims: []shoal.Claim{{Holder: "osaka", Service: "db", Replica: shoal.ReplicaID{1}}},
		}
		svc := shoal.Service{Spec: shoal.Spec{Name: "db", Setup: shoal.Setup{Mounts: mounts}}, Replicas: 1}
		c.edit(&svc, d)
		d.Services = []shoal.Service{svc}
		now := 100 * time.Second
		p := newPane(shoal.NewView("tokyo", d, map[shoal.PeerID]shoal.Life{"osaka": {State: shoal.LifeDead, Heard: now - 41*time.Second}}, nil), now)
		if got := p.replica(&svc, d.Claims[0]); got.GetState() != stateSilent || got.GetReason() != c.want {
			t.Errorf("%s: state %s, reason %q, want silent, %q", c.name, got.GetState(), got.GetReason(), c.want)
		}
	}
}

// TestBehindIsSaid: a replica of an older revision says why it keeps it, and is listed
// with the image that it runs, not with the one that it does not.
func TestBehindIsSaid(t *testing.T) {
	const why = "keeps revision 1: image web:2 is not there"
	claims := []shoal.Claim{
		{Holder: "tokyo", Service: "web", Replica: shoal.ReplicaID{1}, Revision: shoal.RevisionID{Seq: 1}},
		{Holder: "tokyo", Service: "web", Slot: 1, Replica: shoal.ReplicaID{2}, Revision: shoal.RevisionID{Seq: 2}},
	}
	d := &shoal.Desired{
		Peers: []shoal.Peer{{ID: "tokyo", Facts: shoal.PeerFacts{Name: "tokyo"}}}, Claims: claims,
		Services: []shoal.Service{{Spec: shoal.Spec{Name: "web", Image: "web:2"}, Replicas: 2, Revision: shoal.RevisionID{Seq: 2}}},
	}
	state := &shoal.PeerState{Replicas: []shoal.ReplicaStatus{
		{ID: claims[0].Replica, Service: "web", Phase: shoal.PhaseReady, Image: "sha256:old"},
		{ID: claims[1].Replica, Service: "web", Slot: 1, Phase: shoal.PhaseReady, Image: "sha256:new"},
	}}
	view := shoal.NewView("tokyo", d, map[shoal.PeerID]shoal.Life{"tokyo": {State: shoal.LifeAlive}}, map[shoal.PeerID]*shoal.PeerState{"tokyo": state})
	slots := []shoal.ExplainSlot{{Holders: []shoal.PeerID{"tokyo"}, Behind: why}, {Slot: 1, Holders: []shoal.PeerID{"tokyo"}, Behind: why}}
	m := &moment{pane: newPane(view, time.Second), explain: func(string) shoal.Explanation { return shoal.Explanation{Slots: slots} }}
	rows := m.rowsOf("web")
	if len(rows) != 2 || rows[0].GetReason() != why || rows[0].GetImage() != "sha256:old" || rows[0].GetIsCurrent() {
		t.Errorf("rows = %v, want the first of the old image, with the reason", rows)
	}
	if len(rows) == 2 && (rows[1].GetReason() != "" || rows[1].GetImage() != "web:2" || !rows[1].GetIsCurrent()) {
		t.Errorf("row of the current revision = %v, want no reason and the new image", rows[1])
	}
}
