// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// doctorPeers bounds how many members are looked at side by side, doctorTime how long
// all of it may take.
const (
	doctorPeers = 8
	doctorTime  = time.Minute
)

// RunDoctor implements the service.
func (s *Server) RunDoctor(ctx context.Context, req *connect.Request[shoalv1.RunDoctorRequest], stream *connect.ServerStream[shoalv1.RunDoctorResponse]) error {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	c, member := s.deps.Cluster()
	send := func(check shoal.Check) error {
		name := check.Peer.Short()
		if member {
			name = newPane(c.Views.View(), s.deps.Clock.Mono()).name(check.Peer)
		}
		return stream.Send(&shoalv1.RunDoctorResponse{PeerName: name, Check: &shoalv1.DoctorCheck{
			Peer: string(check.Peer), Area: check.Area, Name: check.Name, State: string(check.State), Detail: check.Detail, Remedy: check.Remedy,
		}})
	}
	token, peer := req.Msg.GetToken(), req.Msg.GetPeer()
	switch {
	case token != "" && peer != "":
		return &shoal.InvalidError{Field: "token", Why: "and peer exclude each other"}
	case token != "":
		return errors.Join(s.deps.Doctor.Machine(ctx, send), s.deps.Doctor.Token(ctx, token, send))
	case peer != "":
		c, err := s.cluster()
		if err != nil {
			return err
		}
		p, err := newPane(c.Views.View(), s.deps.Clock.Mono()).findPeer(peer)
		if err != nil {
			return err
		}
		return s.deps.Doctor.Peer(ctx, p.ID, send)
	}
	if err := s.deps.Doctor.Machine(ctx, send); err != nil || !member {
		return err
	}
	return s.allWays(ctx, c.Views.View(), send)
}

// allWays looks at every member that is to be there, and tells one after the other.
func (s *Server) allWays(ctx context.Context, v *shoal.View, send func(shoal.Check) error) error {
	var mu sync.Mutex // one member's checks stay together
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(doctorPeers)
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if p.Removed || p.Left() || p.ID == v.Self() {
			continue
		}
		g.Go(func() error {
			var found []shoal.Check
			err := s.deps.Doctor.Peer(ctx, p.ID, func(c shoal.Check) error {
				found = append(found, c)
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			for _, c := range found {
				if serr := send(c); serr != nil {
					return serr
				}
			}
			return err
		})
	}
	return g.Wait()
}

// Check is one thing the doctor looked at.
type Check struct {
	Peer     string `json:"peer"`
	PeerName string `json:"peer_name"`
	Area     string `json:"area"`
	Name     string `json:"check"`
	State    string `json:"state"` // ok, warn, fail, skip
	Detail   string `json:"detail"`
	Remedy   string `json:"remedy,omitempty"`
}

// Doctor calls fn for each check of a peer ("": the asked one, and its ways to all), or
// of what a token needs, as they end.
func (c *Client) Doctor(ctx context.Context, peer, token string, fn func(Check) error) error {
	req := &shoalv1.RunDoctorRequest{Peer: peer, Token: token}
	return each(ctx, c, c.rpc.RunDoctor, req, func(r *shoalv1.RunDoctorResponse) error {
		m := r.GetCheck()
		return fn(Check{
			Peer: m.GetPeer(), PeerName: cmp.Or(r.GetPeerName(), m.GetPeer()), Area: m.GetArea(), Name: m.GetName(),
			State: m.GetState(), Detail: m.GetDetail(), Remedy: m.GetRemedy(),
		})
	})
}
