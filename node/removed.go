// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/proto"
)

// How a removed peer takes its containers down.
const (
	removedGrace = 10 * time.Second
	removedAt    = 4 // at a time
)

// removal reports whether the records say that this peer was removed, and by whom.
// After a join they count once they hold that: what undid an older removal is in the
// block that redeemed the invite.
func (s *stack) removal(d *shoal.Desired) (by string, removed bool) {
	self := s.peer.parts.Identity.Self()
	author := links.RemoverOf(d, self)
	if author == "" || s.invite != "" && !slices.ContainsFunc(d.Invites, func(i shoal.Invite) bool {
		return i.ID == s.invite && slices.Contains(i.RedeemedBy, self)
	}) {
		return "", false
	}
	if p, ok := d.Peer(author); ok {
		return p.Name(), true
	}
	return author.Short(), true
}

// takeRemoval implements links.RemovalSink: what the records come to with this one is
// what counts.
func (s *stack) takeRemoval(ctx context.Context, envelopes [][]byte) error {
	if links.RemoverOf(s.store.Desired(), s.peer.parts.Identity.Self()) != "" {
		return nil
	}
	rec, err := proto.DecodeRecord(envelopes[len(envelopes)-1])
	if err != nil {
		return err
	}
	if b, ok := rec.Body.(*shoal.MemberBody); !ok || !b.Removed || b.Peer != s.peer.parts.Identity.Self() {
		return fmt.Errorf("%s is no removal of this peer: %w", rec.Key(), shoal.ErrRefused)
	}
	return s.store.Inject(ctx, envelopes)
}

// expelled ends a membership whose stack has ended: as leave, but nobody waits for it.
func (p *Peer) expelled(ctx context.Context, s *stack) error {
	p.parts.Log.Warn("removed from the cluster: its containers stop", "cluster", p.parts.Identity.Cluster().Short(), "by", s.removed)
	if err := s.takeDown(ctx); err != nil {
		p.parts.Log.Warn("containers may be left behind", logkey.Err, err)
	}
	s.detach(context.WithoutCancel(ctx), removeTime)
	if p.parts.Forget != nil {
		if err := p.parts.Forget(); err != nil {
			return fmt.Errorf("forget the cluster: %w", err)
		}
	}
	if err := p.parts.Identity.Forget(); err != nil {
		return fmt.Errorf("forget the cluster: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = "it was removed from its cluster by " + s.removed
	p.isFounder = false
	return nil
}

// takeDown removes all containers of this membership. Named volumes stay.
func (s *stack) takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	all, err := s.engines.Engine.List(ctx)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(removedAt)
	for _, c := range all {
		g.Go(func() error {
			if err := s.engines.Engine.Stop(ctx, c.ID, "", removedGrace); err != nil {
				return err
			}
			return s.engines.Engine.Remove(ctx, c.ID)
		})
	}
	return g.Wait()
}
