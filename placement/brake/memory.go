// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package brake

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// The times.
const (
	// Window is how long a replica must have been ready since it failed until it no longer
	// counts as failing, and how long one that has ended for good does.
	Window = time.Minute
	// Quiet is how long a machine must have been without fault until it takes new slots.
	Quiet = 5 * time.Minute
	// Recall is how long it is remembered that a revision failed on a peer which let its
	// slot go: so that a slot does not wander from peer to peer (FAILURES F21).
	Recall = 10 * time.Minute
)

// Memory is what one look remembers for the next, on this peer's own clock. It is a
// value: [Look] returns a new one. The zero value remembers nothing. It holds at most an
// entry for each claim, one for each pair of a service and a peer, and one for each peer.
type Memory struct {
	spells map[shoal.ReplicaID]spell
	former map[place]time.Duration // failed there and left; until
	blamed map[shoal.PeerID]blame
}

// blame is a peer at fault, until it has been quiet for long enough.
type blame struct {
	verdict Verdict
	isQuiet bool
	until   time.Duration // only with isQuiet
}

// spell is how one replica has been since it failed first.
type spell struct {
	place    place
	failures int
	times    int           // it failed since it was well
	ended    bool          // for good
	hurt     bool          // and not yet well for the window
	bad      time.Duration // of the last failure
	well     time.Duration // ready since; only with isWell
	isWell   bool
}

// place is a revision of a service on a peer.
type place struct {
	service  string
	revision shoal.RevisionID
	peer     shoal.PeerID
}

// empty reports whether nothing is remembered.
func (m *Memory) empty() bool { return len(m.spells)+len(m.former)+len(m.blamed) == 0 }

// look is one look at a view.
type look struct {
	v    *shoal.View
	now  time.Duration
	old  Memory
	m    Memory
	wake time.Duration
}

func (l *look) again(at time.Duration) {
	if at > l.now && (l.wake == 0 || at < l.wake) {
		l.wake = at
	}
}

// suspects returns the services of which a replica has failed, by name.
func (l *look) suspects() []*shoal.Service {
	set := make(map[string]bool)
	for i := range l.v.Peers() {
		st := l.v.State(l.v.Peers()[i].ID)
		if st == nil {
			continue
		}
		for j := range st.Replicas {
			if r := &st.Replicas[j]; r.Failures > 0 || r.Phase == shoal.PhaseFailed {
				set[r.Service] = true
			}
		}
	}
	for _, s := range l.old.spells {
		set[s.place.service] = true
	}
	var out []*shoal.Service
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if s, ok := l.v.Service(name); ok && !s.Stopped {
			out = append(out, s)
		}
	}
	return out
}

// follow returns how often the replica of a claim has failed since it was well, 0 if it
// is, and remembers how it has been. A peer that has just begun cannot know when what is
// ready now failed: it does not count.
func (l *look) follow(c shoal.Claim) int {
	r, told := l.v.Replica(c.Replica)
	if !told || r.Revision != c.Revision || r.Failures == 0 && r.Phase != shoal.PhaseFailed {
		return 0
	}
	at := place{c.Service, c.Revision, c.Holder}
	s, known := l.old.spells[c.Replica]
	known = known && s.place == at
	if !known {
		s = spell{place: at}
	}
	ready := r.Phase == shoal.PhaseReady
	ended := r.Phase == shoal.PhaseFailed || r.Phase == shoal.PhaseStopped
	if known && (r.Failures != s.failures || r.Phase == shoal.PhaseFailed && !s.ended) || !known && !ready {
		if r.Failures < s.failures { // its holder counts anew
			s.failures = 0
		}
		s.times += max(r.Failures-s.failures, 1)
		s.hurt, s.bad, s.isWell = true, l.now, false
	}
	s.failures, s.ended = r.Failures, ended
	if ready && !s.isWell {
		s.well = l.now
	}
	s.isWell = ready
	until := s.bad + Window
	if ready {
		until = max(until, s.well+Window)
	}
	if s.hurt && (ready || ended) {
		s.hurt = l.now < until
		l.again(until)
	}
	if !s.hurt {
		s.times = 0
	}
	l.m.spells[c.Replica] = s
	return s.times
}

// leave remembers the peers on which a current revision failed and that hold it no more.
func (l *look) leave() {
	for at, until := range l.old.former {
		if l.now < until {
			l.m.former[at] = until
		}
	}
	for id, s := range l.old.spells {
		if _, still := l.m.spells[id]; !still && s.hurt && !l.claimed(s.place, id) {
			l.m.former[s.place] = l.now + Recall
		}
	}
	maps.DeleteFunc(l.m.former, func(at place, _ time.Duration) bool {
		s, ok := l.v.Service(at.service)
		p, member := l.v.Peer(at.peer)
		return !ok || s.Revision != at.revision || !member || p.Removed
	})
}

// claimed reports whether a replica still has a claim: then it has only begun anew.
func (l *look) claimed(at place, id shoal.ReplicaID) bool {
	return slices.ContainsFunc(l.v.ClaimsBy(at.peer), func(c shoal.Claim) bool { return c.Replica == id && c.Revision == at.revision })
}
