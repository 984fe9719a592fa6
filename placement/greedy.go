// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// want is one open slot to find a peer for.
type want struct {
	slot   int
	kind   slotKind
	target int  // peer index; -1 none
	home   int  // peer index: nobody else may take it; -1: anybody may
	named  bool // by the proposal
	gated  bool // only a proposal may fill it for now
	late   bool // overdue: filled by stepping in
	due    time.Duration
	mem    openMemory
}

// unmet reports whether the schedule should find a peer for it.
func (x *want) unmet() bool { return x.target < 0 && x.home < 0 && !x.gated && !x.late }

// list schedules the open slots of several services: greedy list scheduling in the
// order of priority, size (largest first), service, slot. Within a service spread
// prefers, in the slot's zone, the peer with fewest replicas of the service, then
// the least loaded after adding, where what a peer holds of the image counts for it
// (layers.go), then by rank; binpack the most loaded that still fits.
//
// With spread a peer's key depends on its own claims and beats only, and only worsens
// by claims, so a peer that already claimed all its slots leaves every other slot where
// it was (the theorem of PLACEMENT.md). Binpack cannot have that property; there
// the proposal and the hold-off keep peers in step.
type list struct {
	w    *world
	rows []*listRow
}

// listRow is one service in the list.
type listRow struct {
	s     *serviceRow
	wants []want
	held  []int32 // replicas of the service by peer
	able  []int8  // memo of static feasibility by peer: 0 not asked, 1 yes, 2 no
}

// sortRows puts services in scheduling order; slots are ascending already.
func (l *list) sortRows() {
	slices.SortStableFunc(l.rows, func(a, b *listRow) int {
		return cmp.Or(
			cmp.Compare(b.s.spec.Priority, a.s.spec.Priority),
			cmp.Compare(weight(b.s.size), weight(a.s.size)),
			cmp.Compare(a.s.spec.Name, b.s.spec.Name),
		)
	})
}

// newListRow counts the replicas of a service by peer.
func (w *world) newListRow(s *serviceRow, wants []want) *listRow {
	r := &listRow{s: s, wants: wants, held: make([]int32, len(w.peers)), able: make([]int8, len(w.peers))}
	for i, h := range s.holders {
		if h >= 0 && s.claims[i].Slot >= 0 && !s.over(i) {
			r.held[h]++
		}
	}
	return r
}

// feasible reports whether a peer may take one more slot of the row's service.
func (w *world) feasible(r *listRow, p int) bool {
	if !w.peers[p].open {
		return false
	}
	if r.able[p] == 0 {
		r.able[p] = 1
		if w.unable(p, r.s) != "" {
			r.able[p] = 2
		}
	}
	return r.able[p] == 1 && w.hasRoom(p, r.s, int(r.held[p]))
}

// hasRoom is cramped without the words.
func (w *world) hasRoom(p int, s *serviceRow, held int) bool {
	row := &w.peers[p]
	if !fits(row.alloc.Sub(row.used), s.size) {
		return false
	}
	if s.spec.MaxPerPeer == 0 && len(s.spec.Ports) == 0 {
		return true
	}
	return w.cramped(p, s, held) == ""
}

// assign gives a slot to a peer within the plan.
func (w *world) assign(r *listRow, i, p int) {
	r.wants[i].target = p
	r.held[p]++
	w.give(p, r.s)
}

// nameProposed gives slots to the peers that the wish's proposal names, if they
// are living, willing and not full in this view.
func (l *list) nameProposed() {
	for _, r := range l.rows {
		proposed := r.s.svc.Proposed
		for i := range r.wants {
			slot := r.wants[i].slot
			if r.wants[i].target >= 0 || r.wants[i].home >= 0 || r.wants[i].late || slot >= len(proposed) || proposed[slot] == "" {
				continue
			}
			p, ok := l.w.index[proposed[slot]]
			if ok && l.w.feasible(r, int(p)) {
				l.w.assign(r, i, int(p))
				r.wants[i].named = true
			}
		}
	}
}

// fill gives the slots that have no target yet to the best feasible peers.
func (l *list) fill() {
	var rows []*listRow
	var services []*serviceRow
	for _, r := range l.rows {
		if slices.ContainsFunc(r.wants, func(x want) bool { return x.unmet() }) {
			rows, services = append(rows, r), append(services, r.s)
		}
	}
	l.w.measure(services...)
	for _, r := range rows {
		l.fillRow(r)
	}
}

func (l *list) fillRow(r *listRow) {
	var zoneOf []int
	var z *zoning
	if r.s.spec.Strategy != shoal.StrategyBinpack {
		z = l.w.zoned(r.s.spec.SpreadBy)
	}
	zones := z != nil && len(z.names) > 1
	if zones {
		zoneOf = l.w.slotZones(z, r.s, r.wants[len(r.wants)-1].slot+1)
	} else {
		z = nil
	}
	b := newBench(l.w, r, z)
	for i := range r.wants {
		if !r.wants[i].unmet() {
			continue
		}
		zone := 0
		if zones {
			zone = zoneOf[r.wants[i].slot]
		}
		p := -1
		if len(r.wants) == 1 {
			p = b.single(zone)
		}
		if p < 0 {
			p = b.take(zone)
		}
		if p >= 0 {
			r.wants[i].target = p
		}
	}
}

// bench holds the candidates of one service, a heap per zone with the best first.
type bench struct {
	w     *world
	r     *listRow
	zones *zoning // nil: one heap of all peers
	heaps [][]candidate
	made  []bool
	less  func(a, b candidate) bool
	near  []uint8 // quarters of the image that each peer holds; nil: not known
	packs bool    // the most loaded is preferred
}

type candidate struct {
	peer int32
	held int32
	cost float64
	rank uint64
}

func spreadLess(a, b candidate) bool {
	if a.held != b.held {
		return a.held < b.held
	}
	if a.cost != b.cost {
		return a.cost < b.cost
	}
	return a.rank > b.rank || a.rank == b.rank && a.peer < b.peer
}

func packLess(a, b candidate) bool {
	if a.cost != b.cost {
		return a.cost > b.cost
	}
	return a.rank > b.rank || a.rank == b.rank && a.peer < b.peer
}

// newBench returns the candidates for a row of the list. Heaps are made when their
// zone is first asked for.
func newBench(w *world, r *listRow, zones *zoning) *bench {
	b := &bench{w: w, r: r, less: spreadLess, zones: zones, near: w.layers[r.s.spec.Digest]}
	if r.s.spec.Strategy == shoal.StrategyBinpack {
		b.less, b.packs = packLess, true
	}
	n := 1
	if zones != nil {
		n = len(zones.names)
	}
	b.heaps = make([][]candidate, n)
	b.made = make([]bool, n)
	return b
}

// members returns the peers of a zone that take new slots.
func (b *bench) members(zone int) []int32 {
	if b.zones == nil {
		return b.w.all
	}
	return b.zones.open[zone]
}

func (b *bench) heap(zone int) {
	if b.made[zone] {
		return
	}
	b.made[zone] = true
	members := b.members(zone)
	h := make([]candidate, len(members))
	for i, p := range members {
		h[i] = b.candidate(int(p))
	}
	heapify(h, b.less)
	b.heaps[zone] = h
}

// single assigns the best peer of the zone by looking at each once: cheaper than a
// heap when a service misses one slot only. It returns -1 if the zone has none.
func (b *bench) single(zone int) int {
	best := candidate{peer: -1}
	for _, p := range b.members(zone) {
		if c := b.candidate(int(p)); (best.peer < 0 || b.less(c, best)) && b.w.feasible(b.r, int(p)) {
			best = c
		}
	}
	if best.peer >= 0 {
		b.r.held[best.peer]++
		b.w.give(int(best.peer), b.r.s)
	}
	return int(best.peer)
}

func (b *bench) candidate(p int) candidate {
	row := &b.w.peers[p]
	c := candidate{
		peer: int32(p), held: b.r.held[p],
		cost: share(row.load.Add(b.r.s.nominal), row.alloc), rank: peerRank(b.r.s.hash, row.hash),
	}
	switch {
	case b.near == nil:
	case b.packs:
		c.cost += worth[b.near[p]]
	default:
		c.cost -= worth[b.near[p]]
	}
	return c
}

// take assigns the best peer of the zone, or of any zone if that one is full, and
// returns it; -1 if there is none.
func (b *bench) take(zone int) int {
	if !b.clean(zone) {
		best := -1
		for z := range b.heaps {
			if b.clean(z) && (best < 0 || b.less(b.heaps[z][0], b.heaps[best][0])) {
				best = z
			}
		}
		if best < 0 {
			return -1
		}
		zone = best
	}
	p := int(b.heaps[zone][0].peer)
	b.r.held[p]++
	b.w.give(p, b.r.s)
	b.heaps[zone][0] = b.candidate(p)
	siftDown(b.heaps[zone], 0, b.less)
	return p
}

// clean drops peers that are not feasible from the top of a heap and reports
// whether one is left. What is infeasible stays so while planning.
func (b *bench) clean(zone int) bool {
	b.heap(zone)
	h := b.heaps[zone]
	for len(h) > 0 && !b.w.feasible(b.r, int(h[0].peer)) {
		last := len(h) - 1
		h[0] = h[last]
		h = h[:last]
		siftDown(h, 0, b.less)
	}
	b.heaps[zone] = h
	return len(h) > 0
}
