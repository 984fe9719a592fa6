// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"
	"os"
	"testing"
	"time"
)

const gigabit = 125 * mega

// result is what a run showed.
type result struct {
	took    time.Duration
	factor  float64 // of the optimum
	blobs   float64 // that the seeders sent
	others  float64 // share of what was delivered that came from peers that were no seeders
	fewest  int     // sources of a downloader
	wasted  float64 // bytes on the wire beyond what was needed, as a share
	ok      bool
	first   time.Duration // to be done
	fair    float64       // first to end over last
	stalls  int
	starved int
	dropped int
}

func (r result) String() string {
	return fmt.Sprintf("%.2f s, %.3f of optimum; seeders sent %.3f blobs; %.1f %% from others; at least %d sources; %.2f %% wasted; first done %.1f s, %.2f of last",
		r.took.Seconds(), r.factor, r.blobs, 100*r.others, r.fewest, 100*r.wasted, r.first.Seconds(), r.fair)
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
		if h.liar || h.gone {
			ups -= h.up
		} else {
			sent += h.sent
		}
		for _, e := range h.events {
			switch e {
			case RequestStalled:
				r.stalls++
			case RequestStarved:
				r.starved++
			case RequestDrop:
				r.dropped++
			default:
			}
		}
		if h.liar {
			continue
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
	r.first = first
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

// TestAlone shows that it is the exchange that does it: the aims are missed by far when
// downloaders do not know one another.
func TestAlone(t *testing.T) {
	r := measure(eight(t, 1, gigabit, time.Millisecond, false), 10*time.Minute)
	t.Log(r)
	if !r.ok || r.factor < 5 || r.blobs < 7.9 || r.others > 0 {
		t.Errorf("without exchange: %v, want eight blobs from the seeder and eight times the optimum", r)
	}
}

// TestCrowd is 200 peers and a blob of 1 GiB, all links alike; everybody knows a few.
func TestCrowd(t *testing.T) {
	n, chunks, limit := 50, 256, 1.4
	if _, ok := os.LookupEnv("SHOAL_SIM"); ok {
		n, chunks, limit = 200, 1024, 1.3
	}
	m := crowd(t, 1, n, chunks, 12)
	began := time.Now()
	r := measure(m, time.Hour)
	t.Logf("%d peers, %d chunks: %v; it took %v", n, chunks, r, time.Since(began).Round(time.Millisecond))
	if !r.ok || r.factor > limit || r.others < 0.95 || r.fair < 0.7 {
		t.Errorf("%v, want %.1f of optimum, 98 %% from others, the first done after 0.7 of the last", r, limit)
	}
}

// crowd connects each peer with a few that came before it, at random.
func crowd(t testing.TB, seed uint64, n, chunks, few int) *sim {
	m := newSim(t, seed, chunks, 20*time.Millisecond)
	m.seeder(20 * mega)
	for range n {
		m.add(20*mega, gigabit, nil)
	}
	for i, h := range m.hosts {
		for range few {
			m.connect(h, m.hosts[m.rng.IntN(len(m.hosts))])
		}
		if i > 0 {
			m.connect(h, m.hosts[i-1])
		}
	}
	return m
}

// TestSources are the shapes in which a blob lies about when others come for it.
func TestSources(t *testing.T) {
	for name, c := range map[string]struct {
		make   func() *sim
		factor float64
		blobs  float64
	}{
		"two seeders, eight downloaders": {func() *sim {
			m := newSim(t, 1, 256, 10*time.Millisecond)
			m.seeder(20 * mega)
			m.seeder(20 * mega)
			for range 8 {
				m.add(40*mega, gigabit, nil)
			}
			m.connectAll()
			return m
		}, 1.25, 1.15},
		"five seeders, two downloaders": {func() *sim {
			m := newSim(t, 1, 256, 10*time.Millisecond)
			for range 5 {
				m.seeder(20 * mega)
			}
			m.add(20*mega, gigabit, nil)
			m.add(20*mega, gigabit, nil)
			m.connectAll()
			return m
		}, 1.2, 2},
		"two peers, 150 ms apart, 1 Gbit/s": {func() *sim {
			m := newSim(t, 1, 1024, 150*time.Millisecond)
			m.stream = 64 << 20
			m.seeder(gigabit)
			m.add(gigabit, gigabit, nil)
			m.connectAll()
			return m
		}, 1.15, 1},
		"half behind 16 Mbit/s": {func() *sim {
			m := newSim(t, 1, 256, 20*time.Millisecond)
			m.seeder(20 * mega)
			for i := range 16 {
				if i%2 == 0 {
					m.add(2*mega, 2*mega, nil)
				} else {
					m.add(20*mega, gigabit, nil)
				}
			}
			m.connectAll()
			return m
		}, 1.1, 1.7},
	} {
		t.Run(name, func(t *testing.T) {
			r := measure(c.make(), 10*time.Minute)
			t.Log(r)
			if !r.ok || r.factor > c.factor || r.blobs > c.blobs {
				t.Errorf("%v, want at most %.2f of optimum and %.2f blobs from seeders", r, c.factor, c.blobs)
			}
		})
	}
}

// TestRough draws links of all kinds, up to 120 ms apart, and peers that come within
// three seconds.
func TestRough(t *testing.T) {
	for seed := range uint64(6) {
		m := newSim(t, seed, 256, time.Millisecond)
		m.seeder(20 * mega)
		for range 16 {
			h := m.add(float64(4+m.rng.IntN(121))*mega, float64(25+m.rng.IntN(176))*mega, nil)
			h.far = time.Duration(m.rng.IntN(60)) * time.Millisecond
			at := time.Duration(m.rng.IntN(3000)) * time.Millisecond
			m.after(at, func() {
				for _, o := range m.hosts {
					if o.origin || len(o.peers) > 0 {
						m.connect(h, o)
					}
				}
			})
		}
		r := measure(m, 10*time.Minute)
		t.Log("seed", seed, r)
		if !r.ok || r.factor > 1.2 || r.blobs > 1.15 || r.others < 0.9 {
			t.Errorf("seed %d: %v, want at most 1.2 of optimum and 1.15 blobs", seed, r)
		}
	}
}
