// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"

	"github.com/shoalnet/shoal"
)

// Slots returns where each wanted slot of a service stands, and each that is still
// held beyond: who was proposed, who claims it with the winner first, where its data
// is, whether it waits for that, and why it keeps an older revision. What else a slot waits for is known by the
// decision of a peer only (Plan.Reasons). Sorted by slot; nil if there is no such
// service.
func Slots(v *shoal.View, service string) []shoal.ExplainSlot {
	w := newWorld(v, nil)
	s := w.service(service)
	if s == nil {
		return nil
	}
	w.setStandings()
	return w.slots(s)
}

func (w *world) slots(s *serviceRow) []shoal.ExplainSlot {
	out := make([]shoal.ExplainSlot, s.n)
	for i := range out {
		out[i].Slot = i
		if i < len(s.svc.Proposed) {
			out[i].Proposed = s.svc.Proposed[i]
		}
	}
	for from := 0; from < len(s.claims); {
		to := from + 1
		for to < len(s.claims) && s.claims[to].Slot == s.claims[from].Slot {
			to++
		}
		slot := s.claims[from].Slot
		if slot < 0 || slot >= s.n {
			out = append(out, shoal.ExplainSlot{Slot: slot})
		}
		at := slices.IndexFunc(out, func(x shoal.ExplainSlot) bool { return x.Slot == slot })
		out[at].Holders = ranked(w.v, s.claims[from:to])
		from = to
	}
	slices.SortFunc(out, func(a, b shoal.ExplainSlot) int { return a.Slot - b.Slot })
	if s.stays {
		w.addHomes(s, out)
	}
	if s.job {
		w.addTurns(s, out)
		return out
	}
	w.addBehind(s, out)
	return out
}

// ranked returns the holders of one slot, the winner first and of the rest who would
// win next.
func ranked(v *shoal.View, claims []shoal.Claim) []shoal.PeerID {
	var out []shoal.PeerID
	rest := slices.Clone(claims)
	for len(rest) > 0 {
		best := Winner(v, rest)
		if !slices.Contains(out, best.Holder) {
			out = append(out, best.Holder)
		}
		rest = slices.DeleteFunc(rest, func(c shoal.Claim) bool { return c == best })
	}
	return out
}

// addHomes says where the data of each slot is, and what keeps it from running there.
func (w *world) addHomes(s *serviceRow, out []shoal.ExplainSlot) {
	keep := w.keepers(s)
	held := w.newListRow(s, nil).held
	for i := range out {
		x := &out[i]
		if x.Slot < 0 || x.Slot >= s.n {
			continue
		}
		p := keep[x.Slot]
		why := ""
		switch {
		case p < 0:
			if p = w.home(s, x.Slot); p < 0 {
				continue
			}
			why = w.keptFrom(s, p, int(held[p]))
		case w.peers[p].standing == dead:
			why = notHeard
		}
		x.Home = w.peers[p].peer.ID
		if why != "" {
			x.Waits = []string{w.waitsFor(p, why)}
		}
	}
}
