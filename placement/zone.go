// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"

	"github.com/shoalnet/shoal"
)

// SlotZone returns the zone of each slot 0..n-1 of a service: a list schedule over
// the capacities that the living, unmarked peers of each zone have recorded, the
// slot going where (count + 1) / capacity is least. It does not depend on claims:
// a zone term that did would break the theorem of PLACEMENT.md section 1.
func SlotZone(v *shoal.View, spec *shoal.Spec, n int) []string {
	w := newWorld(v, []shoal.Service{{Spec: *spec, Replicas: n}})
	s := w.service(spec.Name)
	out := make([]string, 0, max(0, n))
	for _, z := range w.slotZones(s, n) {
		out = append(out, w.zones[z])
	}
	return out
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
func (w *world) slotZones(s *serviceRow, n int) []int {
	out := make([]int, max(0, n))
	seats := w.seats(s)
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
func (w *world) seats(s *serviceRow) []seat {
	caps := w.caps
	if len(s.spec.Constraints) > 0 {
		caps = make([]int64, len(w.zones))
		for _, i := range w.all {
			p := &w.peers[i]
			if _, no := unmatched(p.peer, s.spec.Constraints); !no {
				caps[p.zone] += bulk(p.alloc)
			}
		}
	}
	var seats []seat
	for z, c := range caps {
		if c > 0 {
			seats = append(seats, seat{
				zone: z, cap: c, rank: mix(s.hash ^ hash(w.zones[z])), cost: 1 / float64(c),
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
