// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// GetStatus implements the service.
func (s *Server) GetStatus(ctx context.Context, _ *connect.Request[shoalv1.GetStatusRequest]) (*connect.Response[shoalv1.GetStatusResponse], error) {
	st := s.deps.Membership.Status()
	out := &shoalv1.GetStatusResponse{
		Self: string(st.Self), Cluster: string(st.Cluster), Role: string(st.Role), Listen: plainAddrs(st.Listen),
		Version: st.Version, Api: "v1", Trouble: st.Trouble,
	}
	if st.Store != nil {
		out.Store = &shoalv1.StoreStatus{
			Digest: st.Store.Digest.String(), Records: int64(st.Store.Records), Live: int64(st.Store.Live),
			Blocks: int64(st.Store.Blocks), Refused: st.Store.Refused,
		}
	}
	if c, ok := s.deps.Cluster(); ok && c != nil {
		out.Freshness = s.freshness(s.moment(ctx, c))
	}
	return connect.NewResponse(out), nil
}

// Init implements the service.
func (s *Server) Init(ctx context.Context, req *connect.Request[shoalv1.InitRequest]) (*connect.Response[shoalv1.InitResponse], error) {
	opts := shoal.InitOptions{Name: req.Msg.GetName(), Labels: req.Msg.GetLabels()}
	if err := checkPeer(opts.Name, opts.Labels); err != nil {
		return nil, err
	}
	token, err := s.deps.Membership.Init(ctx, opts)
	if err != nil {
		return nil, err
	}
	s.membershipChanged()
	st := s.deps.Membership.Status()
	return connect.NewResponse(&shoalv1.InitResponse{Token: token, Self: string(st.Self), Cluster: string(st.Cluster)}), nil
}

// Join implements the service.
func (s *Server) Join(ctx context.Context, req *connect.Request[shoalv1.JoinRequest]) (*connect.Response[shoalv1.JoinResponse], error) {
	opts := shoal.JoinOptions{Name: req.Msg.GetName(), Labels: req.Msg.GetLabels(), DryRun: req.Msg.GetDryRun()}
	if err := checkPeer(opts.Name, opts.Labels); err != nil {
		return nil, err
	}
	token := strings.TrimSpace(req.Msg.GetToken())
	if token == "" {
		return nil, &shoal.InvalidError{Field: "token", Why: "is missing"}
	}
	if err := s.deps.Membership.Join(ctx, token, opts); err != nil {
		return nil, err
	}
	s.membershipChanged()
	st := s.deps.Membership.Status()
	return connect.NewResponse(&shoalv1.JoinResponse{Self: string(st.Self), Cluster: string(st.Cluster)}), nil
}

// Leave implements the service.
func (s *Server) Leave(ctx context.Context, req *connect.Request[shoalv1.LeaveRequest]) (*connect.Response[shoalv1.LeaveResponse], error) {
	if _, err := s.cluster(); err != nil {
		return nil, err
	}
	timeout, err := seconds("timeout_seconds", req.Msg.GetTimeoutSeconds())
	if err != nil {
		return nil, err
	}
	if err := s.deps.Membership.Leave(ctx, shoal.LeaveOptions{Timeout: timeout, Force: req.Msg.GetForce()}); err != nil {
		return nil, err
	}
	s.membershipChanged()
	return connect.NewResponse(&shoalv1.LeaveResponse{}), nil
}

// CreateToken implements the service.
func (s *Server) CreateToken(ctx context.Context, req *connect.Request[shoalv1.CreateTokenRequest]) (*connect.Response[shoalv1.CreateTokenResponse], error) {
	if _, err := s.cluster(); err != nil {
		return nil, err
	}
	r := req.Msg
	ttl, err := seconds("ttl_seconds", r.GetTtlSeconds())
	if err != nil {
		return nil, err
	}
	if r.GetUses() < 0 || r.GetUses() > maxAcks {
		return nil, &shoal.InvalidError{Field: "uses", Why: fmt.Sprintf("must be 1–%d, got %d", maxAcks, r.GetUses())}
	}
	role := shoal.Role(r.GetRole())
	if role != "" && role != shoal.RoleOperator && role != shoal.RolePeer {
		return nil, &shoal.InvalidError{Field: "role", Why: fmt.Sprintf("must be operator or peer, got %q", clip(string(role), 32))}
	}
	token, err := s.deps.Membership.CreateToken(ctx, shoal.TokenOptions{TTL: ttl, Uses: int(r.GetUses()), Role: role})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.CreateTokenResponse{Token: token}), nil
}

// ListTokens implements the service.
func (s *Server) ListTokens(ctx context.Context, _ *connect.Request[shoalv1.ListTokensRequest]) (*connect.Response[shoalv1.ListTokensResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	out := &shoalv1.ListTokensResponse{Freshness: s.freshness(m)}
	for _, inv := range m.view.Desired().Invites {
		out.Tokens = append(out.Tokens, &shoalv1.TokenRow{
			Id: inv.ID, Issuer: string(inv.Issuer), IssuerName: m.name(inv.Issuer), Role: string(inv.Role),
			Expires: timestamppb.New(time.Unix(inv.ExpiresAt, 0)), Uses: int32(inv.Uses), Used: int32(len(inv.RedeemedBy)),
			State: inviteState(inv, s.deps.Clock.Wall()),
		})
	}
	return connect.NewResponse(out), nil
}

// RevokeToken implements the service.
func (s *Server) RevokeToken(ctx context.Context, req *connect.Request[shoalv1.RevokeTokenRequest]) (*connect.Response[shoalv1.RevokeTokenResponse], error) {
	if _, err := s.cluster(); err != nil {
		return nil, err
	}
	if req.Msg.GetId() == "" {
		return nil, &shoal.InvalidError{Field: "id", Why: "is missing"}
	}
	if err := s.deps.Membership.RevokeToken(ctx, req.Msg.GetId()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.RevokeTokenResponse{}), nil
}

// inviteState judges by this peer's clock; the issuer's decides in the end.
func inviteState(inv shoal.Invite, now time.Time) string {
	switch {
	case inv.Revoked:
		return "revoked"
	case len(inv.RedeemedBy) >= max(1, inv.Uses):
		return "used"
	case now.Unix() >= inv.ExpiresAt:
		return "expired"
	}
	return "open"
}

// checkPeer judges what a user calls this peer; "" leaves the name to the daemon.
func checkPeer(name string, labels map[string]string) error {
	if name != "" {
		if err := shoal.CheckName("name", name); err != nil {
			return err
		}
	}
	for k, v := range labels {
		if _, err := shoal.ParseSelector(k + "=" + v); err != nil {
			return &shoal.InvalidError{Field: "label", Why: fmt.Sprintf("%q is not KEY=VALUE of letters, digits and . _ : / -", clip(k+"="+v, 64))}
		}
	}
	return nil
}

// membershipChanged makes the recorder look at once.
func (s *Server) membershipChanged() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}
