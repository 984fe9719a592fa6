// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// steps drives one peer's decisions through time.
type steps struct {
	t    *testing.T
	k    *kit
	self shoal.PeerID
	m    Memory
	cfg  Config
}

func newSteps(t *testing.T, k *kit, self shoal.PeerID) *steps {
	return &steps{t: t, k: k, self: self, m: k.seasoned(self, later, LAN()), cfg: LAN()}
}

// at decides at later+d.
func (s *steps) at(d time.Duration) Plan {
	s.t.Helper()
	p, m := Decide(s.k.view(s.self), s.m, s.self, later+d, s.cfg)
	s.m = m
	return p
}

// openSlot returns a kit of three peers and a service whose only slot falls to the
// returned peer.
func openSlot() (*kit, shoal.PeerID) {
	k := newKit(3)
	k.service("web", 1)
	for id, plan := range k.decideAll(LAN()) {
		if len(plan.Claims) == 1 {
			return k, id
		}
	}
	panic("nobody claims the slot")
}

func TestMemoryIsAValue(t *testing.T) {
	k := newKit(3)
	k.service("web", 3)
	k.hold("web", 0, "p001")
	k.releases = []shoal.Release{{Holder: "p002", Service: "web", YieldTo: "p001"}}
	k.dead("p001", later-9*time.Second)
	m := k.seasoned("p000", later, LAN())
	m = m.Pulled("", later)
	before := clonedMemory(m)
	first, _ := Decide(k.view("p000"), m, "p000", later, LAN())
	_ = m.Pulled("p002", later+1)
	if !reflect.DeepEqual(m, before) {
		t.Error("Decide or Pulled changed the memory it was given")
	}
	if again, _ := Decide(k.view("p000"), m, "p000", later, LAN()); !reflect.DeepEqual(first, again) {
		t.Errorf("Decide twice = %+v, then %+v", first, again)
	}
}

func clonedMemory(m Memory) Memory {
	m.peers, m.wishes, m.vouched = maps.Clone(m.peers), maps.Clone(m.wishes), maps.Clone(m.vouched)
	m.releases, m.asked, m.open = maps.Clone(m.releases), maps.Clone(m.asked), maps.Clone(m.open)
	m.claimed, m.started, m.losing = maps.Clone(m.claimed), maps.Clone(m.started), maps.Clone(m.losing)
	return m
}

func TestProposedStartsAtOnce(t *testing.T) {
	k := newKit(3)
	k.service("web", 1).Proposed = []shoal.PeerID{"p002"}
	s := newSteps(t, k, "p002")
	p := s.at(0)
	wantClaims(t, "proposed", p, "web/0")
	k.apply("p002", p)
	k.phase(k.claims[0], shoal.PhasePending)
	if p := s.at(10 * time.Millisecond); !slices.Contains(p.Start, k.claims[0].Replica) {
		t.Errorf("a proposed young claim waits: %+v", p)
	}
	wantClaims(t, "not proposed", newSteps(t, k, "p001").at(0))
}

func TestHoldOff(t *testing.T) {
	k, self := openSlot()
	s := newSteps(t, k, self)
	p := s.at(0)
	wantClaims(t, "unproposed", p, "web/0")
	k.apply(self, p)
	mine := k.claims[0]
	k.phase(mine, shoal.PhasePending)
	if p := s.at(20 * time.Millisecond); len(p.Start) != 0 || p.Wake != later+LAN().Hold {
		t.Errorf("before the hold-off ends: start %v, wake %v, want none and %v", p.Start, p.Wake, later+LAN().Hold)
	}
	other := *k
	if p := s.at(LAN().Hold); !slices.Equal(p.Start, []shoal.ReplicaID{mine.Replica}) {
		t.Errorf("after the hold-off: start %v, want %v", p.Start, mine.Replica)
	}

	rival := shoal.PeerID("p000") // claimed it earlier
	if rival == self {
		rival = "p001"
	}
	k = &other
	s = newSteps(t, k, self)
	k.claims = nil
	p = s.at(0)
	c := k.hold("web", 0, rival)
	k.phase(c, shoal.PhaseStarting)
	k.apply(self, p)
	k.phase(k.claims[1], shoal.PhasePending)
	wantDrops(t, "a rival held it longer", s.at(20*time.Millisecond), "web/0>"+string(rival))
}

// TestUnstartedYieldsToTheProposed: an older claim that waits for its hold-off gives
// way to one that was proposed and so has started.
func TestUnstartedYieldsToTheProposed(t *testing.T) {
	for _, proposed := range []bool{true, false} {
		k, self := openSlot()
		rival := shoal.PeerID("p000")
		if rival == self {
			rival = "p001"
		}
		if proposed {
			k.services[0].Proposed = []shoal.PeerID{rival}
			k.states[rival] = &shoal.PeerState{Engine: shoal.EngineStatus{Down: true}} // in this view, for now
		}
		for i := range k.peers {
			k.peers[i].Cordoned = k.peers[i].ID != self
		}
		s := newSteps(t, k, self)
		p := s.at(0)
		wantClaims(t, "the named peer seems unable", p, "web/0")
		k.apply(self, p)
		k.phase(k.claims[0], shoal.PhasePending)
		later := k.hold("web", 0, rival)
		k.phase(later, shoal.PhasePending)
		want := []string{}
		if proposed {
			want = []string{"web/0>" + string(rival)}
		}
		wantDrops(t, "a younger claim", s.at(20*time.Millisecond), want...)
		if !proposed {
			k.phase(later, shoal.PhaseStarting)
			wantDrops(t, "a younger claim that runs", s.at(25*time.Millisecond), "web/0>"+string(rival))
		}
	}
}

func TestStaleWishPullsFirst(t *testing.T) {
	k, self := openSlot()
	k.services[0].Fresh = false
	s := newSteps(t, k, self)
	p := s.at(0)
	wantClaims(t, "a synced wish", p)
	if !slices.Equal(p.Pulls, []shoal.PeerID{""}) {
		t.Errorf("pulls = %q, want two random peers", p.Pulls)
	}
	if p := s.at(100 * time.Millisecond); len(p.Pulls) != 0 {
		t.Errorf("pulls again at once: %q", p.Pulls)
	}
	if p := s.at(1100 * time.Millisecond); !slices.Equal(p.Pulls, []shoal.PeerID{""}) {
		t.Errorf("does not pull again after a second: %+v", p)
	}
	s.m = s.m.Pulled("", later+1200*time.Millisecond)
	wantClaims(t, "after the pull", s.at(1200*time.Millisecond), "web/0")

	for _, p := range k.peers { // alone there is nobody to ask
		if p.ID != self {
			k.dead(p.ID, later-time.Hour)
		}
	}
	wantClaims(t, "alone", newSteps(t, k, self).at(0), "web/0")
}

func TestStepIn(t *testing.T) {
	k := newKit(3)
	k.service("web", 1).Proposed = []shoal.PeerID{"p000"} // p000 is deaf and never claims
	first, second := shoal.PeerID("p001"), shoal.PeerID("p002")
	if Rank("web", 0, second) > Rank("web", 0, first) {
		first, second = second, first
	}
	before := 0 // of first: p000 may rank above
	if Rank("web", 0, "p000") > Rank("web", 0, first) {
		before = 1
	}
	s := newSteps(t, k, first)
	if p := s.at(0); p.Wake != later+LAN().StepIn {
		t.Errorf("wake = %v, want %v", p.Wake, later+LAN().StepIn)
	}
	wantClaims(t, "not yet overdue", s.at(LAN().StepIn-1))
	if before > 0 {
		s.at(LAN().StepIn)
	}
	due := LAN().StepIn + time.Duration(before)*LAN().Stagger
	p := s.at(due)
	wantClaims(t, "overdue, not proven fresh", p)
	if !slices.Equal(p.Pulls, []shoal.PeerID{"", "p000"}) {
		t.Errorf("pulls = %q, want the supposed holder and two random", p.Pulls)
	}
	s.m = s.m.Pulled("", later+due+5*time.Millisecond)
	wantClaims(t, "proven fresh", s.at(due+5*time.Millisecond), "web/0")
	late := s.m.Pulled("", later)
	late.lastPull = later - time.Hour
	s.m = late
	wantClaims(t, "an old pull proves nothing", s.at(due+10*time.Millisecond))

	s = newSteps(t, k, second)
	s.at(0)
	s.m = s.m.Pulled("", later+LAN().StepIn)
	wantClaims(t, "the second in rank waits", s.at(LAN().StepIn))
}

func TestDeadHolderIsReplaced(t *testing.T) {
	k, self := openSlot()
	other := k.peers[0].ID
	if other == self {
		other = k.peers[1].ID
	}
	k.hold("web", 0, other)
	s := newSteps(t, k, self)
	wantClaims(t, "alive", s.at(0))
	k.lives[other] = shoal.Life{State: shoal.LifeSuspect, Heard: later}
	wantClaims(t, "suspect", s.at(4*time.Second))
	k.lives[other] = shoal.Life{State: shoal.LifeReturning, Heard: later, BackBy: later + time.Minute}
	if p := s.at(5 * time.Second); len(p.Claims) != 0 || p.Wake != later+time.Minute {
		t.Errorf("back by a minute: claims %v, wake %v", p.Claims, p.Wake)
	}
	for _, policy := range []shoal.OnPartition{shoal.PartitionSticky, shoal.PartitionFixed} {
		k.dead(other, later)
		k.services[0].Spec.OnPartition = policy
		wantClaims(t, string(policy), s.at(6*time.Second))
	}
	k.services[0].Spec.OnPartition = shoal.PartitionAvailable
	third := slices.IndexFunc(k.peers, func(p shoal.Peer) bool { return p.ID != self && p.ID != other })
	k.peers[third].Cordoned = true
	wantClaims(t, "dead", s.at(6*time.Second), "web/0")
	k.alive(other)
	k.peers[slices.IndexFunc(k.peers, func(p shoal.Peer) bool { return p.ID == other })].Removed = true
	wantClaims(t, "removed", newSteps(t, k, self).at(0), "web/0")
}

// TestColdStart: a peer never heard since own boot is unknown for 75 s, unless some
// peer's uptime shows that this is no cold start; then the boot grace counts.
func TestColdStart(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*kit, *Config)
		at   time.Duration // since boot
		want bool
	}{
		{"cold", func(*kit, *Config) {}, 74 * time.Second, false},
		{"no longer cold", func(*kit, *Config) {}, 75 * time.Second, true},
		{"a peer has been up for long", func(k *kit, _ *Config) { k.alive("p001") }, 11 * time.Second, true},
		{"boot grace", func(k *kit, _ *Config) { k.alive("p001") }, 9 * time.Second, false},
		{"cold rule off", func(_ *kit, c *Config) { c.NoCold = true }, 11 * time.Second, true},
		{"grace off too", func(_ *kit, c *Config) { c.NoCold, c.NoGrace = true, true }, time.Millisecond, true},
	} {
		k := newKit(3)
		k.peers[1].Cordoned = true
		k.service("web", 1)
		k.hold("web", 0, "p002")
		clear(k.lives)
		k.lives["p001"] = shoal.Life{State: shoal.LifeAlive, Uptime: time.Second}
		cfg := LAN()
		c.set(k, &cfg)
		m := NewMemory(later)
		v := k.view("p000")
		_, m = Decide(v, m, "p000", later, cfg)
		m = m.Pulled("", later+c.at)
		p, _ := Decide(v, m, "p000", later+c.at, cfg)
		if got := len(p.Claims) == 1; got != c.want {
			t.Errorf("%s: replaces = %v, want %v: %v", c.name, got, c.want, p.Reasons)
		}
	}
}

// TestBootGraceIsRenewed by each newly seen peer, while it lasts.
func TestBootGraceIsRenewed(t *testing.T) {
	k := newKit(4)
	clear(k.lives)
	m := NewMemory(0)
	seen := func(id shoal.PeerID, at time.Duration) {
		k.lives[id] = shoal.Life{State: shoal.LifeAlive}
		_, m = Decide(k.view("p000"), m, "p000", at, LAN())
	}
	seen("p001", 4*time.Second)
	seen("p002", 12*time.Second)
	if want := 22 * time.Second; m.graceUntil != want {
		t.Errorf("grace until %v, want %v", m.graceUntil, want)
	}
	seen("p003", 30*time.Second)
	if want := 22 * time.Second; m.graceUntil != want {
		t.Errorf("a peer seen after the grace renewed it: until %v, want %v", m.graceUntil, want)
	}
	if m.returnedAt != 30*time.Second {
		t.Errorf("returned at %v, want 30s: a member of old came back", m.returnedAt)
	}
}

func TestBootStartsOwnSlotsAtOnce(t *testing.T) {
	k := newKit(3)
	k.service("web", 1)
	c := k.hold("web", 0, "p000")
	clear(k.lives)
	clear(k.states)
	p, _ := Decide(k.view("p000"), NewMemory(later), "p000", later, LAN())
	if !slices.Equal(p.Start, []shoal.ReplicaID{c.Replica}) {
		t.Errorf("start = %v, want own claim's replica", p.Start)
	}
}

// TestBrake: half of the peers falling silent within 2 s of each other stops
// everybody for 5 s from the first silence.
func TestBrake(t *testing.T) {
	for _, c := range []struct {
		name   string
		silent map[shoal.PeerID]time.Duration // heard last, before later
		want   time.Duration                  // brake until, after later; -1 none
	}{
		{"one of six", map[shoal.PeerID]time.Duration{"p001": 1 * time.Second}, -1},
		{"half together", map[shoal.PeerID]time.Duration{"p001": time.Second, "p002": 2 * time.Second, "p003": 3 * time.Second}, 2 * time.Second},
		{"half, not together", map[shoal.PeerID]time.Duration{"p001": time.Second, "p002": 2 * time.Second, "p003": 9 * time.Second}, -1},
		{"two of the last four", map[shoal.PeerID]time.Duration{"p001": time.Hour, "p002": time.Hour - time.Minute, "p003": time.Second, "p004": time.Second}, 4 * time.Second},
	} {
		k := newKit(6)
		for id, ago := range c.silent {
			k.dead(id, later-ago)
		}
		w := newWorld(k.view("p000"), nil)
		w.self = 0
		got := brakeUntil(w, LAN())
		if c.want < 0 && got > later || c.want >= 0 && got != later+c.want {
			t.Errorf("%s: brake until %v, want %v", c.name, got-later, c.want)
		}
	}
}

func TestVouch(t *testing.T) {
	k, self := openSlot()
	var winner shoal.PeerID = "p000"
	if winner == self {
		winner = "p001"
	}
	for i := range k.peers {
		k.peers[i].Cordoned = k.peers[i].ID != self
	}
	k.hold("web", 0, winner)
	k.dead(winner, later-time.Minute)
	s := newSteps(t, k, self)
	k.releases = append(k.releases, shoal.Release{Holder: "p002", Service: "web", Slot: 0, YieldTo: winner})
	p := s.at(0)
	wantClaims(t, "vouched for", p)
	if want := later + LAN().Vouch; p.Wake != want {
		t.Errorf("wake = %v, want %v", p.Wake, want)
	}
	wantClaims(t, "the vouch has lapsed", s.at(LAN().Vouch), "web/0")
	s = newSteps(t, k, self)
	wantClaims(t, "a release from before", s.at(0), "web/0")
}

// lostSlots returns three peers, of which p000 lost slot 1 to p001's older claim.
func lostSlots(t *testing.T) (*kit, *steps, shoal.Claim) {
	k := newKit(3)
	k.service("web", 3)
	k.hold("web", 0, "p001")
	k.hold("web", 1, "p001")
	k.hold("web", 2, "p002")
	mine := k.hold("web", 1, "p000")
	return k, newSteps(t, k, "p000"), mine
}

func TestSurplus(t *testing.T) {
	_, s, mine := lostSlots(t)
	p := s.at(0)
	wantDrops(t, "before it settled", p)
	if !slices.Contains(p.Start, mine.Replica) || p.Wake != later+LAN().Settle {
		t.Errorf("a settling loser: start %v, wake %v", p.Start, p.Wake)
	}
	wantDrops(t, "settled, all ready", s.at(LAN().Settle), "web/1>p001")

	k, s, _ := lostSlots(t)
	s.at(0)
	k.phase(k.claims[2], shoal.PhaseFailed) // another slot crash-loops
	wantDrops(t, "not all ready", s.at(LAN().Settle))
	wantDrops(t, "not all ready", s.at(LAN().Settle+29*time.Second))
	wantDrops(t, "relief", s.at(LAN().Settle+30*time.Second), "web/1>p001")

	k, s, _ = lostSlots(t)
	s.at(0)
	k.phase(k.claims[1], shoal.PhaseStarting) // the winner itself
	wantDrops(t, "own winner not ready", s.at(time.Hour))

	k, s, mine = lostSlots(t)
	k.claims = slices.Delete(k.claims, 2, 3) // slot 2 is open
	p = s.at(0)
	wantDrops(t, "re-use", p)
	want := NewClaim{Service: "web", Slot: 2, Revision: mine.Revision, Reuse: mine.Replica, LeavesSlot: 1, YieldTo: "p001"}
	if len(p.Claims) != 1 || p.Claims[0] != want {
		t.Errorf("re-use: claims = %+v, want %+v", p.Claims, want)
	}
	for _, other := range []shoal.PeerID{"p001", "p002"} {
		wantClaims(t, "the slot is left to the surplus", newSteps(t, k, other).at(0))
	}
}

// TestSurplusYieldsOneAtATime once relief comes.
func TestSurplusYieldsOneAtATime(t *testing.T) {
	k := newKit(4)
	k.service("web", 3)
	for slot := range 3 {
		k.hold("web", slot, "p000")
	}
	for slot := range 2 {
		k.hold("web", slot, shoal.PeerID([]string{"p001", "p002"}[slot]))
	}
	k.phase(k.claims[2], shoal.PhaseFailed)
	dropped := 0
	for _, self := range []shoal.PeerID{"p001", "p002"} {
		s := newSteps(t, k, self)
		s.at(0)
		dropped += len(s.at(time.Minute).Releases)
	}
	if dropped != 1 {
		t.Errorf("%d losers yield at once, want 1", dropped)
	}
}

func TestNotStartedYieldsAtOnce(t *testing.T) {
	k, s, mine := lostSlots(t)
	k.claims = slices.DeleteFunc(k.claims, func(c shoal.Claim) bool { return c.Replica == mine.Replica })
	key := slotKey{"web", 1}
	s.at(0)
	s.m.claimed = map[slotKey]claimMemory{key: {at: later}}
	k.claims = append(k.claims, mine)
	k.phase(mine, shoal.PhasePending)
	wantDrops(t, "never started", s.at(time.Millisecond), "web/1>p001")
}

func TestDrainHandsOver(t *testing.T) {
	k := newKit(2)
	k.service("web", 1)
	c := k.hold("web", 0, "p000")
	k.peers[0].Cordoned, k.peers[0].Draining = true, true
	holder, other := newSteps(t, k, "p000"), newSteps(t, k, "p001")
	wantDrops(t, "nobody has it yet", holder.at(0))
	p := other.at(0)
	wantClaims(t, "open for others", p, "web/0")
	k.apply("p001", p)
	k.phase(k.claims[1], shoal.PhaseStarting)
	if got := Winner(k.view("p000"), k.claims); got.Holder != "p001" {
		t.Errorf("Winner = %s, want the one that keeps it", got.Holder)
	}
	p = holder.at(time.Second)
	wantDrops(t, "not ready there", p)
	if !slices.Contains(p.Start, c.Replica) {
		t.Error("the draining peer stops running before the other is ready")
	}
	k.phase(k.claims[1], shoal.PhaseReady)
	wantDrops(t, "ready there", holder.at(2*time.Second), "web/0>p001")
}

func TestEngineDownHandsOver(t *testing.T) {
	k := newKit(2)
	k.service("web", 1)
	k.hold("web", 0, "p000")
	s := newSteps(t, k, "p001")
	st := *k.states["p000"]
	st.Engine = shoal.EngineStatus{Down: true, Reason: "no answer for 12s"}
	k.states["p000"] = &st
	if p := s.at(0); len(p.Claims) > 0 || p.Wake != later+LAN().EngineGrace {
		t.Errorf("at once: %+v", p)
	}
	wantClaims(t, "after the grace", s.at(LAN().EngineGrace), "web/0")
}

func TestRefusalDeclines(t *testing.T) {
	k := newKit(2)
	k.service("web", 1)
	c := k.hold("web", 0, "p000")
	st := *k.states["p000"]
	st.Refusals = []shoal.Refusal{{Service: "web", Revision: c.Revision, Reason: "restarted 5 times"}}
	k.states["p000"] = &st
	wantDrops(t, "it runs", newSteps(t, k, "p000").at(0))
	k.phase(c, shoal.PhaseFailed)
	p := newSteps(t, k, "p000").at(0)
	wantDrops(t, "it failed", p, "web/0>")
	if got := sentences(p, "web", 0); !slices.Contains(got, "released: restarted 5 times") {
		t.Errorf("reasons = %q", got)
	}
	k.claims = nil
	wantClaims(t, "refuser", newSteps(t, k, "p000").at(0))
	wantClaims(t, "the other", newSteps(t, k, "p001").at(0), "web/0")
}

func TestGone(t *testing.T) {
	k := newKit(1)
	c := k.hold("web", 0, "p000")
	p := newSteps(t, k, "p000").at(0)
	wantDrops(t, "unknown here", p)
	if !slices.Contains(p.Start, c.Replica) {
		t.Error("a service whose record has not arrived is stopped")
	}
	k.gone = []shoal.GoneBody{{Service: "web"}}
	wantDrops(t, "removed", newSteps(t, k, "p000").at(0), "web/0>")
}

func TestNotAMember(t *testing.T) {
	k := newKit(2)
	k.service("web", 2)
	k.peers[1].Removed = true
	for _, self := range []shoal.PeerID{"stranger", "p001"} {
		p, _ := Decide(k.view(self), NewMemory(0), self, later, LAN())
		if len(p.Claims) > 0 || len(p.Reasons) != 1 {
			t.Errorf("Decide for %s = %+v", self, p)
		}
	}
}

// TestWinner orders claims: living, keeping, newest revision, longest held, rank.
func TestWinner(t *testing.T) {
	k := newKit(4)
	k.dead("p003", 0)
	claim := func(holder shoal.PeerID, rev uint64, since int64) shoal.Claim {
		return shoal.Claim{
			Holder: holder, Service: "web", Revision: shoal.RevisionID{Seq: rev, Author: "op"},
			Since: shoal.HLC{WallMilli: since},
		}
	}
	byRank := []shoal.PeerID{"p000", "p001"}
	if Rank("web", 0, "p001") > Rank("web", 0, "p000") {
		byRank = []shoal.PeerID{"p001", "p000"}
	}
	for _, c := range []struct {
		name   string
		claims []shoal.Claim
		want   shoal.PeerID
	}{
		{"none", nil, ""},
		{"newest revision", []shoal.Claim{claim("p000", 1, 1), claim("p001", 2, 9)}, "p001"},
		{"longest held", []shoal.Claim{claim("p000", 2, 5), claim("p001", 2, 4)}, "p001"},
		{"rank", []shoal.Claim{claim("p000", 1, 1), claim("p001", 1, 1)}, byRank[0]},
		{"living before newest", []shoal.Claim{claim("p003", 9, 1), claim("p001", 1, 9)}, "p001"},
		{"dead rather than nobody", []shoal.Claim{claim("p003", 1, 1)}, "p003"},
	} {
		if got := Winner(k.view("p000"), c.claims).Holder; got != c.want {
			t.Errorf("%s: Winner = %q, want %q", c.name, got, c.want)
		}
		slices.Reverse(c.claims)
		if got := Winner(k.view("p000"), c.claims).Holder; got != c.want {
			t.Errorf("%s, reversed: Winner = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{LAN(), WAN(), Sim(), LAN().WithRTT(0), LAN().WithRTT(time.Minute)} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, spoil := range []func(*Config){
		func(c *Config) { c.StepIn = 0 },
		func(c *Config) { c.Hold = c.Stagger - 1 },
		func(c *Config) { c.Cold = time.Second },
	} {
		c := LAN()
		spoil(&c)
		if c.Validate() == nil {
			t.Errorf("Validate takes %+v", c)
		}
	}
}
