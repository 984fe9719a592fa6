// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"

	"github.com/shoalnet/shoal"
)

// Wanted is one service as a wish would leave it.
type Wanted struct {
	Spec     shoal.Spec
	Replicas int // afterwards; ignored for global
}

// Placed is the schedule of one wanted service, in the order they were given.
type Placed struct {
	Service string
	// Slots has the peer of each slot 0..n-1: the present holder if it can stay,
	// else who should take it, "" if nobody can now. It is what the Peers of a
	// Proposal with From 0 should be. For global: every feasible peer.
	Slots []shoal.PeerID
	// New says which of Slots are not held there yet.
	New []bool
	// Unplaced has one sentence per "" in Slots, in slot order.
	Unplaced []string
}

// Propose computes the greedy schedule of PLACEMENT.md for the services a wish
// creates or changes, beside everything that is claimed or proposed already. It
// moves nothing: a slot with a living holder that can go on stays there, also one
// whose claim is still on its way to the peer an earlier proposal named. A slot with
// data goes to where its data is, or nowhere.
//
// The result is advice; every holder checks its own room again.
func Propose(v *shoal.View, wanted []Wanted) []Placed {
	changed := make([]shoal.Service, len(wanted))
	for i, x := range wanted {
		changed[i] = shoal.Service{Spec: x.Spec, Replicas: x.Replicas}
		if old, ok := v.Service(x.Spec.Name); ok {
			// Beyond what is wanted now an old proposal is history, not a claim on its way.
			changed[i].Proposed = old.Proposed[:min(len(old.Proposed), max(0, old.Replicas))]
			if old.Spec.Mode.IsJob() && old.Spec.SameContainer(&x.Spec) { // what is over stays so
				changed[i].Revision, changed[i].Past = old.Revision, old.Past
			}
		}
	}
	w := newWorld(v, changed)
	w.setStandings()
	pending := &list{w: w}
	fresh := &list{w: w}
	mine := make(map[string]*listRow, len(wanted))
	for i := range w.services {
		s := &w.services[i]
		if s.global() {
			continue
		}
		row := w.newListRow(s, w.unheld(s))
		if isWanted(wanted, s.spec.Name) {
			mine[s.spec.Name] = row
			fresh.rows = append(fresh.rows, row)
		} else if len(row.wants) > 0 {
			pending.rows = append(pending.rows, row)
		}
	}
	pending.sortRows()
	pending.nameHomes()
	pending.nameProposed() // claims on their way are load
	fresh.sortRows()
	fresh.nameHomes()
	fresh.nameProposed()
	fresh.fill()
	out := make([]Placed, len(wanted))
	for i, x := range wanted {
		s := w.service(x.Spec.Name)
		if s.global() {
			out[i] = w.placedGlobal(s)
		} else {
			out[i] = w.placed(s, mine[x.Spec.Name])
		}
	}
	return out
}

func isWanted(wanted []Wanted, name string) bool {
	for i := range wanted {
		if wanted[i].Spec.Name == name {
			return true
		}
	}
	return false
}

// setStandings decides how claims count from the view alone, without a memory: who
// is not known to be dead stands.
func (w *world) setStandings() {
	for i := range w.peers {
		p := &w.peers[i]
		switch state := w.v.Life(p.peer.ID).State; {
		case p.removed:
			p.standing = absent
		case state == shoal.LifeDead:
			p.standing = dead
		case p.peer.Draining || p.peer.Facts.Leaving:
			p.standing = hands
		}
	}
}

// unheld returns the slots of s that no peer holds and keeps.
func (w *world) unheld(s *serviceRow) []want {
	var out []want
	keep := w.keepers(s)
	for slot, p := range keep {
		if p < 0 {
			out = append(out, want{slot: slot, target: -1, home: w.home(s, slot)})
		}
	}
	return out
}

// keepers returns for each slot of s the peer that holds and keeps it, -1 if none.
func (w *world) keepers(s *serviceRow) []int {
	keep := make([]int, s.n)
	for i := range keep {
		keep[i] = -1
	}
	for i, c := range s.claims {
		h := s.holders[i]
		if h < 0 || c.Slot < 0 || c.Slot >= s.n || keep[c.Slot] >= 0 && !s.over(i) {
			continue
		}
		keeps := w.peers[h].standing
		if s.over(i) || keeps == stands || keeps == dead && s.pinned() || keeps == hands && (w.staying(s, int(h)) || w.keptDone(s, i)) {
			keep[c.Slot] = int(h)
		}
	}
	return keep
}

func (w *world) placed(s *serviceRow, r *listRow) Placed {
	out := Placed{Service: s.spec.Name, Slots: make([]shoal.PeerID, s.n), New: make([]bool, s.n)}
	for slot, p := range w.keepers(s) {
		if p >= 0 {
			out.Slots[slot] = w.peers[p].peer.ID
		}
	}
	why := ""
	for _, x := range r.wants {
		out.New[x.slot] = x.target >= 0
		if x.target >= 0 {
			out.Slots[x.slot] = w.peers[x.target].peer.ID
			continue
		}
		if x.home >= 0 {
			waits := w.waitsFor(x.home, w.keptFrom(s, x.home, int(r.held[x.home])))
			out.Unplaced = append(out.Unplaced, fmt.Sprintf("slot %d: %s", x.slot, waits))
			continue
		}
		if why == "" {
			why = w.nobody(s, r)
		}
		out.Unplaced = append(out.Unplaced, fmt.Sprintf("slot %d: %s", x.slot, why))
	}
	return out
}

func (w *world) placedGlobal(s *serviceRow) Placed {
	out := Placed{Service: s.spec.Name}
	r := w.newListRow(s, nil)
	for p := range w.peers {
		held := r.held[p] > 0
		if w.peers[p].up && (held || w.feasible(r, p)) {
			out.Slots = append(out.Slots, w.peers[p].peer.ID)
			out.New = append(out.New, !held)
		}
	}
	return out
}
