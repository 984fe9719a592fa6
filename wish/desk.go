// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package wish turns what users ask for into records: it checks the wish against
// the folded state, stamps revisions and scale intents, adds the proposal that
// keeps peers in step, and writes everything of one wish as one block.
//
// Use [New] and the methods of shoal.Wishes. The stamping itself (stamp.go) is
// pure. The package refuses to place anything: a proposal is advice, and each peer
// decides for itself.
package wish

import (
	"context"
	"fmt"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// Desk implements shoal.Wishes over a store. It is safe for concurrent use; the
// store puts wishes in order.
type Desk struct {
	self   shoal.PeerID
	store  shoal.Store
	views  shoal.Views
	images shoal.Resolver // nil: none is resolved
	said   Reasons
}

// Reasons is what this peer's last decision said about a service; false: it does not
// decide (yet).
type Reasons func(service string) ([]placement.Reason, bool)

// New returns a desk for the peer self. Without images names of images are not resolved
// to digests; without said this peer does not decide.
func New(self shoal.PeerID, store shoal.Store, views shoal.Views, images shoal.Resolver, said Reasons) *Desk {
	if said == nil {
		said = func(string) ([]placement.Reason, bool) { return nil, false }
	}
	return &Desk{self: self, store: store, views: views, images: images, said: said}
}

// Submit implements shoal.Wishes. With too few confirmations it returns the
// outcome and an error that wraps shoal.ErrTooFewAcks: the wish stands.
func (k *Desk) Submit(ctx context.Context, w shoal.Wish, opts shoal.UpdateOptions) (shoal.Outcome, error) {
	var out shoal.Outcome
	images, err := k.resolve(ctx, w)
	if err != nil {
		return out, fmt.Errorf("accept wish: %w", err)
	}
	ack, err := k.store.Update(ctx, func(d *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		steps, err := k.prepare(d, w, images, as.HLC.WallMilli/1000)
		if err != nil {
			return nil, err
		}
		if err := k.hopeful(d, w, steps); err != nil {
			return nil, err
		}
		out = outcome(steps)
		var bodies []shoal.Body
		for _, s := range steps {
			bodies = append(bodies, s.bodies()...)
		}
		return bodies, nil
	}, opts)
	out.Acks, out.After = ack.Acks, ack.HLC
	if err != nil {
		return out, fmt.Errorf("accept wish: %w", err)
	}
	return out, nil
}

// Plan implements shoal.Wishes.
func (k *Desk) Plan(ctx context.Context, w shoal.Wish) (shoal.Outcome, error) {
	images, err := k.resolve(ctx, w)
	if err != nil {
		return shoal.Outcome{}, fmt.Errorf("plan wish: %w", err)
	}
	d := k.store.Desired()
	steps, err := k.prepare(d, w, images, 0)
	if err != nil {
		return shoal.Outcome{}, fmt.Errorf("plan wish: %w", err)
	}
	for _, s := range steps {
		if why, advice := k.hopeless(d, w, s); why != "" {
			s.change.Notes = append(s.change.Notes, fmt.Sprintf("would be refused: %s; %s", why, advice))
		}
	}
	return outcome(steps), nil
}

// prepare checks who asks, stamps the wish, and proposes places for what it wants.
func (k *Desk) prepare(d *shoal.Desired, w shoal.Wish, images findings, now int64) ([]*step, error) {
	if err := shoal.MayWish(k.views.View().With(d)); err != nil {
		return nil, err
	}
	v := k.views.View().With(d)
	if w.Peer != nil {
		s, err := changePeer(v, k.self, w.Peer)
		if err != nil {
			return nil, err
		}
		return []*step{s}, nil
	}
	steps, err := stamp(d, k.self, w, images, now)
	if err != nil {
		return nil, err
	}
	after := afterwards(d, steps)
	if err := freePorts(d, after, steps); err != nil {
		return nil, err
	}
	if err := inOrder(after, steps); err != nil {
		return nil, err
	}
	if err := freePre(d, steps); err != nil {
		return nil, err
	}
	noteNames(after, steps)
	judgePast(v, steps)
	k.propose(d, steps)
	return steps, nil
}

// propose fills in where the slots of all steps would go, and puts it into what is
// written.
func (k *Desk) propose(d *shoal.Desired, steps []*step) {
	var wanted []placement.Wanted
	var of []*step
	for _, s := range steps {
		if s.spec != nil {
			wanted = append(wanted, placement.Wanted{Spec: *s.spec, Replicas: s.change.Replicas})
			of = append(of, s)
		}
	}
	if len(wanted) == 0 {
		return
	}
	v := k.views.View().With(d)
	for i, placed := range placement.Propose(v, wanted) {
		s := of[i]
		s.change.Slots, s.change.Unplaced = placed.Slots, placed.Unplaced
		if s.rev != nil {
			s.change.Notes = append(s.change.Notes, kept(placement.Keeps(v, s.spec))...)
		}
		if s.spec.Mode.IsGlobal() {
			s.change.Replicas = len(placed.Slots)
			continue // every feasible peer holds one: nothing to advise
		}
		advice := shoal.Proposal{Peers: placed.Slots}
		switch {
		case s.scale != nil:
			s.scale.Proposal = advice
		case s.rev != nil:
			s.rev.Proposal = advice
		}
	}
}

// kept counts the slots that would keep their revision, by why they would.
func kept(why []string) []string {
	n := map[string]int{}
	var out []string
	for _, text := range why {
		if n[text]++; n[text] == 1 && text != "" {
			out = append(out, text)
		}
	}
	for i, text := range out {
		out[i] = fmt.Sprintf("%d of %d for now: %s", n[text], len(why), text)
	}
	return out
}

func outcome(steps []*step) shoal.Outcome {
	var out shoal.Outcome
	for _, s := range steps {
		out.Changes = append(out.Changes, s.change)
	}
	return out
}
