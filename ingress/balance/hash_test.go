// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// homes returns the replica of each of n clients while nothing is open.
func homes(t tb, tab *Table, n int) []int {
	t.Helper()
	out := make([]int, n)
	for i := range out {
		out[i] = pick(t, tab, client(i), 0)
		tab.Closed(replica(out[i]))
	}
	return out
}

// TestHashAgrees: seeds do not matter, nor how an address is written.
func TestHashAgrees(t *testing.T) {
	a, b := table(1, shoal.LBHash, backends(7)), table(2, shoal.LBHash, backends(7))
	if !slices.Equal(homes(t, a, 1000), homes(t, b, 1000)) {
		t.Error("two peers send the same clients to different replicas")
	}
	for _, same := range [][2]string{{"10.1.2.3", "::ffff:10.1.2.3"}, {"fe80::1", "fe80::1%eth0"}} {
		for seed := range 20 {
			tab := table(uint64(seed), shoal.LBHash, backends(50))
			x, y := pick(t, tab, netip.MustParseAddr(same[0]), 0), pick(t, tab, netip.MustParseAddr(same[1]), 0)
			if x != y {
				t.Errorf("%v go to %d and %d", same, x, y)
			}
		}
	}
	if _, ok := a.Pick(netip.Addr{}, nil, 0); !ok {
		t.Error("a client without an address gets nobody")
	}
}

// TestHashMovesLittle: when one of n replicas goes, by whatever reason, only its clients
// move, and spread over all others; when one comes, clients move to it only.
func TestHashMovesLittle(t *testing.T) {
	const clients, n = 10_000, 11
	all := backends(n)
	before := homes(t, table(1, shoal.LBHash, all), clients)
	for gone := range n {
		less := slices.Delete(slices.Clone(all), gone, gone+1)
		tab := table(1, shoal.LBHash, less)
		moved := make([]int, n)
		for i, at := range homes(t, tab, clients) {
			switch {
			case before[i] == gone:
				moved[at]++
			case before[i] != at:
				t.Fatalf("without %d client %d moves from %d to %d", gone, i, before[i], at)
			}
		}
		if x := chiSquare(slices.Delete(moved, gone, gone+1)); x > chi999 {
			t.Errorf("the clients of %d are spread as %v, chi-square %.1f", gone, moved, x)
		}
		tab.Update(Snapshot{Policy: shoal.LBHash, Self: "self", Backends: all})
		if !slices.Equal(homes(t, tab, clients), before) {
			t.Errorf("after %d came back clients are elsewhere", gone)
		}
	}
}

// TestHashMovesLittleProperty is the same for any slots, and for one that is left out.
func TestHashMovesLittleProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.SliceOfNDistinct(rapid.IntRange(0, 10_000), 2, 20, rapid.ID).Draw(t, "slots")
		all := backends(len(slots))
		for i, s := range slots {
			all[i].Slot = s
		}
		tab := table(1, shoal.LBHash, all)
		before := homes(t, tab, 200)
		gone := rapid.IntRange(0, len(slots)-1).Draw(t, "gone")
		if rapid.Bool().Draw(t, "refuses") {
			tab.Refused(replica(gone), 0)
		} else {
			all[gone].Releasing = true
			tab.Update(Snapshot{Policy: shoal.LBHash, Self: "self", Backends: all})
		}
		for i, at := range homes(t, tab, 200) {
			if at == gone || before[i] != gone && at != before[i] {
				t.Fatalf("without %d client %d moves from %d to %d", gone, i, before[i], at)
			}
		}
	})
}

// TestHashFollowsSlots: a client finds its slot again after the replica in it was
// replaced, and while there are two, only clients of that slot are shared among them.
func TestHashFollowsSlots(t *testing.T) {
	const clients, n = 2000, 5
	all := backends(n)
	tab := table(1, shoal.LBHash, all)
	before := homes(t, tab, clients)
	next := all[2]
	next.Replica = replica(n)
	tab.Update(Snapshot{Policy: shoal.LBHash, Self: "self", Backends: append(slices.Clone(all), next)})
	var old, young int
	for i, at := range homes(t, tab, clients) {
		switch {
		case at == n && before[i] == 2:
			young++
		case at == 2 && before[i] == 2:
			old++
		case at != before[i]:
			t.Fatalf("client %d of slot %d goes to %d", i, before[i], at)
		}
	}
	if old < 140 || young < 140 {
		t.Errorf("%d stay with the old replica of the slot and %d go to the new one, want about 200 each", old, young)
	}
	all[2] = next
	tab.Update(Snapshot{Policy: shoal.LBHash, Self: "self", Backends: all})
	for i, at := range homes(t, tab, clients) {
		if at != before[i] && (at != n || before[i] != 2) {
			t.Fatalf("client %d of slot %d goes to %d after the change", i, before[i], at)
		}
	}
}

// TestHashBounded: one client with 1,000 connections to ten replicas fills none above
// 1.25 of the average, and its first eight stay together.
func TestHashBounded(t *testing.T) {
	tab := table(1, shoal.LBHash, backends(10))
	got := make([]int, 10)
	first := pick(t, tab, client(1), 0)
	got[first]++
	for i := 1; i < 1000; i++ {
		at := pick(t, tab, client(1), 0)
		got[at]++
		if i < calm && at != first {
			t.Errorf("connection %d of a client goes to %d, its first went to %d", i, at, first)
		}
		bound := bound(i+1, 10)
		if most := slices.Max(got); most > bound {
			t.Fatalf("of %d connections the fullest has %d, want at most %d", i+1, most, bound)
		}
		if want := min(i+1, bound); got[first] != want {
			t.Fatalf("of %d connections the client's own replica has %d, want all it may have, %d", i+1, got[first], want)
		}
	}
}

func bound(open, replicas int) int {
	return max(calm, int(math.Ceil(loadFactor*float64(open)/float64(replicas))))
}

// TestHashBoundedProperty: whoever comes, and whatever closes, nobody gets a connection
// above the bound of that moment.
func TestHashBoundedProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "replicas")
		tab := table(1, shoal.LBHash, backends(n))
		load, open := make([]int, n), 0
		clients := rapid.IntRange(1, 20).Draw(t, "clients")
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			if at := rapid.IntRange(0, n-1).Draw(t, "at"); load[at] > 0 && rapid.IntRange(0, 3).Draw(t, "closes") == 0 {
				tab.Closed(replica(at))
				load[at]--
				open--
				continue
			}
			at := pick(t, tab, client(rapid.IntRange(0, clients).Draw(t, "client")), 0)
			load[at]++
			open++
			if load[at] > bound(open, n) {
				t.Fatalf("%v: %d got one more, of %d on %d replicas", load, at, open, n)
			}
		}
	})
}

// TestHashRetries: a client whose replica refuses goes to the next in its own order, not
// where everybody goes.
func TestHashRetries(t *testing.T) {
	tab := table(1, shoal.LBHash, backends(10))
	second := make([]int, 10)
	for i := range 5000 {
		b, _ := tab.Pick(client(i), nil, 0)
		tab.Closed(b.Replica)
		again, ok := tab.Pick(client(i), []shoal.ReplicaID{b.Replica}, 0)
		if !ok || again.Replica == b.Replica {
			t.Fatalf("client %d is sent to %d again", i, b.Slot)
		}
		tab.Closed(again.Replica)
		second[again.Slot]++
	}
	if x := chiSquare(second); x > chi999 {
		t.Errorf("second tries are spread as %v, chi-square %.1f", second, x)
	}
}
