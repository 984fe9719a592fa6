// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// maxLabels bounds what one wish changes of a peer's labels.
const maxLabels = 256

// ChangePeer implements the service.
func (s *Server) ChangePeer(ctx context.Context, req *connect.Request[shoalv1.ChangePeerRequest]) (*connect.Response[shoalv1.ChangePeerResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	r := req.Msg
	if r.GetPeer() == "" {
		return nil, &shoal.InvalidError{Field: "peer", Why: "is missing"}
	}
	if n := len(r.GetSetLabels()) + len(r.GetUnsetLabels()); n > maxLabels {
		return nil, &shoal.InvalidError{Field: "labels", Why: fmt.Sprintf("must be at most %d, got %d", maxLabels, n)}
	}
	p, err := newPane(c.Views.View(), s.deps.Clock.Mono()).findPeer(r.GetPeer())
	if err != nil {
		return nil, err
	}
	wish := shoal.Wish{Peer: &shoal.PeerWish{
		Peer: p.ID, Change: shoal.PeerChange(r.GetChange()),
		Name: r.GetName(), Set: r.GetSetLabels(), Unset: r.GetUnsetLabels(), Force: r.GetForce(),
	}}
	out, fresh, err := s.grant(ctx, c, wishing{wish, r.GetPlanOnly(), r.GetAcks(), r.GetAckTimeoutSeconds()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.ChangePeerResponse{Outcome: out, Freshness: fresh}), nil
}

// showsPeer reports whether the view holds what was asked of a peer. A concurrent
// wish for the opposite makes who waits for it wait in vain, for showTime.
func showsPeer(v *shoal.View, w *shoal.PeerWish) bool {
	p, ok := v.Desired().Peer(w.Peer)
	if !ok {
		return false
	}
	switch w.Change {
	case shoal.PeerCordon:
		return p.Cordoned
	case shoal.PeerDrain:
		return p.Draining
	case shoal.PeerUncordon:
		return !p.Cordoned
	case shoal.PeerUndrain:
		return !p.Draining
	case shoal.PeerRemove:
		return p.Removed
	case shoal.PeerEdit:
	}
	for k, want := range w.Set {
		if got, has := p.Facts.Labels[k]; !has || got != want {
			return false
		}
	}
	return (w.Name == "" || p.Facts.Name == w.Name) && !slices.ContainsFunc(w.Unset, func(k string) bool {
		_, has := p.Facts.Labels[k]
		return has
	})
}

// WatchPeer implements the service.
func (s *Server) WatchPeer(ctx context.Context, req *connect.Request[shoalv1.WatchPeerRequest], stream *connect.ServerStream[shoalv1.WatchPeerResponse]) error {
	c, err := s.cluster()
	if err != nil {
		return err
	}
	p, err := newPane(c.Views.View(), s.deps.Clock.Mono()).findPeer(req.Msg.GetPeer())
	if err != nil {
		return err
	}
	id := p.ID // whatever it is called meanwhile
	var last *shoalv1.WatchPeerResponse
	return s.follow(ctx, c, func() error {
		m := s.moment(ctx, c)
		p, ok := m.view.Peer(id)
		if !ok {
			return &Error{Code: CodeNotFound, What: fmt.Sprintf("no peer %q", req.Msg.GetPeer())}
		}
		now := &shoalv1.WatchPeerResponse{Held: m.held(p)}
		if last != nil && proto.Equal(last, now) {
			return nil
		}
		last = now
		return stream.Send(&shoalv1.WatchPeerResponse{Peer: m.peer(p), Held: now.GetHeld(), Freshness: s.freshness(m)})
	})
}

// held lists what a peer still answers for: the slots that no other peer has taken
// for good, and replicas that it is stopping.
func (m *moment) held(p *shoal.Peer) []*shoalv1.HeldSlot {
	var out []*shoalv1.HeldSlot
	claimed := map[shoal.ReplicaID]bool{}
	for _, c := range m.view.ClaimsBy(p.ID) {
		claimed[c.Replica] = true
		if h := m.heldSlot(p, c); h != nil {
			out = append(out, h)
		}
	}
	st := m.view.State(p.ID)
	if st == nil || !m.view.Alive(p.ID) {
		return out
	}
	for i := range st.Replicas {
		r := &st.Replicas[i]
		if !claimed[r.ID] && !ended(r) {
			row := &shoalv1.ReplicaRow{Service: r.Service, Slot: int32(r.Slot), Replica: r.ID.String(), Peer: string(p.ID), PeerName: p.Name(), State: r.Phase.String()}
			out = append(out, &shoalv1.HeldSlot{Replica: row, Why: "is being stopped"})
		}
	}
	return out
}

// heldSlot says where one claim of a peer stands; nil if nobody waits for it: another
// peer has its slot, or there is nothing to hand over.
func (m *moment) heldSlot(p *shoal.Peer, c shoal.Claim) *shoalv1.HeldSlot {
	svc, known := m.view.Service(c.Service)
	out := &shoalv1.HeldSlot{Replica: m.replica(svc, c)}
	if !known {
		out.Why = "is being stopped: the service was removed"
		return out
	}
	for _, o := range m.view.ClaimsOf(c.Service) {
		if o.Slot != c.Slot || o.Holder == p.ID || !m.view.Alive(o.Holder) {
			continue
		}
		r, told := m.view.Replica(o.Replica)
		ready := told && r.Phase == shoal.PhaseReady
		if ready && !m.view.Alive(p.ID) {
			return nil // the record of a silent peer's claim stays
		}
		out.Why = "starts on " + m.name(o.Holder)
		if ready {
			out.Why = "is ready on " + m.name(o.Holder)
		}
		return out
	}
	others := func(l *shoal.ExplainLine) bool { return l.Slot < 0 && l.Peer != p.ID }
	switch {
	case m.over(svc, c):
		return nil // its runs are over
	case svc.Spec.Mode.IsGlobal():
		out.Why = "is about to stop"
	case svc.Spec.StaysHome():
		out.DoesStay, out.Why = true, "its data is there"
	case m.view.Done(c):
		return nil // a job that has ended
	default:
		out.Why = m.whyOf(c.Service, others)
		lines := m.explain(c.Service).Lines
		out.IsStuck = !slices.ContainsFunc(lines, func(l shoal.ExplainLine) bool { return others(&l) && l.Feasible })
	}
	return out
}
