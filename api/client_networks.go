// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Network is a network that services are on.
type Network struct {
	Name     string           `json:"name"`
	Projects []string         `json:"projects"` // of its services
	Services []NetworkService `json:"services"` // by name
	Peers    []Place          `json:"peers"`    // that have ready replicas on it, as the asked peer believes
	Names    []NetworkName    `json:"names"`    // sorted
}

// NetworkService is a service on a network.
type NetworkService struct {
	Service  string   `json:"service"`
	Project  string   `json:"project,omitempty"`
	Aliases  []string `json:"aliases,omitempty"`
	Replicas int      `json:"replicas"` // wanted
	Ready    int      `json:"ready"`
	Peers    []Place  `json:"peers"` // that have ready replicas
}

// NetworkName is a name that containers on a network may ask for. Besides it there are
// NAME.PROJECT, tasks.NAME and SLOT.NAME.
type NetworkName struct {
	Name    string   `json:"name"`
	Service string   `json:"service"`          // that it stands for
	Losers  []string `json:"losers,omitempty"` // services that want it, too
}

// Networks lists the networks that services are on, or the one with that name, "" being
// all. Error with CodeNotFound: no service is on it.
func (c *Client) Networks(ctx context.Context, name string) (Listing[Network], error) {
	r, err := call(ctx, c, c.rpc.ListNetworks, &shoalv1.ListNetworksRequest{Network: name})
	return Listing[Network]{all(r.GetNetworks(), networkOf), freshnessOf(r.GetFreshness())}, err
}

func networkOf(m *shoalv1.NetworkRow) Network {
	return Network{
		Name: m.GetName(), Projects: append([]string{}, m.GetProjects()...), Peers: all(m.GetPeers(), placeOf),
		Services: all(m.GetServices(), func(s *shoalv1.NetworkService) NetworkService {
			return NetworkService{
				Service: s.GetService(), Project: s.GetProject(), Aliases: s.GetAliases(),
				Replicas: int(s.GetWant()), Ready: int(s.GetReady()), Peers: all(s.GetPeers(), placeOf),
			}
		}),
		Names: all(m.GetNames(), func(n *shoalv1.NetworkName) NetworkName {
			return NetworkName{Name: n.GetName(), Service: n.GetService(), Losers: n.GetLosers()}
		}),
	}
}
