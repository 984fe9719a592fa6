// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"
	"testing"
	"time"
)

const gigabit = 125 * mega

// result is what a run showed.
type result struct {
	took      time.Duration
	factor    float64 // of the optimum
	blobs     float64 // that the seeders sent
	others    float64 // share of what was delivered that came from peers that were no seeders
	fewest    int     // sources of a downloader
	wasted    float64 // bytes on the wire beyond what was needed, as a share
	ok        bool
	fair      float64 // first to end over last
	stalls    int
	starved   int
	dropped   int
	stepTotal int
}

func (r result) String() string {
	return fmt.Sprintf("%.2f s, %.3f of optimum; seeders sent %.3f blobs; %.1f %% from others; at least %d sources; %.2f %% wasted; first/last done %.2f",
		r.took.Seconds(), r.factor, r.blobs, 100*r.others, r.fewest, 100*r.wasted, r.fair)
}

// measure runs a simulation to its end.
func measure(m *sim, limit time.Duration) result {
	m.run(limit, m.allDone)
	r := result{ok: m.allDone(), took: m.now, fewest: len(m.hosts)}
	blob := float64(m.chunks) * ChunkBytes
	var ups, seed, sent, n float64
	first := m.now
	low := float64(1 << 40)
	origin, others := 0, 0
	for _, h := range m.hosts {
		ups += h.up
		sent += h.sent
		for _, e := range h.events {
			switch e {
			case RequestStalled:
				r.stalls++
			case RequestStarved:
				r.starved++
			case RequestDrop:
				r.dropped++
			}
		}
		if h.origin {
			seed += h.up
			r.blobs += h.sent / blob
			continue
		}
		n++
		low = min(low, h.down)
		origin += h.gotOrigin
		others += h.gotOthers
		r.fewest = min(r.fewest, len(h.sources))
		if h.doneAt > 0 {
			first = min(first, h.doneAt)
		}
	}
	optimum := max(blob/seed, blob/low, n*blob/ups)
	r.factor = r.took.Seconds() / optimum
	r.others = float64(others) / float64(max(1, origin+others))
	r.wasted = sent/(n*blob) - 1
	r.fair = first.Seconds() / r.took.Seconds()
	return r
}

// eight is the standing case: one seeder at 20 MB/s, eight downloaders.
func eight(t testing.TB, seed uint64, up float64, rtt time.Duration, exchange bool) *sim {
	m := newSim(t, seed, 256, rtt)
	s := m.seeder(20 * mega)
	for range 8 {
		m.connect(s, m.add(up, max(up, gigabit), nil))
	}
	if exchange {
		m.connectAll()
	}
	return m
}

func TestEight(t *testing.T) {
	for _, c := range []struct {
		up     float64
		rtt    time.Duration
		factor float64
	}{
		{gigabit, time.Millisecond, 1.2},
		{gigabit, 50 * time.Millisecond, 1.2},
		{gigabit, 150 * time.Millisecond, 1.4},
		{20 * mega, time.Millisecond, 1.2},
		{20 * mega, 50 * time.Millisecond, 1.2},
		{20 * mega, 150 * time.Millisecond, 1.4},
	} {
		t.Run(fmt.Sprintf("up=%.0fMB/rtt=%v", c.up/mega, c.rtt), func(t *testing.T) {
			for seed := range uint64(3) {
				r := measure(eight(t, seed, c.up, c.rtt, true), 10*time.Minute)
				t.Log("seed", seed, r)
				if !r.ok || r.factor > c.factor || r.blobs > 1.1 || r.others < 0.8 || r.fewest < 4 {
					t.Errorf("seed %d: %v, want at most %.1f of optimum, 1.1 blobs, at least 80 %% from others, 4 sources", seed, r, c.factor)
				}
			}
		})
	}
}
