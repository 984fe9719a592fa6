// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// TestDistribution: 10,000 connections over ten equal replicas. Those that count or turn
// are exact; those that draw are as even as chance (chi-square, p = 0.001).
func TestDistribution(t *testing.T) {
	const draws, n = 10_000, 10
	for _, c := range []struct {
		policy shoal.LB
		brief  bool // connections end before the next begins
		least  int
		most   int
		chi    float64
	}{
		{shoal.LBRoundRobin, true, 1000, 1000, 0},
		{shoal.LBRoundRobin, false, 1000, 1000, 0},
		{shoal.LBWeighted, false, 1000, 1000, 0},
		{shoal.LBLeastConn, true, 1000, 1000, 0},
		{shoal.LBLeastConn, false, 1000, 1000, 0},
		{shoal.LBLeastTime, false, 1000, 1000, 0},
		{shoal.LBRandom, true, 880, 1120, chi999},
		{shoal.LBRandom, false, 880, 1120, chi999},
		{shoal.LBHash, true, 880, 1120, chi999},
		{shoal.LBP2C, true, 950, 1050, chi999},
		{shoal.LBP2C, false, 995, 1005, 1},
		{"", false, 995, 1005, 1},
		{"no such policy", false, 995, 1005, 1},
	} {
		t.Run(fmt.Sprintf("%s/brief=%v", c.policy, c.brief), func(t *testing.T) {
			for seed := range uint64(5) {
				got := counts(t, table(seed, c.policy, backends(n)), draws, n, c.brief)
				if slices.Min(got) < c.least || slices.Max(got) > c.most || chiSquare(got) > c.chi {
					t.Errorf("seed %d: %v, chi-square %.1f, want %d to %d each, chi-square at most %.1f", seed, got, chiSquare(got), c.least, c.most, c.chi)
				}
			}
		})
	}
}

// TestSeedOrders: peers with different seeds do not all begin with the same replica, and
// the order in a snapshot does not matter.
func TestSeedOrders(t *testing.T) {
	const n = 10
	for _, p := range []shoal.LB{shoal.LBRoundRobin, shoal.LBWeighted, shoal.LBLeastConn} {
		first := make([]int, n)
		for seed := range uint64(1000) {
			all := backends(n)
			at := pick(t, table(seed, p, all), client(0), 0)
			slices.Reverse(all)
			if again := pick(t, table(seed, p, all), client(0), 0); again != at {
				t.Fatalf("%s, seed %d: picked %d, and %d in another order", p, seed, at, again)
			}
			first[at]++
		}
		if x := chiSquare(first); x > chi999 {
			t.Errorf("%s: first picks %v, chi-square %.1f", p, first, x)
		}
	}
}

// TestSmooth is the example of nginx: the turns of the heavy one are spread.
func TestSmooth(t *testing.T) {
	all := backends(3)
	all[0].Weight = 5
	tab := table(1, shoal.LBWeighted, all)
	for cycle := range 3 {
		var got [7]bool
		others := map[int]int{}
		for i := range got {
			at := pick(t, tab, client(0), 0)
			if got[i] = at == 0; !got[i] {
				others[at]++
			}
		}
		if got != [7]bool{true, true, false, true, false, true, true} || others[1] != 1 || others[2] != 1 {
			t.Errorf("cycle %d: heavy one %v, others %v", cycle, got, others)
		}
	}
}

// TestWeightedExact: over each cycle everybody has exactly its weight.
func TestWeightedExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(0, 60), 1, 12).Draw(t, "weights")
		all, sum := backends(len(weights)), 0
		for i, w := range weights {
			all[i].Weight = w
			sum += max(w, 1)
		}
		tab := table(rapid.Uint64().Draw(t, "seed"), shoal.LBWeighted, all)
		for cycle := range 3 {
			got := make([]int, len(weights))
			for range sum {
				at := pick(t, tab, client(0), 0)
				got[at]++
				tab.Closed(replica(at))
			}
			for i, w := range weights {
				if got[i] != max(w, 1) {
					t.Fatalf("cycle %d: picked %v, want %v", cycle, got, weights)
				}
			}
		}
	})
}

// TestWeightsOfConnections: where open connections are compared a weight of 3 holds
// three times as many; a wild weight is the nearest that is allowed.
func TestWeightsOfConnections(t *testing.T) {
	for _, p := range []shoal.LB{shoal.LBLeastConn, shoal.LBP2C} {
		all := backends(4)
		all[0].Weight = 3
		got := counts(t, table(1, p, all), 6000, 4, false)
		// Two drawn at a time reach the heavy one half of the time, which is its share.
		slack := 3
		if p == shoal.LBP2C {
			slack = 150
		}
		for i, want := range []int{3000, 1000, 1000, 1000} {
			if d := got[i] - want; d < -slack || d > slack {
				t.Errorf("%s: %v, want about 3000 and 1000 each", p, got)
			}
		}
	}
	all := backends(2)
	all[0].Weight, all[1].Weight = math.MaxInt, math.MinInt
	if got := counts(t, table(1, shoal.LBWeighted, all), maxWeight+1, 2, true); got[0] != maxWeight {
		t.Errorf("wild weights: %v, want %d and 1", got, maxWeight)
	}
}

// TestTwoChoices: of 10,000 connections to 100 replicas the fullest has a few above the
// average of 100 with two draws, and some 25 with one.
func TestTwoChoices(t *testing.T) {
	for seed := range uint64(10) {
		two := slices.Max(counts(t, table(seed, shoal.LBP2C, backends(100)), 10_000, 100, false))
		one := slices.Max(counts(t, table(seed, shoal.LBRandom, backends(100)), 10_000, 100, false))
		t.Logf("seed %d: fullest %d with two draws, %d with one", seed, two, one)
		if two > 104 || one < 115 {
			t.Errorf("seed %d: fullest %d with two draws, %d with one, want at most 104, at least 115", seed, two, one)
		}
	}
}

// TestPrefer: the nearest tier that has somebody is taken, whatever the policy.
func TestPrefer(t *testing.T) {
	all := backends(4) // 0 here, 1 and 2 in our zone, 3 far
	all[0].Holder = "self"
	for i, zone := range []string{"a", "a", "a", "b"} {
		all[i].Zone = zone
	}
	none := func(*Table) {}
	refuse := func(ids ...int) func(*Table) {
		return func(t *Table) {
			for _, i := range ids {
				t.Refused(replica(i), 0)
			}
		}
	}
	for _, c := range []struct {
		prefer shoal.Prefer
		zone   string
		gone   []int // not ready
		before func(*Table)
		want   []int
	}{
		{shoal.PreferAny, "a", nil, none, []int{0, 1, 2, 3}},
		{"", "a", nil, none, []int{0, 1, 2, 3}},
		{shoal.PreferLocal, "a", nil, none, []int{0}},
		{shoal.PreferLocal, "a", []int{0}, none, []int{1, 2}},
		{shoal.PreferLocal, "a", []int{0, 1, 2}, none, []int{3}},
		{shoal.PreferLocal, "a", nil, refuse(0), []int{1, 2}},
		{shoal.PreferLocal, "a", []int{1, 2}, refuse(0), []int{3}},
		{shoal.PreferZone, "a", nil, none, []int{0, 1, 2}},
		{shoal.PreferZone, "a", []int{0, 1}, none, []int{2}},
		{shoal.PreferZone, "a", []int{0, 1, 2}, none, []int{3}},
		{shoal.PreferZone, "a", []int{0}, refuse(1, 2), []int{3}},
		{shoal.PreferZone, "b", nil, none, []int{0, 3}}, // this peer itself is in its zone
		{shoal.PreferLocal, "c", []int{0}, none, []int{1, 2, 3}},
		{shoal.PreferZone, "c", []int{0}, none, []int{1, 2, 3}},
	} {
		for _, p := range policies {
			now := slices.Clone(all)
			for _, i := range c.gone {
				now[i].Ready = false
			}
			tab := New(1)
			tab.Update(Snapshot{Policy: p, Prefer: c.prefer, Self: "self", Zone: c.zone, Backends: now})
			c.before(tab)
			seen := map[int]bool{}
			for i := range 200 {
				at := pick(t, tab, client(i), 0)
				seen[at] = true
				tab.Closed(replica(at))
			}
			got := make([]int, 0, len(all))
			for i := range all {
				if seen[i] {
					got = append(got, i)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s, prefer %s from zone %s without %v: picked %v, want %v", p, c.prefer, c.zone, c.gone, got, c.want)
			}
		}
	}
}

// TestNoZones: peers that name no zone are one zone.
func TestNoZones(t *testing.T) {
	all := backends(2)
	all[1].Zone = "b"
	tab := New(1)
	tab.Update(Snapshot{Policy: shoal.LBRoundRobin, Prefer: shoal.PreferZone, Self: "self", Backends: all})
	if got := counts(t, tab, 10, 2, true); got[0] != 10 {
		t.Errorf("picked %v, want only the one without a zone", got)
	}
}

// drive lets least-time pick a hundred times a second from now to end; took says how long
// a replica takes to connect. It returns how often each was picked.
func drive(t testing.TB, tab *Table, n int, now, end time.Duration, took func(i int) time.Duration) []int {
	t.Helper()
	out := make([]int, n)
	for ; now < end; now += 10 * time.Millisecond {
		at := pick(t, tab, client(0), now)
		out[at]++
		tab.Connected(replica(at), took(at), now)
		tab.FirstByte(replica(at), took(at), now)
		tab.Closed(replica(at))
	}
	return out
}

// TestLeastTime: the fast one is taken; one that was slow long ago is tried again, and
// comes back when it is fast, and is left again at once when it is not.
func TestLeastTime(t *testing.T) {
	const ms = time.Millisecond
	tab := table(1, shoal.LBLeastTime, backends(2))
	slow := 100 * ms
	took := func(i int) time.Duration {
		if i == 1 {
			return slow
		}
		return ms
	}
	got := drive(t, tab, 2, 0, time.Minute, took)
	if got[1] < 1 || got[1] > 3 {
		t.Errorf("in a minute %v, want the slow one once or twice", got)
	}
	slow = ms
	got = drive(t, tab, 2, time.Minute, 3*time.Minute, took)
	if got[1] < 3000 {
		t.Errorf("two minutes after it is fast again %v, want a fair share", got)
	}
	slow = 100 * ms
	got = drive(t, tab, 2, 3*time.Minute, 3*time.Minute+30*time.Second, took)
	if got[1] > 2 {
		t.Errorf("slow again: %v, want it left at once", got)
	}
}

// TestLeastTimeCountsOpen: a fast one with many open connections is not the soonest, and
// one that was never measured gets one connection until it is.
func TestLeastTimeCountsOpen(t *testing.T) {
	tab := table(1, shoal.LBLeastTime, backends(3))
	tab.Connected(replica(0), time.Millisecond, 0)
	tab.Connected(replica(1), 4*time.Millisecond, 0)
	got := counts(t, tab, 11, 3, false)
	if want := []int{8, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("picked %v, want %v", got, want)
	}
}

// TestAverage holds the moving average against the formula.
func TestAverage(t *testing.T) {
	var a average
	a.add(100, 0)
	if got := a.read(decay); math.Abs(got-100/math.E) > 1e-9 {
		t.Errorf("after one mean life %v, want 100/e", got)
	}
	a.add(0, decay)
	if got := a.read(decay); math.Abs(got-100/math.E) > 1e-9 {
		t.Errorf("after a sample of 0 %v, want 100/e", got)
	}
	a.add(60, decay)
	if got := a.read(decay); got != 60 {
		t.Errorf("after a peak %v, want 60", got)
	}
	a.add(-5, 0) // a clock that jumps back
	if got := a.read(decay); got != 60 || a.at != decay {
		t.Errorf("after a sample from the past %v at %v, want no change", got, a.at)
	}
}

// TestNoAllocation: a pick leaves nothing to collect.
func TestNoAllocation(t *testing.T) {
	for _, p := range policies {
		tab := table(1, p, backends(100))
		tab.Refused(replica(1), 0)
		tried := []shoal.ReplicaID{replica(2)}
		if got := testing.AllocsPerRun(100, func() {
			b, _ := tab.Pick(client(7), tried, 0)
			tab.Closed(b.Replica)
		}); got != 0 {
			t.Errorf("%s: %v allocations a pick, want 0", p, got)
		}
	}
}
