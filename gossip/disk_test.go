// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/gossiptest"
)

// peerOnDisk is a member with a real host on loopback and a real store.
type peerOnDisk struct {
	*running
	host host.Host
	deps Deps
	cfg  Config
}

// onLoopback starts member i of c: TCP on 127.0.0.1, pebble in a directory.
func onLoopback(t testing.TB, c *cluster, i int, dir string) *peerOnDisk {
	t.Helper()
	a := c.members[i]
	h, err := libp2p.New(libp2p.Identity(a.key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ps, err := NewPubSub(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := h.Close(); err != nil {
			t.Errorf("close host: %v", err)
		}
	})
	cfg, deps := LAN(), c.deps(t, a)
	cfg.Cluster, cfg.Dir, cfg.Reserve = c.key.id, dir, 0
	deps.Host, deps.PubSub = h, ps
	return &peerOnDisk{running: start(t, cfg, deps), host: h, deps: deps, cfg: cfg}
}

func (p *peerOnDisk) connect(t testing.TB, o *peerOnDisk) {
	t.Helper()
	if err := p.host.Connect(t.Context(), peer.AddrInfo{ID: o.host.ID(), Addrs: o.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// restart starts another store on the directory of one that has stopped.
func (p *peerOnDisk) restart(t testing.TB) {
	t.Helper()
	p.stop()
	p.running = start(t, p.cfg, p.deps)
}

func TestStoreContract(t *testing.T) {
	gossiptest.Run(t, func(t testing.TB) gossiptest.Fixture {
		c := newCluster(t, 2)
		var peers []*peerOnDisk
		for i := range 2 {
			p := onLoopback(t, c, i, filepath.Join(t.TempDir(), "store"))
			if err := p.Inject(context.Background(), c.admissions()); err != nil {
				t.Fatal(err)
			}
			peers = append(peers, p)
		}
		return gossiptest.Fixture{
			Store: peers[0].Store, Other: peers[1].Store,
			Connect: func(t testing.TB) { peers[0].connect(t, peers[1]) },
			Reopen: func(t testing.TB) shoal.Store {
				peers[0].restart(t)
				return peers[0].Store
			},
		}
	})
}

// awaitDigest waits until both have one digest.
func awaitDigest(t testing.TB, a, b shoal.Store) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		first, second := a.Changed(), b.Changed()
		if a.Desired().Digest == b.Desired().Digest {
			return
		}
		select {
		case <-first:
		case <-second:
		case <-late:
			t.Fatal("digests differ after 20s")
		}
	}
}

func onDisk(t testing.TB, c *cluster, dir string) *running {
	t.Helper()
	cfg := LAN()
	cfg.Cluster, cfg.Dir, cfg.Reserve = c.key.id, dir, 0
	return start(t, cfg, c.deps(t, c.members[0]))
}

// What was acknowledged is there after a crash: here the files as they lie while the
// store runs, which is what a killed process leaves.
func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	c := newCluster(t, 1)
	dir := filepath.Join(t.TempDir(), "store")
	s := onDisk(t, c, dir)
	if err := s.Inject(t.Context(), c.admissions()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				s.mark(t, c.members[0].id, fmt.Sprintf("m%d-%d", w, i))
			}
		})
	}
	wg.Wait()
	digest, records, last := s.Digest(), s.Stats().Records, c.members[0].seq.last
	crashed := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s.stop()
	c.members[0].seq.last = 0 // and what lies beside the key was restored from a backup
	again := onDisk(t, c, crashed)
	if got := again.Stats(); again.Digest() != digest || got.Records != records || got.Mended != 0 {
		t.Errorf("after a crash: digest equal %t, %+v, want %d records and nothing to mend", again.Digest() == digest, got, records)
	}
	if seq := c.members[0].seq.last; seq != last {
		t.Errorf("sequence %d after reading own records up to %d", seq, last)
	}
	again.deploy(t, "web")
}

// wreck opens a stopped store's rows and lets a test damage them.
func wreck(t testing.TB, disk *MemoryDisk, space ds.Key, some func(i int) bool) int {
	t.Helper()
	res, err := disk.rows.Query(t.Context(), query.Query{Prefix: space.String(), KeysOnly: true, Orders: []query.Order{query.OrderByKey{}}})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := res.Rest()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, row := range rows {
		if some(i) {
			n++
			if err := disk.rows.Delete(t.Context(), ds.RawKey(row.Key)); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk.open = true // it was not closed cleanly
	return n
}

// go-ds-crdt alone leaves holes after a kill (FACTS section 2). Our batches cannot,
// but if rows are lost by whatever cause, the start finds and mends it.
func TestMendAfterLostRows(t *testing.T) {
	every := func(int) bool { return true }
	for name, c := range map[string]struct {
		space ds.Key
		some  func(int) bool
	}{
		"values of some elements": {crdtSpace.ChildString("s"), func(i int) bool { return i%7 == 0 }},
		"all elements":            {crdtSpace.ChildString("s"), every},
		"all marks":               {crdtSpace.ChildString("b"), every},
		"some marks and the head": {crdtSpace.ChildString("b"), func(i int) bool { return i%3 == 0 }},
		"the heads":               {crdtSpace.ChildString("h"), every},
		"all of go-ds-crdt":       {crdtSpace, every},
	} {
		disk := NewMemoryDisk()
		clu, s := alone(t, func(cfg *Config) { cfg.Memory = disk })
		for i := range 30 {
			s.mark(t, clu.members[0].id, fmt.Sprintf("m%d", i))
		}
		digest, heads := s.Digest(), s.committed().heads
		s.stop()
		if wreck(t, disk, c.space, c.some) == 0 {
			t.Fatalf("%s: nothing was damaged", name)
		}
		cfg := clu.config()
		cfg.Memory = disk
		again := start(t, cfg, clu.deps(t, clu.members[0]))
		if again.Digest() != digest {
			t.Errorf("%s: digest differs", name)
		}
		if got := again.committed().heads; len(got) != 1 || got[0] != heads[0] {
			t.Errorf("%s: heads %v, want %v", name, got, heads)
		}
		again.deploy(t, "web")
		again.stop()
		checkWhole(t, name, disk)
	}
}

// checkWhole checks that go-ds-crdt's set holds every element of every block.
func checkWhole(t testing.TB, name string, disk *MemoryDisk) {
	t.Helper()
	eng, err := openEngine(t.Context(), disk.rows, &hooks{}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = eng.close() }()
	n, err := eng.mend(t.Context())
	if err != nil || n != 0 {
		t.Errorf("%s: %d blocks still to mend, %v", name, n, err)
	}
}

func TestLostBlockIsTorn(t *testing.T) {
	disk := NewMemoryDisk()
	c, s := alone(t, func(cfg *Config) { cfg.Memory = disk })
	for i := range 10 {
		s.mark(t, c.members[0].id, fmt.Sprintf("m%d", i))
	}
	s.stop()
	wreck(t, disk, blockSpace, func(i int) bool { return i == 3 })
	cfg := c.config()
	cfg.Memory = disk
	again, err := New(cfg, c.deps(t, c.members[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(t.Context()); !errors.Is(err, errTorn) {
		t.Errorf("Run = %v, want errTorn", err)
	}
}

// A store that cannot be read is moved aside and refilled from a peer before
// anything is written; one that is merely in use is left alone.
func TestBrokenStoreIsSetAsideAndRefilled(t *testing.T) {
	c := newCluster(t, 2)
	dir := filepath.Join(t.TempDir(), "store")
	a := onLoopback(t, c, 0, dir)
	b := onLoopback(t, c, 1, filepath.Join(t.TempDir(), "store"))
	if err := a.Inject(t.Context(), c.admissions()); err != nil {
		t.Fatal(err)
	}
	a.connect(t, b)
	for i := range 20 {
		a.mark(t, c.members[1].id, fmt.Sprintf("m%d", i))
	}
	awaitDigest(t, a, b)

	second, err := New(a.cfg, a.deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); !errors.Is(err, errInUse) {
		t.Errorf("Run on a directory in use = %v, want errInUse", err)
	}
	if _, err := os.Stat(dir + ".broken-0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store in use was moved aside: %v", err)
	}

	a.stop()
	damage(t, filepath.Join(dir, databaseDir))
	a.running = start(t, a.cfg, a.deps)
	if got := a.Stats(); got.Aside != dir+".broken-0" || got.Records == 0 {
		t.Errorf("when ready %+v, want the broken store aside and the new one refilled", got)
	}
	awaitDigest(t, b, a)
	a.deploy(t, "web")
	awaitDigest(t, a, b)
}

// damage overwrites the beginning of every table and log of a pebble database.
func damage(t testing.TB, db string) {
	t.Helper()
	files, err := os.ReadDir(db)
	if err != nil {
		t.Fatal(err)
	}
	hit := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".sst") && !strings.HasPrefix(f.Name(), "MANIFEST") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(db, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(64, len(raw)) {
			raw[i] ^= 0xff
		}
		if err := os.WriteFile(filepath.Join(db, f.Name()), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		hit++
	}
	if hit == 0 {
		t.Fatalf("nothing to damage in %s: %v", db, files)
	}
}

func TestFullDiskIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	c := newCluster(t, 1)
	cfg := LAN()
	cfg.Cluster, cfg.Dir, cfg.Reserve = c.key.id, filepath.Join(t.TempDir(), "store"), 1<<60
	s := start(t, cfg, c.deps(t, c.members[0]))
	_, err := s.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{service("web", as)}, nil
	}, shoal.UpdateOptions{})
	if !errors.Is(err, shoal.ErrNoSpace) || !strings.HasSuffix(err.Error(), "; free some, or ask another peer; what runs goes on") {
		t.Errorf("Update = %v, want ErrNoSpace, and what to do", err)
	}
	if got := s.Stats(); got.Blocks != 0 || got.Flushes != 0 {
		t.Errorf("%+v, want nothing written", got)
	}
}

// When nothing changes nothing is written, for an hour of syncs and heartbeats.
func TestSimIdleWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3)
		s.connectAll()
		var gates []*gate
		for i := range 3 {
			disk := NewMemoryDisk()
			g := &gate{Batching: disk.rows}
			disk.rows = g
			gates = append(gates, g)
			s.start(i, false, func(cfg *Config) { cfg.Memory = disk })
		}
		if err := s.stores[0].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.converged(0)
		var before []int
		for _, g := range gates {
			before = append(before, g.set(nil, nil))
		}
		equal := s.stores[0].Stats()
		time.Sleep(time.Hour)
		for i, g := range gates {
			if n := g.set(nil, nil); n != before[i] {
				t.Errorf("store %d synced its disk %d times while idle", i, n-before[i])
			}
		}
		now := s.stores[0].Stats()
		syncs := now.SyncEqual - equal.SyncEqual
		if syncs < 100 {
			t.Errorf("%d syncs in an hour, want one about every 10s", syncs)
		}
		t.Logf("an idle hour: %d syncs, %d bytes", syncs, now.SyncIn+now.SyncOut-equal.SyncIn-equal.SyncOut)
	})
}

// A peer stopped and started in a simulation has everything on its memory disk.
func TestSimRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 2)
		s.connectAll()
		disk := NewMemoryDisk()
		keep := func(cfg *Config) { cfg.Memory = disk; cfg.WroteBefore = true }
		s.start(1, false, nil)
		if err := s.stores[1].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		s.start(0, false, keep) // empty, though it wrote before: it waits to be refilled
		if s.stores[0].Stats().Records == 0 {
			t.Errorf("ready after %v without being refilled", time.Since(begin))
		}
		s.stores[0].deploy(t, "web")
		digest := s.stores[0].Digest()
		s.stores[0].stop()
		cfg, deps := s.c.config(), s.c.deps(t, s.c.members[0])
		keep(&cfg)
		again := start(t, cfg, deps)
		if again.Digest() != digest {
			t.Error("digest differs after a restart")
		}
	})
}

// A peer that stops and starts again and again, while all write and it is asked for
// syncs, loses nothing and breaks nothing.
func TestRestartsUnderWrites(t *testing.T) {
	c := newCluster(t, 3)
	var peers []*peerOnDisk
	for i := range 3 {
		p := onLoopback(t, c, i, filepath.Join(t.TempDir(), "store"))
		for _, o := range peers {
			p.connect(t, o)
		}
		peers = append(peers, p)
	}
	if err := peers[0].Inject(t.Context(), c.admissions()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, p := range peers[:2] {
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				p.mark(t, c.members[i].id, fmt.Sprintf("m%d", k))
			}
		})
	}
	for range 5 {
		old := peers[2].Store
		var asks sync.WaitGroup
		for range 4 {
			asks.Go(func() {
				for old.SyncWith(ctx, c.members[0].id) == nil {
				}
			})
		}
		for k := range 5 {
			peers[2].mark(t, c.members[2].id, fmt.Sprintf("x%d", k))
		}
		peers[2].restart(t)
		asks.Wait()
	}
	cancel()
	wg.Wait()
	awaitDigest(t, peers[0], peers[1])
	for i, p := range peers[:2] {
		if err := peers[2].SyncWith(t.Context(), c.members[i].id); err != nil {
			t.Fatal(err)
		}
		if err := p.SyncWith(t.Context(), c.members[2].id); err != nil {
			t.Fatal(err)
		}
	}
	awaitDigest(t, peers[0], peers[2])
	for i, p := range peers {
		if got := p.Stats(); len(got.Refused) > 0 || p.Digest() != peers[0].Digest() {
			t.Errorf("peer %d: %+v, want the digest of the first and nothing refused", i, got)
		}
	}
	t.Logf("%d records", peers[0].Stats().Records)
}
