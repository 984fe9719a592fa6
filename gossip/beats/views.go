// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

var (
	_ shoal.Views  = (*Tracker)(nil)
	_ shoal.Beacon = (*Tracker)(nil)
)

// built is a view and the generation of what was observed when it was made.
type built struct {
	view *shoal.View
	gen  uint64
	at   time.Duration // own clock
}

// viewAge is how old a view may get before whoever asks gets a new one, though nothing
// changed but the times in it.
const viewAge = 500 * time.Millisecond

// View implements [shoal.Views]. It is never older than the records and beats that
// are in when it is called: whoever wrote a record finds it. The times in its lives
// are at most viewAge old; [Tracker.Sights] has those of now.
func (t *Tracker) View() *shoal.View {
	b := t.current()
	if t.deps.Clock.Mono()-b.at >= viewAge {
		b = t.build()
	}
	return b.view
}

// current returns the newest view, made anew only if what it shows has changed.
func (t *Tracker) current() *built {
	d := t.deps.Records.Desired()
	if b := t.built.Load(); b != nil && b.gen == t.gen.Load() && b.view.Desired().Version >= d.Version {
		return b
	}
	return t.build()
}

// build makes a view of what is known now.
func (t *Tracker) build() *built {
	d, now := t.deps.Records.Desired(), t.deps.Clock.Mono()
	t.mu.Lock()
	gen := t.gen.Load()
	lives := make(map[shoal.PeerID]shoal.Life, len(t.contacts))
	states := make(map[shoal.PeerID]*shoal.PeerState, len(t.contacts)+1)
	for id, c := range t.contacts {
		if !isMember(d, id) {
			continue
		}
		lives[id] = c.vital.life()
		if c.ledger.state != nil {
			states[id] = c.ledger.state
		}
	}
	if t.speech.now != nil {
		states[t.self] = t.speech.now
	}
	t.mu.Unlock()
	mine := &built{view: shoal.NewView(t.self, d, lives, states), gen: gen, at: now}
	for { // several may build at a time; the newest stays
		b := t.built.Load()
		if b != nil && b.gen >= mine.gen && b.view.Desired().Version >= d.Version && b.at >= now {
			return b
		}
		if t.built.CompareAndSwap(b, mine) {
			return mine
		}
	}
}

// Changed implements [shoal.Views].
func (t *Tracker) Changed() <-chan struct{} {
	t.viewMu.Lock()
	defer t.viewMu.Unlock()
	return t.changed
}

// viewLoop makes a view when records or beats changed, and tells. What changes while
// one is made goes into the next: a burst costs at most half of a core.
func (t *Tracker) viewLoop(ctx context.Context) error {
	var told *shoal.View
	for {
		records := t.deps.Records.Changed()
		t.follow()
		began := time.Now()
		if v := t.current().view; v != told {
			told = v
			t.viewMu.Lock()
			close(t.changed)
			t.changed = make(chan struct{})
			t.viewMu.Unlock()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(time.Since(began), time.Millisecond)):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-records:
		case <-t.pokeViewer:
		}
	}
}

// Trouble returns "" or, in one sentence, why this peer must stop claiming: another
// daemon speaks with its key. It never goes back to "". [Tracker.Changed] fires when
// it comes.
func (t *Tracker) Trouble() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trouble
}

// Heard returns how many of the other members are heard now, and how many there are:
// this peer's readiness.
func (t *Tracker) Heard() (k, of int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.contacts {
		if c.vital.state == shoal.LifeAlive || c.vital.state == shoal.LifeSuspect {
			k++
		}
	}
	return k, len(t.contacts)
}

// Sight is how fresh our picture of one member is.
type Sight struct {
	Peer    shoal.PeerID
	State   shoal.LifeState
	IsHeard bool          // false: not since our own boot, and Age means nothing
	Age     time.Duration // since it was heard
	BackIn  time.Duration // only of a returning one
	RTT     time.Duration // 0: never measured
	Boot    shoal.Boot
	Lacks   bool          // it told something that is not here yet
	Differs time.Duration // how long its records have differed from ours; 0: equal
	Double  bool          // a second daemon uses its identity
}

// Sights returns the freshness of every other member at own monotonic time now,
// sorted by ID.
func (t *Tracker) Sights(now time.Duration) []Sight {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Sight, 0, len(t.contacts))
	for id, c := range t.contacts {
		s := Sight{
			Peer: id, State: c.vital.state, RTT: c.vital.rtt, Boot: c.vital.boot,
			IsHeard: c.vital.state != shoal.LifeUnknown, Age: now - c.vital.heard,
			Lacks: c.ledger.gap(), Double: c.isDouble,
		}
		if c.vital.state == shoal.LifeReturning {
			s.BackIn = c.vital.backBy - now
		}
		if c.differs > 0 {
			s.Differs = now - c.differs
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Sight) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}

// Confirm implements [shoal.Beacon]. If the named peer cannot be asked, two random
// others are, as for "". Whoever hears nobody has nobody to be staler than: nil, unless
// the named one is still believed to live.
func (t *Tracker) Confirm(ctx context.Context, peer shoal.PeerID) error {
	var first error
	if peer != "" && peer != t.self {
		if first = t.catchUp(ctx, peer); first == nil || ctx.Err() != nil {
			return first
		}
	}
	t.mu.Lock()
	isThere := false
	ids := t.others(func(id shoal.PeerID, c *contact) bool {
		if id == peer {
			isThere = c.vital.state == shoal.LifeAlive || c.vital.state == shoal.LifeSuspect
		}
		return id != peer && (c.vital.state == shoal.LifeAlive || c.vital.state == shoal.LifeSuspect || t.isConnected(id))
	})
	t.mu.Unlock()
	switch {
	case len(ids) == 0 && isThere:
		return fmt.Errorf("confirm freshness: %w", first)
	case len(ids) == 0:
		return nil
	}
	slices.SortStableFunc(ids, func(a, b shoal.PeerID) int { return rank(t.isConnected(a)) - rank(t.isConnected(b)) })
	errs := []error{first}
	confirmed := 0
	for _, id := range ids { // one after the other: the second mostly has nothing to add
		err := t.catchUp(ctx, id)
		if err == nil {
			confirmed++
		} else {
			errs = append(errs, err)
		}
		if confirmed == 2 || ctx.Err() != nil || len(errs) > 3 {
			break
		}
	}
	if confirmed > 0 && ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("confirm freshness: %w", errors.Join(append(errs, ctx.Err())...))
}

// catchUp takes in all that a peer knows: beats, then records.
func (t *Tracker) catchUp(ctx context.Context, id shoal.PeerID) error {
	if err := t.pull(ctx, id); err != nil {
		return err
	}
	if t.deps.Sync == nil {
		return nil
	}
	if err := t.deps.Sync(ctx, id); err != nil {
		return fmt.Errorf("sync records with %s: %w", id.Short(), err)
	}
	t.follow()
	return nil
}

// rank sorts the connected first.
func rank(isConnected bool) int {
	if isConnected {
		return 0
	}
	return 1
}
