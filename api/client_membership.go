// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Init makes a cluster of one and returns a token to join it by.
func (c *Client) Init(ctx context.Context, opts shoal.InitOptions) (string, error) {
	r, err := call(ctx, c, c.rpc.Init, &shoalv1.InitRequest{Name: opts.Name, Labels: opts.Labels})
	return r.GetToken(), err
}

// Join redeems a token, or only checks that it could.
func (c *Client) Join(ctx context.Context, token string, opts shoal.JoinOptions) (Status, error) {
	r, err := call(ctx, c, c.rpc.Join, &shoalv1.JoinRequest{Token: token, Name: opts.Name, Labels: opts.Labels, DryRun: opts.DryRun})
	return Status{Self: r.GetSelf(), Cluster: r.GetCluster()}, err
}

// Leave hands over and forgets the cluster.
func (c *Client) Leave(ctx context.Context, opts shoal.LeaveOptions) error {
	_, err := call(ctx, c, c.rpc.Leave, &shoalv1.LeaveRequest{TimeoutSeconds: opts.Timeout.Seconds(), Force: opts.Force})
	return err
}

// CreateToken opens an invite.
func (c *Client) CreateToken(ctx context.Context, opts shoal.TokenOptions) (string, error) {
	r, err := call(ctx, c, c.rpc.CreateToken, &shoalv1.CreateTokenRequest{TtlSeconds: opts.TTL.Seconds(), Uses: int32(opts.Uses), Role: string(opts.Role)})
	return r.GetToken(), err
}

// Tokens lists the invites.
func (c *Client) Tokens(ctx context.Context) (Listing[Token], error) {
	r, err := call(ctx, c, c.rpc.ListTokens, &shoalv1.ListTokensRequest{})
	return Listing[Token]{all(r.GetTokens(), tokenOf), freshnessOf(r.GetFreshness())}, err
}

// RevokeToken ends an invite.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := call(ctx, c, c.rpc.RevokeToken, &shoalv1.RevokeTokenRequest{Id: id})
	return err
}

// ChangePeer asks for a change of a peer, named by name, ID or the end of its ID;
// w.Peer is not looked at.
func (c *Client) ChangePeer(ctx context.Context, name string, w shoal.PeerWish, opts WishOptions) (Outcome, error) {
	r, err := call(ctx, c, c.rpc.ChangePeer, &shoalv1.ChangePeerRequest{
		Peer: name, Change: string(w.Change), Name: w.Name, SetLabels: w.Set, UnsetLabels: w.Unset, Force: w.Force,
		PlanOnly: opts.PlanOnly, Acks: int32(opts.Acks), AckTimeoutSeconds: opts.AckTimeout.Seconds(),
	})
	return outcomeOf(r.GetOutcome(), r.GetFreshness()), err
}

// WatchPeer calls fn with what a peer still holds, now and at every change, until ctx
// ends or fn fails.
func (c *Client) WatchPeer(ctx context.Context, name string, fn func([]Held) error) error {
	return each(ctx, c, c.rpc.WatchPeer, &shoalv1.WatchPeerRequest{Peer: name}, func(r *shoalv1.WatchPeerResponse) error {
		return fn(all(r.GetHeld(), heldOf))
	})
}
