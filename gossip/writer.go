// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
	"github.com/shoalnet/shoal/internal/logkey"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/blocks"
)

const (
	// turnUpdates and turnArrivals bound what one turn of the writer takes along, so
	// that nobody waits long for its disk sync.
	turnUpdates  = 256
	turnArrivals = 64
	// loadChunk is how many blocks are read before they are folded together at start.
	loadChunk = 256
)

// writer is the one goroutine that changes the store. Its turns are transactions: it
// takes what has arrived (blocks of others, our Updates), merges, folds, and flushes
// with one disk sync; then it publishes and answers. What arrives meanwhile makes
// the next turn, so that a busy store groups commits and an idle one waits for none.
type writer struct {
	store   *Store
	disk    *disk
	engine  *engine
	stamper *Stamper
	orphans *orphans

	state    fold.State
	resolver *fold.Resolver
	desired  *shoal.Desired // of state
	blocks   int
	records  int
	mended   int // blocks merged again at start

	held    map[shoal.PeerID]written // by author, all that ever came
	weighed time.Duration            // when the authors of most were last weighed
}

// turn is what one round of the writer does. It counts as a whole or not at all.
type turn struct {
	updates  []*update
	arrivals []*arrival

	state   fold.State
	desired *shoal.Desired
	took    []*block // of others
	own     []*block // ours, committed
	draft   draft
	ended   []*update // to be answered once the turn is on disk
	chains  []blocks.Chain
}

// arrival is a bunch of judged blocks, parents first.
type arrival struct {
	blocks []*block
	from   shoal.PeerID // who sent them
	pushed bool
	done   chan error // buffered; nil: nobody waits
}

// openWriter starts go-ds-crdt on an open disk and folds what is there. errTorn: the
// rows are no store.
func openWriter(ctx context.Context, s *Store, d *disk) (*writer, error) {
	eng, err := openEngine(ctx, d.rows, d.hooks, s.deps.Log)
	if err != nil {
		return nil, err
	}
	w := &writer{
		store: s, disk: d, engine: eng, orphans: newOrphans(),
		stamper:  NewStamper(s.cfg.Cluster, s.deps.Clock, s.deps.Signer, s.deps.Sequence),
		resolver: fold.NewResolver(s.cfg.Cluster),
		held:     map[shoal.PeerID]written{},
	}
	err = w.load(ctx)
	if err == nil {
		err = d.trust()
	}
	if err != nil {
		return nil, errors.Join(err, eng.close())
	}
	return w, nil
}

// load mends what an unclean end may have left and folds every block. The fold reads
// blocks, not go-ds-crdt's values: of two records that an author signed for one key
// go-ds-crdt keeps one by height, the fold one by content, the same everywhere.
func (w *writer) load(ctx context.Context) error {
	if w.disk.unclean {
		start := w.store.deps.Clock.Mono()
		n, err := w.engine.mend(ctx)
		if err != nil {
			return err
		}
		w.mended = n
		w.store.deps.Log.Info("store was not closed cleanly, checked it",
			"mended", n, logkey.Took, w.store.deps.Clock.Mono()-start)
	}
	if err := w.store.chains.load(ctx, w.disk.rows); err != nil {
		return err
	}
	all, err := w.engine.rows.all(ctx)
	if err != nil {
		return err
	}
	if len(all) < w.disk.least {
		return fmt.Errorf("%w: %d blocks are here, %d were", errTorn, len(all), w.disk.least)
	}
	var entries []fold.Entry
	heads, _ := w.engine.heads(ctx)
	tips := newTips(len(all))
	for i, c := range all {
		b, err := w.engine.rows.block(ctx, c)
		if err != nil {
			return fmt.Errorf("%w: %w", errTorn, err)
		}
		if err := tips.add(b); err != nil {
			return err
		}
		for _, el := range b.delta.Elements {
			rec, err := codec.DecodeRecord(el.Value)
			if err != nil {
				return fmt.Errorf("%w: block %s: %w", errTorn, c, err)
			}
			if err := w.stamper.Observe(rec); err != nil {
				return err
			}
			entries = append(entries, fold.Entry{Record: rec, Envelope: el.Value})
			w.hold(rec.Author, el.Value)
			w.records++
		}
		if (i+1)%loadChunk == 0 || i == len(all)-1 {
			w.state, _ = w.store.checks.merge(w.state, entries...)
			entries = entries[:0]
		}
	}
	if err := tips.are(heads); err != nil {
		return err
	}
	w.blocks = len(all)
	w.desired = w.resolver.Resolve(w.state)
	return nil
}

// run takes turns until ctx ends.
func (w *writer) run(ctx context.Context) error {
	gaps := time.NewTicker(w.store.cfg.GapDelay)
	defer gaps.Stop()
	for {
		var t turn
		var tick <-chan time.Time
		if w.orphans.len() > 0 {
			tick = gaps.C
		}
		select {
		case <-ctx.Done():
			return nil
		case u := <-w.store.updates:
			t.updates = append(t.updates, u)
		case a := <-w.store.arrivals:
			t.arrivals = append(t.arrivals, a)
		case <-tick:
			for _, at := range w.orphans.overdue(w.store.deps.Clock.Mono(), w.store.cfg.GapDelay) {
				w.store.wantSync(at.from)
			}
			continue
		}
		w.gather(&t)
		// A turn that began is finished also when the daemon stops: it is short.
		if err := w.take(context.WithoutCancel(ctx), &t); err != nil {
			return fmt.Errorf("write records: %w", err)
		}
	}
}

// gather adds what else has arrived.
func (w *writer) gather(t *turn) {
	for len(t.updates) < turnUpdates && len(t.arrivals) < turnArrivals {
		select {
		case u := <-w.store.updates:
			t.updates = append(t.updates, u)
		case a := <-w.store.arrivals:
			t.arrivals = append(t.arrivals, a)
		default:
			return
		}
	}
}

// take carries a turn out. What fails is told to those who wait, and undone; an
// error means that the store cannot go on.
func (w *writer) take(ctx context.Context, t *turn) error {
	if err := w.disk.room(w.store.cfg.Reserve); err != nil {
		w.fail(t, err)
		return nil // nothing was begun
	}
	err := w.attempt(ctx, t)
	if err == nil {
		w.publish(ctx, t)
		return nil
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: %w", shoal.ErrNoSpace, err)
	}
	w.fail(t, err)
	if err := w.engine.restart(ctx); err != nil {
		return err
	}
	w.orphans.clear() // they may count on blocks that are gone again
	w.desired = w.resolver.Resolve(w.state)
	return nil
}

// fail tells those who wait that a turn is not written.
func (w *writer) fail(t *turn, err error) {
	for _, a := range t.arrivals {
		a.finish(err)
	}
	for _, u := range t.updates {
		if u.begin() {
			u.end(err)
		}
	}
	w.store.deps.Log.Warn("records not written", logkey.Err, err)
}

// attempt does everything up to the disk sync.
func (w *writer) attempt(ctx context.Context, t *turn) error {
	t.state, t.desired = w.state, w.desired
	if err := w.takeArrivals(ctx, t); err != nil {
		return err
	}
	for _, u := range t.updates {
		if !u.begin() {
			continue // its caller went away before it began
		}
		if err := w.takeUpdate(ctx, t, u); err != nil {
			return err
		}
	}
	if err := w.closeBlock(ctx, t); err != nil {
		return err
	}
	var err error
	if t.chains, err = w.store.chains.save(ctx, w.engine.stage); err != nil {
		return err
	}
	if !w.engine.stage.empty() {
		w.store.count.flushes.Add(1)
	}
	return w.engine.flush(ctx)
}

// takeArrivals merges the blocks of others whose parents are here, with the orphans
// that waited for them, and folds their records.
func (w *writer) takeArrivals(ctx context.Context, t *turn) error {
	var queue []incoming
	for _, a := range t.arrivals {
		for _, b := range a.blocks {
			queue = append(queue, incoming{b, a.from, a.pushed})
		}
	}
	var entries []fold.Entry
	for len(queue) > 0 {
		in := queue[0]
		queue = queue[1:]
		fits, err := w.fit(ctx, in)
		if err != nil {
			return err
		}
		if !fits {
			continue
		}
		if err := w.engine.take(ctx, in.block); err != nil {
			return err
		}
		t.took = append(t.took, in.block)
		pushed := w.orphans.remove(in.cid) || in.pushed // a sync may bring what waited here, pushed, for its parents
		w.store.count.came(pushed)
		for i, rec := range in.records {
			if err := w.stamper.Observe(rec); err != nil {
				return err
			}
			entries = append(entries, fold.Entry{Record: rec, Envelope: in.delta.Elements[i].Value, Pushed: pushed})
			w.hold(rec.Author, in.delta.Elements[i].Value)
		}
		queue = append(w.orphans.waitingFor(in.cid), queue...)
	}
	if len(t.took) == 0 {
		return nil
	}
	if err := w.engine.absorb(ctx, t.took); err != nil {
		return err
	}
	w.fold(t, entries)
	return nil
}

// fold adds records to the turn's state.
func (w *writer) fold(t *turn, entries []fold.Entry) {
	if next, changed := w.store.checks.merge(t.state, entries...); changed {
		t.state = next
		t.desired = w.resolver.Resolve(next)
	}
}

// fit reports whether a judged block can be merged now: it is new, all its parents
// are here, and it is exactly one higher than the highest of them. One whose parents
// are not here waits if it was pushed: a sync brings parents first.
func (w *writer) fit(ctx context.Context, in incoming) (bool, error) {
	known, err := w.engine.rows.has(ctx, in.cid)
	if known || err != nil {
		return false, err
	}
	above := uint64(0)
	for _, l := range in.links {
		here, err := w.engine.rows.has(ctx, l)
		if err != nil {
			return false, err
		}
		if !here {
			if in.pushed && !w.orphans.add(in, l, w.store.deps.Clock.Mono()) {
				w.store.wantSync(in.from)
			}
			return false, nil
		}
		parent, err := w.engine.rows.ref(ctx, l)
		if err != nil {
			return false, err
		}
		above = max(above, parent.height)
	}
	if !w.store.checks.placed(in.delta.Priority, above) {
		w.store.misplaced(in, above)
		return false, nil
	}
	return true, nil
}

// publish makes a turn that is on disk visible, and answers everybody who waits.
func (w *writer) publish(ctx context.Context, t *turn) {
	w.state, w.desired = t.state, t.desired
	for _, b := range append(t.took, t.own...) {
		w.blocks++
		w.records += len(b.delta.Elements)
	}
	heads, height := w.engine.heads(ctx)
	w.disk.hooks.at("before publish")
	w.store.publish(committed{desired: t.desired, heads: heads, height: height, blocks: w.blocks, records: w.records})
	w.disk.hooks.at("after publish")
	w.weigh()
	w.store.chains.saved(len(t.chains))
	for _, c := range t.chains {
		w.store.post(func(context.Context) { w.store.tellChain(c) })
	}
	for _, b := range t.own {
		w.store.count.wrote.Add(1)
		w.store.post(func(ctx context.Context) { w.store.push(ctx, b) })
	}
	w.disk.hooks.at("before answer")
	for _, a := range t.arrivals {
		a.finish(nil)
	}
	for _, u := range t.ended {
		u.end(nil)
	}
	w.disk.hooks.at("after answer")
}

// hold counts a record that came.
func (w *writer) hold(author shoal.PeerID, envelope []byte) {
	h := w.held[author]
	w.held[author] = written{h.records + 1, h.bytes + len(envelope)}
}

// weigh finds the authors that hold more than their share of what the fold keeps, now
// and then and only if any may.
func (w *writer) weigh() {
	now := w.store.deps.Clock.Mono()
	if !slices.ContainsFunc(slices.Collect(maps.Values(w.held)), written.heavy) || now-w.weighed < weighEvery {
		return
	}
	w.weighed = now
	kept := map[shoal.PeerID]written{}
	for _, e := range w.state.Entries() {
		h := kept[e.Record.Author]
		kept[e.Record.Author] = written{h.records + 1, h.bytes + len(e.Envelope)}
	}
	for author, all := range w.held {
		if author != w.store.self && all.heavy() {
			w.store.conduct.weigh(now, author, kept[author].heavy())
		}
	}
}

func (a *arrival) finish(err error) {
	if a.done != nil {
		a.done <- err
	}
}
