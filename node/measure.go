// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/node/metrics"
)

// measure is what this peer knows now. It asks neither the engine nor another peer.
func (p *Peer) measure() metrics.Snapshot {
	out := metrics.Snapshot{Status: p.Status()}
	s, err := p.current()
	if err != nil {
		return out
	}
	if out.View = s.tracker.View(); out.View != nil {
		out.Links = p.measureLinks(out.View)
		out.Rollouts, out.Scaling = s.measureServices(out.View)
	}
	if s.reach != nil {
		served := s.reach.Served()
		out.Reach, out.Served, out.Ports = s.reach.Traffic(), &served, s.reach.Ports()
	}
	if s.images != nil {
		st, err := s.images.Stats()
		if err != nil { // shoal doctor says so, too
			p.parts.Log.Debug("room for images is not known", logkey.Err, err)
		}
		out.Images = &metrics.Images{
			Used: st.Used, Limit: st.Limit, FromMembers: st.FromMembers, FromOutside: st.FromOutside, ToMembers: st.ToMembers, Refused: st.Refused,
		}
	}
	return out
}

func (p *Peer) measureLinks(v *shoal.View) map[shoal.PeerID]metrics.Link {
	out := make(map[shoal.PeerID]metrics.Link, len(v.Peers()))
	for i := range v.Peers() {
		id := v.Peers()[i].ID
		at := p.links.Path(id)
		out[id] = metrics.Link{Path: at.Kind, By: at.Via, Transport: at.Transport, RTT: at.RTT, Pings: at.Pings, Lost: at.Lost}
	}
	return out
}

// measureServices is what this peer makes of the services of a view. One that is gone by
// now is left out.
func (s *stack) measureServices(v *shoal.View) (map[string]shoal.RolloutReport, map[string]shoal.Scaling) {
	rollouts, scaling := map[string]shoal.RolloutReport{}, map[string]shoal.Scaling{}
	for i := range v.Services() {
		name := v.Services()[i].Spec.Name
		if r, err := s.steward.Rollout(name); err == nil {
			rollouts[name] = r
		}
		if x, ok := s.steward.Scaling(name); ok {
			scaling[name] = x
		}
	}
	return rollouts, scaling
}

// listenMetrics opens the port that the owner named for Prometheus; nil: none.
func (c *Config) listenMetrics(ctx context.Context) (net.Listener, error) {
	if c.Metrics == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w; name another address, or off", err)
	}
	return l, nil
}

// checkMetrics reports what is no address to listen on.
func (c *Config) checkMetrics() error {
	if c.Metrics == "" {
		return nil
	}
	if at, err := netip.ParseAddrPort(c.Metrics); err != nil || at.Port() == 0 {
		return &shoal.InvalidError{Field: "metrics.listen", Why: fmt.Sprintf("must be an IP and a port like 127.0.0.1:4711, or off, got %q", c.Metrics)}
	}
	return nil
}
