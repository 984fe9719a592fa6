// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/images/swarm"
)

const chunk = swarm.ChunkBytes

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestFetch(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	a, b := w.peers[0], w.peers[1]
	for name, size := range map[string]int{"one byte": 1, "less than a chunk": chunk - 1, "a chunk": chunk, "some chunks": 5*chunk + 17} {
		blob := content(uint64(size), size)
		a.put(blob)
		if err := b.fetch(blobOf(blob)); err != nil {
			t.Fatalf("%s: Fetch = %v", name, err)
		}
		b.has(blob)
	}
}

// TestIsASwarm lets 8 peers fetch a blob from one seeder whose uplink is slow: most of
// what is delivered comes from peers that had nothing, and everybody has several sources.
func TestIsASwarm(t *testing.T) {
	share, sources := seedEight(t, false, 9, 3e6)
	t.Logf("%.1f %% of the bytes from peers that were no seeders, at least %d sources for a blob", 100*share, sources)
	if share < 0.8 || sources < 4 {
		t.Errorf("%.1f %% of the bytes came from peers that were no seeders, a blob had %d sources; want 80 %% and 4", 100*share, sources)
	}
}

// TestIsNoSwarmWithoutExchange shows that the assertion of TestIsASwarm can fail.
func TestIsNoSwarmWithoutExchange(t *testing.T) {
	share, sources := seedEight(t, true, 4, 30e6)
	t.Logf("%.1f %% of the bytes from peers that were no seeders, at least %d sources for a blob", 100*share, sources)
	if share >= 0.8 || sources >= 4 {
		t.Errorf("without peer exchange %.1f %% of the bytes came from peers that were no seeders, with %d sources", 100*share, sources)
	}
}

// seedEight returns which share of the delivered bytes came from downloaders, and the
// fewest sources of a blob at a peer.
func seedEight(t *testing.T, isWithout bool, chunks int, rate int64) (share float64, fewest int) {
	t.Helper()
	cfg := quick()
	cfg.NoExchange = isWithout
	cfg.Patience, cfg.Stall = 20*time.Second, 60*time.Second // this machine may be busy
	slow := cfg
	slow.UpRate = rate
	w := newWorld(t, append([]Config{slow}, many(8, cfg)...)...)
	seeder := w.peers[0]
	w.holdersAre(seeder)
	blob := content(1, chunks*chunk+5)
	seeder.put(blob)
	var g errgroup.Group
	for _, m := range w.peers[1:] {
		g.Go(func() error { return m.fetch(blobOf(blob)) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var bytes, others int64
	fewest = len(w.peers)
	for _, m := range w.peers[1:] {
		m.has(blob)
		st := m.x.Stats()
		for _, b := range st.Blobs {
			fewest = min(fewest, len(b.Sources))
			for _, s := range b.Sources {
				bytes += s.Bytes
				if s.Peer != seeder.id {
					others += s.Bytes
				}
			}
		}
	}
	if want := int64(8 * len(blob)); bytes != want {
		t.Errorf("%d bytes were delivered, want %d", bytes, want)
	}
	return float64(others) / float64(bytes), fewest
}
