// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import "github.com/shoalnet/shoal"

// A replica that is started once and has ended leaves nothing to hand over: who took its slot from a draining
// peer would do its work a second time. So it stays where it ended, as long as the peer
// can tell of it. A peer that leaves takes that knowledge with it, so its slots are
// placed anew, like those of one that died.

// done reports whether nothing is left to do of a claim. What a wish changes (Propose)
// is not at the view's revision.
func (w *world) done(s *serviceRow, c shoal.Claim) bool { return s.rev == c.Revision && w.v.Done(c) }

// keptDone reports whether a peer that hands over its slots keeps a claim because it is
// done. If another peer began with the slot meanwhile, that one goes on.
func (w *world) keptDone(s *serviceRow, i int) bool {
	c := s.claims[i]
	if w.peers[s.holders[i]].peer.Facts.Leaving || !w.done(s, c) {
		return false
	}
	for j, o := range s.claims {
		if h := s.holders[j]; o.Slot == c.Slot && h >= 0 && w.peers[h].standing == stands && w.began(o) {
			return false
		}
	}
	return true
}

// began reports whether the container of a claim is known to have been started.
func (w *world) began(c shoal.Claim) bool {
	r, told := w.v.Replica(c.Replica)
	return told && r.Phase >= shoal.PhaseStarting
}
