// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

// slotKind says what became of a slot.
type slotKind uint8

const (
	empty  slotKind = iota // no claim
	lost                   // claimed by a dead holder
	handed                 // claimed by a living holder that hands it over
	held                   // claimed by a holder that keeps it
	ended                  // the runs of a job in it are over, whoever claims it: nobody fills it again
)

// slotState is one wanted slot and the claim that counts for it.
type slotState struct {
	kind  slotKind
	claim int  // index into serviceRow.claims, -1
	shut  bool // of a job: it is not its turn yet
}

// slotStates returns for each wanted slot of a replicated service the claim that counts.
func (w *world) slotStates(s *serviceRow) []slotState {
	slots := make([]slotState, s.n)
	for i := range slots {
		slots[i].claim = -1
	}
	for i, c := range s.claims {
		kind := w.claimKind(s, i)
		if kind == empty || c.Slot < 0 || c.Slot >= s.n {
			continue
		}
		st := &slots[c.Slot]
		if kind > st.kind || kind == st.kind && (kind == ended && s.better(i, st.claim) || kind != ended && beats(c, s.claims[st.claim])) {
			*st = slotState{kind: kind, claim: i}
		}
	}
	return slots
}

// claimKind is what a slot would be if this were its only claim; empty for a void
// claim.
func (w *world) claimKind(s *serviceRow, i int) slotKind {
	if s.over(i) {
		return ended
	}
	if s.holders[i] < 0 {
		return empty
	}
	switch w.peers[s.holders[i]].standing {
	case stands:
		return held
	case hands:
		if w.staying(s, int(s.holders[i])) || w.keptDone(s, i) {
			return held
		}
		return handed
	case dead:
		if s.pinned() {
			return held
		}
		return lost
	default:
		return empty
	}
}
