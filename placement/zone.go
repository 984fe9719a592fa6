// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"slices"

	"github.com/shoalnet/shoal"
)

// SlotZone returns the zone of each slot 0..n-1 of a service: a list schedule over
// the capacities that the living, unmarked peers of each zone have recorded, the
// slot going where (count + 1) / capacity is least. It does not depend on claims:
// a zone term that did would break the theorem of PLACEMENT.md section 1. The zones
// are the values of the label that the spec spreads by; peers without it are one.
func SlotZone(v *shoal.View, spec *shoal.Spec, n int) []string {
	w := newWorld(v, []shoal.Service{{Spec: *spec, Replicas: n}})
	s := w.service(spec.Name)
	z := w.zoned(spec.SpreadBy)
	out := make([]string, 0, max(0, n))
	for _, i := range w.slotZones(z, s, n) {
		out = append(out, z.names[i])
	}
	return out
}

// zoning is the peers by the value of one label.
type zoning struct {
	names []string  // sorted; "" are the peers without the label
	of    []int     // by peer
	open  [][]int32 // the peers that take new slots, by zone
	caps  []int64   // bulk of them by zone, for services without constraints
}

// zoneKey is the label that slots are spread over unless the spec names another.
const zoneKey = "zone"

// zoned returns the peers by the values of a label, "" for the zone.
func (w *world) zoned(key string) *zoning {
	key = cmp.Or(key, zoneKey)
	if z := w.zonings[key]; z != nil {
		return z
	}
	z := &zoning{of: make([]int, len(w.peers))}
	values := make([]string, len(w.peers))
	for i := range w.peers {
		values[i], _ = w.peers[i].peer.Label(key)
		if at, ok := slices.BinarySearch(z.names, values[i]); !ok {
			z.names = slices.Insert(z.names, at, values[i])
		}
	}
	z.open, z.caps = make([][]int32, len(z.names)), make([]int64, len(z.names))
	for i := range w.peers {
		at, _ := slices.BinarySearch(z.names, values[i])
		z.of[i] = at
		if p := &w.peers[i]; p.open {
			z.open[at] = append(z.open[at], int32(i))
			z.caps[at] += bulk(p.alloc)
		}
	}
	w.zonings[key] = z
	return z
}

// seat is one zone in the list schedule.
type seat struct {
	zone  int
	count int
	cap   int64
	rank  uint64
	cost  float64 // (count+1)/cap
}

func (a seat) less(b seat) bool {
	if a.cost != b.cost {
		return a.cost < b.cost
	}
	return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.zone, b.zone)) < 0
}

// slotZones is SlotZone by zone index; all 0 when there is one zone, or no peer.
func (w *world) slotZones(z *zoning, s *serviceRow, n int) []int {
	out := make([]int, max(0, n))
	seats := w.seats(z, s)
	if len(seats) == 0 {
		return out
	}
	for i := range out {
		out[i] = seats[0].zone
		if len(seats) == 1 {
			continue
		}
		top := &seats[0]
		top.count++
		top.cost = float64(top.count+1) / float64(top.cap)
		siftDown(seats, 0, seat.less)
	}
	return out
}

// seats returns the zones that could take slots of s, as a heap.
func (w *world) seats(z *zoning, s *serviceRow) []seat {
	caps := z.caps
	if len(s.spec.Constraints) > 0 || len(s.demands) > 0 {
		caps = make([]int64, len(z.names))
		for _, i := range w.all {
			p := &w.peers[i]
			if _, no := unmatched(p.peer, s.spec.Constraints); !no && w.forbidden(int(i), s) == "" {
				caps[z.of[i]] += bulk(p.alloc)
			}
		}
	}
	var seats []seat
	for i, c := range caps {
		if c > 0 {
			seats = append(seats, seat{
				zone: i, cap: c, rank: mix(s.hash ^ hash(z.names[i])), cost: 1 / float64(c),
			})
		}
	}
	heapify(seats, seat.less)
	return seats
}

// heapify and siftDown keep a slice a binary heap with the least element first.
func heapify[T any](h []T, less func(a, b T) bool) {
	for i := len(h)/2 - 1; i >= 0; i-- {
		siftDown(h, i, less)
	}
}

func siftDown[T any](h []T, i int, less func(a, b T) bool) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && less(h[c+1], h[c]) {
			c++
		}
		if !less(h[c], h[i]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}
