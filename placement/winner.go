// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"

	"github.com/shoalnet/shoal"
)

// Winner returns the claim that counts among claims for one slot: of a job one that says
// that the slot's work is done, or given up, before all others; a holder that
// lives in v before one that does not, one that keeps its slots before one that
// is draining or leaving; then newest revision, longest held, highest Rank. The
// zero Claim if there are none.
//
// During a rollout a slot is not open, so only its holder claims it at the new
// revision: "newest revision" settles what two sides of a split did, it lets
// nobody steal.
func Winner(v *shoal.View, claims []shoal.Claim) shoal.Claim {
	var best shoal.Claim
	bestClass := 0
	for i, c := range claims {
		class := claimClass(v, c)
		if i == 0 || class > bestClass || class == bestClass && beats(c, best) {
			best, bestClass = c, class
		}
	}
	return best
}

func claimClass(v *shoal.View, c shoal.Claim) int {
	p, ok := v.Peer(c.Holder)
	switch o := outcome(v, c); {
	case o.IsCompleted():
		return 5
	case o.Over():
		return 4
	case !ok || p.Removed:
		return 0
	case !v.Alive(c.Holder):
		return 1
	case p.Draining || p.Facts.Leaving:
		return 2
	}
	return 3
}

// beats reports whether claim a wins against b by the claims alone.
func beats(a, b shoal.Claim) bool {
	return cmp.Or(
		a.Revision.Compare(b.Revision),
		b.Since.Compare(a.Since),
		cmp.Compare(Rank(a.Service, a.Slot, a.Holder), Rank(b.Service, b.Slot, b.Holder)),
		cmp.Compare(a.Holder, b.Holder),
	) > 0
}
