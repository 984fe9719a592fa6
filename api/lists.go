// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// moment is what one answer is made from: a pane, and the verdicts it needs.
type moment struct {
	*pane
	explain  func(service string) shoal.Explanation
	rollouts interface { // nil: nobody knows
		Rollout(service string) (shoal.RolloutReport, error)
	}
	path func(id shoal.PeerID, name func(shoal.PeerID) string) (way string, pings, lost int) // nil: not known
	// scaling is Cluster.Scaling.
	scaling func(service string) (shoal.Scaling, bool)
}

// peer makes a member's row, with the way to it.
func (m *moment) peer(p *shoal.Peer) *shoalv1.PeerRow {
	row := m.pane.peer(p)
	if m.path != nil && !row.GetIsSelf() {
		way, pings, lost := m.path(p.ID, m.name)
		row.Path, row.Pings, row.PingsLost = way, int32(pings), int32(lost)
	}
	return row
}

// moment reads the view once. Its explain asks once per service; a service that
// cannot be explained has no verdicts, and its listing stands without reasons.
func (s *Server) moment(ctx context.Context, c *Cluster) *moment {
	verdicts := map[string]shoal.Explanation{}
	explain := func(service string) shoal.Explanation {
		x, asked := verdicts[service]
		if !asked {
			x, _ = c.Wishes.Explain(ctx, service)
			verdicts[service] = x
		}
		return x
	}
	p := newPane(c.Views.View(), s.deps.Clock.Mono())
	p.wall = s.deps.Clock.Wall()
	return &moment{pane: p, explain: explain, rollouts: c.Rollouts, path: s.deps.Path, scaling: c.Scaling}
}

// want is how many replicas a service should have now: its number, or one on every
// peer that holds one or could; of a job how many runs should end well.
func (m *moment) want(svc *shoal.Service) int {
	if st, is := m.view.Job(svc.Spec.Name); is {
		return st.Wanted
	}
	if svc.Stopped || !svc.Spec.Mode.IsGlobal() {
		return svc.Wanted()
	}
	peers := map[shoal.PeerID]bool{}
	for _, c := range m.view.ClaimsOf(svc.Spec.Name) {
		if m.view.Alive(c.Holder) {
			peers[c.Holder] = true
		}
	}
	for _, l := range m.explain(svc.Spec.Name).Lines {
		if l.Slot < 0 && l.Feasible && m.view.Alive(l.Peer) {
			peers[l.Peer] = true
		}
	}
	return len(peers)
}

func (m *moment) wantOf(service string) int {
	if svc, ok := m.view.Service(service); ok {
		return m.want(svc)
	}
	return 0
}

// varying is what reasons may differ in and still be the same: how long they hold, and
// of which container they are.
var varying = regexp.MustCompile(` for [0-9.hms]+$|\b[0-9a-f]{12}\b`)

// why says in one line why a slot has no holder: where its data is, that no peer
// could ever take it, or what keeps each peer from it.
func (m *moment) why(service string, slot int) string {
	x := m.explain(service)
	if i := slices.IndexFunc(x.Slots, func(e shoal.ExplainSlot) bool { return e.Slot == slot }); i >= 0 && x.Slots[i].Home != "" {
		if waits := m.waits(&x.Slots[i]); len(waits) > 0 {
			return waits[0]
		}
	}
	if x.Never != "" {
		return x.Never
	}
	return m.whyOf(service, func(l *shoal.ExplainLine) bool { return l.Slot < 0 || l.Slot == slot })
}

// whyOf says in one line why none of the verdicts that count lets a peer hold a slot.
func (m *moment) whyOf(service string, counts func(*shoal.ExplainLine) bool) string {
	count := map[string]int{}
	var order []string
	for _, l := range m.explain(service).Lines {
		if !counts(&l) {
			continue
		}
		if l.Feasible {
			return "waiting for a peer to claim it"
		}
		same := varying.ReplaceAllString(l.Reason, "")
		if count[same] == 0 {
			order = append(order, l.Reason)
		}
		count[same]++
	}
	times := func(reason string) int { return count[varying.ReplaceAllString(reason, "")] }
	slices.SortStableFunc(order, func(a, b string) int { return times(b) - times(a) })
	parts := make([]string, 0, len(order))
	for _, r := range order {
		parts = append(parts, fmt.Sprintf("%d %s: %s", times(r), choose(times(r) == 1, "peer", "peers"), r))
	}
	if len(parts) == 0 {
		return "no reason known here"
	}
	return strings.Join(parts, "; ")
}

func (m *moment) rowsOf(service string) []*shoalv1.ReplicaRow {
	rows := m.replicas(service, m.wantOf(service), func(slot int) string { return m.why(service, slot) })
	m.sayBehind(service, rows)
	return rows
}

// sayBehind adds to replicas that run well why they keep an older revision.
func (m *moment) sayBehind(service string, rows []*shoalv1.ReplicaRow) {
	for _, r := range rows {
		if r.GetIsCurrent() || r.GetReason() != "" || r.GetState() != shoal.PhaseReady.String() {
			continue
		}
		for _, x := range m.explain(service).Slots {
			if x.Slot == int(r.GetSlot()) && len(x.Holders) > 0 && string(x.Holders[0]) == r.GetPeer() {
				r.Reason = x.Behind
			}
		}
	}
}

// serviceNames returns all services, also those that are gone while claims remain.
func (m *moment) serviceNames() []string {
	var out []string
	for i := range m.view.Services() {
		out = append(out, m.view.Services()[i].Spec.Name)
	}
	for _, c := range m.view.Desired().Claims {
		out = append(out, c.Service)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *Server) freshness(m *moment) *shoalv1.Freshness {
	return m.freshness(s.deps.Membership.Status().Trouble)
}

// ListServices implements the service.
func (s *Server) ListServices(ctx context.Context, _ *connect.Request[shoalv1.ListServicesRequest]) (*connect.Response[shoalv1.ListServicesResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	out := &shoalv1.ListServicesResponse{Freshness: s.freshness(m)}
	for i := range m.view.Services() {
		svc := &m.view.Services()[i]
		out.Services = append(out.Services, m.service(svc, m.want(svc)))
	}
	return connect.NewResponse(out), nil
}

// ListReplicas implements the service.
func (s *Server) ListReplicas(ctx context.Context, req *connect.Request[shoalv1.ListReplicasRequest]) (*connect.Response[shoalv1.ListReplicasResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	names := m.serviceNames()
	if asked := req.Msg.GetServices(); len(asked) > 0 {
		for _, name := range asked {
			if !slices.Contains(names, name) {
				return nil, m.noService(name)
			}
		}
		names = slices.Compact(slices.Sorted(slices.Values(asked)))
	}
	out := &shoalv1.ListReplicasResponse{Freshness: s.freshness(m)}
	for _, name := range names {
		out.Replicas = append(out.Replicas, m.rowsOf(name)...)
	}
	return connect.NewResponse(out), nil
}

// InspectService implements the service.
func (s *Server) InspectService(ctx context.Context, req *connect.Request[shoalv1.InspectServiceRequest]) (*connect.Response[shoalv1.InspectServiceResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	name := req.Msg.GetService()
	svc, ok := m.view.Service(name)
	if !ok {
		return nil, m.noService(name)
	}
	out := &shoalv1.InspectServiceResponse{
		Service: m.service(svc, m.want(svc)), Spec: masked(&svc.Spec, req.Msg.GetShowEnv()),
		Replicas: m.rowsOf(name), Freshness: s.freshness(m),
	}
	for _, h := range svc.Heads {
		out.Heads = append(out.Heads, revision(h))
	}
	for _, x := range m.view.Desired().Conflicts {
		if x.Service == name {
			out.Conflicts = append(out.Conflicts, &shoalv1.WishConflict{Loser: revision(x.Loser), Winner: revision(x.Winner), Rule: x.Rule})
		}
	}
	for _, l := range m.explain(name).Lines {
		out.Verdicts = append(out.Verdicts, m.verdict(&l))
	}
	return connect.NewResponse(out), nil
}

// ListPeers implements the service.
func (s *Server) ListPeers(ctx context.Context, req *connect.Request[shoalv1.ListPeersRequest]) (*connect.Response[shoalv1.ListPeersResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	out := &shoalv1.ListPeersResponse{Freshness: s.freshness(m)}
	for i := range m.view.Peers() {
		p := &m.view.Peers()[i]
		if gone := p.Removed || p.Left(); !gone || req.Msg.GetIncludeRemoved() {
			out.Peers = append(out.Peers, m.peer(p))
		}
	}
	slices.SortStableFunc(out.Peers, func(a, b *shoalv1.PeerRow) int { return strings.Compare(a.Name, b.Name) })
	return connect.NewResponse(out), nil
}

// InspectPeer implements the service.
func (s *Server) InspectPeer(ctx context.Context, req *connect.Request[shoalv1.InspectPeerRequest]) (*connect.Response[shoalv1.InspectPeerResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	p, err := m.findPeer(req.Msg.GetPeer())
	if err != nil {
		return nil, err
	}
	out := &shoalv1.InspectPeerResponse{Peer: m.peer(p), Freshness: s.freshness(m)}
	for _, claim := range m.view.ClaimsBy(p.ID) {
		svc, _ := m.view.Service(claim.Service)
		out.Replicas = append(out.Replicas, m.replica(svc, claim))
	}
	if st := m.view.State(p.ID); st != nil {
		out.Images = st.Images
		for _, r := range st.Refusals {
			out.Refusals = append(out.Refusals, r.Service+": "+r.Reason)
		}
	}
	out.Marks, out.Edits = m.said(p)
	return connect.NewResponse(out), nil
}
