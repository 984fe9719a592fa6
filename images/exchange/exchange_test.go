// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

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

// TestIsASwarm lets 8 peers fetch a blob from one seeder whose uplink is slow: most of what
// is delivered comes from peers that had nothing, and everybody has several sources.
func TestIsASwarm(t *testing.T) {
	share, sources := seedEight(t, false, 8)
	if share < 0.8 || sources < 4 {
		t.Errorf("%.1f %% of the bytes came from peers that were no seeders, a blob had %d sources; want 80 %% and 4", 100*share, sources)
	}
}

// TestIsNoSwarmWithoutExchange shows that the assertion of TestIsASwarm can fail.
func TestIsNoSwarmWithoutExchange(t *testing.T) {
	share, sources := seedEight(t, true, 4)
	if share >= 0.8 || sources >= 4 {
		t.Errorf("without peer exchange %.1f %% of the bytes came from peers that were no seeders, with %d sources", 100*share, sources)
	}
}

// seedEight returns which share of the delivered bytes came from downloaders, and the
// fewest sources of the blob at a peer.
func seedEight(t *testing.T, isWithout bool, chunks int) (share float64, fewest int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, end := simulate(t, 4*time.Millisecond)
		defer end()
		cfg := Defaults()
		cfg.NoExchange = isWithout
		for _, c := range seedAndEight(cfg, 10e6) {
			w.add(c)
		}
		seeder := w.peers[0]
		blob := content(1, chunks*chunk+5)
		_, optimum := w.race(blob)
		var bytes, others int64
		fewest = len(w.peers)
		for _, m := range w.peers[1:] {
			m.has(blob)
			for _, b := range m.x.Stats().Blobs {
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
		share = float64(others) / float64(bytes)
		t.Logf("%.2f of optimum; %.1f %% of the bytes from peers that were no seeders, at least %d sources; the seeder sent %.2f blobs",
			optimum, 100*share, fewest, float64(seeder.sentBytes())/float64(len(blob)))
	})
	return share, fewest
}
