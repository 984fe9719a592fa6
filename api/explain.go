// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// ExplainService implements the service.
func (s *Server) ExplainService(ctx context.Context, req *connect.Request[shoalv1.ExplainServiceRequest]) (*connect.Response[shoalv1.ExplainServiceResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	if req.Msg.Slot != nil && req.Msg.GetSlot() < 0 {
		return nil, &shoal.InvalidError{Field: "slot", Why: fmt.Sprintf("must not be negative, got %d", req.Msg.GetSlot())}
	}
	m := s.moment(ctx, c)
	name := req.Msg.GetService()
	svc, ok := m.view.Service(name)
	if !ok {
		return nil, m.noService(name)
	}
	x := m.explain(name)
	slots := x.Slots
	if req.Msg.Slot != nil {
		slot := int(req.Msg.GetSlot())
		at := slices.IndexFunc(slots, func(e shoal.ExplainSlot) bool { return e.Slot == slot })
		if at < 0 {
			return nil, m.noSlot(name, slot, slots)
		}
		slots = slots[at : at+1]
	}
	out := &shoalv1.ExplainServiceResponse{Service: m.service(svc, m.want(svc)), Verdicts: m.verdicts(&x), Never: x.Never, Freshness: s.freshness(m), Rollout: m.rollout(svc)}
	s.hear(ctx, c, m, name, out.GetRollout().GetFailure())
	for i := range slots {
		out.Slots = append(out.Slots, m.explained(svc, &slots[i]))
	}
	return connect.NewResponse(out), nil
}

// noSlot is the error about a slot that a service does not have.
func (p *pane) noSlot(service string, slot int, slots []shoal.ExplainSlot) *Error {
	has := "no slots"
	switch n := len(slots); {
	case n == 1:
		has = fmt.Sprintf("only slot %d", slots[0].Slot)
	case n > 1:
		has = fmt.Sprintf("slots %d–%d", slots[0].Slot, slots[n-1].Slot)
	}
	return &Error{Code: CodeNotFound, What: fmt.Sprintf("no slot %s/%d: %s has %s", service, slot, service, has), Why: p.synced(), Todo: "see shoal ps " + service}
}

// verdicts are those on one more replica.
func (p *pane) verdicts(x *shoal.Explanation) []*shoalv1.Verdict {
	var out []*shoalv1.Verdict
	for _, l := range x.Lines {
		if l.Slot < 0 {
			out = append(out, p.verdict(&l))
		}
	}
	return out
}

func (p *pane) verdict(l *shoal.ExplainLine) *shoalv1.Verdict {
	return &shoalv1.Verdict{
		Slot: int32(l.Slot), Peer: string(l.Peer), PeerName: p.name(l.Peer), IsFeasible: l.Feasible, Score: l.Score, Reason: l.Reason,
	}
}

// explained says where one slot stands. A holder that let go since the explanation was
// made is left out.
func (p *pane) explained(svc *shoal.Service, x *shoal.ExplainSlot) *shoalv1.ExplainedSlot {
	out := &shoalv1.ExplainedSlot{Slot: int32(x.Slot), Proposed: p.place(x.Proposed), Home: p.place(x.Home), Waits: p.waits(x)}
	claims := p.view.ClaimsOf(svc.Spec.Name)
	for _, holder := range x.Holders {
		for _, c := range claims {
			if c.Slot == x.Slot && c.Holder == holder {
				out.Holders = append(out.Holders, p.replica(svc, c))
			}
		}
	}
	return out
}

// place names a peer; nil for none.
func (p *pane) place(id shoal.PeerID) *shoalv1.Place {
	if id == "" {
		return nil
	}
	return &shoalv1.Place{Peer: string(id), Name: p.name(id)}
}

// notHeard ends the sentence of placement about a home that is away; for how long it
// has been, only the asked peer's clock tells.
const notHeard = "which is not heard"

// waits are the sentences about a slot, with how long its home has not been heard.
func (p *pane) waits(x *shoal.ExplainSlot) []string {
	out := slices.Clone(x.Waits)
	for i, text := range out {
		if rest, away := strings.CutSuffix(text, notHeard); away && x.Home != "" {
			out[i] = rest + p.unheard(x.Home)
		}
	}
	return out
}

// Explanation says why a service's replicas are where they are.
type Explanation struct {
	Service
	Slots     []ExplainedSlot `json:"slots"`
	Placement []Verdict       `json:"placement"`       // on one more replica, by peer
	Never     string          `json:"never,omitempty"` // why no peer could ever hold a slot
	Rollout   *Rollout        `json:"rollout,omitempty"`
	Freshness Freshness       `json:"-"`
}

// ExplainedSlot says where one slot stands.
type ExplainedSlot struct {
	Slot     int       `json:"slot"`
	Proposed Place     `json:"proposed,omitzero"` // by who accepted the wish
	Holders  []Replica `json:"holders"`           // the one that counts first
	Home     Place     `json:"home,omitzero"`     // where its data is
	Waits    []string  `json:"waits"`             // what the asked peer's last decision said
}

// Explain says why the replicas of a service, or one of its slots (-1: all), are where
// they are.
func (c *Client) Explain(ctx context.Context, service string, slot int) (Explanation, error) {
	req := &shoalv1.ExplainServiceRequest{Service: service}
	if slot >= 0 {
		req.Slot = new(int32(slot))
	}
	r, err := call(ctx, c, c.rpc.ExplainService, req)
	if err != nil {
		return Explanation{}, err
	}
	return Explanation{
		Service: serviceOf(r.GetService()), Slots: all(r.GetSlots(), explainedOf), Placement: all(r.GetVerdicts(), verdictOf),
		Never: r.GetNever(), Freshness: freshnessOf(r.GetFreshness()), Rollout: knownRollout(r.GetRollout()),
	}, nil
}

func explainedOf(m *shoalv1.ExplainedSlot) ExplainedSlot {
	return ExplainedSlot{
		Slot: int(m.GetSlot()), Proposed: placeOf(m.GetProposed()), Holders: all(m.GetHolders(), replicaOf), Home: placeOf(m.GetHome()),
		Waits: append([]string{}, m.GetWaits()...),
	}
}

func verdictOf(v *shoalv1.Verdict) Verdict {
	return Verdict{Slot: int(v.GetSlot()), Peer: v.GetPeer(), PeerName: v.GetPeerName(), Feasible: v.GetIsFeasible(), Score: v.GetScore(), Reason: v.GetReason()}
}
