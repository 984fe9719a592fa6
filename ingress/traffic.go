// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/carry"
)

// Traffic returns what this peer carried for its own clients, by service, whichever way they
// came: a published port, a forwarded one. A service that is removed, or was never asked
// for here, is not among them.
func (r *Room) Traffic() map[string]shoal.Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]shoal.Traffic, len(r.services))
	for key, s := range r.services {
		out[key.name] = out[key.name].Plus(traffic(s.Stats()))
	}
	return out
}

// Served returns what this peer carried to its replicas for other peers, all services
// together. Nothing is known of retries and of durations: the other peers measure these.
func (r *Room) Served() shoal.Traffic {
	s := r.carrier.Served()
	return traffic(carry.Stats{Total: s.Total, Open: s.Open, In: s.In, Out: s.Out, Errors: s.Errors})
}
