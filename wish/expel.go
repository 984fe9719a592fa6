// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// remove ends the peer's membership. Unless forced it takes nothing away that only this
// peer has: running replicas, and data. Who admits it again lifts its marks.
func (s *peerStep) remove(force bool) error {
	name := s.peer.Name()
	if s.peer.ID == s.author {
		return &shoal.AdviceError{
			Err:    fmt.Errorf("%s cannot remove itself: %w", name, shoal.ErrRefused),
			Advice: "run \"shoal leave\" on it",
		}
	}
	data := s.data()
	moves, ends, _ := s.held()
	held := len(s.view.ClaimsBy(s.peer.ID))
	alive := s.view.Alive(s.peer.ID) && !s.peer.Left()
	switch {
	case alive && moves+ends > 0 && !force:
		return &shoal.AdviceError{
			Err:    fmt.Errorf("%s is alive and holds %s: %w", name, counted(held, "slot", "slots"), shoal.ErrRefused),
			Advice: "drain it first: shoal drain " + name + ", or remove it with --force",
		}
	case len(data) > 0 && !force:
		advice := "bring it back"
		if alive {
			advice = "remove the service"
		}
		return &shoal.AdviceError{
			Err:    fmt.Errorf("%s has the data of %s, which no other peer has: %w", name, strings.Join(data, ", "), shoal.ErrRefused),
			Advice: advice + ", or give the data up with --force",
		}
	}
	s.detail("remove from the cluster")
	if held > 0 {
		s.detail("%s", counted(held, "slot is placed anew", "slots are placed anew"))
	}
	for _, slot := range data {
		s.change.Notes = append(s.change.Notes, slot+" begins without its data, which stays on that machine")
	}
	s.member = &shoal.MemberBody{Peer: s.peer.ID, Removed: true}
	s.change.Kind = shoal.ChangeRemove
	return nil
}

// data names the slots whose data is on the peer alone, sorted.
func (s *peerStep) data() []string {
	if s.peer.Facts.Leaving {
		return nil // it gave them away
	}
	_, _, out := s.held()
	d := s.view.Desired()
	for _, h := range d.Homes {
		svc, ok := s.view.Service(h.Service)
		if h.Peer != s.peer.ID || !ok || !svc.Spec.StaysHome() || svc.Spec.Mode.IsGlobal() || h.Slot >= svc.Replicas {
			continue
		}
		elsewhere := slices.ContainsFunc(s.view.ClaimsOf(h.Service), func(c shoal.Claim) bool { return c.Slot == h.Slot }) ||
			slices.ContainsFunc(d.Homes, func(o shoal.Home) bool { return o.Service == h.Service && o.Slot == h.Slot && o.Peer != h.Peer })
		if !elsewhere {
			out = append(out, fmt.Sprintf("%s/%d", h.Service, h.Slot))
		}
	}
	slices.Sort(out)
	return out
}
