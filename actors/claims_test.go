// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

func TestDrafts(t *testing.T) {
	id := func(n byte) shoal.ReplicaID { return shoal.ReplicaID{n} }
	rev := func(n uint64) shoal.RevisionID { return shoal.RevisionID{Seq: n, Author: "op"} }
	at := func(n int64) shoal.HLC { return shoal.HLC{WallMilli: n} }
	own := []shoal.Claim{
		{Holder: "me", Service: "api", Slot: 0, Replica: id(1), Revision: rev(1), Since: at(1)},
		{Holder: "me", Service: "web", Slot: 0, Replica: id(2), Revision: rev(1), Since: at(2)},
		{Holder: "me", Service: "web", Slot: 3, Replica: id(3), Revision: rev(1), Since: at(3)},
		{Holder: "me", Service: "web", Slot: 5, Replica: id(4), Revision: rev(1), Since: at(4)},
		{Holder: "me", Service: "web", Slot: 8, Replica: id(5), Revision: rev(2), Since: at(5)},
	}
	minted := byte(100)
	mint := func() shoal.ReplicaID { minted++; return id(minted) }
	plan := placement.Plan{
		Claims: []placement.NewClaim{
			{Service: "db", Slot: 7, Revision: rev(9)},
			{Service: "web", Slot: 0, Revision: rev(2), Replaces: id(2)},                               // changes its revision
			{Service: "web", Slot: 4, Revision: rev(1), Reuse: id(3), LeavesSlot: 3, YieldTo: "other"}, // moves
			{Service: "web", Slot: 8, Revision: rev(1), Reuse: id(6), LeavesSlot: 8, Replaces: id(5)},  // goes back
		},
		Releases: []placement.Drop{{Service: "web", Slot: 5, Replica: id(4), YieldTo: "winner"}},
	}
	recent := []dated{
		{service: "web", release: shoal.Release{Slot: 4, Replica: id(9), YieldTo: "old"}},   // held again now
		{service: "web", release: shoal.Release{Slot: 6, Replica: id(8), YieldTo: "older"}}, // told again, newest word
		{service: "web", release: shoal.Release{Slot: 6, Replica: id(8), YieldTo: "newer"}},
		{service: "api", release: shoal.Release{Slot: 1, Replica: id(7)}}, // not written now
	}
	got := drafts("me", own, nil, &plan, nil, recent, mint)
	want := []*shoal.ClaimBody{
		{Peer: "me", Service: "db", Holds: []shoal.Holding{{Slot: 7, Replica: id(101), Revision: rev(9)}}},
		{
			Peer: "me", Service: "web",
			Holds: []shoal.Holding{
				{Slot: 0, Replica: id(102), Revision: rev(2), Since: at(2)},
				{Slot: 4, Replica: id(3), Revision: rev(1)},
				{Slot: 8, Replica: id(6), Revision: rev(1), Since: at(5)},
			},
			Released: []shoal.Release{
				{Slot: 3, Replica: id(3), YieldTo: "other"},
				{Slot: 5, Replica: id(4), YieldTo: "winner"},
				{Slot: 6, Replica: id(8), YieldTo: "newer"},
			},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("drafts (-want +got):\n%s", d)
	}
	all := releaseAll("me", own, nil)
	if len(all) != 2 || len(all[0].Holds)+len(all[1].Holds) != 0 || len(all[0].Released)+len(all[1].Released) != 5 {
		t.Errorf("releaseAll = %+v", all)
	}
}

func TestDraftsOfData(t *testing.T) {
	id := func(n byte) shoal.ReplicaID { return shoal.ReplicaID{n} }
	own := []shoal.Claim{
		{Holder: "me", Service: "db", Slot: 0, Replica: id(1)},
		{Holder: "me", Service: "db", Slot: 1, Replica: id(2)},
		{Holder: "me", Service: "db", Slot: 4, Replica: id(3)},
	}
	homes := []shoal.Home{{Peer: "me", Service: "db", Slot: 1}, {Peer: "me", Service: "db", Slot: 7}, {Peer: "me", Service: "other", Slot: 5}}
	plan := placement.Plan{
		Claims: []placement.NewClaim{{Service: "db", Slot: 4, Replaces: id(3), Data: true}, {Service: "db", Slot: 9}},
		Releases: []placement.Drop{
			{Service: "db", Slot: 0, Replica: id(1), Data: true},
			{Service: "db", Slot: 1, Replica: id(2), YieldTo: "winner"},
		},
	}
	got := drafts("me", own, homes, &plan, nil, nil, func() shoal.ReplicaID { return id(9) })
	if len(got) != 1 || !cmp.Equal(got[0].Data, []int{0, 4, 7}) {
		t.Errorf("drafts = %+v, want data of 0 (let go), 4 (changed in place) and 7 (as before), not of 1 (lost)", got)
	}
}

func TestHomesOf(t *testing.T) {
	volume := shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}}
	d := &shoal.Desired{
		Services: []shoal.Service{
			{Spec: shoal.Spec{Name: "anywhere", Setup: volume, VolumesAnywhere: true}},
			{Spec: shoal.Spec{Name: "db", Setup: volume}},
		},
		Homes: []shoal.Home{
			{Peer: "me", Service: "anywhere"}, {Peer: "me", Service: "db", Slot: 1}, {Peer: "you", Service: "db", Slot: 1}, {Peer: "me", Service: "gone"},
		},
	}
	got := homesOf(shoal.NewView("me", d, nil, nil), "me")
	want := []shoal.Home{{Peer: "me", Service: "db", Slot: 1}, {Peer: "me", Service: "gone"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("homesOf (-want +got):\n%s", diff)
	}
}

func TestSameClaims(t *testing.T) {
	mine := shoal.Claim{Holder: "me", Service: "web", Slot: 1, Replica: shoal.ReplicaID{1}}
	other := shoal.Claim{Holder: "you", Service: "web", Slot: 0, Replica: shoal.ReplicaID{2}}
	moved := mine
	moved.Slot = 2
	for _, c := range []struct {
		name string
		d    []shoal.Claim
		own  []shoal.Claim
		want bool
	}{
		{"same", []shoal.Claim{other, mine}, []shoal.Claim{mine}, true},
		{"none", []shoal.Claim{other}, nil, true},
		{"more", []shoal.Claim{other, mine}, nil, false},
		{"fewer", []shoal.Claim{other}, []shoal.Claim{mine}, false},
		{"moved", []shoal.Claim{moved}, []shoal.Claim{mine}, false},
	} {
		if got := sameClaims(&shoal.Desired{Claims: c.d}, "me", c.own); got != c.want {
			t.Errorf("%s: sameClaims = %v, want %v", c.name, got, c.want)
		}
	}
}

// TestClaimsWithoutEffect: a store that takes our records and does not count them
// (our pen has ended) is not flooded.
func TestClaimsWithoutEffect(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.deps.Decide = everything(p.id)
		void := &voidStore{fakeStore: fakeStore{p}}
		p.deps.Store = void
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 2)
		s.wait(10 * time.Minute)
		if n := void.n.Load(); n < 5 || n > 20 {
			t.Errorf("%d updates in 10 minutes, want 5 to 20", n)
		}
		if p.containers() != 0 {
			t.Error("containers were made for claims that do not count")
		}
	})
}

type voidStore struct {
	fakeStore
	n atomic.Int32
}

func (v *voidStore) Update(ctx ctxType, fn updateFn, _ shoal.UpdateOptions) (shoal.Ack, error) {
	if !sleep(ctx, 3*time.Millisecond) {
		return shoal.Ack{}, ctx.Err()
	}
	if _, err := fn(v.Desired(), shoal.Stamp{}); err != nil {
		return shoal.Ack{}, err
	}
	v.n.Add(1)
	v.sea.all(func(*tank) {}) // the version grows, the claims do not show
	return shoal.Ack{Wrote: true}, nil
}

// TestClaimsChangeUnderDecision: the update is not written, and decided again.
func TestClaimsChangeUnderDecision(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		racing := &racingStore{fakeStore: fakeStore{p}}
		p.deps.Store = racing
		oneWeb(s, 2)
		racing.race.Store(true)
		s.wish(shoal.Spec{Name: "web"}, 1, 3, p.id, p.id, p.id)
		s.until(5*time.Second, "3 ready", func() bool { return p.ready("web") == 3 })
		s.wait(time.Minute)
		if racing.stale.Load() != 1 || p.containers() != 3 || len(p.Desired().Claims) != 3 {
			t.Errorf("%d stale decisions, %d containers, claims %v; want 1, 3, 3", racing.stale.Load(), p.containers(), p.Desired().Claims)
		}
	})
}

// racingStore shows one decision other claims than it was made from.
type racingStore struct {
	fakeStore
	race  atomic.Bool
	stale atomic.Int32
}

func (r *racingStore) Update(ctx ctxType, fn updateFn, o shoal.UpdateOptions) (shoal.Ack, error) {
	if r.race.CompareAndSwap(true, false) {
		d := *r.Desired()
		d.Claims = d.Claims[:1]
		_, err := fn(&d, shoal.Stamp{})
		if errors.Is(err, errStale) {
			r.stale.Add(1)
		}
		return shoal.Ack{}, err
	}
	return r.fakeStore.Update(ctx, fn, o)
}

// slowStore takes 5 s for an update and counts how many are under way.
type slowStore struct {
	fakeStore
	calls, busy, most atomic.Int32
}

func (v *slowStore) Update(ctx ctxType, fn updateFn, o shoal.UpdateOptions) (shoal.Ack, error) {
	v.calls.Add(1)
	v.most.Store(max(v.most.Load(), v.busy.Add(1)))
	defer v.busy.Add(-1)
	if !sleep(ctx, 5*time.Second) {
		return shoal.Ack{}, ctx.Err()
	}
	return v.fakeStore.Update(ctx, fn, o)
}

// TestOneUpdateAtATime: views that change meanwhile do not make a second one, and
// the next decision sees the first one's claims.
func TestOneUpdateAtATime(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		slow := &slowStore{fakeStore: fakeStore{p}}
		p.deps.Store = slow
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 3, p.id, p.id, p.id)
		for range 480 {
			s.all(func(*tank) {})
			s.wait(10 * time.Millisecond)
		}
		s.until(time.Second, "3 ready", func() bool { return p.ready("web") == 3 })
		if slow.calls.Load() != 1 || slow.most.Load() != 1 || p.containers() != 3 {
			t.Errorf("%d updates, %d at a time, %d containers; want 1, 1, 3", slow.calls.Load(), slow.most.Load(), p.containers())
		}
	})
}

// TestEngineDownAtStart: told at once, nothing touched, adopted when it is back.
func TestEngineDownAtStart(t *testing.T) {
	for _, hang := range []bool{false, true} {
		inSea(t, 1, func(s *sea) {
			p := oneWeb(s, 2)
			before := p.engine.Counts(shoal.ReplicaID{})
			p.stop()
			if hang {
				p.engine.SetHang(true)
			} else {
				p.engine.SetDown(true)
			}
			p.start()
			s.until(10*time.Second, "marked", func() bool { return p.told() && p.state().Engine.Down })
			s.wait(time.Minute)
			p.engine.SetHang(false)
			p.engine.SetDown(false)
			s.until(10*time.Second, "adopted", func() bool { return p.ready("web") == 2 && !p.state().Engine.Down })
			s.wait(time.Minute)
			if after := p.engine.Counts(shoal.ReplicaID{}); after != before {
				t.Errorf("hang %v: counts = %+v after %+v", hang, after, before)
			}
		})
	}
}

// panickyEngine panics in the first creates.
type panickyEngine struct {
	shoal.Engine
	left atomic.Int32
}

func (e *panickyEngine) Create(ctx ctxType, spec shoal.ContainerSpec) (string, error) {
	if e.left.Add(-1) >= 0 {
		panic("a bug in a library")
	}
	return e.Engine.Create(ctx, spec)
}

// TestOperationPanics: a panic below an operation is a failed launch.
func TestOperationPanics(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		e := &panickyEngine{Engine: p.engine}
		e.left.Store(2)
		p.deps.Engine = e
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 1, p.id)
		s.wait(500 * time.Millisecond)
		if r := p.replica("web", 0); !strings.HasPrefix(r.Reason, "panic: a bug") {
			t.Errorf("status = %+v", r)
		}
		s.until(10*time.Second, "ready", func() bool { return p.ready("web") == 1 })
	})
}
