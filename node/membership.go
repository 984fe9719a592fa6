// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/wish"
)

const (
	startTime   = 30 * time.Second // for a new membership to take updates
	meetTime    = 10 * time.Second // for a newcomer to see the others' records
	handOver    = time.Minute      // default of LeaveOptions.Timeout
	removeTime  = time.Minute      // for the containers of a peer that leaves
	forcedTime  = 10 * time.Second // the same, of one that does not wait
	farewellAck = 2 * time.Second  // for somebody to confirm a leaver's last records

	startPause = 20 * time.Millisecond // between looks whether a new member's actors run
	startTries = 100
)

// Init implements shoal.Membership.
func (p *Peer) Init(ctx context.Context, opts shoal.InitOptions) (string, error) {
	p.joining.Lock()
	defer p.joining.Unlock()
	if opts.Name != "" {
		if err := shoal.CheckName("name", opts.Name); err != nil {
			return "", err
		}
	}
	if _, err := links.InitCluster(p.parts.Identity, p.parts.Clock.Wall()); err != nil {
		return "", fmt.Errorf("make a cluster: %w", err)
	}
	s, err := p.begin(ctx, true, "", opts.Name, opts.Labels)
	if err != nil {
		return "", err
	}
	if err := s.awaitPeers(ctx, 1); err != nil {
		return "", err
	}
	return p.links.CreateInvite(ctx, s.store, shoal.TokenOptions{})
}

// Join implements shoal.Membership.
func (p *Peer) Join(ctx context.Context, token string, opts shoal.JoinOptions) error {
	p.joining.Lock()
	defer p.joining.Unlock()
	if opts.Name != "" {
		if err := shoal.CheckName("name", opts.Name); err != nil {
			return err
		}
	}
	res, err := p.links.Join(ctx, token, opts)
	if err != nil || opts.DryRun {
		return err
	}
	p.parts.Log.Info("joined", "cluster", res.Cluster.Short(), "via", res.Via, "role", res.Role)
	s, err := p.begin(ctx, false, res.Invite, opts.Name, opts.Labels)
	if err != nil {
		return err
	}
	meet, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	// It is a member whatever comes now; the others' records will arrive.
	if err := s.awaitPeers(meet, 2); err != nil {
		p.parts.Log.Warn("joined, but the others' records did not arrive yet", logkey.Err, err)
	}
	return nil
}

// begin wakes the peer to its new membership and waits until that takes updates.
func (p *Peer) begin(ctx context.Context, founder bool, invite, name string, labels map[string]string) (*stack, error) {
	if err := p.parts.Identity.SetNamed(name, labels); err != nil {
		return nil, fmt.Errorf("keep this peer's name: %w", err)
	}
	p.mu.Lock()
	p.isFounder, p.invite, p.gone = founder, invite, ""
	p.poke()
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s, err := p.awaitStack(ctx)
	if err != nil {
		return nil, fmt.Errorf("start as a member: %w", err)
	}
	return s, nil
}

// awaitPeers waits until this peer's own record and those of n members are there.
func (s *stack) awaitPeers(ctx context.Context, n int) error {
	self := s.peer.parts.Identity.Self()
	for {
		changed := s.store.Changed()
		d := s.store.Desired()
		if me, ok := d.Peer(self); ok && me.Own.Name != "" && len(d.Peers) >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the records of the members: %w", ctx.Err())
		}
	}
}

// Leave implements shoal.Membership. Every step can be cut off: the peer is a
// member until the last one, and takes it back if one fails.
func (p *Peer) Leave(ctx context.Context, opts shoal.LeaveOptions) error {
	p.joining.Lock()
	defer p.joining.Unlock()
	s, err := p.current()
	if err != nil {
		return err
	}
	if opts.Timeout <= 0 {
		opts.Timeout = handOver
	}
	answers, err := s.mayLeave(ctx, opts.Force)
	if err != nil {
		return err
	}
	if err := s.markLeaving(ctx, true); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	if !opts.Force {
		if err := s.awaitHandOver(ctx, opts.Timeout); err != nil {
			return errors.Join(err, s.markLeaving(context.WithoutCancel(ctx), false))
		}
	}
	limit := removeTime
	if opts.Force {
		limit = forcedTime
	}
	if !answers {
		limit = goodbyeTime
	}
	if err := s.removeAll(ctx, limit, opts.Force); err != nil {
		err = errors.Join(err, s.markLeaving(context.WithoutCancel(ctx), false))
		s.cancel() // its actors have let go; the next ones take up again
		return err
	}
	s.detach(ctx, limit)
	s.farewell(ctx)
	return p.forget(ctx, s)
}

// mayLeave refuses where containers could not be stopped, unless forced. answers says
// whether the engine does.
func (s *stack) mayLeave(ctx context.Context, force bool) (answers bool, err error) {
	_, err = s.engines.Engine.List(ctx)
	switch {
	case err == nil:
		return true, nil
	case force:
		s.peer.parts.Log.Warn("containers are left behind: the engine does not answer", logkey.Err, err)
		return false, nil
	case errors.Is(err, shoal.ErrEngineDown):
		err = shoal.ErrEngineDown // the details are in the log
	}
	return false, &shoal.AdviceError{
		Err:    fmt.Errorf("this machine's containers cannot be stopped, its engine does not answer: %w", err),
		Advice: "start the engine, or leave them behind with --force",
	}
}

// removeAll lets go of all slots and takes all containers down; forced, as far as
// that goes in time.
func (s *stack) removeAll(ctx context.Context, limit time.Duration, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := s.system.Leave(ctx)
	for tries := 0; errors.Is(err, shoal.ErrNotMember) && tries < startTries && ctx.Err() == nil; tries++ {
		pause(ctx, startPause) // the actors of a new member are about to run
		err = s.system.Leave(ctx)
	}
	if err == nil {
		return nil
	}
	if force {
		s.peer.parts.Log.Warn("containers may be left behind", logkey.Err, err)
		return nil
	}
	return &shoal.AdviceError{
		Err:    fmt.Errorf("not all containers of this machine could be stopped: %w", err),
		Advice: "see the engine, or leave them behind with --force",
	}
}

// detach removes the networks of a peer whose containers are gone, as far as that goes in
// time: one that stays holds nothing but a range of addresses.
func (s *stack) detach(ctx context.Context, limit time.Duration) {
	if s.reach == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.reach.Detach(ctx); err != nil {
		s.peer.parts.Log.Warn("networks may be left behind", logkey.Err, err)
	}
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// forget ends the membership's work, then removes what belongs to the cluster, and
// the membership itself last: another cluster must not find records of this one.
func (p *Peer) forget(ctx context.Context, s *stack) error {
	p.mu.Lock()
	p.paused = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.paused, p.isFounder = false, false
		p.poke()
	}()
	s.cancel()
	for {
		p.mu.Lock()
		gone, wake := p.stack != s, p.wake
		p.mu.Unlock()
		if gone {
			break
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return fmt.Errorf("leave: %w", ctx.Err())
		}
	}
	if p.parts.Forget != nil {
		if err := p.parts.Forget(); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
	}
	if err := p.parts.Identity.Forget(); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	p.links.SetMembers(nil)
	return nil
}

// markLeaving records that this peer goes, or that it stays after all.
func (s *stack) markLeaving(ctx context.Context, leaving bool) error {
	s.leaving.Store(leaving)
	_, err := s.recordFacts(ctx) // the machine does not matter to it
	return err
}

// awaitHandOver waits until nobody depends on this peer's slots any more. Alone
// there is nobody to hand over to.
func (s *stack) awaitHandOver(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	self := s.peer.parts.Identity.Self()
	for {
		changed := s.tracker.Changed()
		v := s.tracker.View()
		others := 0
		for i := range v.Peers() {
			if p := &v.Peers()[i]; p.ID != self && !p.Removed && !p.Facts.Leaving && v.Alive(p.ID) {
				others++
			}
		}
		left := len(v.ClaimsBy(self))
		if left == 0 || others == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &shoal.AdviceError{
				Err:    fmt.Errorf("%d slots were not taken over within %s: %w", left, timeout, shoal.ErrRefused),
				Advice: "see \"shoal ps\" and \"shoal peer ls\", or leave with --force",
			}
		}
	}
}

// farewell makes sure, as far as one can, that somebody holds this peer's last records.
func (s *stack) farewell(ctx context.Context) {
	self := s.peer.parts.Identity.Self()
	s.left.Store(true) // or the next look at the slow facts would give it addresses again
	_, err := s.store.Update(ctx, func(d *shoal.Desired, _ shoal.Stamp) ([]shoal.Body, error) {
		me, ok := d.Peer(self)
		if !ok {
			return nil, nil
		}
		facts := me.Own
		facts.Addrs = nil // it cannot be dialled any more
		return []shoal.Body{&shoal.PeerBody{Peer: self, Facts: facts}}, nil
	}, shoal.UpdateOptions{Acks: 1, Timeout: farewellAck})
	if err != nil {
		s.peer.parts.Log.Warn("no other peer confirmed that this one leaves", logkey.Err, err)
	}
}

// CreateToken implements shoal.Membership.
func (p *Peer) CreateToken(ctx context.Context, opts shoal.TokenOptions) (string, error) {
	s, err := p.current()
	if err != nil {
		return "", err
	}
	if err := s.mayWrite(); err != nil {
		return "", err
	}
	return p.links.CreateInvite(ctx, s.store, opts)
}

// RevokeToken implements shoal.Membership.
func (p *Peer) RevokeToken(ctx context.Context, id string) error {
	s, err := p.current()
	if err != nil {
		return err
	}
	if err := s.mayWrite(); err != nil {
		return err
	}
	return p.links.RevokeInvite(ctx, s.store, id)
}

// mayWrite refuses while another daemon writes under the same key: of two records
// with one number only one would count.
func (s *stack) mayWrite() error {
	if why := s.tracker.Trouble(); why != "" {
		return fmt.Errorf("not accepted: %s: %w", why, shoal.ErrRefused)
	}
	return nil
}

// wishes is the desk, closed while this peer may not write.
type wishes struct {
	*wish.Desk
	stack *stack
}

// Submit implements shoal.Wishes.
func (w wishes) Submit(ctx context.Context, what shoal.Wish, opts shoal.UpdateOptions) (shoal.Outcome, error) {
	if err := w.stack.mayWrite(); err != nil {
		return shoal.Outcome{}, err
	}
	return w.Desk.Submit(ctx, what, opts)
}
