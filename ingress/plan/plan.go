// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
)

// Listener is a published port that this peer answers on.
type Listener struct {
	shoal.PublishedPort
	Proxy bool // connections begin with a PROXY protocol header
}

// Listeners returns the ports to answer on, sorted by port and protocol.
func Listeners(v *shoal.View) []Listener {
	var out []Listener
	for _, p := range shoal.PublishedPorts(v.Desired()) {
		s, ok := v.Service(p.Service)
		if !ok {
			continue
		}
		out = append(out, Listener{PublishedPort: p, Proxy: s.Spec.ProxyProtocol && p.Protocol == "tcp"})
	}
	return out
}

// Backends returns the replicas of a service as this peer sees them, by slot.
func Backends(v *shoal.View, service string) balance.Snapshot {
	out := balance.Snapshot{Self: v.Self(), Zone: zoneOf(v, v.Self())}
	s, ok := v.Service(service)
	if ok {
		out.Policy, out.Prefer = s.Spec.LB, s.Spec.Prefer
	}
	claims := v.ClaimsOf(service)
	for _, c := range claims {
		out.Backends = append(out.Backends, backend(v, c))
	}
	if ok {
		weighCanary(&out, s, claims)
	}
	return out
}

func backend(v *shoal.View, c shoal.Claim) balance.Backend {
	life := v.Life(c.Holder)
	b := balance.Backend{
		Replica: c.Replica, Slot: c.Slot, Holder: c.Holder, Zone: zoneOf(v, c.Holder), Weight: weightOf(v, c.Holder),
		Alive: v.Alive(c.Holder), Why: "nothing is heard of it yet",
	}
	switch {
	case b.Alive: // when it was heard does not matter, and changes with every beat
	case life.State == shoal.LifeUnknown:
		b.Heard = -1
	default:
		b.Heard = life.Heard
	}
	if r, ok := v.Replica(c.Replica); ok {
		b.Ready = r.Phase == shoal.PhaseReady
		b.Releasing = r.Phase == shoal.PhaseStopping
		b.Why = r.Phase.String()
		if r.Reason != "" {
			b.Why += ": " + r.Reason
		}
	}
	return b
}

func zoneOf(v *shoal.View, id shoal.PeerID) string {
	if p, ok := v.Peer(id); ok {
		return p.Zone()
	}
	return ""
}
