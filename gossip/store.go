// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ipfs/go-cid"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
	"github.com/shoalnet/shoal/internal/logkey"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/blocks"
)

// outboxSize bounds what waits to be told to others; what does not fit is found by
// the next sync.
const outboxSize = 1024

// errStopped: the store's Run has ended.
var errStopped = errors.New("store is stopped")

// Store is the replicated [shoal.Store]. New allocates it, Run works; Update and
// Inject wait until Run is ready.
type Store struct {
	cfg     Config
	deps    Deps
	checks  checks
	self    shoal.PeerID
	count   *counters
	chains  *chains
	conduct *conduct
	wants   *wants // peers to sync with

	updates  chan *update
	arrivals chan *arrival
	pulling  chan struct{} // holds a token while a pull runs
	outbox   chan func(context.Context)
	opened   chan struct{} // closed when the disk is open and folded
	ready    chan struct{} // closed when updates are taken
	stopping chan struct{} // closed when Run's context has ended
	stopped  chan struct{} // closed when Run has ended
	filled   chan struct{} // closed after the first sync that ended well
	fillOnce sync.Once

	disk    *disk      // set by Run, like rows
	rows    *blockRows // what is on disk; set by Run before anything that reads it starts
	readers door       // calls from outside that read rows: the disk is closed after them

	changed signal // Desired is another
	grown   signal // blocks were added

	mu     sync.Mutex
	mended int           // guarded by mu; Stats.Mended
	aside  string        // guarded by mu; Stats.Aside
	saved  int           // guarded by mu; Stats.Saved
	now    committed     // guarded by mu
	topic  *pubsub.Topic // guarded by mu; nil while not joined
}

var _ shoal.Store = (*Store)(nil)

// committed is what is on disk, as far as others may see it.
type committed struct {
	desired *shoal.Desired
	heads   []cid.Cid
	height  uint64
	blocks  int
	records int
}

// New returns a store that holds nothing until Run has opened it.
func New(cfg Config, deps Deps) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure store: %w", err)
	}
	if err := deps.validate(); err != nil {
		return nil, err
	}
	if cfg.hooks.isZero() {
		cfg.hooks = killer()
	}
	if cfg.Dir == "" && cfg.Memory == nil {
		cfg.Memory = NewMemoryDisk()
	}
	s := &Store{
		cfg: cfg, deps: deps, checks: allChecks(), self: deps.Signer.PeerID(),
		count: newCounters(), conduct: newConduct(), wants: newWants(),
		updates: make(chan *update), arrivals: make(chan *arrival, turnArrivals),
		pulling: make(chan struct{}, 1), outbox: make(chan func(context.Context), outboxSize),
		opened: make(chan struct{}), ready: make(chan struct{}), stopping: make(chan struct{}), stopped: make(chan struct{}), filled: make(chan struct{}),
		now: committed{desired: fold.NewResolver(cfg.Cluster).Desired()},
	}
	s.chains = newChains(&s.cfg, &s.deps, &s.checks)
	return s, nil
}

// Run opens the store and works until ctx ends; everything is closed when it
// returns. Call it once.
func (s *Store) Run(ctx context.Context) (err error) {
	defer close(s.stopped)
	d, w, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.engine.close(), d.close(err == nil, w.blocks)) }()
	s.disk, s.rows = d, newBlockRows(d.rows)
	s.mu.Lock()
	s.mended, s.aside = w.mended, d.aside.path()
	s.mu.Unlock()
	heads, height := w.engine.heads(ctx)
	s.publish(committed{desired: w.desired, heads: heads, height: height, blocks: w.blocks, records: w.records})
	if err := s.learnOwn(); err != nil {
		return err
	}
	close(s.opened)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.run(ctx) })
	g.Go(func() error { return s.runOutbox(ctx) })
	if s.deps.Host != nil {
		end := s.serve(ctx) // before anybody can see us on the topic
		g.Go(func() error { return s.runTopic(ctx) })
		g.Go(func() error { return s.runSync(ctx) })
		g.Go(func() error {
			<-ctx.Done()
			close(s.stopping)
			end()
			s.readers.close()
			return nil
		})
	}
	g.Go(func() error {
		if d.aside != nil || w.blocks == 0 && s.cfg.WroteBefore {
			if err := s.recover(ctx, d.aside); err != nil {
				return ended(ctx, err)
			}
		}
		close(s.ready)
		return nil
	})
	g.Go(func() error { // in memory nothing is lost
		select {
		case err := <-d.lost:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// open opens disk and engine; a torn store is set aside once.
func (s *Store) open(ctx context.Context) (*disk, *writer, error) {
	if s.cfg.Dir == "" {
		d := s.cfg.Memory.openDisk(&s.cfg.hooks)
		w, err := openWriter(ctx, s, d)
		return d, w, err
	}
	d, err := openDisk(s.cfg.Dir, &s.cfg.hooks, s.deps.Log)
	if err != nil {
		return nil, nil, err
	}
	w, err := openWriter(ctx, s, d)
	if err == nil {
		return d, w, nil
	}
	if err2 := d.close(false, 0); !isDamage(err) {
		return nil, nil, errors.Join(err, err2)
	} // how a damaged one is closed does not matter
	if d, err = setAside(s.cfg.Dir, err, &s.cfg.hooks, s.deps.Log); err != nil {
		return nil, nil, err
	}
	if w, err = openWriter(ctx, s, d); err != nil {
		return nil, nil, errors.Join(err, d.close(false, 0))
	}
	return d, w, nil
}

// learnOwn makes our own chain known, so that what we write passes our own judge.
func (s *Store) learnOwn() error {
	own := s.deps.Chain()
	if len(own) == 0 {
		return nil
	}
	if err := s.chains.learn(blocks.Chain{Peer: s.self, Envelopes: own}); err != nil {
		return fmt.Errorf("read own admission chain: %w", err)
	}
	return nil
}

// Ready is closed when Update will be taken: the store is open and, if it had been
// lost, refilled.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Update implements [shoal.Store].
func (s *Store) Update(ctx context.Context, fn func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error), opts shoal.UpdateOptions) (shoal.Ack, error) {
	u := &update{fn: fn, done: make(chan struct{})}
	if err := s.submit(ctx, u); err != nil {
		return shoal.Ack{}, err
	}
	if !u.ack.Wrote || opts.Acks <= 0 {
		return u.ack, nil
	}
	timeout := opts.Timeout
	if timeout <= 0 {
		timeout = s.cfg.AckTimeout
	}
	n := s.askAcks(ctx, u.cid, opts.Acks, timeout)
	u.ack.Acks = n
	if n < opts.Acks {
		return u.ack, fmt.Errorf("%w: %d of %d", shoal.ErrTooFewAcks, n, opts.Acks)
	}
	return u.ack, nil
}

// Inject writes records of others verbatim, as envelopes, in a block of ours: the
// cluster key's admission of the first member, or what a newcomer was handed when it
// joined. They must pass intake. Those that are there already are left alone; none
// new is no error.
func (s *Store) Inject(ctx context.Context, envelopes [][]byte) error {
	if err := s.learnOwn(); err != nil {
		return err
	}
	u := &update{done: make(chan struct{})}
	for i, raw := range envelopes {
		rec, err := codec.DecodeRecord(raw)
		if err != nil {
			return fmt.Errorf("inject record: %w", err)
		}
		before := offers{rec.Author: {Peer: rec.Author, Envelopes: envelopes[:i]}}
		if _, no := s.chains.judgeElement(blocks.Element{Key: rec.Key(), Value: raw}, before); no != nil {
			return fmt.Errorf("inject record: %w", no)
		}
		u.verbatim = append(u.verbatim, fold.Entry{Record: rec, Envelope: raw, Pushed: true})
	}
	return s.submit(ctx, u)
}

// submit hands an update to the writer and waits for its end. Once the writer has
// begun it is waited for, whatever ctx says: it may be written.
func (s *Store) submit(ctx context.Context, u *update) error {
	if err := ctx.Err(); err != nil {
		return err // select below could choose otherwise
	}
	select {
	case <-s.ready:
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.hand(ctx, u)
}

// hand is submit for what need not wait for Ready.
func (s *Store) hand(ctx context.Context, u *update) error {
	select {
	case s.updates <- u:
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-u.done:
		return u.err
	case <-ctx.Done():
		if u.takeBack() {
			return ctx.Err()
		}
	}
	<-u.done
	return u.err
}

// Desired implements [shoal.Store].
func (s *Store) Desired() *shoal.Desired { return s.committed().desired }

// Digest returns that of Desired, for beats.
func (s *Store) Digest() shoal.Digest { return s.Desired().Digest }

// Changed implements [shoal.Store].
func (s *Store) Changed() <-chan struct{} { return s.changed.wait() }

// Stats returns the counts so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	c, mended, aside, saved := s.now, s.mended, s.aside, s.saved
	s.mu.Unlock()
	n := s.count
	return Stats{
		Blocks: c.blocks, Records: c.records, Heads: len(c.heads), Height: c.height,
		Refused: n.refusals(), Flushes: n.flushes.Load(), Wrote: n.wrote.Load(), Pushed: n.pushed.Load(), Pulled: n.pulled.Load(),
		Syncs: n.syncs.Load(), SyncEqual: n.syncEqual.Load(), SyncIn: n.syncIn.Load(), SyncOut: n.syncOut.Load(),
		PushesLost: n.pushesLost.Load(), Mended: mended, Aside: aside, Saved: saved,
		Slowed: n.slowed.Load(), Muted: s.conduct.muted(s.deps.Clock.Mono()),
	}
}

func (s *Store) committed() committed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// publish makes c what others see.
func (s *Store) publish(c committed) {
	s.mu.Lock()
	changed, grew := c.desired != s.now.desired, c.blocks != s.now.blocks
	s.now = c
	s.mu.Unlock()
	if changed {
		s.changed.fire()
	}
	if grew {
		s.grown.fire()
	}
}

// refuse counts a block that is not taken, and mutes its sender for a while if it
// keeps sending such: everybody verifies before passing on, so it is at fault.
func (s *Store) refuse(from shoal.PeerID, no *refused) {
	s.count.refuse(s.deps.Log, from, no)
	if d := s.conduct.fault(s.deps.Clock.Mono(), from); d > 0 {
		s.deps.Log.Warn("peer muted: it keeps sending blocks that are refused", logkey.Peer, string(from), logkey.Reason, no.reason, "for", d)
	}
}

// misplaced counts a block that is not one above its parents. Who pushed it is not to
// blame: it may have passed the block on before it had the parents.
func (s *Store) misplaced(in incoming, above uint64) {
	no := refuse(reasonHeight, "block %s says %d, its parents %d", in.cid, in.delta.Priority, above)
	if in.pushed {
		s.count.refuse(s.deps.Log, in.from, no)
		return
	}
	s.refuse(in.from, no)
}

func (s *Store) isMuted(p shoal.PeerID) bool { return s.conduct.isMuted(s.deps.Clock.Mono(), p) }

// post queues what is to be told to others; it never waits.
func (s *Store) post(f func(context.Context)) {
	select {
	case s.outbox <- f:
	default:
		s.count.pushesLost.Add(1)
	}
}

func (s *Store) runOutbox(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-s.outbox:
			f(ctx)
		}
	}
}

func (s *Store) tellChain(c blocks.Chain) {
	if s.deps.OnChain != nil && c.Peer != s.self {
		s.deps.OnChain(c.Peer, c.Envelopes)
	}
}
