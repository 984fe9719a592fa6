// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// kit builds views. Everybody in it is alive and roomy until told otherwise.
type kit struct {
	peers    []shoal.Peer
	services []shoal.Service
	claims   []shoal.Claim
	releases []shoal.Release
	homes    []shoal.Home
	gone     []shoal.GoneBody
	images   []shoal.Image
	lives    map[shoal.PeerID]shoal.Life
	states   map[shoal.PeerID]*shoal.PeerState
	minted   int
}

const gib = 1 << 30

func newKit(peers int) *kit {
	k := &kit{lives: make(map[shoal.PeerID]shoal.Life), states: make(map[shoal.PeerID]*shoal.PeerState)}
	for i := range peers {
		k.addPeer(fmt.Sprintf("p%03d", i), "")
	}
	return k
}

func (k *kit) addPeer(id, zone string) *shoal.Peer {
	p := shoal.Peer{ID: shoal.PeerID(id), Role: shoal.RoleOperator, Facts: shoal.PeerFacts{
		Name: id, Labels: map[string]string{}, Capacity: shoal.Resources{CPUMilli: 64000, MemBytes: 64 * gib},
	}}
	if zone != "" {
		p.Facts.Labels["zone"] = zone
	}
	k.peers = append(k.peers, p)
	k.alive(p.ID)
	return &k.peers[len(k.peers)-1]
}

func (k *kit) alive(id shoal.PeerID) {
	k.lives[id] = shoal.Life{State: shoal.LifeAlive, Uptime: time.Hour}
}

func (k *kit) dead(id shoal.PeerID, heard time.Duration) {
	k.lives[id] = shoal.Life{State: shoal.LifeDead, Heard: heard}
}

// service adds a service of n replicas with 1 GiB each and returns it for changes.
func (k *kit) service(name string, n int) *shoal.Service {
	k.services = append(k.services, shoal.Service{
		Spec: shoal.Spec{
			Name: name, Mode: shoal.ModeReplicated, Strategy: shoal.StrategySpread,
			OnPartition: shoal.PartitionAvailable, Reservations: shoal.Resources{CPUMilli: 1000, MemBytes: gib},
		},
		Revision: shoal.RevisionID{Seq: 1, Author: "op"}, Wish: shoal.RevisionID{Seq: 1, Author: "op"},
		Replicas: n, Fresh: true,
	})
	return &k.services[len(k.services)-1]
}

// hold adds a claim with a ready replica.
func (k *kit) hold(service string, slot int, holder shoal.PeerID) shoal.Claim {
	k.minted++
	c := shoal.Claim{
		Holder: holder, Service: service, Slot: slot, Revision: shoal.RevisionID{Seq: 1, Author: "op"},
		Since: shoal.HLC{WallMilli: int64(k.minted)},
	}
	c.Replica[0], c.Replica[1], c.Replica[2] = byte(k.minted>>16), byte(k.minted>>8), byte(k.minted)
	k.claims = append(k.claims, c)
	k.phase(c, shoal.PhaseReady)
	return c
}

// home records that a slot's data is on a peer, or that it is not.
func (k *kit) home(service string, slot int, peer shoal.PeerID, is bool) {
	h := shoal.Home{Peer: peer, Service: service, Slot: slot}
	k.homes = slices.DeleteFunc(slices.Clone(k.homes), func(o shoal.Home) bool { return o == h })
	if is {
		k.homes = append(k.homes, h)
	}
}

// phase publishes a replica's phase.
func (k *kit) phase(c shoal.Claim, phase shoal.Phase) {
	old := k.states[c.Holder]
	st := &shoal.PeerState{}
	if old != nil {
		*st = *old
	}
	st.Replicas = slices.DeleteFunc(slices.Clone(st.Replicas), func(r shoal.ReplicaStatus) bool { return r.ID == c.Replica })
	st.Replicas = append(st.Replicas, shoal.ReplicaStatus{ID: c.Replica, Service: c.Service, Slot: c.Slot, Phase: phase})
	k.states[c.Holder] = st
}

// apply carries a plan out: claims appear at once, releases go.
func (k *kit) apply(self shoal.PeerID, plan Plan) {
	for _, d := range plan.Releases {
		k.claims = slices.DeleteFunc(k.claims, func(c shoal.Claim) bool { return c.Replica == d.Replica })
		k.releases = append(k.releases, shoal.Release{
			Holder: self, Service: d.Service, Slot: d.Slot, Replica: d.Replica, YieldTo: d.YieldTo,
		})
		k.home(d.Service, d.Slot, self, d.Data)
	}
	for _, n := range plan.Claims {
		c := k.hold(n.Service, n.Slot, self)
		k.claims = k.claims[:len(k.claims)-1]
		c.Revision = n.Revision
		if !n.Reuse.IsZero() {
			c.Replica = n.Reuse
		}
		k.claims = slices.DeleteFunc(k.claims, func(o shoal.Claim) bool { return o.Replica == n.Reuse || o.Replica == n.Replaces })
		k.claims = append(k.claims, c)
		k.phase(c, shoal.PhaseReady)
	}
}

func (k *kit) view(self shoal.PeerID) *shoal.View {
	d := &shoal.Desired{
		Services: slices.Clone(k.services), Peers: slices.Clone(k.peers),
		Claims: slices.Clone(k.claims), Releases: slices.Clone(k.releases), Homes: slices.Clone(k.homes), Gone: k.gone,
		Images: k.images,
	}
	slices.SortFunc(d.Homes, func(a, b shoal.Home) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Peer, b.Peer))
	})
	slices.SortFunc(d.Services, func(a, b shoal.Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	slices.SortFunc(d.Peers, func(a, b shoal.Peer) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(d.Claims, func(a, b shoal.Claim) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Holder, b.Holder))
	})
	lives := make(map[shoal.PeerID]shoal.Life, len(k.lives))
	maps.Copy(lives, k.lives)
	states := make(map[shoal.PeerID]*shoal.PeerState, len(k.states))
	maps.Copy(states, k.states)
	return shoal.NewView(self, d, lives, states)
}

// image records an image of blobs of these sizes and returns its digest and its blobs'
// keys.
func (k *kit) image(name string, sizes ...int64) (digest string, keys []shoal.BlobKey) {
	i := shoal.Image{ImageBody: shoal.ImageBody{Image: name}}
	for _, size := range sizes {
		k.minted++
		d := fmt.Sprintf("sha256:%016x%048x", k.minted, 0)
		i.Blobs = append(i.Blobs, shoal.BlobRef{Digest: d, Size: size})
		key, _ := shoal.BlobKeyOf(d)
		keys = append(keys, key)
	}
	k.minted++
	i.Digest = fmt.Sprintf("sha256:%016x%048x", k.minted, 0)
	k.images = append(k.images, i)
	return i.Digest, keys
}

// stores says that a peer holds these blobs.
func (k *kit) stores(id shoal.PeerID, keys ...shoal.BlobKey) {
	st := &shoal.PeerState{}
	if old := k.states[id]; old != nil {
		*st = *old
	}
	st.Blobs = slices.Sorted(slices.Values(append(slices.Clone(st.Blobs), keys...)))
	k.states[id] = st
}

// seasoned returns the memory of a peer that has been up for an hour at now and has
// looked at the view before.
func (k *kit) seasoned(self shoal.PeerID, now time.Duration, cfg Config) Memory {
	calm := *k
	calm.services, calm.claims, calm.releases = nil, nil, k.releases
	calm.lives = make(map[shoal.PeerID]shoal.Life)
	calm.states = nil
	for i := range k.peers {
		calm.alive(k.peers[i].ID)
	}
	m := NewMemory(now - time.Hour)
	_, m = Decide(calm.view(self), m, self, now-59*time.Minute, cfg)
	return m
}

// later is a good time for decisions: long after everything.
const later = 10 * time.Hour

// decideAll returns every living peer's plan for the same view.
func (k *kit) decideAll(cfg Config) map[shoal.PeerID]Plan {
	plans := make(map[shoal.PeerID]Plan)
	for _, p := range k.peers {
		if k.lives[p.ID].State != shoal.LifeAlive {
			continue
		}
		plans[p.ID], _ = Decide(k.view(p.ID), k.seasoned(p.ID, later, cfg), p.ID, later, cfg)
	}
	return plans
}

// sentences returns the reasons about a slot.
func sentences(p Plan, service string, slot int) []string {
	var out []string
	for _, r := range p.Reasons {
		if r.Service == service && r.Slot == slot {
			out = append(out, r.Text)
		}
	}
	return out
}

// wantClaims fails unless the plan claims exactly these "service/slot".
func wantClaims(t testing.TB, what string, p Plan, want ...string) {
	t.Helper()
	got := []string{}
	for _, c := range p.Claims {
		got = append(got, fmt.Sprintf("%s/%d", c.Service, c.Slot))
	}
	if !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("%s: claims = %v, want %v (reasons %v)", what, got, want, p.Reasons)
	}
}

// wantDrops fails unless the plan releases exactly these "service/slot>winner".
func wantDrops(t testing.TB, what string, p Plan, want ...string) {
	t.Helper()
	got := []string{}
	for _, d := range p.Releases {
		got = append(got, fmt.Sprintf("%s/%d>%s", d.Service, d.Slot, d.YieldTo))
	}
	if !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("%s: releases = %v, want %v (reasons %v)", what, got, want, p.Reasons)
	}
}
