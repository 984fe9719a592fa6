// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

// world is a cluster of three peers as "self" sees it: web/0 is here, web/1 at "near",
// web/2 at "far", which is not heard; db publishes nothing.
type world struct {
	desired *shoal.Desired
	lives   map[shoal.PeerID]shoal.Life
	states  map[shoal.PeerID]*shoal.PeerState
}

func id(n byte) shoal.ReplicaID { return shoal.ReplicaID{n} }

func newWorld() *world {
	w := &world{
		desired: &shoal.Desired{
			Peers: []shoal.Peer{
				{ID: "far", Role: shoal.RoleOperator},
				{ID: "near", Role: shoal.RolePeer, Facts: shoal.PeerFacts{Labels: map[string]string{"zone": "a"}}},
				{ID: "self", Role: shoal.RoleOperator, Facts: shoal.PeerFacts{Labels: map[string]string{"zone": "a"}}},
			},
			Services: []shoal.Service{
				{Spec: shoal.Spec{Name: "db"}, Revision: shoal.RevisionID{Seq: 9, Author: "self"}},
				{
					Spec: shoal.Spec{Name: "web", LB: shoal.LBHash, Prefer: shoal.PreferZone, ProxyProtocol: true, Ports: []shoal.Port{
						{Container: 80, Published: 8080, Protocol: "tcp"},
						{Container: 90, Published: 9090, Protocol: "tcp", Host: true},
						{Container: 53, Protocol: "udp"},
					}},
					Revision: shoal.RevisionID{Seq: 2, Author: "self"},
				},
			},
		},
		lives: map[shoal.PeerID]shoal.Life{
			"near": {State: shoal.LifeSuspect, Heard: 3 * time.Second}, "far": {State: shoal.LifeUnknown},
		},
		states: map[shoal.PeerID]*shoal.PeerState{"self": {}, "near": {}},
	}
	w.claim("self", "web", 0, id(1))
	w.claim("near", "web", 1, id(2))
	w.claim("far", "web", 2, id(3))
	w.replica("self", shoal.ReplicaStatus{ID: id(1), Service: "web", Slot: 0, Phase: shoal.PhaseReady, Addr: "172.17.0.2"})
	w.replica("near", shoal.ReplicaStatus{ID: id(2), Service: "web", Slot: 1, Phase: shoal.PhaseStarting, Reason: "health: starting"})
	return w
}

func (w *world) claim(holder shoal.PeerID, service string, slot int, replica shoal.ReplicaID) {
	w.desired.Claims = append(w.desired.Claims, shoal.Claim{Holder: holder, Service: service, Slot: slot, Replica: replica})
}

func (w *world) replica(holder shoal.PeerID, st shoal.ReplicaStatus) {
	w.states[holder].Replicas = append(w.states[holder].Replicas, st)
}

func (w *world) view() *shoal.View { return shoal.NewView("self", w.desired, w.lives, w.states) }

func TestListeners(t *testing.T) {
	w := newWorld()
	rival := shoal.Service{
		Spec:     shoal.Spec{Name: "rival", Ports: []shoal.Port{{Container: 81, Published: 8080, Protocol: "tcp"}, {Container: 53, Published: 8080, Protocol: "udp"}}},
		Revision: shoal.RevisionID{Seq: 1, Author: "self"},
	}
	w.desired.Services = slices.Insert(w.desired.Services, 1, rival) // they are sorted
	tcp := Listener{PublishedPort: shoal.PublishedPort{Port: 8080, Protocol: "tcp", Service: "web", Target: 80, Losers: []string{"rival"}}, Proxy: true}
	udp := Listener{PublishedPort: shoal.PublishedPort{Port: 8080, Protocol: "udp", Service: "rival", Target: 53}}
	if diff := cmp.Diff([]Listener{tcp, udp}, Listeners(w.view())); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
	// The loser has it once the winner wants it no more.
	w.desired.Services[2].Stopped = true
	tcp = Listener{PublishedPort: shoal.PublishedPort{Port: 8080, Protocol: "tcp", Service: "rival", Target: 81}}
	if diff := cmp.Diff([]Listener{tcp, udp}, Listeners(w.view())); diff != "" {
		t.Errorf("listeners without web (-want +got):\n%s", diff)
	}
	w.desired.Services[1].Spec.Setup.HostNetwork = true
	if got := Listeners(w.view()); len(got) != 0 {
		t.Errorf("listeners = %+v, want none where nothing is published", got)
	}
}

func TestBackends(t *testing.T) {
	w := newWorld()
	got := Backends(w.view(), "web")
	if got.Policy != shoal.LBHash || got.Prefer != shoal.PreferZone || got.Self != "self" || got.Zone != "a" || len(got.Backends) != 3 {
		t.Fatalf("snapshot = %+v", got)
	}
	here, near, far := got.Backends[0], got.Backends[1], got.Backends[2]
	if !here.Ready || !here.Alive || here.Releasing || here.Zone != "a" || here.Holder != "self" {
		t.Errorf("the one here = %+v", here)
	}
	if near.Ready || !near.Alive || near.Heard != 0 || near.Why != "starting: health: starting" {
		t.Errorf("the one near = %+v", near)
	}
	if far.Ready || far.Alive || far.Heard != -1 || far.Why == "" {
		t.Errorf("the one far = %+v", far)
	}
	w.states["self"].Replicas[0].Phase = shoal.PhaseStopping
	if b := Backends(w.view(), "web").Backends[0]; b.Ready || !b.Releasing {
		t.Errorf("one that stops = %+v", b)
	}
	if got := Backends(w.view(), "nosuch"); len(got.Backends) != 0 || got.Policy != "" {
		t.Errorf("backends of no service = %+v", got)
	}
}

func TestTarget(t *testing.T) {
	base := Question{Asker: "near", Via: ViaPublished, Service: "web", Replica: id(1), Port: 80, Protocol: "tcp"}
	for name, c := range map[string]struct {
		change func(*Question, *world)
		want   string // the address, or a part of the error
		is     error
	}{
		"published": {func(*Question, *world) {}, "172.17.0.2:80", nil},
		"forwarded": {func(q *Question, _ *world) { q.Via, q.Asker, q.Port = ViaForward, "self", 5432 }, "172.17.0.2:5432", nil},
		"published by the engine on loopback": {func(_ *Question, w *world) {
			w.states["self"].Replicas[0].Ports = []shoal.PortBinding{
				{Container: 80, Protocol: "udp", HostIP: "127.0.0.1", HostPort: 1},
				{Container: 80, Protocol: "tcp", HostIP: "192.0.2.1", HostPort: 2},
				{Container: 80, Protocol: "tcp", HostIP: "127.0.0.1", HostPort: 32768},
			}
		}, "127.0.0.1:32768", nil},
		"no such service": {func(q *Question, _ *world) { q.Service = "nosuch" }, `service "nosuch"`, shoal.ErrNotFound},
		"not published":   {func(q *Question, _ *world) { q.Port = 81 }, "publishes no port 81/tcp", shoal.ErrRefused},
		"a host port":     {func(q *Question, _ *world) { q.Port = 90 }, "publishes no port 90/tcp", shoal.ErrRefused},
		"other protocol":  {func(q *Question, _ *world) { q.Protocol = "udp" }, "publishes no port 80/udp", shoal.ErrRefused},
		"elsewhere":       {func(q *Question, _ *world) { q.Replica = id(2) }, "is not here", shoal.ErrNotFound},
		"of nobody":       {func(q *Question, _ *world) { q.Replica = id(7) }, "is not here", shoal.ErrNotFound},
		"another service's": {func(q *Question, w *world) {
			w.desired.Services[0].Spec.Ports = w.desired.Services[1].Spec.Ports
			q.Service = "db"
		}, "is not here", shoal.ErrNotFound},
		"not ready": {func(_ *Question, w *world) { w.states["self"].Replicas[0].Phase = shoal.PhaseStarting }, "web/0 is starting", shoal.ErrNotFound},
		"releasing": {func(_ *Question, w *world) { w.states["self"].Replicas[0].Phase = shoal.PhaseStopping }, "web/0 is stopping", shoal.ErrNotFound},
		"not ready, forwarded": {func(q *Question, w *world) {
			w.states["self"].Replicas[0].Phase = shoal.PhaseRunning
			q.Via, q.Asker = ViaForward, "self"
		}, "172.17.0.2:80", nil},
		"no address":                    {func(_ *Question, w *world) { w.states["self"].Replicas[0].Addr = "" }, "has no address", shoal.ErrNotFound},
		"forwarded by a peer":           {func(q *Question, _ *world) { q.Via = ViaForward }, "only operators", shoal.ErrRefused},
		"forwarded by nobody":           {func(q *Question, _ *world) { q.Via, q.Asker = ViaForward, "stranger" }, "only operators", shoal.ErrRefused},
		"named, by a holder of its own": {func(q *Question, _ *world) { q.Via, q.Port = ViaName, 5432 }, "172.17.0.2:5432", nil},
		"named, udp":                    {func(q *Question, _ *world) { q.Via, q.Port, q.Protocol = ViaName, 53, "udp" }, "172.17.0.2:53", nil},
		"named, by a peer not heard":    {func(q *Question, _ *world) { q.Via, q.Asker = ViaName, "far" }, "172.17.0.2:80", nil},
		"named, not ready": {func(q *Question, w *world) {
			w.states["self"].Replicas[0].Phase = shoal.PhaseStarting
			q.Via, q.Asker = ViaName, "self"
		}, "172.17.0.2:80", nil},
		"named, releasing": {func(q *Question, w *world) {
			w.states["self"].Replicas[0].Phase = shoal.PhaseStopping
			q.Via = ViaName
		}, "web/0 is stopping", shoal.ErrNotFound},
		"named, by one that holds a neighbour": {func(q *Question, w *world) {
			w.desired.Claims = []shoal.Claim{{Holder: "far", Service: "db", Replica: id(9)}, {Holder: "self", Service: "web", Replica: id(1)}}
			q.Via, q.Asker = ViaName, "far"
		}, "172.17.0.2:80", nil},
		"named, by one on another network": {func(q *Question, w *world) {
			w.desired.Claims = []shoal.Claim{{Holder: "far", Service: "db", Replica: id(9)}, {Holder: "self", Service: "web", Replica: id(1)}}
			w.desired.Services[0].Spec.Networks = []shoal.Attachment{{Network: "private"}}
			q.Via, q.Asker = ViaName, "far"
		}, "shares a network with web", shoal.ErrRefused},
		"named, without networks": {func(q *Question, w *world) {
			w.desired.Services[1].Spec.Setup.HostNetwork = true
			q.Via = ViaName
		}, "shares a network with web", shoal.ErrRefused},
		"named, by one that holds nothing": {func(q *Question, w *world) {
			w.desired.Claims = w.desired.Claims[:1]
			q.Via = ViaName
		}, "shares a network with web", shoal.ErrRefused},
		"named, by one that was removed": {func(q *Question, w *world) { q.Via, w.desired.Peers[1].Removed = ViaName, true }, "shares a network with web", shoal.ErrRefused},
		"named, by one that left":        {func(q *Question, w *world) { q.Via, w.desired.Peers[1].Facts.Leaving = ViaName, true }, "shares a network with web", shoal.ErrRefused},
		"named, by nobody":               {func(q *Question, _ *world) { q.Via, q.Asker = ViaName, "stranger" }, "shares a network with web", shoal.ErrRefused},
		"without a way":                  {func(q *Question, _ *world) { q.Via = 0 }, "no way to come", shoal.ErrRefused},
		"claimed no more here":           {func(_ *Question, w *world) { w.desired.Claims = w.desired.Claims[1:] }, "is not here", shoal.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			q, w := base, newWorld()
			c.change(&q, w)
			got, err := Target(w.view(), q)
			switch {
			case c.is == nil && (err != nil || got.Addr.String() != c.want || got.Proxy != (q.Via == ViaPublished)):
				t.Errorf("Target = %+v, %v, want %s", got, err, c.want)
			case c.is != nil && (!errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("Target = %v, want %v that says %q", err, c.is, c.want)
			}
		})
	}
}

func TestWeights(t *testing.T) {
	w := newWorld()
	w.desired.Peers[1].Facts.Labels["weight"] = "3"
	w.desired.Peers[0].Facts.Labels = map[string]string{"weight": "heavy"}
	got := Backends(w.view(), "web")
	if a, b, c := got.Backends[0].Weight, got.Backends[1].Weight, got.Backends[2].Weight; a != 1 || b != 3 || c != 1 {
		t.Errorf("weights = %d, %d, %d, want 1, 3, 1", a, b, c)
	}
}

// TestCanaryWeight: a canary gets its share of the traffic, whatever it weighs, until it is
// promoted, or nobody else is ready.
func TestCanaryWeight(t *testing.T) {
	w := newWorld()
	web := &w.desired.Services[1]
	web.Spec.Rollout.Canary = shoal.Canary{Slots: shoal.Share{N: 1}, Weight: 5}
	for i := range w.desired.Claims {
		w.desired.Claims[i].Revision = shoal.RevisionID{Seq: 1, Author: "self"}
	}
	w.desired.Claims[0].Revision = web.Revision
	w.lives["far"] = shoal.Life{State: shoal.LifeAlive}
	w.states["far"] = &shoal.PeerState{}
	w.replica("far", shoal.ReplicaStatus{ID: id(3), Service: "web", Slot: 2, Phase: shoal.PhaseReady})
	w.states["near"].Replicas[0].Phase = shoal.PhaseReady
	share := func() (policy shoal.LB, canary float64) {
		got := Backends(w.view(), "web")
		sum := 0
		for _, b := range got.Backends {
			sum += b.Weight
		}
		return got.Policy, float64(got.Backends[0].Weight) / float64(sum)
	}
	if policy, got := share(); policy != shoal.LBWeighted || got < 0.04 || got > 0.06 {
		t.Errorf("the canary gets %.3f by %s, want 0.05 by weight", got, policy)
	}
	web.Rollout.Promoted = true
	if policy, got := share(); policy != shoal.LBHash || got < 0.3 {
		t.Errorf("promoted it gets %.3f by %s, want a third by hash", got, policy)
	}
	web.Rollout.Promoted = false
	w.states["near"].Replicas[0].Phase, w.states["far"].Replicas[0].Phase = shoal.PhaseStarting, shoal.PhaseStarting
	if policy, got := share(); policy != shoal.LBHash || got < 0.3 {
		t.Errorf("alone it gets %.3f by %s, want what its policy says", got, policy)
	}
}
