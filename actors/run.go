// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/placement/brake"
)

// throttleInterval is how long protoactor keeps a goroutine after it dropped a
// message; the end of Run waits for it.
const throttleInterval = time.Millisecond

// run is one call of Run: the actor system and the goroutines around it.
type run struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	board *board
	words *words

	system    *actor.ActorSystem
	mailboxes *mailboxes
	work      func(func(context.Context)) // runs it in a goroutine that Run waits for
	creates   *gate                       // of each create or start under way
	pulls     *gate
	seq       atomic.Uint64 // orders lists and ends of operations
	look      chan struct{} // holds one: list the containers now
	refresh   chan struct{} // holds one: list the images now
	measure   chan struct{} // holds one: measure the usage now
	poked     atomic.Bool   // a changed message is in the peer actor's mailbox
	said      *atomic.Pointer[[]placement.Reason]
	brakes    *atomic.Pointer[brake.Verdicts]
	peer      atomic.Pointer[cell]

	leaving atomic.Bool
	left    chan struct{} // closed when a leaving peer has nothing left
	over    chan struct{} // closed at the end of Run

	mu    sync.Mutex // guards cells
	cells map[*cell]bool
}

func newRun(s *System) *run {
	r := &run{
		cfg: s.cfg, deps: s.deps, log: s.deps.Log, board: s.board, words: s.words, said: &s.said, brakes: &s.brakes,
		mailboxes: newMailboxes(),
		creates:   newGate(s.cfg.Creates),
		pulls:     newGate(s.cfg.Pulls),
		look:      make(chan struct{}, 1),
		refresh:   make(chan struct{}, 1),
		measure:   make(chan struct{}, 1),
		left:      make(chan struct{}),
		over:      make(chan struct{}),
		cells:     make(map[*cell]bool),
	}
	r.system = newActorSystem()
	return r
}

// main is Run. The order at the end: no new input, actors stop, operations end.
func (r *run) main(ctx context.Context) error {
	defer close(r.over)
	defer r.system.Shutdown()
	if !r.awaitReady(ctx) {
		return nil
	}
	opCtx, endOps := context.WithCancel(ctx)
	defer endOps()
	var ops, loops sync.WaitGroup
	r.work = func(fn func(context.Context)) { ops.Go(func() { fn(opCtx) }) }
	r.board.reset()
	for _, loop := range []func(context.Context){
		r.refreshImages, r.measureMachine, r.measureLoads, r.listContainers, r.watchEvents, r.watchViews, r.watchActors, r.publish,
	} {
		loops.Go(func() { loop(ctx) })
	}
	err := r.supervisePeer(ctx)
	loops.Wait()
	endOps()
	ops.Wait()
	if err == nil {
		<-r.mailboxes.quiesce()
	}
	last := time.NewTimer(2 * throttleInterval)
	defer last.Stop()
	<-last.C
	return err
}

// awaitReady waits until the store is as complete as this peer left it.
func (r *run) awaitReady(ctx context.Context) bool {
	if r.deps.Ready != nil {
		select {
		case <-r.deps.Ready:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// supervisePeer keeps a peer actor alive until ctx ends, and then stops it and all
// below it.
func (r *run) supervisePeer(ctx context.Context) error {
	var b backoff
	for {
		c := r.newCell("peer")
		lost := make(chan struct{})
		c.onStuck = func() { close(lost) }
		b.born = r.now()
		c.pid = r.system.Root.WithGuardian(stopFailed{}).SpawnPrefix(r.props(c, newPeer(r).receive), "peer")
		r.register(c)
		r.peer.Store(c)
		r.poked.Store(false)
		r.poke()
		r.lookNow()
		select {
		case <-ctx.Done():
			return r.stopPeer(c)
		case <-c.ended:
		case <-lost:
			r.log.Error("actor does not answer; it is replaced", "actor", c.name)
			r.abandon(c)
			r.system.Root.Stop(c.pid)
		}
		if !sleep(ctx, b.next(&r.cfg, r.now())) {
			return nil
		}
	}
}

func (r *run) stopPeer(c *cell) error {
	r.system.Root.Stop(c.pid)
	t := time.NewTimer(r.cfg.StopTimeout)
	defer t.Stop()
	select {
	case <-c.ended:
		return nil
	case <-t.C:
		return fmt.Errorf("stop actors: one of them did not answer within %s", r.cfg.StopTimeout)
	}
}

// watchViews tells the peer actor of every change of the view, coalesced.
func (r *run) watchViews(ctx context.Context) {
	for {
		next := r.deps.Views.Changed()
		r.poke()
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, r.cfg.Coalesce) {
			return
		}
	}
}

// poke asks the peer actor for a decision; many pokes make one.
func (r *run) poke() {
	if c := r.peer.Load(); c != nil && r.poked.CompareAndSwap(false, true) {
		r.send(c.pid, &changed{})
	}
}

// tellPeer sends to the peer actor of the moment.
func (r *run) tellPeer(msg any) {
	if c := r.peer.Load(); c != nil {
		r.send(c.pid, msg)
	}
}

func (r *run) send(pid *actor.PID, msg any) { r.system.Root.Send(pid, msg) }

// after sends msg to pid when d has passed.
func (r *run) after(d time.Duration, pid *actor.PID, msg any) *time.Timer {
	return time.AfterFunc(d, func() { r.send(pid, msg) })
}

func (r *run) now() time.Duration { return r.deps.Clock.Mono() }

func (r *run) lookNow()    { signal(r.look) }
func (r *run) refreshNow() { signal(r.refresh) }

func (r *run) newCell(name string) *cell {
	c := &cell{name: name, ended: make(chan struct{})}
	c.pong.Store(int64(r.now()))
	return c
}

func (r *run) register(c *cell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-c.ended:
	default:
		r.cells[c] = true
	}
}

func (r *run) unregister(c *cell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.cells, c)
}

// abandon gives up an incarnation that hangs: what it still does has no effect.
func (r *run) abandon(c *cell) {
	c.gone.Store(true)
	r.unregister(c)
}

// watchActors is the watchdog: it pings every actor through its mailbox and has
// those replaced that do not answer.
func (r *run) watchActors(ctx context.Context) {
	for sleep(ctx, r.cfg.PingEvery) {
		now := r.now()
		var silent, live []*cell
		r.mu.Lock()
		for c := range r.cells {
			if now-time.Duration(c.pong.Load()) > r.cfg.PingLost {
				silent = append(silent, c)
				delete(r.cells, c) // its parent hears of it once
			} else {
				live = append(live, c)
			}
		}
		r.mu.Unlock()
		for _, c := range silent {
			c.onStuck()
		}
		for _, c := range live {
			r.send(c.pid, &ping{})
		}
	}
}

// record tells one line of the cluster's story.
func (r *run) record(kind, service string, slot int, text string) {
	r.deps.Record(shoal.Event{
		Time: r.deps.Clock.Wall(), Peer: r.deps.Self, Kind: kind, Service: service, Slot: slot, Text: text,
	})
}

// sleep waits for d; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// signal fills a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
