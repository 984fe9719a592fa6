// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"cmp"
	"slices"
	"time"
)

// View is an immutable snapshot of records and beats: the only input a decision
// gets. Build one with [NewView]. All accessors return shared, sorted data that
// nobody may write to; all are safe for concurrent use.
type View struct {
	desired   *Desired
	self      PeerID
	lives     map[PeerID]Life
	states    map[PeerID]*PeerState
	byService map[string][]Claim
	byHolder  map[PeerID][]Claim
	replicas  map[ReplicaID]*ReplicaStatus
}

// NewView joins folded records with what is observed. lives and states are owned
// by the view from now on; self is alive by definition and needs no entry in lives.
func NewView(self PeerID, d *Desired, lives map[PeerID]Life, states map[PeerID]*PeerState) *View {
	v := &View{
		desired: d, self: self, lives: lives, states: states,
		byService: make(map[string][]Claim, len(d.Services)),
		byHolder:  make(map[PeerID][]Claim, len(d.Peers)),
		replicas:  make(map[ReplicaID]*ReplicaStatus, len(d.Claims)),
	}
	for i := 0; i < len(d.Claims); { // claims are sorted by service: share sub-slices
		j := i + 1
		for j < len(d.Claims) && d.Claims[j].Service == d.Claims[i].Service {
			j++
		}
		v.byService[d.Claims[i].Service] = d.Claims[i:j:j]
		i = j
	}
	v.dealClaims()
	for _, s := range states {
		for i := range s.Replicas {
			v.replicas[s.Replicas[i].ID] = &s.Replicas[i]
		}
	}
	return v
}

// dealClaims lays each holder's claims out in a row of their own, with one look-up
// and one copy a claim: a large cluster makes a view for every change.
func (v *View) dealClaims() {
	claims := v.desired.Claims
	row := make([]int32, len(claims)) // of each claim
	rows := make(map[PeerID]int32, len(v.desired.Peers))
	var sizes []int
	for i := range claims {
		r, ok := rows[claims[i].Holder]
		if !ok {
			r = int32(len(sizes))
			rows[claims[i].Holder] = r
			sizes = append(sizes, 0)
		}
		row[i] = r
		sizes[r]++
	}
	space := make([]Claim, len(claims))
	byRow := make([][]Claim, len(sizes))
	for r, n := range sizes {
		byRow[r], space = space[:0:n], space[n:]
	}
	for i := range claims {
		byRow[row[i]] = append(byRow[row[i]], claims[i])
	}
	for holder, r := range rows {
		v.byHolder[holder] = byRow[r]
	}
}

// With returns this view over other records: what is observed stays.
func (v *View) With(d *Desired) *View { return NewView(v.self, d, v.lives, v.states) }

// Self returns the peer whose view this is.
func (v *View) Self() PeerID { return v.self }

// Desired returns the folded records.
func (v *View) Desired() *Desired { return v.desired }

// Services returns all services by name.
func (v *View) Services() []Service { return v.desired.Services }

// Service returns the named service.
func (v *View) Service(name string) (*Service, bool) { return v.desired.Service(name) }

// Peers returns all members by ID, removed ones included.
func (v *View) Peers() []Peer { return v.desired.Peers }

// Peer returns the member with this ID.
func (v *View) Peer(id PeerID) (*Peer, bool) { return v.desired.Peer(id) }

// ClaimsOf returns a service's claims by (slot, holder).
func (v *View) ClaimsOf(service string) []Claim { return v.byService[service] }

// ClaimsBy returns a holder's claims by (service, slot).
func (v *View) ClaimsBy(holder PeerID) []Claim { return v.byHolder[holder] }

// Releases returns what holders let go last, by (service, slot, holder).
func (v *View) Releases() []Release { return v.desired.Releases }

// Name returns what people call a peer: its name, or the end of its ID if it has none here.
func (v *View) Name(id PeerID) string {
	if p, ok := v.Peer(id); ok {
		return p.Name()
	}
	return id.Short()
}

// Life returns this peer's opinion of a peer; for itself always alive.
func (v *View) Life(id PeerID) Life {
	l := v.lives[id]
	if id == v.self {
		l.State = LifeAlive
	}
	return l
}

// Alive reports whether a peer is alive or merely suspect in this view: it is not
// yet known to be gone.
func (v *View) Alive(id PeerID) bool {
	s := v.Life(id).State
	return s == LifeAlive || s == LifeSuspect
}

// Silent returns the members that are not alive, with the time since each was
// heard at own monotonic time now; never heard ones have -1.
func (v *View) Silent(now time.Duration) map[PeerID]time.Duration {
	out := make(map[PeerID]time.Duration)
	for i := range v.desired.Peers {
		p := &v.desired.Peers[i]
		if p.Removed || v.Alive(p.ID) {
			continue
		}
		out[p.ID] = -1
		if l := v.lives[p.ID]; l.State != LifeUnknown {
			out[p.ID] = now - l.Heard
		}
	}
	return out
}

// State returns what a peer last told about itself, nil if nothing is known.
func (v *View) State(id PeerID) *PeerState { return v.states[id] }

// Replica returns what its holder last told about a replica.
func (v *View) Replica(id ReplicaID) (*ReplicaStatus, bool) {
	r, ok := v.replicas[id]
	return r, ok
}

// Done reports whether nothing is left to do of a claim: its replica is of the service's
// current revision, has ended well, and is not started again. A finished job.
func (v *View) Done(c Claim) bool {
	s, known := v.Service(c.Service)
	r, told := v.Replica(c.Replica)
	if !known || !told || s.Revision != c.Revision || r.Revision != c.Revision {
		return false
	}
	once := s.Spec.Restart.Condition == RestartNone || s.Spec.Restart.Condition == RestartOnFailure
	return once && r.Phase == PhaseStopped && r.ExitCode == 0
}

// find searches a slice sorted by key.
func find[T any, K cmp.Ordered](s []T, key K, of func(*T) K) (*T, bool) {
	i, ok := slices.BinarySearchFunc(s, key, func(e T, k K) int { return cmp.Compare(of(&e), k) })
	if !ok {
		return nil, false
	}
	return &s[i], true
}
