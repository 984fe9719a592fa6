// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strconv"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
)

// weightLabel is the label of a peer that says what its replicas weigh beside others': a
// number from 1 to 1,000. Replicas of a service have one spec; it is machines that differ.
const weightLabel = "weight"

// weightOf returns what replicas on a peer weigh; 1 where nothing sensible is said.
func weightOf(v *shoal.View, id shoal.PeerID) int {
	p, ok := v.Peer(id)
	if !ok {
		return 1
	}
	n, err := strconv.Atoi(p.Facts.Labels[weightLabel])
	if err != nil || n < 1 || n > maxWeight {
		return 1
	}
	return n
}

// maxWeight is that of a backend.
const maxWeight = 1000

// weighCanary shares the traffic between a canary and the others as the service asks for
// it, as long as the canary is on trial and both have a ready replica. What peers weigh, and
// other policies, do not count meanwhile.
func weighCanary(out *balance.Snapshot, s *shoal.Service, claims []shoal.Claim) {
	share := s.Revise().Canary.Weight
	if share == 0 || s.Rollout.Promoted || s.Rollout.Settled {
		return
	}
	tries, others := 0, 0
	isTry := func(i int) bool { return claims[i].Revision == s.Revision }
	for i := range out.Backends {
		switch b := &out.Backends[i]; {
		case !b.Ready || !b.Alive:
		case isTry(i):
			tries++
		default:
			others++
		}
	}
	if tries == 0 || others == 0 {
		return
	}
	// Of one each, in proportion; the heavier gets the largest weight there is.
	try, other := share*others, (100-share)*tries
	most := max(try, other)
	out.Policy = shoal.LBWeighted
	for i := range out.Backends {
		w := other
		if isTry(i) {
			w = try
		}
		out.Backends[i].Weight = max(1, w*maxWeight/most)
	}
}
