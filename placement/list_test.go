// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// schedule places one replica of each size on m equal peers and returns the
// largest load. With keepOrder the list is taken as it is (by priority), else it
// is ordered by size.
func schedule(m int, sizes []int, keepOrder bool) int {
	k := newKit(m)
	for i := range k.peers {
		k.peers[i].Facts.Capacity.CPUMilli, k.peers[i].Facts.Capacity.MemBytes = 1e6, 1000*gib
	}
	var wanted []Wanted
	for i, size := range sizes {
		spec := k.service(fmt.Sprintf("s%03d", i), 1).Spec
		spec.Reservations.CPUMilli, spec.Reservations.MemBytes = int64(size)*1000, int64(size)*gib
		if keepOrder {
			spec.Priority = len(sizes) - i
		}
		wanted = append(wanted, Wanted{Spec: spec, Replicas: 1})
	}
	k.services = nil
	load := make(map[string]int)
	most := 0
	for i, p := range Propose(k.view("p000"), wanted) {
		load[string(p.Slots[0])] += sizes[i]
		most = max(most, load[string(p.Slots[0])])
	}
	return most
}

// optimum is the least possible largest load, by trying everything.
func optimum(m int, sizes []int) int {
	best := 0
	for _, s := range sizes {
		best += s
	}
	loads := make([]int, m)
	sorted := slices.Clone(sizes)
	slices.SortFunc(sorted, func(a, b int) int { return b - a })
	var try func(i, most int)
	try = func(i, most int) {
		if most >= best {
			return
		}
		if i == len(sorted) {
			best = most
			return
		}
		for p := range loads {
			if p > 0 && loads[p] == loads[p-1] {
				continue // the same up to names
			}
			loads[p] += sorted[i]
			try(i+1, max(most, loads[p]))
			loads[p] -= sorted[i]
		}
	}
	try(0, 0)
	return best
}

// TestListSchedulingBounds: any list is within 2 - 1/m of the optimum (Graham
// 1966), the ordered one within 4/3 - 1/(3m) (Graham 1969).
func TestListSchedulingBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.IntRange(2, 4).Draw(t, "m")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 9).Draw(t, "sizes")
		opt := optimum(m, sizes)
		if got := schedule(m, sizes, true); got*m > (2*m-1)*opt {
			t.Fatalf("%v on %d peers: list %d, optimum %d", sizes, m, got, opt)
		}
		if got := schedule(m, sizes, false); got*3*m > (4*m-1)*opt {
			t.Fatalf("%v on %d peers: ordered %d, optimum %d", sizes, m, got, opt)
		}
	})
}

// TestTightList: m(m-1) units and then one of size m reach the bound 2 - 1/m
// exactly.
func TestTightList(t *testing.T) {
	for m := 2; m <= 6; m++ {
		sizes := slices.Repeat([]int{1}, m*(m-1))
		sizes = append(sizes, m)
		if got, want := schedule(m, sizes, true), 2*m-1; got != want {
			t.Errorf("m=%d: list = %d, want %d (optimum %d)", m, got, want, m)
		}
		if got := schedule(m, sizes, false); got != m {
			t.Errorf("m=%d: ordered = %d, want the optimum %d", m, got, m)
		}
	}
}

// TestTightOrderedList: two each of 2m-1 .. m+1 and three of m reach the bound
// 4/3 - 1/(3m) of ordered list scheduling exactly: 4m-1 where 3m is possible.
func TestTightOrderedList(t *testing.T) {
	for m := 2; m <= 6; m++ {
		var sizes []int
		for s := 2*m - 1; s > m; s-- {
			sizes = append(sizes, s, s)
		}
		sizes = append(sizes, m, m, m)
		if got, want := schedule(m, sizes, false), 4*m-1; got != want {
			t.Errorf("m=%d: ordered = %d, want %d", m, got, want)
		}
		if opt := optimum(m, sizes); opt != 3*m {
			t.Errorf("m=%d: optimum = %d, want %d", m, opt, 3*m)
		}
	}
}
