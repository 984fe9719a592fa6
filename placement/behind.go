// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
)

// anyAble reports whether some peer that takes new slots could run the current
// revision.
func (w *world) anyAble(s *serviceRow) bool {
	for p := range w.peers {
		if w.peers[p].open && w.unable(p, s) == "" {
			return true
		}
	}
	return false
}

// unableToChange says why a holder cannot take its slots of s to the current
// revision; its claims that have not changed yet make room for those that do.
func (w *world) unableToChange(s *serviceRow, p int) string {
	if why := w.unable(p, s); why != "" {
		return why
	}
	row := &w.peers[p]
	free := row.alloc.Sub(row.used)
	for i, h := range s.holders {
		if int(h) == p && behind(s, s.claims[i]) {
			free = free.Add(s.size)
		}
	}
	if !fits(free, s.size) {
		return row.roomText(free, s.size)
	}
	return ""
}

// Keeps returns for each slot of a service why it would keep its revision if spec took
// the place of the current one, "" where it would change: what a plan cannot promise.
// nil if there is no such service.
func Keeps(v *shoal.View, spec *shoal.Spec) []string {
	old, ok := v.Service(spec.Name)
	if !ok {
		return nil
	}
	svc := *old
	svc.Spec = *spec
	svc.Revision.Seq++
	w := newWorld(v, []shoal.Service{svc})
	w.setStandings()
	var out []string
	for _, x := range w.slots(w.service(spec.Name)) {
		out = append(out, x.Behind)
	}
	return out
}

// addBehind says of each slot that keeps an older revision why it does: its holder
// cannot run the current one, and nobody could who would take it over. The others
// change when their turn comes.
func (w *world) addBehind(s *serviceRow, out []shoal.ExplainSlot) {
	if !s.global() && !s.stays && w.anyAble(s) {
		return
	}
	for i := range out {
		x := &out[i]
		if len(x.Holders) == 0 {
			continue
		}
		at := slices.IndexFunc(s.claims, func(c shoal.Claim) bool { return c.Slot == x.Slot && c.Holder == x.Holders[0] })
		c, h := s.claims[at], int(s.holders[at])
		if h < 0 || w.peers[h].standing != stands || c.Revision.Compare(s.rev) >= 0 {
			continue
		}
		if why := w.unableToChange(s, h); why != "" {
			x.Behind = fmt.Sprintf("keeps revision %d: %s", c.Revision.Seq, why)
			x.Waits = append(x.Waits, x.Behind)
		}
	}
}
