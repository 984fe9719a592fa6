// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollout decides from a view which slots of a service may go from an old
// revision to the current one now. Each holder asks it with its own view and
// changes its own slots; nobody conducts. Waves go in slot order, so holders whose
// views lag a little are only later, never beyond the limit.
//
// It refuses to look at time, and to say how a slot changes: that is its holder's.
package rollout

// Slot is what the order of waves needs to know of one slot. Its position in the
// slice is its number.
type Slot struct {
	Held    bool // somebody holds it
	Current bool // its holder claims the current revision
	Ready   bool // its replica is known to be ready
	Broken  bool // its replica is known not to work: changing it takes nothing away
	Stuck   bool // nobody could run the current revision in it for now
}

// Limit returns how many slots may be unready at once: what the spec says, or a
// quarter of the replicas, at least 1.
func Limit(parallelism, replicas int) int {
	if parallelism > 0 {
		return parallelism
	}
	return max(1, replicas/4)
}

// Turns reports for each slot whether it may change now. At most limit slots are
// at the current revision and not ready, or about to be so, at a time; slots that
// were broken before do not count against the limit. A slot that is open needs no
// turn: whoever claims it claims the current revision.
func Turns(slots []Slot, limit int) []bool {
	turns := make([]bool, len(slots))
	for _, s := range slots {
		if s.Held && s.Current && !s.Ready {
			limit--
		}
	}
	for i, s := range slots {
		switch {
		case !s.Held || s.Current || s.Stuck:
		case s.Broken:
			turns[i] = true
		case limit > 0:
			turns[i] = true
			limit--
		}
	}
	return turns
}
