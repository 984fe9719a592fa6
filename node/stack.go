// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/images"
	"github.com/shoalnet/shoal/ingress"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/steward"
	"github.com/shoalnet/shoal/wish"
)

// goodbyeTime bounds the last beat of a daemon that stops.
const goodbyeTime = time.Second

// stack is one membership at work: store, beats, actors, and the desk for wishes.
type stack struct {
	peer    *Peer
	cancel  context.CancelFunc // ends run; set by who runs it
	store   *gossip.Store
	tracker *beats.Tracker
	system  *actors.System
	desk    *wish.Desk
	steward *steward.Steward
	engines Engines
	images  *images.Room  // nil: none are moved
	reach   *ingress.Room // nil: no connection is carried
	leaving atomic.Bool
	left    atomic.Bool // its last records are being told
	invite  string      // that this peer joined by in this life; "" if it did not
	removed string      // by whom, once this peer was; written before cancel, read after run
}

// newStack allocates a membership's rooms. Only pubsub works already, until ctx
// ends; that must outlive run.
func newStack(ctx context.Context, p *Peer, wroteBefore bool) (_ *stack, err error) {
	p.mu.Lock()
	s := &stack{peer: p, invite: p.invite}
	p.mu.Unlock()
	id, parts := p.parts.Identity, &p.parts
	host := p.links.Host()
	pubsub, err := gossip.NewPubSub(ctx, host)
	if err != nil {
		return nil, err
	}
	cfg := parts.Store
	cfg.Cluster, cfg.WroteBefore = id.Cluster(), wroteBefore
	if s.store, err = gossip.New(cfg, gossip.Deps{
		Host: host, PubSub: pubsub, Signer: signer{id}, Sequence: id.Sequence(), Clock: parts.Clock, Log: parts.Log,
		Chain: id.Chain, VerifyChain: links.VerifyChain, OnChain: s.rememberChain,
	}); err != nil {
		return nil, err
	}
	if s.tracker, err = beats.New(parts.Beats, beats.Deps{
		Cluster: id.Cluster(), Boot: id.Boot(), Signer: signer{id}, Host: host, PubSub: pubsub,
		Records: s.store, Pinger: p.links, Sync: s.store.SyncWith, Clock: parts.Clock, Log: parts.Log, Handle: p.links.Handle,
	}); err != nil {
		return nil, err
	}
	if s.engines, err = parts.Engine(id.Cluster(), id.Self()); err != nil {
		return nil, err
	}
	beacon, puller := &beacon{to: s.tracker}, s.engines.Puller
	var resolver shoal.Resolver = wish.Known{Store: s.store, Views: s.tracker}
	if parts.Images != nil && s.engines.Images != nil {
		if s.images, err = images.New(ctx, *parts.Images, images.Deps{
			Self: id.Self(), Host: host, Records: s.store, Views: s.tracker, Engine: s.engines.Images,
			Clock: parts.Clock, Log: parts.Log, Handle: p.links.Handle, Tell: beacon.holds,
		}); err != nil {
			return nil, err
		}
		puller, resolver = s.images, s.images
	}
	if parts.Ingress != nil {
		if s.reach, err = ingress.New(*parts.Ingress, ingress.Deps{
			Self: id.Self(), Views: s.tracker, Host: host, Clock: parts.Clock, Log: parts.Log, Handle: p.links.Handle, Path: p.wayTo,
			Networks: s.engines.Networks, Apart: s.engines.Apart, Ready: s.store.Ready(), Tell: beacon.carries,
		}); err != nil {
			return nil, err
		}
	}
	deps := actors.Deps{
		Self: id.Self(), Cluster: id.Cluster(), Views: s.tracker, Store: s.store, Beacon: beacon,
		Engine: s.engines.Engine, Machine: s.engines.Machine, Console: s.engines.Console, Puller: puller,
		Clock: parts.Clock, Rand: parts.Rand, Log: parts.Log, Ready: s.store.Ready(), Trouble: s.tracker.Trouble, Shelf: parts.Shelf,
		SpecOf: func(envelope []byte) (*shoal.Spec, error) { return specOf(id.Cluster(), envelope) },
	}
	if s.reach != nil {
		deps.Attacher, deps.Carried = s.reach, s.reach.Carried
	}
	if s.system, err = actors.New(parts.Actors, deps); err != nil {
		return nil, err
	}
	s.desk = wish.New(id.Self(), s.store, s.tracker, resolver, s.system.Reasons)
	s.steward = steward.New(parts.Steward, steward.Deps{Views: s.tracker, Wishes: s.desk, Clock: parts.Clock, Log: parts.Log})
	return s, nil
}

// run works until ctx ends, then stops in order: first what decides, then the word
// that this peer will be back, then what carried it.
func (s *stack) run(ctx context.Context) error {
	lasting, end := context.WithCancel(context.WithoutCancel(ctx)) // ends after the last goodbye
	defer end()
	g, base := errgroup.WithContext(lasting)
	g.Go(func() error { return s.store.Run(base) })
	g.Go(func() error { return s.tracker.Run(base) })
	g.Go(func() error { s.followMembers(base); return nil })
	g.Go(func() error { s.tellFacts(base); return nil })
	if s.images != nil {
		g.Go(func() error { return s.images.Run(base) })
	}
	if s.reach != nil {
		g.Go(func() error { return s.reach.Run(base) })
	}
	s.peer.links.ServeJoin(s.store, chains{s.peer.parts.Identity, s.store})
	s.peer.links.ServeLogs(s.system.Logs)
	s.peer.links.ServeRemoval(s.takeRemoval)
	s.peer.links.ServeInside(s.system)

	deciding, stop := context.WithCancel(base)
	defer stop()
	decided := make(chan error, 1)
	go func() { decided <- s.system.Run(deciding) }()
	g.Go(func() error { return s.steward.Run(deciding) })
	var err error
	select {
	case <-ctx.Done():
		stop()
		err = <-decided
		s.goodbye(base)
	case <-base.Done():
		stop()
		err = <-decided
	case err = <-decided:
	}
	end()
	return errors.Join(err, ignoreEnd(g.Wait()))
}

// goodbye tells the others to leave this peer's slots alone for a while: its
// containers run on.
func (s *stack) goodbye(ctx context.Context) {
	if s.leaving.Load() || s.peer.parts.BackBy <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, goodbyeTime)
	defer cancel()
	s.tracker.SayBackBy(ctx, s.peer.parts.BackBy)
}

// ignoreEnd drops the error of a context that ended as it should.
func ignoreEnd(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// status says how large the store is and what it refused.
func (s *stack) status() *shoal.StoreStatus {
	d, stats := s.store.Desired(), s.store.Stats()
	out := &shoal.StoreStatus{Digest: d.Digest, Records: stats.Records, Live: d.Live, Blocks: stats.Blocks, Refused: map[string]uint64{}}
	for r, n := range stats.Refused {
		out.Refused[r.Reason] += n
	}
	return out
}

// followMembers lets members in and keeps strangers out, as the records change, and
// ends this membership once they say that it is over.
func (s *stack) followMembers(ctx context.Context) {
	for {
		changed := s.store.Changed()
		d := s.store.Desired()
		s.peer.links.SetMembers(d)
		if by, removed := s.removal(d); removed {
			s.removed = by
			s.leaving.Store(true) // it will not be back
			s.cancel()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// rememberChain keeps a member's chain beside the key, where a lost store does not
// reach. Its addresses are kept by links, which also knows where it was met.
func (s *stack) rememberChain(peer shoal.PeerID, chain [][]byte) {
	if err := s.peer.parts.Identity.Remember(links.KnownMember{Peer: peer, Chain: chain}); err != nil {
		s.peer.parts.Log.Warn("member's admission chain is not kept", logkey.Peer, peer, logkey.Err, err)
	}
}

// specOf reads the spec out of a container's label, for replicas whose revision is
// not current any more. What nobody signed is not believed.
func specOf(cluster shoal.PeerID, envelope []byte) (*shoal.Spec, error) {
	r, err := proto.DecodeRecord(envelope)
	if err != nil {
		return nil, fmt.Errorf("read the record of a container: %w", err)
	}
	if err := gossip.VerifyRecord(cluster, r); err != nil {
		return nil, fmt.Errorf("read the record of a container: %w", err)
	}
	b, ok := r.Body.(*shoal.RevisionBody)
	if !ok {
		return nil, fmt.Errorf("record of a container: %w", &shoal.InvalidError{Field: "kind", Why: "is not a revision"})
	}
	return &b.Spec, nil
}
