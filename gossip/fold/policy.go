// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import "github.com/shoalnet/shoal"

// judgePolicy folds what all authors want of the cluster. Of several bodies in force the
// strictest counts, so that what an operator forbade on one side of a split stays
// forbidden until somebody who saw both decides; among equal ones that of the highest ID.
func (v *verdict) judgePolicy(versions []version) {
	heads, seen := standing(versions)
	v.seenRevs = seen
	if len(heads) == 0 {
		return
	}
	v.policy = &shoal.Policy{}
	var best *shoal.PolicyBody
	for _, it := range heads {
		b := it.Record.Body.(*shoal.PolicyBody)
		v.policy.Heads = append(v.policy.Heads, b.ID)
		if best == nil || best.AsksOutside() || !b.AsksOutside() {
			best, v.policy.Since = b, it.Record.HLC
		}
	}
	v.policy.PolicyBody = *best
}
