// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// ListNetworks implements the service.
func (s *Server) ListNetworks(ctx context.Context, req *connect.Request[shoalv1.ListNetworksRequest]) (*connect.Response[shoalv1.ListNetworksResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	name := req.Msg.GetNetwork()
	if name != "" {
		if err := shoal.CheckNetworkName("network", name); err != nil {
			return nil, err
		}
	}
	m := s.moment(ctx, c)
	on := m.members()
	known := slices.Sorted(maps.Keys(on))
	asked := known
	if name != "" {
		if asked = []string{name}; on[name] == nil {
			return nil, &Error{Code: CodeNotFound, What: fmt.Sprintf("no network %q (known here: %s)", name, listed(known)), Why: m.synced()}
		}
	}
	out := &shoalv1.ListNetworksResponse{Freshness: s.freshness(m)}
	for _, n := range asked {
		out.Networks = append(out.Networks, network(n, on[n]))
	}
	return connect.NewResponse(out), nil
}

// members returns who is on each network, by name. A network is there because a service
// names it.
func (m *moment) members() map[string][]*shoalv1.NetworkService {
	out := map[string][]*shoalv1.NetworkService{}
	names := map[string]map[string][]string{} // that stand for a service, by network and service
	for i := range m.view.Services() {
		svc := &m.view.Services()[i]
		want := m.want(svc)
		ready := map[int]bool{}
		var peers []*shoalv1.Place
		for _, c := range m.ready(svc.Spec.Name) {
			ready[c.Slot] = true
			peers = append(peers, m.place(c.Holder))
		}
		peers = places(peers)
		for _, a := range svc.Spec.Attachments() {
			if names[a.Network] == nil {
				names[a.Network] = meanings(a.Network, m.view.Services())
			}
			out[a.Network] = append(out[a.Network], &shoalv1.NetworkService{
				Service: svc.Spec.Name, Project: svc.Spec.Project, Aliases: a.Aliases,
				Names: names[a.Network][svc.Spec.Name], Want: int32(want), Ready: int32(min(want, len(ready))), Peers: peers,
			})
		}
	}
	return out
}

// meanings returns the names that stand for each service of a network, sorted.
func meanings(network string, services []shoal.Service) map[string][]string {
	out := map[string][]string{}
	wants := shoal.NetworkNames(network, services)
	for _, name := range slices.Sorted(maps.Keys(wants)) {
		out[wants[name][0]] = append(out[wants[name][0]], name)
	}
	return out
}

// ready returns the claims of a service whose holders are heard and say that the replica
// is ready.
func (p *pane) ready(service string) []shoal.Claim {
	var out []shoal.Claim
	for _, c := range p.view.ClaimsOf(service) {
		if r, ok := p.view.Replica(c.Replica); ok && r.Phase == shoal.PhaseReady && p.view.Alive(c.Holder) {
			out = append(out, c)
		}
	}
	return out
}

// network makes a row of the services that are on one, which are sorted by name.
func network(name string, on []*shoalv1.NetworkService) *shoalv1.NetworkRow {
	row := &shoalv1.NetworkRow{Name: name, Services: on}
	for _, s := range on {
		if p := s.GetProject(); p != "" && !slices.Contains(row.Projects, p) {
			row.Projects = append(row.Projects, p)
		}
		row.Peers = append(row.Peers, s.GetPeers()...)
	}
	slices.Sort(row.Projects)
	row.Peers = places(row.Peers)
	return row
}

// places returns each peer once, sorted by name.
func places(in []*shoalv1.Place) []*shoalv1.Place {
	out := map[string]*shoalv1.Place{}
	for _, p := range in {
		out[p.GetName()+" "+p.GetPeer()] = p
	}
	var sorted []*shoalv1.Place
	for _, key := range slices.Sorted(maps.Keys(out)) {
		sorted = append(sorted, out[key])
	}
	return sorted
}
