// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/images"
	"github.com/shoalnet/shoal/ingress"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/steward"
)

// readTime is how long the control socket waits for the records of a store that is
// being repaired or refilled.
const readTime = 5 * time.Second

// Engines is a container engine by its ports.
type Engines struct {
	Engine  shoal.Engine
	Machine shoal.Machine
	Console shoal.Console
	Puller  shoal.Puller
	Images  shoal.ImageStore // nil: the engine runs what it holds, and nothing is moved
	// Networks makes the networks of services; nil: containers are on the engine's own.
	Networks shoal.Networks
	// Apart reports whether this machine does not reach the containers; nil: it does.
	Apart func(context.Context) (bool, error)
	Close func() error // nil: nothing to close
}

// Parts is what a [Peer] is put together from. The daemon hands in the machine's
// own; a simulation hands in others.
type Parts struct {
	Identity *links.Identity
	Links    links.Config
	Store    gossip.Config // Cluster and WroteBefore are set by the peer
	Beats    beats.Config
	Actors   actors.Config
	Engine   func(cluster, self shoal.PeerID) (Engines, error)
	Facts    shoal.PeerFacts // what the owner configured: name, labels, reserved, version, publish address
	HostName string          // this peer's name if nobody gave it one
	Clock    shoal.Clock
	Rand     io.Reader // of replica identities; safe for concurrent use
	Log      *slog.Logger
	// Images configures the images that are moved between peers; nil: none are.
	Images *images.Config
	// Ingress configures how services are reached on this peer; nil: they are not.
	Ingress *ingress.Config
	// Steward has the times of what is done for services without a user.
	Steward steward.Config
	Shelf   actors.Shelf  // of what replicas had said that failed; nil: it goes with the process
	Forget  func() error  // removes what belongs to a cluster that was left; nil: nothing does
	BackBy  time.Duration // how long a stopped daemon asks others to leave its slots alone
	// Rules returns what the machine's owner allows, and a channel that is closed when
	// that changes; nil: nothing is allowed, ever.
	Rules    func() (rules []string, changed <-chan struct{})
	Settings any   // what the owner configured, for reports of faults; encoded as JSON
	Tail     *Tail // what was logged last, for the same; nil: not kept
}

// Peer is one daemon without its control socket: its links, and while it is a
// member, its share of the cluster. It implements shoal.Membership. Its methods are
// safe for concurrent use.
type Peer struct {
	parts Parts
	links *links.Links

	joining sync.Mutex // held through Init, Join and Leave: one at a time

	mu        sync.Mutex
	stack     *stack        // nil outside a cluster
	isFounder bool          // Init made this cluster, in this life
	paused    bool          // Leave is ending the membership: start no other stack
	invite    string        // that the last Join redeemed, in this life
	gone      string        // why it is a member no more, if others ended that
	wake      chan struct{} // closed when membership changed
}

var _ shoal.Membership = (*Peer)(nil)

// NewPeer puts a peer together. Nothing runs before Run.
func NewPeer(parts Parts) (*Peer, error) {
	l, err := links.New(parts.Links, parts.Identity, parts.Clock, parts.Log)
	if err != nil {
		return nil, err
	}
	p := &Peer{parts: parts, links: l, wake: make(chan struct{})}
	l.ServeDoctor(p.examine)
	return p, nil
}

// Run links this peer to others and, while it is a member, carries out its share.
// It returns when ctx ends, after everything it started has ended: containers are
// left running.
func (p *Peer) Run(ctx context.Context) error {
	// Links outlive the stack, which says goodbye over them.
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
	defer unlink()
	var g errgroup.Group
	failed := make(chan struct{})
	g.Go(func() error {
		defer close(failed)
		return p.links.Run(linked)
	})
	working, stop := context.WithCancel(ctx)
	defer stop()
	g.Go(func() error {
		defer unlink()
		return p.member(working)
	})
	select {
	case <-failed:
	case <-working.Done():
	}
	stop()
	return g.Wait()
}

// member runs one stack after the other, for as long as this peer is a member.
func (p *Peer) member(ctx context.Context) error {
	again := false
	for ctx.Err() == nil {
		p.mu.Lock()
		wake, paused, isFounder := p.wake, p.paused, p.isFounder
		p.mu.Unlock()
		if paused || p.parts.Identity.Cluster() == "" {
			select {
			case <-wake:
			case <-ctx.Done():
			}
			continue
		}
		if again { // others would take what a second stack says for old news
			if err := p.parts.Identity.NewBoot(); err != nil {
				return err
			}
		}
		again = true
		// A peer that left may come back to a cluster that holds records of its own.
		if err := p.runStack(ctx, !isFounder && p.parts.Identity.Sequence().Used()); err != nil {
			return err
		}
	}
	return nil
}

// runStack runs this peer's share until ctx ends or it left the cluster.
func (p *Peer) runStack(ctx context.Context, wroteBefore bool) (err error) {
	carried, drop := context.WithCancel(context.WithoutCancel(ctx)) // pubsub goes last
	defer drop()
	s, err := newStack(carried, p, wroteBefore)
	if err != nil {
		return fmt.Errorf("start as a member: %w", err)
	}
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	s.cancel = cancel
	p.setStack(s)
	defer func() {
		if s.removed != "" {
			err = errors.Join(err, p.expelled(ctx, s))
		}
		p.setStack(nil)
		p.links.ServeJoin(nil, nil)
		p.links.ServeRemoval(nil)
		p.links.SetMembers(nil)
		if s.engines.Close != nil {
			err = errors.Join(err, s.engines.Close())
		}
	}()
	p.parts.Log.Info("member of a cluster", "cluster", p.parts.Identity.Cluster().Short(), logkey.Peer, p.parts.Identity.Self())
	return s.run(working)
}

func (p *Peer) setStack(s *stack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stack = s
	p.poke()
}

// poke wakes who waits for membership to change. p.mu is held.
func (p *Peer) poke() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// current returns the stack, ErrNotMember if there is none.
func (p *Peer) current() (*stack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stack == nil {
		return nil, shoal.ErrNotMember
	}
	return p.stack, nil
}

// awaitStart returns when this peer can tell what it knows: its records are read, or
// it is no member, or reading takes long.
func (p *Peer) awaitStart(ctx context.Context) {
	if p.parts.Identity.Cluster() == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	_, _ = p.awaitStack(ctx) // whoever asks without it is told so
}

// awaitStack waits until the share of the cluster runs and takes updates.
func (p *Peer) awaitStack(ctx context.Context) (*stack, error) {
	for {
		p.mu.Lock()
		s, wake := p.stack, p.wake
		p.mu.Unlock()
		if s != nil {
			select {
			case <-s.store.Ready():
				return s, nil
			case <-wake:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Cluster returns what the control socket works on; false outside a cluster.
func (p *Peer) Cluster() (*api.Cluster, bool) {
	s, err := p.current()
	if err != nil {
		return nil, false
	}
	c := &api.Cluster{Wishes: wishes{s.desk, s}, Views: s.tracker, Remote: p.links, Rollouts: s.steward, Faults: s.steward.Faults, Scaling: s.steward.Scaling}
	if s.images != nil {
		c.Images, c.Mover = s.images, s.images
	}
	if s.reach != nil {
		c.Reach = s.reach
	}
	return c, true
}

// Stats returns the store's counters; ErrNotMember outside a cluster.
func (p *Peer) Stats() (gossip.Stats, error) {
	s, err := p.current()
	if err != nil {
		return gossip.Stats{}, err
	}
	return s.store.Stats(), nil
}

// Status implements shoal.Membership.
func (p *Peer) Status() shoal.MemberStatus {
	id := p.parts.Identity
	st := shoal.MemberStatus{
		Self: id.Self(), Cluster: id.Cluster(), Role: id.Role(),
		Listen: p.links.Addrs(), Version: p.parts.Facts.Version,
	}
	if s, err := p.current(); err == nil {
		st.Trouble = s.tracker.Trouble()
		st.Store = s.status()
	} else if st.Cluster == "" {
		p.mu.Lock()
		st.Trouble = p.gone
		p.mu.Unlock()
	}
	return st
}

// chains puts admission chains together from the records of the members.
type chains struct {
	id    *links.Identity
	store *gossip.Store
}

// maxChain is what links.VerifyChain takes.
const maxChain = 64

// Chain implements links.Chains.
func (c chains) Chain(peer shoal.PeerID) [][]byte {
	d := c.store.Desired()
	var chain [][]byte
	for range maxChain {
		p, ok := d.Peer(peer)
		if !ok {
			return nil
		}
		r, err := proto.DecodeRecord(p.Admission)
		if err != nil {
			return nil
		}
		chain = append(chain, p.Admission)
		if r.Author == c.id.Cluster() {
			slices.Reverse(chain)
			return chain
		}
		peer = r.Author
	}
	return nil
}

// signer signs records with this peer's key.
type signer struct{ id *links.Identity }

func (s signer) PeerID() shoal.PeerID { return s.id.Self() }

func (s signer) Sign(message []byte) ([]byte, error) { return s.id.Sign(message), nil }
