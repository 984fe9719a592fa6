// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// maxPulls is how many wanted pulls run at the same time.
const maxPulls = 8

// watchLoop lets time pass for every contact, and starts the probes and pulls that
// come of it. It wakes when something is due, and at least twice an interval, which
// is how it notices that this process was frozen.
func (t *Tracker) watchLoop(ctx context.Context, group *errgroup.Group) error {
	free := make(chan struct{}, maxPulls)
	last := t.deps.Clock.Mono()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-t.pokeWatcher:
		}
		now := t.deps.Clock.Mono()
		if now-last > 2*t.cfg.Interval {
			t.wakeUp(now)
		}
		last = now
		probes, pulls, next := t.due(now, cap(free)-len(free))
		for _, id := range probes {
			group.Go(func() error { return t.probe(ctx, id) })
		}
		for _, id := range pulls {
			free <- struct{}{} // never blocks: due counted the places
			group.Go(func() error {
				t.fetch(ctx, id)
				<-free
				poke(t.pokeWatcher)
				return nil
			})
		}
		timer.Reset(min(max(next-t.deps.Clock.Mono(), 0), t.cfg.Interval/2))
	}
}

// wakeUp is called after this process was frozen: what it missed meanwhile says
// nothing about others.
func (t *Tracker) wakeUp(now time.Duration) {
	t.mu.Lock()
	defer t.unlock()
	t.note(slog.LevelWarn, "this process stood still: silence of others does not count yet")
	for id, c := range t.contacts {
		t.step(id, c, slept{}, now)
	}
}

// due lets time pass and returns what to start now, pulls at most room of them, and
// when to look again.
func (t *Tracker) due(now time.Duration, room int) (probes, pulls []shoal.PeerID, next time.Duration) {
	t.mu.Lock()
	defer t.unlock()
	next = now + t.cfg.Interval
	for id, c := range t.contacts {
		t.step(id, c, tick{}, now)
		if at := c.vital.wake(t.limits); at > 0 {
			next = min(next, at)
		}
	}
	probes, t.probes = t.probes, nil
	slices.Sort(probes) // not as the map has it
	for id, at := range t.wants {
		if at <= now {
			pulls = append(pulls, id)
		} else {
			next = min(next, at)
		}
	}
	slices.Sort(pulls)
	pulls = pulls[:min(len(pulls), room)]
	for _, id := range pulls {
		delete(t.wants, id)
	}
	return probes, pulls, next
}

// probe finds out whether a silent peer lives: it pings it, and asks two random others
// for news at the same time.
func (t *Tracker) probe(ctx context.Context, id shoal.PeerID) error {
	began := t.deps.Clock.Mono()
	ends, cancel := context.WithTimeout(ctx, 2*t.cfg.PingTimeout)
	defer cancel()
	t.mu.Lock()
	witnesses := t.others(func(other shoal.PeerID, c *contact) bool {
		return other != id && c.vital.state == shoal.LifeAlive && t.isConnected(other)
	})
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, other := range witnesses[:min(len(witnesses), 2)] {
		wg.Go(func() {
			brief, cancel := context.WithTimeout(ends, t.cfg.PingTimeout/2) // a LAN answers at once; a refused ping shall not wait for more
			defer cancel()
			if err := t.pull(brief, other); err != nil {
				t.deps.Log.Debug("no word from a witness", slog.String(logkey.Peer, string(other)), slog.Any(logkey.Err, err))
			}
		})
	}
	rtt, err := t.deps.Pinger.Ping(ends, id, true)
	took := t.deps.Clock.Mono() - began
	if err == nil {
		cancel()
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil // we stop: nobody dies of that
	}
	now := t.deps.Clock.Mono()
	t.mu.Lock()
	defer t.unlock()
	if c := t.contacts[id]; c != nil {
		t.step(id, c, probed{answered: err == nil, rtt: rtt, took: took}, now)
		poke(t.pokeWatcher)
	}
	return nil
}

// fetch pulls a peer's news from itself; failing that, or if something is still
// missing, from a random other. What stays missing is wanted again, later.
func (t *Tracker) fetch(ctx context.Context, id shoal.PeerID) {
	err := t.pull(ctx, id)
	if err == nil && !t.lacks(id) {
		return
	}
	t.mu.Lock()
	others := t.others(func(other shoal.PeerID, c *contact) bool {
		return other != id && c.vital.state == shoal.LifeAlive && t.isConnected(other)
	})
	t.mu.Unlock()
	if len(others) > 0 {
		if second := t.pull(ctx, others[0]); second != nil {
			err = fmt.Errorf("%w; and %w", err, second)
		}
	}
	if err != nil && ctx.Err() == nil {
		t.deps.Log.Debug("beats not pulled", slog.String(logkey.Peer, string(id)), slog.Any(logkey.Err, err))
	}
	if !t.lacks(id) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.contacts[id]; c != nil {
		c.misses++
		t.want(id, t.patience(c))
	}
}

// lacks reports whether a peer is known to have told something that is not here.
func (t *Tracker) lacks(id shoal.PeerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.contacts[id]
	return c != nil && c.ledger.gap()
}

// connections subscribes to links that come up.
func (t *Tracker) connections() (event.Subscription, error) {
	sub, err := t.deps.Host.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged), eventbus.Name("beats"), eventbus.BufSize(256))
	if err != nil {
		return nil, fmt.Errorf("subscribe to connections: %w", err)
	}
	return sub, nil
}

// connectLoop pulls from every member that a link comes up to.
func (t *Tracker) connectLoop(ctx context.Context, sub event.Subscription) error {
	defer func() { _ = sub.Close() }() // it never fails
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-sub.Out():
			if !ok {
				return nil // the host is gone; the others will notice
			}
			change, ok := e.(event.EvtPeerConnectednessChanged)
			if !ok || change.Connectedness != network.Connected {
				continue
			}
			id := shoal.PeerID(change.Peer.String())
			t.mu.Lock()
			if t.contacts[id] != nil {
				t.want(id, t.jitter(t.cfg.Interval/20)) // both sides come up at the same time
			}
			t.mu.Unlock()
		}
	}
}

// pulseLoop pings the contacts in turn, each every PingEvery, and pulls from a random
// one every ExchangeEvery: so everything heals even if the topic carries nothing, and
// a copied identity is found.
func (t *Tracker) pulseLoop(ctx context.Context) error {
	var turn shoal.PeerID
	exchangeAt := t.deps.Clock.Mono() + t.cfg.ExchangeEvery
	for {
		t.mu.Lock()
		pause := max(t.cfg.PingEvery/time.Duration(len(t.contacts)+1), t.cfg.Interval/5)
		pause += t.jitter(pause / 10)
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(pause, t.cfg.ExchangeEvery)):
		}
		t.mu.Lock()
		alive := t.others(func(id shoal.PeerID, c *contact) bool {
			return c.vital.state == shoal.LifeAlive && t.isConnected(id)
		})
		now := t.deps.Clock.Mono()
		if len(alive) > 0 && now >= exchangeAt {
			t.want(alive[0], 0)
			exchangeAt = now + t.cfg.ExchangeEvery/2 + t.jitter(t.cfg.ExchangeEvery)
		}
		t.mu.Unlock()
		if turn = after(alive, turn); turn != "" {
			t.ping(ctx, turn)
		}
	}
}

// after returns the next ID behind turn, the first one at the end; "" of none.
func after(ids []shoal.PeerID, turn shoal.PeerID) shoal.PeerID {
	if len(ids) == 0 {
		return ""
	}
	slices.Sort(ids)
	i, found := slices.BinarySearch(ids, turn)
	if found {
		i++
	}
	return ids[i%len(ids)]
}

// ping measures a round trip. That it fails says nothing: see probe.
func (t *Tracker) ping(ctx context.Context, id shoal.PeerID) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.PingTimeout)
	defer cancel()
	rtt, err := t.deps.Pinger.Ping(ctx, id, false)
	if err != nil {
		return
	}
	now := t.deps.Clock.Mono()
	t.mu.Lock()
	defer t.unlock()
	if c := t.contacts[id]; c != nil {
		t.step(id, c, pinged{rtt: rtt}, now)
	}
}
