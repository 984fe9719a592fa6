// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// sizes are the clusters that stories are played on; the largest only in "make sim".
func sizes() []int {
	if os.Getenv("SHOAL_SIM") != "" {
		return []int{3, 10, 30}
	}
	return []int{3, 5}
}

// TestDeployScaleKill: the main job. A deploy on one peer, a scale on another, the
// loss of a third, its return.
func TestDeployScaleKill(t *testing.T) {
	for _, n := range sizes() {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) {
			t.Parallel()
			play(t, uint64(n)*1000+1, n, func(w *world) {
				a, b, c := w.peers[w.rng.IntN(n)], w.peers[w.rng.IntN(n)], w.peers[w.rng.IntN(n)]
				a.deploy("web", n)
				took := w.settled(10*time.Second, w.peers, map[string]int{"web": n})
				t.Logf("deploy %d: %v", n, took)
				b.scale("web", 2*n)
				t.Logf("scale to %d: %v", 2*n, w.settled(10*time.Second, w.peers, map[string]int{"web": 2 * n}))
				for _, p := range w.peers { // G9 without loss: nothing was started in vain
					if got := p.twin.Counts(shoal.ReplicaID{}); got.Stops != 0 {
						t.Errorf("peer %d stopped %d replicas in a deploy", p.index, got.Stops)
					}
				}
				w.agreed(w.peers)
				w.quiet(w.peers)

				c.power()
				took = w.settled(30*time.Second, w.living(), map[string]int{"web": 2 * n})
				t.Logf("power cut to full: %v", took)
				if took > 8*time.Second {
					t.Errorf("G6: full again after %v, the promise is 8 s", took)
				}
				w.living()[0].deploy("more", 2)
				w.settled(10*time.Second, w.living(), map[string]int{"more": 2, "web": 2 * n})

				c.boot()
				w.settled(100*time.Second, w.peers, map[string]int{"more": 2, "web": 2 * n})
				w.agreed(w.peers)
				w.unbroken(slices.DeleteFunc(w.living(), func(p *peer) bool { return p == c })) // c started its own again
				w.quiet(w.peers)
			})
		})
	}
}

// TestSplitAndHeal: both sides keep serving and accept wishes, then become one.
func TestSplitAndHeal(t *testing.T) {
	for _, n := range sizes() {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) {
			t.Parallel()
			play(t, uint64(n)*1000+2, n, func(w *world) {
				w.peers[0].deploy("web", n)
				w.settled(10*time.Second, w.peers, map[string]int{"web": n})
				w.rng.Shuffle(n, func(i, j int) { w.peers[i], w.peers[j] = w.peers[j], w.peers[i] })
				left, right := w.peers[:n/2], w.peers[n/2:]
				before := map[*peer]int{}
				for _, p := range w.peers {
					before[p] = len(p.containers())
				}
				w.split(left, right)
				left[0].add("web", 1)
				right[0].add("web", 1)
				left[0].deploy("lefty", 1)
				right[0].deploy("both", 1)
				left[0].deploy("both", 1)
				for _, side := range [][]*peer{left, right} { // G6
					w.settled(40*time.Second, side, map[string]int{"web": n + 1, "both": 1})
				}
				for _, p := range w.peers { // G8
					if got := len(p.containers()); got < before[p] {
						t.Errorf("G8: peer %d runs %d containers, had %d before the split", p.index, got, before[p])
					}
				}
				w.unbroken(w.peers)
				w.floor("web", n+1, w.peers, func() { // G7
					w.heal()
					want := map[string]int{"web": n + 2, "lefty": 1, "both": 1}
					t.Logf("exact after healing: %v", w.settled(90*time.Second, w.peers, want))
				})
				w.agreed(w.peers)
				w.unbroken(w.peers)
				d := w.peers[0].view().Desired()
				if len(d.Conflicts) != 1 || d.Conflicts[0].Service != "both" || d.Conflicts[0].Rule == "" { // G2, G5
					t.Errorf("G2: conflicts = %+v, want the two deploys of both", d.Conflicts)
				}
				w.quiet(w.peers)
			})
		})
	}
}

// TestRestartKeepsAll: a daemon that stops and comes back has all it acknowledged
// (G1, G4), adopts its containers untouched (G8), and starts what it held after a
// power cut, alone.
func TestRestartKeepsAll(t *testing.T) {
	t.Parallel()
	play(t, 3003, 3, func(w *world) {
		a := w.peers[0]
		a.deploy("web", 6)
		w.settled(10*time.Second, w.peers, map[string]int{"web": 6})
		before := a.containers()
		a.scale("web", 7)
		a.end() // at once: what was acknowledged is on its disk
		a.boot()
		w.until(10*time.Second, "G4: the wish is still there", func() error {
			if s, ok := a.view().Service("web"); !ok || s.Replicas != 7 {
				return fmt.Errorf("web is %+v", s)
			}
			return nil
		})
		w.settled(100*time.Second, w.peers, map[string]int{"web": 7})
		w.unbroken(w.peers)
		after := a.containers()
		for _, id := range before {
			if got := a.twin.Counts(id); got.Starts != 1 || got.Stops != 0 {
				t.Errorf("G8: replica %s of the restarted daemon: %+v, want untouched", id.Short(), got)
			}
		}
		if len(after) < len(before) {
			t.Errorf("G8: %d containers after the restart, %d before", len(after), len(before))
		}
		w.quiet(w.peers)

		for _, p := range w.peers { // G8: everybody loses power, one comes back
			p.power()
		}
		held := len(before)
		a.boot()
		for _, o := range w.peers[1:] {
			w.cut(a, o, true)
		}
		w.until(20*time.Second, "G8: isolated, it starts what it last held", func() error {
			if got := running("web", []*peer{a}); got < held {
				return fmt.Errorf("%d of %d run", got, held)
			}
			return nil
		})
	})
}

// TestLoseAny: no peer is special. Each in turn loses power, then two of three at
// once, which takes what the brake on mass loss adds (5 s) longer.
func TestLoseAny(t *testing.T) {
	for _, c := range []struct {
		lose   []int
		within time.Duration
	}{{[]int{0}, 8 * time.Second}, {[]int{1}, 8 * time.Second}, {[]int{2}, 8 * time.Second}, {[]int{0, 1}, 13 * time.Second}, {[]int{1, 2}, 13 * time.Second}} {
		t.Run(fmt.Sprint(c.lose), func(t *testing.T) {
			t.Parallel()
			play(t, 3004, 3, func(w *world) {
				w.peers[1].deploy("web", 6)
				w.settled(10*time.Second, w.peers, map[string]int{"web": 6})
				for _, i := range c.lose {
					w.peers[i].power()
				}
				took := w.settled(30*time.Second, w.living(), map[string]int{"web": 6})
				t.Logf("full after %v", took)
				if took > c.within {
					t.Errorf("G6: full after %v, the promise is %v", took, c.within)
				}
				w.living()[0].scale("web", 4)
				w.settled(10*time.Second, w.living(), map[string]int{"web": 4})
				w.agreed(w.living())
				w.unbroken(w.living())
			})
		})
	}
}
