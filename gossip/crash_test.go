// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	ds "github.com/ipfs/go-datastore"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/blocks"
)

// storeDir is where a store lies on a disk in memory. What is above it was there, and
// synced, before.
const storeDir = "/data/store"

// crashDisk returns an empty disk that forgets what was not synced.
func crashDisk(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	if err := makeDirs(fs, "/data"); err != nil {
		t.Fatal(err)
	}
	return fs
}

// wreckage is a disk as a crash left it, and what had been acknowledged by then.
type wreckage struct {
	name  string
	files *vfs.MemFS
	acked []string // services
}

// wrecker takes a copy of the disk at failpoints, as a crash at that moment would leave
// it: with none, half or all of what was not synced.
type wrecker struct {
	files  *vfs.MemFS
	only   string // "": every point
	keep   []int  // percentages of what was not synced
	memory uint64 // of a memtable; 0: so little that logs and tables change all the time
	every  int    // 0: the first hits of a point; else every so many, up to 30 times

	mu     sync.Mutex // guards the rest
	hits   map[string]int
	acked  []string
	wrecks []*wreckage
}

func (w *wrecker) moment(point string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hits[point]++
	// The first time is the start of an empty store; the others are in the thick of it.
	n := w.hits[point]
	wanted := n == 1 || n == 12
	if w.every > 0 {
		wanted = n%w.every == 0 && n/w.every <= 30
	}
	if !wanted || w.only != "" && w.only != point {
		return
	}
	for _, percent := range w.keep {
		if n == 1 && percent > 0 && w.every == 0 {
			continue // little was written by then: only what must be there
		}
		cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(n), uint64(percent)))} //nolint:gosec // seeds, and small
		w.wrecks = append(w.wrecks, &wreckage{
			name:  fmt.Sprintf("%s, hit %d, %d%% of what was not synced", point, w.hits[point], percent),
			files: w.files.CrashClone(cfg), acked: slices.Clone(w.acked),
		})
	}
}

func (w *wrecker) ack(service string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = append(w.acked, service)
}

// crashes is what is left after a store was written to, by its own users and by another
// peer, and crashed again and again.
type crashes struct {
	cluster *cluster
	other   *running // the peer that has everything in the end
	wrecks  []*wreckage
	hits    map[string]int
	all     []string // acknowledged in the end
}

// crash runs a store under writes and wrecks it. around is put around its rows.
func crash(t testing.TB, w *wrecker, around func(ds.Batching) ds.Batching) *crashes {
	t.Helper()
	c := newCluster(t, 2)
	w.files, w.hits = crashDisk(t), map[string]int{}
	s := start(t, onMemory(c, hooks{files: w.files, rows: around, moment: w.moment, memory: cmp.Or(w.memory, 128<<10)}), c.deps(t, c.members[0]))
	if err := s.Inject(t.Context(), c.admissions()); err != nil {
		t.Fatal(err)
	}
	other := start(t, c.config(), c.deps(t, c.members[1]))
	carry(t, s, other)
	var wg sync.WaitGroup
	for u := range 3 {
		wg.Go(func() {
			for i := range 12 {
				name := fmt.Sprintf("web%d-%d", u, i)
				s.deploy(t, name)
				w.ack(name)
			}
		})
	}
	wg.Go(func() { // large enough for logs to be changed and tables to be written meanwhile
		for i := range 8 {
			s.large(t, fmt.Sprintf("big%d", i))
		}
	})
	wg.Go(func() {
		for i := range 8 {
			other.mark(t, c.members[1].id, fmt.Sprintf("o%d", i))
			carry(t, other, s)
		}
	})
	wg.Wait()
	s.stop()
	all := onMemoryAgain(t, c, w.files)
	carry(t, all, other)
	all.stop()
	return &crashes{cluster: c, other: other, wrecks: w.wrecks, hits: w.hits, all: w.acked}
}

// onMemory returns the settings of a store at storeDir of these files.
func onMemory(c *cluster, h hooks) Config {
	cfg := c.config()
	cfg.Dir, cfg.hooks = storeDir, h
	return cfg
}

func onMemoryAgain(t testing.TB, c *cluster, files vfs.FS) *running {
	t.Helper()
	return start(t, onMemory(c, hooks{files: files}), c.deps(t, c.members[0]))
}

// large writes a record of some 50 KB.
func (r *running) large(t testing.TB, name string) {
	t.Helper()
	_, err := r.Update(context.Background(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		b, _ := service(name, as).(*shoal.RevisionBody)
		b.Spec.Env = map[string]string{}
		for i := range 60 {
			b.Spec.Env[fmt.Sprintf("V%d", i)] = strings.Repeat("x", 800)
		}
		return []shoal.Body{b}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		t.Errorf("Update = %v", err)
	}
}

// carry gives a store all blocks of another, as a sync does.
func carry(t testing.TB, from, to *running) {
	t.Helper()
	ctx := context.Background()
	all, err := from.rows.all(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var raw []blocks.Block
	var chains []blocks.Chain
	sent := map[shoal.PeerID]bool{}
	for _, c := range all {
		b, err := from.rows.block(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		chains = append(chains, from.chains.authors(b, sent)...)
		raw = append(raw, blocks.Block{CID: c.Bytes(), Data: b.data})
	}
	good := to.judgeAll(ctx, from.self, raw, offered(chains))
	if len(good) == 0 {
		return
	}
	if err := to.merge(ctx, &arrival{blocks: good, from: from.self, done: make(chan error, 1)}); err != nil {
		t.Fatal(err)
	}
}

// faults says what is wrong with a store that is started on a wreck: what it lost, what
// is missing, how it differs after a sync.
func (c *crashes) faults(t testing.TB, w *wreckage) []string {
	t.Helper()
	var out []string
	wrong := func(format string, args ...any) {
		out = append(out, w.name+": "+fmt.Sprintf(format, args...))
	}
	s := onMemoryAgain(t, c.cluster, w.files)
	if at := s.Stats().Aside; at != "" {
		wrong("set aside as %s", at)
	}
	lost := 0
	for _, name := range w.acked {
		if _, ok := s.Desired().Service(name); !ok {
			lost++
		}
	}
	if lost > 0 {
		wrong("%d of %d acknowledged writes lost", lost, len(w.acked))
	}
	if n := c.unmerged(t, s); n != 0 {
		wrong("%d blocks are not whole", n)
	}
	carry(t, c.other, s)
	if s.Digest() != c.other.Digest() {
		wrong("another digest than the peer's after a sync, %d blocks for %d", s.Stats().Blocks, c.other.Stats().Blocks)
	}
	if seq := c.cluster.members[0].seq.last; seq < uint64(len(c.all)) {
		wrong("sequence is at %d", seq)
	}
	s.stop()
	return out
}

// unmerged counts the blocks whose records go-ds-crdt's set does not hold.
func (c *crashes) unmerged(t testing.TB, s *running) int {
	t.Helper()
	all, err := s.rows.all(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, id := range all {
		b, err := s.rows.block(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, el := range b.delta.Elements {
			value := crdtSpace.ChildString("s/k").Child(ds.RawKey(el.Key)).ChildString("v")
			if ok, err := s.rows.rows.Has(t.Context(), value); err != nil || !ok {
				n++
				break
			}
		}
	}
	return n
}

// A crash at any step of the store's life, by a kill or by a power cut, loses nothing
// that was acknowledged, leaves nothing half there, and is no obstacle to agreement.
func TestCrashAtEveryPoint(t *testing.T) {
	c := crash(t, &wrecker{keep: []int{0, 50, 100}}, nil)
	for _, p := range points() {
		if c.hits[p] == 0 && !strings.HasSuffix(p, " row") {
			t.Errorf("no turn passed %q", p)
		}
	}
	for _, w := range c.wrecks {
		for _, fault := range c.faults(t, w) {
			t.Error(fault)
		}
	}
	t.Logf("%d crashes, %d writes acknowledged", len(c.wrecks), len(c.all))
}

// noSync is a disk that says it has synced.
type noSync struct{ ds.Batching }

func (noSync) Sync(context.Context, ds.Key) error { return nil }

// rowByRow is a database without batches: each row is written by itself, and the
// process may die between two.
type rowByRow struct {
	ds.Batching
	moment func(string)
}

type looseRows struct {
	ds.Batch
	to  rowByRow
	ops []func(context.Context) error
}

func (r rowByRow) Batch(context.Context) (ds.Batch, error) { return &looseRows{to: r}, nil }

func (b *looseRows) Put(_ context.Context, k ds.Key, v []byte) error {
	b.ops = append(b.ops, func(ctx context.Context) error { return b.to.Put(ctx, k, v) })
	return nil
}

func (b *looseRows) Delete(_ context.Context, k ds.Key) error {
	b.ops = append(b.ops, func(ctx context.Context) error { return b.to.Delete(ctx, k) })
	return nil
}

func (b *looseRows) Commit(ctx context.Context) error {
	for _, op := range b.ops {
		b.to.moment("between rows")
		if err := op(ctx); err != nil {
			return err
		}
		if err := b.to.Sync(ctx, ds.NewKey("/")); err != nil { // or pebble holds it back in memory
			return err
		}
	}
	return nil
}

// The checks of these tests can fail: without disk syncs a power cut loses what was
// acknowledged.
func TestPowerCutWithoutSyncIsSeen(t *testing.T) {
	c := crash(t, &wrecker{keep: []int{0}, only: "after answer", every: 2, memory: 8 << 20}, func(rows ds.Batching) ds.Batching { return noSync{rows} })
	found := 0
	for _, w := range c.wrecks {
		for _, fault := range c.faults(t, w) {
			if strings.Contains(fault, "acknowledged writes lost") {
				found++
			}
		}
	}
	if found == 0 {
		t.Errorf("%d power cuts of a disk that never syncs lost nothing: the test sees nothing", len(c.wrecks))
	}
}

// Without batches a kill tears a turn; the start after it mends that. With the mending
// switched off, by taking the mark away that asks for it, the same checks fail.
func TestTornTurnsAreMended(t *testing.T) {
	for _, mends := range []bool{true, false} {
		w := &wrecker{keep: []int{100}, only: "between rows"}
		w.every = 11
		c := crash(t, w, func(rows ds.Batching) ds.Batching { return rowByRow{rows, w.moment} })
		var faults []string
		for _, x := range c.wrecks {
			if !mends {
				if err := x.files.Remove(storeDir + "/" + uncleanFile); err != nil {
					t.Fatal(err)
				}
			}
			faults = append(faults, c.faults(t, x)...)
		}
		if mends {
			for _, f := range faults {
				t.Error(f)
			}
		} else if len(faults) == 0 {
			t.Errorf("%d torn turns that nobody mended are well: the test sees nothing", len(c.wrecks))
		}
		t.Logf("mends %t: %d crashes, %d faults", mends, len(c.wrecks), len(faults))
	}
}
