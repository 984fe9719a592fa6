// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/shoalnet/shoal/internal/logkey"
)

// cell is one incarnation of an actor.
type cell struct {
	name    string
	pid     *actor.PID   // set before anybody else sees the cell
	pong    atomic.Int64 // monotonic time of its last answer
	gone    atomic.Bool  // replaced while stuck: whatever it still does has no effect
	ended   chan struct{}
	onStuck func() // called once by the watchdog
}

// over reports whether this incarnation has ended or was given up.
func (c *cell) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return c.gone.Load()
	}
}

// props returns how to make the actor of a cell. The supervisor stops what fails;
// its parent replaces it after a back-off (see brood).
func (r *run) props(c *cell, handle func(actor.Context)) *actor.Props {
	return actor.PropsFromFunc(func(ctx actor.Context) {
		switch ctx.Message().(type) {
		case *actor.Stopped:
			r.unregister(c)
			close(c.ended)
			return
		case *ping:
			c.pong.Store(int64(r.now()))
			return
		}
		if c.gone.Load() {
			return
		}
		defer func() {
			if e := recover(); e != nil {
				r.log.Error("actor panicked; it is replaced", "actor", c.name, logkey.Reason, e, "stack", string(debug.Stack()))
				panic(e) // the supervisor stops it
			}
		}()
		handle(ctx)
	}, actor.WithDispatcher(r.mailboxes), actor.WithSupervisor(stopFailed{}))
}

// stopFailed is one-for-one supervision: the failed child is stopped, nothing else
// is touched, and its parent hears of it as Terminated.
type stopFailed struct{}

// HandleFailure implements actor.SupervisorStrategy.
func (stopFailed) HandleFailure(_ *actor.ActorSystem, s actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, _, _ any) {
	s.StopChildren(child)
}

// backoff counts the failures of one actor.
type backoff struct {
	failures int
	born     time.Duration
}

// next returns how long to wait before the next incarnation.
func (b *backoff) next(cfg *Config, now time.Duration) time.Duration {
	if now-b.born >= cfg.RestartReset {
		b.failures = 0
	}
	d := cfg.RestartDelay
	for i := 0; i < b.failures && d < cfg.RestartCap; i++ {
		d *= 2
	}
	b.failures++
	return min(d, cfg.RestartCap)
}

// brood is an actor's children by key, each replaced when it dies or hangs.
type brood struct {
	r    *run
	kind string
	make func(key string, c *cell) func(actor.Context)
	kids map[string]*kid
	// closing: the parent is stopping. It still gets messages until its last child
	// has ended, and must not make new ones then, or it would never end.
	closing bool
}

type kid struct {
	cell    *cell // nil while its back-off lasts
	backoff backoff
}

func (r *run) newBrood(kind string, produce func(string, *cell) func(actor.Context)) *brood {
	return &brood{r: r, kind: kind, make: produce, kids: make(map[string]*kid)}
}

// ensure makes sure that there is a child for key; true: it was made now.
func (b *brood) ensure(ctx actor.Context, key string) bool {
	if b.kids[key] != nil || b.closing {
		return false
	}
	k := &kid{}
	b.kids[key] = k
	b.spawn(ctx, key, k)
	return true
}

func (b *brood) spawn(ctx actor.Context, key string, k *kid) {
	c := b.r.newCell(b.kind + " " + key)
	parent := ctx.Self()
	c.onStuck = func() { b.r.send(parent, &stuck{cell: c}) }
	k.cell, k.backoff.born = c, b.r.now()
	c.pid = ctx.SpawnPrefix(b.r.props(c, b.make(key, c)), b.kind)
	b.r.register(c)
}

// send reaches the child if it lives; one in back-off starts from its parent's
// table, so nothing is lost.
func (b *brood) send(ctx actor.Context, key string, msg any) {
	if k := b.kids[key]; k != nil && k.cell != nil {
		ctx.Send(k.cell.pid, msg)
	}
}

// drop ends the child for good.
func (b *brood) drop(ctx actor.Context, key string) {
	if k := b.kids[key]; k != nil && k.cell != nil {
		ctx.Stop(k.cell.pid)
	}
	delete(b.kids, key)
}

// handle takes the messages of supervision; false: it was another message.
func (b *brood) handle(ctx actor.Context) bool {
	switch m := ctx.Message().(type) {
	case *actor.Stopping:
		b.closing = true
		return false
	case *actor.Terminated:
		for key, k := range b.kids {
			if k.cell != nil && k.cell.pid.Equal(m.Who) {
				b.retry(ctx, key, k)
				break
			}
		}
	case *stuck:
		for key, k := range b.kids {
			if k.cell == m.cell {
				b.r.log.Error("actor does not answer; it is replaced", "actor", k.cell.name)
				b.r.abandon(k.cell)
				ctx.Stop(k.cell.pid)
				b.retry(ctx, key, k)
				break
			}
		}
	case *respawn:
		if k := b.kids[m.key]; k != nil && k.cell == nil && !b.closing {
			b.spawn(ctx, m.key, k)
		}
	default:
		return false
	}
	return true
}

func isStopping(ctx actor.Context) bool {
	_, ok := ctx.Message().(*actor.Stopping)
	return ok
}

func (b *brood) retry(ctx actor.Context, key string, k *kid) {
	k.cell = nil
	b.r.after(k.backoff.next(&b.r.cfg, b.r.now()), ctx.Self(), &respawn{key: key})
}

// mailboxes runs the mailboxes of all actors, and knows when the last one is idle.
type mailboxes struct {
	mu      sync.Mutex // guards both
	running int
	idle    chan struct{} // closed and replaced whenever running falls to 0
}

func newMailboxes() *mailboxes { return &mailboxes{idle: make(chan struct{})} }

// Schedule implements actor.Dispatcher.
func (m *mailboxes) Schedule(fn func()) {
	m.mu.Lock()
	m.running++
	m.mu.Unlock()
	go func() {
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.running--; m.running == 0 {
				close(m.idle)
				m.idle = make(chan struct{})
			}
		}()
		fn()
	}()
}

// Throughput implements actor.Dispatcher: messages before others get a turn.
func (*mailboxes) Throughput() int { return 300 }

// quiesce returns a channel that is closed when no mailbox runs.
func (m *mailboxes) quiesce() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	return m.idle
}
