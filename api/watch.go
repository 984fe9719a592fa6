// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// pace is the shortest time between two looks at a changing view.
const pace = 50 * time.Millisecond

// errLeft ends streams of a peer that is a member no more.
func errLeft() *Error {
	return &Error{Code: CodeNotMember, What: "this daemon left the cluster"}
}

// follow calls look now and after every change of the view, at most once per pace,
// until ctx ends, look fails, or the peer leaves its cluster.
func (s *Server) follow(ctx context.Context, c *Cluster, look func() error) error {
	for {
		changed := c.Views.Changed()
		if err := look(); err != nil {
			return err
		}
		if err := s.awaitChange(ctx, c, changed); err != nil {
			return err
		}
	}
}

// awaitChange returns after a change, and at least once a second, since nothing
// changes any more in the view of a peer that left.
func (s *Server) awaitChange(ctx context.Context, c *Cluster, changed <-chan struct{}) error {
	tick := time.NewTimer(time.Second)
	defer tick.Stop()
	select {
	case <-changed:
		if err := pause(ctx, pace); err != nil {
			return err
		}
	case <-tick.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if now, ok := s.deps.Cluster(); !ok || now == nil || now.Views != c.Views {
		return errLeft()
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Watch implements the service.
func (s *Server) Watch(ctx context.Context, req *connect.Request[shoalv1.WatchRequest], stream *connect.ServerStream[shoalv1.WatchResponse]) error {
	c, err := s.cluster()
	if err != nil {
		return err
	}
	var last *shoalv1.WatchResponse
	return s.follow(ctx, c, func() error {
		m := s.moment(ctx, c)
		names := req.Msg.GetServices()
		if len(names) == 0 {
			names = m.serviceNames()
		}
		now := &shoalv1.WatchResponse{}
		for _, name := range names {
			p := m.progress(name, m.wantOf(name), func(slot int) string { return m.why(name, slot) })
			m.sayBehind(name, p.GetReplicas())
			if svc, ok := m.view.Service(name); ok && len(req.Msg.GetServices()) > 0 {
				if p.Rollout = m.rollout(svc); p.Rollout != nil {
					p.Rollout.SinceSeconds = 0
				}
			}
			now.Services = append(now.Services, p)
		}
		if last != nil && proto.Equal(last, now) { // ages aside
			return nil
		}
		last = now
		return stream.Send(&shoalv1.WatchResponse{Services: now.Services, Freshness: s.freshness(m)})
	})
}
