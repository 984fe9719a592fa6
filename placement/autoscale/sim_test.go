// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// model is a service as a queue: work of so many cores comes in each second, every ready
// replica does one core's worth at most, and what is left waits. Replicas take a while to
// start, and their use is told every 15 s as the mean of that time, with noise.
type model struct {
	work  func(t time.Duration) float64 // cores
	start time.Duration
	noise func() float64 // a factor around 1

	since    []time.Duration // each replica began to start
	queue    float64         // core seconds
	used     []float64       // core seconds since the last report
	told     []float64       // cores; below 0: not told yet
	most     float64         // of the queue
	changes  int
	turns    int // a change in the other direction than the one before
	last     int
	min, max int
}

// run plays the model for a while with the decisions of a, and returns how many replicas
// there are at each second.
func (w *model) run(a *shoal.Autoscale, n int, for_ time.Duration) []int {
	for range n {
		w.add(-time.Hour)
	}
	in := Input{Current: n, Said: shoal.RevisionID{Seq: 1, Author: "a"}}
	var m Memory
	var out []int
	w.min, w.max = n, n
	for at := time.Duration(0); at < for_; at += time.Second {
		w.second(at)
		if at%(15*time.Second) == 0 {
			for i := range w.used {
				if w.since[i]+w.start <= at {
					w.told[i] = w.used[i] / 15 * w.noise()
				}
				w.used[i] = 0
			}
		}
		in.Now, in.Metrics = at, []Metric{w.metric(a)}
		var d Decision
		if m, d = Decide(a, m, in); d.Want != in.Current {
			w.change(at, d.Want-in.Current)
			in.Current = d.Want
			in.Said.Seq++
		}
		out = append(out, in.Current)
	}
	return out
}

func (w *model) add(at time.Duration) {
	w.since, w.used, w.told = append(w.since, at), append(w.used, 0), append(w.told, -1)
}

func (w *model) second(at time.Duration) {
	w.queue += w.work(at)
	ready := 0
	for _, s := range w.since {
		if s+w.start <= at {
			ready++
		}
	}
	if ready == 0 {
		return
	}
	each := min(1, w.queue/float64(ready))
	for i, s := range w.since {
		if s+w.start <= at {
			w.used[i] += each
			w.queue -= each
		}
	}
	w.queue = max(w.queue, 0)
	w.most = max(w.most, w.queue)
}

func (w *model) metric(a *shoal.Autoscale) Metric {
	m := Metric{Name: "cpu", Target: float64(a.CPU) * 10, Shown: float64(a.CPU), Unit: "%", Used: true}
	for _, t := range w.told {
		if t < 0 {
			m.Missing++
			continue
		}
		m.Load += t * 1000
	}
	return m
}

func (w *model) change(at time.Duration, by int) {
	w.changes++
	if by*w.last < 0 {
		w.turns++
	}
	w.last = by
	for range by {
		w.add(at)
	}
	if by < 0 {
		n := len(w.since) + by
		w.since, w.used, w.told = w.since[:n], w.used[:n], w.told[:n]
	}
	w.min, w.max = min(w.min, len(w.since)), max(w.max, len(w.since))
}

// TestLoads: how often the number changes, that it goes up and down no more often than the
// load does, when it has followed, and how long the queue gets.
func TestLoads(t *testing.T) {
	tests := map[string]struct {
		work           func(t time.Duration) float64
		last           time.Duration
		changes, turns int // at most
		end            [2]int
		queue          float64       // core seconds
		follows        time.Duration // when the number is as at the end for good
	}{
		"steady":    {func(time.Duration) float64 { return 1.8 }, time.Hour, 0, 0, [2]int{3, 3}, 1, 0},
		"step up":   {func(t time.Duration) float64 { return pick(t < 5*time.Minute, 1.8, 6) }, 20 * time.Minute, 6, 1, [2]int{9, 11}, 100, 12 * time.Minute},
		"step down": {func(t time.Duration) float64 { return pick(t < 5*time.Minute, 1.8, 1) }, 20 * time.Minute, 1, 0, [2]int{2, 2}, 1, 11 * time.Minute},
		"ramp":      {func(t time.Duration) float64 { return 1.8 + t.Minutes()/5 }, 40 * time.Minute, 20, 0, [2]int{15, 18}, 10, 40 * time.Minute},
		"sine of 10 minutes": { // it goes up and down as often as the load, and not more
			func(t time.Duration) float64 { return 4 + 2*math.Sin(t.Minutes()/10*2*math.Pi) }, 2 * time.Hour, 75, 24, [2]int{7, 11}, 40, 2 * time.Hour,
		},
		"spike of 20 s": {func(t time.Duration) float64 {
			return pick(t > 5*time.Minute && t <= 5*time.Minute+20*time.Second, 9, 1.8)
		}, 30 * time.Minute, 5, 1, [2]int{3, 3}, 180, 13 * time.Minute},
		"spikes every two minutes": { // of 20 s each: what the first calls for stays
			func(t time.Duration) float64 { return pick(t%(2*time.Minute) < 20*time.Second, 5, 1.8) }, time.Hour, 8, 2, [2]int{5, 9}, 100, time.Hour,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := &model{work: tt.work, start: 5 * time.Second, noise: func() float64 { return 1 }}
			a := shape(func(a *shoal.Autoscale) { a.Max = 20 })
			got := w.run(a, 3, tt.last)
			end := got[len(got)-1]
			settled := len(got) - 1
			for settled > 0 && got[settled-1] == end {
				settled--
			}
			t.Logf("%d changes, %d turns, %d-%d replicas, %d at the end, since %ds, longest queue %.0f core seconds", w.changes, w.turns, w.min, w.max, end, settled, w.most)
			if w.changes > tt.changes || w.turns > tt.turns || end < tt.end[0] || end > tt.end[1] || w.most > tt.queue || time.Duration(settled)*time.Second > tt.follows {
				t.Errorf("want at most %d changes, %d turns, %d-%d at the end since %s, a queue of %.0f", tt.changes, tt.turns, tt.end[0], tt.end[1], tt.follows, tt.queue)
			}
			if w.min < a.Min || w.max > a.Max {
				t.Errorf("%d-%d replicas, outside of the bounds", w.min, w.max)
			}
		})
	}
}

func pick(is bool, a, b float64) float64 {
	if is {
		return a
	}
	return b
}

// TestSettles: under any load that stays, with up to 4 % of noise, the number comes near
// what the target says, or to a bound, and does not go up and down there. Just below a whole
// number the noise may keep one replica for longer than the window.
func TestSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cores := rapid.Float64Range(.05, 15).Draw(t, "cores")
		from := rapid.IntRange(2, 20).Draw(t, "from")
		start := time.Duration(rapid.IntRange(1, 40).Draw(t, "start")) * time.Second
		seed := rapid.Uint64().Draw(t, "noise")
		w := &model{work: func(time.Duration) float64 { return cores }, start: start, noise: func() float64 {
			seed = seed*6364136223846793005 + 1442695040888963407
			return 1 + .04*(float64(seed>>11)/(1<<52)-1)
		}}
		a := shape(func(a *shoal.Autoscale) { a.Max = 20 })
		got := w.run(a, from, 40*time.Minute)
		n := got[len(got)-1]
		// A load that lies at the edge of the tolerance may be met by a dip of the noise late,
		// and then all that the tolerance left is taken away at once.
		if rest := got[25*60]; rest < n || rest > n+1+n/10 || w.turns > 1 {
			t.Fatalf("%d at 25 minutes, %d at 40, %d turns", rest, n, w.turns)
		}
		if n < a.Min || n > a.Max {
			t.Fatalf("%d replicas", n)
		}
		use := cores / float64(n) * 100
		if use > 60*1.15 && n < a.Max || n > a.Min && cores/float64(n-1)*100 < 60*.8 {
			t.Fatalf("rests at %d, each used to %.0f%%", n, use)
		}
	})
}
