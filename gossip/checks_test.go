// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
	"github.com/shoalnet/shoal/proto/blocks"
)

// A check that cannot fail proves nothing: each of the four things that a store stands
// on is taken away, and the property that it keeps must be seen to break.
func TestChecksMatter(t *testing.T) {
	without := func(change func(*checks)) checks {
		c := allChecks()
		change(&c)
		return c
	}
	for _, c := range []struct {
		name     string
		property func(testing.TB, checks) error
		off      checks
	}{
		{"signatures", forgedIsRefused, without(func(c *checks) {
			c.signed = func(shoal.PeerID, *shoal.Record) error { return nil }
		})},
		{"heights", misplacedIsRefused, without(func(c *checks) {
			c.placed = func(uint64, uint64) bool { return true }
		})},
		{"the merge's tie-break", orderDoesNotMatter, without(func(c *checks) { c.merge = firstComes })},
	} {
		missed(t, c.name, c.property(t, allChecks()), c.property(t, c.off))
	}
	plain := acknowledgedSurvives(t, hooks{})
	missed(t, "the disk's sync", plain, acknowledgedSurvives(t, hooks{rows: func(rows ds.Batching) ds.Batching { return unsynced{rows} }}))
}

// missed wants a property to hold with a check and to break without it.
func missed(t testing.TB, name string, with, without error) {
	t.Helper()
	if with != nil {
		t.Errorf("with %s: %v", name, with)
	}
	if without == nil {
		t.Errorf("without %s nothing is seen to break", name)
	}
	t.Logf("without %s: %v", name, without)
}

// unsynced is a datastore that is never told to make anything last.
type unsynced struct{ ds.Batching }

// Sync implements [ds.Datastore].
func (unsynced) Sync(context.Context, ds.Key) error { return nil }

// feed gives a store blocks of the first member, judged, as a sync would.
func feed(t testing.TB, s *running, c *cluster, list ...blocks.Block) {
	t.Helper()
	for _, in := range list {
		b, no := s.chains.judge(in, offers{c.members[0].id: {Peer: c.members[0].id, Envelopes: c.chains[c.members[0].id]}})
		if no != nil {
			continue
		}
		if err := s.merge(t.Context(), &arrival{blocks: []*block{b}, from: c.members[0].id, done: make(chan error, 1)}); err != nil {
			t.Fatal(err)
		}
	}
}

// hostileOf returns the blocks of the corpus that are refused for a reason.
func hostileOf(t testing.TB, c *cluster, reason string) []hostile {
	t.Helper()
	f := &forger{t: t, c: c, evil: c.members[0], other: c.members[1], seq: 1 << 20}
	base, err := readCID(f.block(nil).CID)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(corpus(t, c, base, 1), func(h hostile) bool { return h.reason != reason })
}

// forgedIsRefused: no record counts that its author did not sign.
func forgedIsRefused(t testing.TB, on checks) error {
	t.Helper()
	c := newCluster(t, 2)
	s := startWith(t, c.config(), c.deps(t, c.members[1]), on)
	defer s.stop()
	for _, h := range hostileOf(t, c, reasonSignature) {
		feed(t, s, c, h.block)
		if n := s.Stats().Records; n > 0 {
			return fmt.Errorf("%d records came in by a block with %s", n, h.name)
		}
	}
	return nil
}

// misplacedIsRefused: no block comes in but right above its parents, and so nobody can
// freeze a key or claim to be above everybody.
func misplacedIsRefused(t testing.TB, on checks) error {
	t.Helper()
	c := newCluster(t, 2)
	s := startWith(t, c.config(), c.deps(t, c.members[1]), on)
	defer s.stop()
	for _, h := range hostileOf(t, c, reasonHeight) {
		feed(t, s, c, h.block)
		if got := s.Stats(); got.Blocks > 0 {
			return fmt.Errorf("a block of height %d came in by %s", got.Height, h.name)
		}
	}
	return nil
}

// orderDoesNotMatter: stores with the same records are in the same state, however these
// came, also if an author signed two for one key.
func orderDoesNotMatter(t testing.TB, on checks) error {
	t.Helper()
	c := newCluster(t, 2)
	fork := func(id string) blocks.Block {
		_, env := c.members[0].record(t, 77, &shoal.MarkBody{Peer: c.members[1].id, Laid: []shoal.Mark{{ID: id}}})
		return forge(t, nil, delta(t, 1, env))
	}
	list := []blocks.Block{fork("one"), fork("two"), fork("three")}
	var digests []shoal.Digest
	for range 2 {
		slices.Reverse(list)
		cfg, deps := c.config(), c.deps(t, c.members[1])
		s := startWith(t, cfg, deps, on)
		if err := s.Inject(t.Context(), c.admissions()); err != nil {
			t.Fatal(err)
		}
		feed(t, s, c, list...)
		if got := s.Stats().Records; got != len(list)+len(c.members) {
			t.Fatalf("%d records, want all", got)
		}
		digests = append(digests, s.Digest())
		s.stop()
	}
	if digests[0] != digests[1] {
		return fmt.Errorf("the same records in another order come to %s and %s", digests[0], digests[1])
	}
	return nil
}

// firstComes is a merge by order of arrival.
func firstComes(s fold.State, entries ...fold.Entry) (fold.State, bool) {
	held := map[string]bool{}
	for _, e := range s.Entries() {
		held[e.Record.Key()] = true
	}
	return s.Add(slices.DeleteFunc(slices.Clone(entries), func(e fold.Entry) bool { return held[e.Record.Key()] })...)
}

// acknowledgedSurvives: what Update answered for is there after the power went.
func acknowledgedSurvives(t testing.TB, h hooks) error {
	t.Helper()
	c := newCluster(t, 1)
	power := &powered{Batching: NewMemoryDisk().rows}
	cfg := c.config()
	cfg.Memory, cfg.hooks = &MemoryDisk{rows: power}, h
	s := start(t, cfg, c.deps(t, c.members[0]))
	if err := s.Inject(t.Context(), c.admissions()); err != nil {
		t.Fatal(err)
	}
	s.deploy(t, "web")
	digest, left := s.Digest(), power.cut(t)
	s.stop()
	cfg.Memory, cfg.hooks = &MemoryDisk{rows: left, open: true}, hooks{}
	again := start(t, cfg, c.deps(t, c.members[0]))
	defer again.stop()
	if _, ok := again.Desired().Service("web"); !ok || again.Digest() != digest {
		return fmt.Errorf("acknowledged, and gone when the power was back: %d records are left", again.Stats().Records)
	}
	return nil
}

// powered is a datastore that forgets, when the power is cut, what was not synced.
type powered struct {
	ds.Batching
	mu     sync.Mutex
	synced []query.Entry // guarded by mu
}

// Sync implements [ds.Datastore].
func (p *powered) Sync(ctx context.Context, _ ds.Key) error {
	res, err := p.Query(ctx, query.Query{})
	if err != nil {
		return err
	}
	all, err := res.Rest()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synced = all
	return err
}

// cut returns what is left.
func (p *powered) cut(t testing.TB) ds.Batching {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	rows := NewMemoryDisk().rows
	for _, e := range p.synced {
		if err := rows.Put(t.Context(), ds.NewKey(e.Key), e.Value); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}
