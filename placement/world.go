// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"slices"

	"github.com/shoalnet/shoal"
)

// world is a view laid out for counting: peers and services by dense index, each
// claim with its holder's index, each peer with what its claims reserve. It is
// made once per decision; only the planned loads change while planning.
type world struct {
	v        *shoal.View
	self     int // -1: not a member
	peers    []peerRow
	index    map[shoal.PeerID]int32
	services []serviceRow
	ports    map[portKey]int
	all      []int32            // peers that take new slots
	zonings  map[string]*zoning // by label, made when first asked for
	layers   layers             // of the images that were asked for
}

// standing is how a peer's claims count.
type standing uint8

const (
	stands standing = iota // alive, or to be treated so
	hands                  // alive, but handing its slots over
	dead                   // replaced, if the rules let one
	absent                 // removed or never a member: its claims are void
)

type peerRow struct {
	peer     *shoal.Peer
	state    *shoal.PeerState
	hash     uint64
	alloc    shoal.Resources
	used     shoal.Resources // stated sizes of its claims and of what is planned for it
	load     shoal.Resources // the same in nominal sizes
	up       bool            // alive in this view: may be given slots
	removed  bool            // or left
	open     bool            // takes new slots: up, no mark against it, no trouble
	standing standing
}

type serviceRow struct {
	svc     *shoal.Service
	spec    *shoal.Spec
	rev     shoal.RevisionID
	n       int // wanted slots; 0 for global
	size    shoal.Resources
	nominal shoal.Resources
	hash    uint64
	stays   bool     // a slot with data belongs to the peer that has it
	job     bool     // its replicas run to their end
	demands []string // what a peer's owner must allow
	images  []string // spellings of the image's reference
	claims  []shoal.Claim
	holders []int32 // of each claim; -1: no member
}

// global reports whether one replica on every peer is wanted. Of a stopped service
// none is, whatever its mode.
func (s *serviceRow) global() bool {
	return s.spec.Mode.IsGlobal() && !s.svc.Stopped && !s.svc.IsAsleep()
}

type portKey struct {
	peer     int
	port     uint16
	protocol string
}

// newWorld lays out a view. Services in changed replace those of the view, or are
// added.
func newWorld(v *shoal.View, changed []shoal.Service) *world {
	all := v.Peers()
	w := &world{
		v: v, self: -1,
		peers: make([]peerRow, len(all)),
		index: make(map[shoal.PeerID]int32, len(all)),
		ports: make(map[portKey]int), zonings: make(map[string]*zoning),
	}
	for i := range all {
		p := &all[i]
		w.index[p.ID] = int32(i)
		if p.ID == v.Self() {
			w.self = i
		}
		up := !p.Removed && v.Alive(p.ID)
		state := v.State(p.ID)
		open := up && !p.Cordoned && !p.Draining && !p.Facts.Leaving && (state == nil || state.Trouble == "")
		w.peers[i] = peerRow{
			peer: p, state: state, hash: hash(p.ID), alloc: p.Facts.Allocatable(),
			up: up, removed: p.Removed || p.Left(), open: open,
		}
		if open {
			w.all = append(w.all, int32(i))
		}
	}
	w.addServices(changed)
	return w
}

// addServices lays out the services and counts what their claims reserve.
func (w *world) addServices(changed []shoal.Service) {
	old := w.v.Services()
	all := make([]*shoal.Service, 0, len(old)+len(changed))
	for i := range old {
		if !slices.ContainsFunc(changed, func(c shoal.Service) bool { return c.Spec.Name == old[i].Spec.Name }) {
			all = append(all, &old[i])
		}
	}
	for i := range changed {
		all = append(all, &changed[i])
	}
	if len(changed) > 0 {
		slices.SortFunc(all, func(a, b *shoal.Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	}
	w.services = make([]serviceRow, len(all))
	arena := make([]int32, len(w.v.Desired().Claims))
	for i, s := range all {
		row := &w.services[i]
		size := s.Spec.Size()
		*row = serviceRow{
			svc: s, spec: &s.Spec, rev: s.Revision, n: max(0, s.Wanted()),
			size: size, nominal: nominal(size), hash: hash(s.Spec.Name),
			job: s.Spec.Mode.IsJob(), images: spellings(s.Spec.Image), demands: s.Spec.Demands(), claims: w.v.ClaimsOf(s.Spec.Name),
		}
		if s.Spec.Mode.IsGlobal() {
			row.n = 0
		} else {
			row.stays = s.Spec.StaysHome()
		}
		row.holders, arena = arena[:len(row.claims):len(row.claims)], arena[len(row.claims):]
		w.countClaims(row)
	}
}

func (w *world) countClaims(s *serviceRow) {
	published := publishes(s.spec)
	for i := range s.claims {
		at, ok := w.index[s.claims[i].Holder]
		if !ok {
			s.holders[i] = -1
			continue
		}
		s.holders[i] = at
		if s.over(i) {
			continue // nothing runs any more
		}
		p := &w.peers[at]
		p.used, p.load = p.used.Add(s.size), p.load.Add(s.nominal)
		if published {
			w.takePorts(int(at), s.spec)
		}
	}
}

// give plans one more replica of a service for a peer.
func (w *world) give(p int, s *serviceRow) {
	row := &w.peers[p]
	row.used, row.load = row.used.Add(s.size), row.load.Add(s.nominal)
	if publishes(s.spec) {
		w.takePorts(p, s.spec)
	}
}

func (w *world) takePorts(p int, spec *shoal.Spec) {
	for _, port := range spec.Ports {
		if port.IsHost() {
			w.ports[portKey{p, port.Published, protocol(port)}]++
		}
	}
}

// publishes reports whether a spec asks for fixed host ports.
func publishes(spec *shoal.Spec) bool {
	return slices.ContainsFunc(spec.Ports, shoal.Port.IsHost)
}

// service returns the row of a service, nil if there is none.
func (w *world) service(name string) *serviceRow {
	i, ok := slices.BinarySearchFunc(w.services, name,
		func(s serviceRow, n string) int { return cmp.Compare(s.spec.Name, n) })
	if !ok {
		return nil
	}
	return &w.services[i]
}
