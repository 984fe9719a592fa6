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
}

// NetworkService is a service on a network.
type NetworkService struct {
	Service  string   `json:"service"`
	Project  string   `json:"project,omitempty"`
	Aliases  []string `json:"aliases,omitempty"`
	Names    []string `json:"names"`    // that stand for it; besides there are NAME.PROJECT, tasks.NAME and SLOT.NAME
	Replicas int      `json:"replicas"` // wanted
	Ready    int      `json:"ready"`
	Peers    []Place  `json:"peers"` // that have ready replicas
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
				Service: s.GetService(), Project: s.GetProject(), Aliases: s.GetAliases(), Names: s.GetNames(),
				Replicas: int(s.GetWant()), Ready: int(s.GetReady()), Peers: all(s.GetPeers(), placeOf),
			}
		}),
	}
}
