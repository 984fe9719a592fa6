// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// A measurement takes a second, so it is not made more often; a peer that does not
// answer in usageTime is shown without.
const (
	usagePace  = time.Second
	usageEvery = 2 * time.Second
	usageTime  = 5 * time.Second
)

// WatchUsage implements the service.
func (s *Server) WatchUsage(ctx context.Context, req *connect.Request[shoalv1.WatchUsageRequest], stream *connect.ServerStream[shoalv1.WatchUsageResponse]) error {
	every, err := seconds("interval_seconds", req.Msg.GetIntervalSeconds())
	if err != nil {
		return err
	}
	if every == 0 {
		every = usageEvery
	}
	for {
		c, err := s.cluster()
		if err != nil {
			return err
		}
		began := time.Now()
		if err := stream.Send(s.measure(ctx, c)); err != nil {
			return err
		}
		if req.Msg.GetOnce() {
			return nil
		}
		if err := pause(ctx, max(usagePace, every-time.Since(began))); err != nil {
			return err
		}
	}
}

// measure asks every holder that is alive, all at once.
func (s *Server) measure(ctx context.Context, c *Cluster) *shoalv1.WatchUsageResponse {
	ctx, cancel := context.WithTimeout(ctx, usageTime)
	defer cancel()
	v := c.Views.View()
	answers := make([]struct {
		used []shoal.Usage
		err  error
	}, len(v.Peers()))
	var asked sync.WaitGroup
	for i := range v.Peers() {
		id := v.Peers()[i].ID
		if v.Alive(id) && len(v.ClaimsBy(id)) > 0 {
			asked.Go(func() { answers[i].used, answers[i].err = c.Remote.Usage(ctx, id) })
		}
	}
	asked.Wait()
	m := &moment{pane: newPane(v, s.deps.Clock.Mono()), explain: s.moment(ctx, c).explain, path: s.deps.Path}
	out := &shoalv1.WatchUsageResponse{Freshness: s.freshness(m)}
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if p.Removed || p.Left() {
			continue
		}
		row := &shoalv1.PeerUsage{Peer: m.peer(p)}
		switch {
		case !v.Alive(p.ID):
			row.Trouble = m.silence(p.ID)
		case answers[i].err != nil:
			row.Trouble = describe(answers[i].err).What
		}
		used := map[shoal.ReplicaID]shoal.Usage{}
		for _, u := range answers[i].used {
			used[u.Replica] = u
		}
		for _, claim := range v.ClaimsBy(p.ID) {
			u, ok := used[claim.Replica]
			if !ok {
				u.CPUMilli, u.MemBytes = -1, -1
			}
			svc, _ := v.Service(claim.Service)
			row.Replicas = append(row.Replicas, &shoalv1.UsedReplica{Replica: m.replica(svc, claim), CpuMilli: u.CPUMilli, MemBytes: u.MemBytes})
		}
		out.Peers = append(out.Peers, row)
	}
	slices.SortFunc(out.Peers, func(a, b *shoalv1.PeerUsage) int { return cmp.Compare(a.Peer.Name, b.Peer.Name) })
	for i := range v.Services() {
		svc := &v.Services()[i]
		out.Services = append(out.Services, m.service(svc, m.want(svc)))
	}
	return out
}

// Usage is one round of measurements.
type Usage struct {
	Peers     []PeerUsage `json:"peers"`
	Services  []Service   `json:"services"`
	Freshness Freshness   `json:"-"`
}

// PeerUsage is what the replicas of one peer use.
type PeerUsage struct {
	Peer     Peer          `json:"peer"`
	Replicas []UsedReplica `json:"replicas"`
	Trouble  string        `json:"trouble,omitempty"` // why they are not measured
}

// UsedReplica is one replica with what it uses.
type UsedReplica struct {
	Replica
	CPU int64 `json:"cpu_milli"`    // -1: not measured
	Mem int64 `json:"memory_bytes"` // -1: not measured
}

// Usage calls fn with a round of measurements, then with more every interval (0: the
// daemon's own) until ctx ends or fn fails; once: with one.
func (c *Client) Usage(ctx context.Context, interval time.Duration, once bool, fn func(Usage) error) error {
	req := &shoalv1.WatchUsageRequest{IntervalSeconds: interval.Seconds(), Once: once}
	return each(ctx, c, c.rpc.WatchUsage, req, func(r *shoalv1.WatchUsageResponse) error {
		return fn(Usage{
			Peers: all(r.GetPeers(), func(p *shoalv1.PeerUsage) PeerUsage {
				return PeerUsage{
					Peer: peerOf(p.GetPeer()), Trouble: p.GetTrouble(),
					Replicas: all(p.GetReplicas(), func(u *shoalv1.UsedReplica) UsedReplica {
						return UsedReplica{Replica: replicaOf(u.GetReplica()), CPU: u.GetCpuMilli(), Mem: u.GetMemBytes()}
					}),
				}
			}),
			Services: all(r.GetServices(), serviceOf), Freshness: freshnessOf(r.GetFreshness()),
		})
	})
}
