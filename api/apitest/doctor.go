// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"context"

	"github.com/shoalnet/shoal"
)

// Machine implements [shoal.Doctor]: the engine is well, the clock is not.
func (c *Cluster) Machine(_ context.Context, fn func(shoal.Check) error) error {
	for _, check := range []shoal.Check{
		{Peer: c.self, Area: "engine", Name: "answers", State: shoal.CheckOK, Detail: "docker 20.10.24"},
		{Peer: c.self, Area: "clock", Name: "synchronised", State: shoal.CheckWarn, Detail: "nothing synchronises it", Remedy: "run an NTP client"},
	} {
		if err := fn(check); err != nil {
			return err
		}
	}
	return nil
}

// Peer implements [shoal.Doctor]: who is not heard cannot be dialled either.
func (c *Cluster) Peer(_ context.Context, peer shoal.PeerID, fn func(shoal.Check) error) error {
	c.mu.Lock()
	life := c.lives[peer]
	c.mu.Unlock()
	check := shoal.Check{Peer: peer, Area: "reach", Name: "dial 127.0.0.12:4710 by tcp", State: shoal.CheckOK, Detail: "handshake in 1ms"}
	if life.State != shoal.LifeAlive {
		check.State, check.Detail, check.Remedy = shoal.CheckFail, "no answer within 3s", "open port 4710/tcp in the firewalls between"
	}
	return fn(check)
}

// Token implements [shoal.Doctor].
func (c *Cluster) Token(ctx context.Context, token string, fn func(shoal.Check) error) error {
	if err := c.Join(ctx, token, shoal.JoinOptions{DryRun: true}); err != nil {
		return err
	}
	return fn(shoal.Check{Peer: c.self, Area: "token", Name: "admission", State: shoal.CheckOK, Detail: "this machine could join as operator"})
}
