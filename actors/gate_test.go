// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Two replicas of one image take one place, so that another image's pull is not kept
// waiting, and the place is free once both are done.
func TestGateSharesByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, never := newGate(2), make(chan struct{})
		for _, key := range []string{"app", "app", "app", "base"} {
			if !g.enter(t.Context(), never, key) {
				t.Fatalf("%s did not get in", key)
			}
		}
		in := make(chan string, 2)
		for _, key := range []string{"late", "late"} {
			go func() {
				if g.enter(t.Context(), never, key) {
					in <- key
				}
			}()
		}
		synctest.Wait()
		g.leave("app")
		g.leave("app")
		synctest.Wait()
		if len(in) > 0 {
			t.Fatal("a third image got in while two were under way")
		}
		g.leave("app")
		synctest.Wait()
		if len(in) != 2 {
			t.Errorf("%d of the two that waited for one image got in", len(in))
		}
		for _, key := range []string{"late", "late", "base"} {
			g.leave(key)
		}
		if len(g.tokens) > 0 || len(g.by) > 0 {
			t.Errorf("%d tokens and %d keys are left", len(g.tokens), len(g.by))
		}
	})
}

func TestGateIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, giveUp := newGate(1), make(chan struct{})
		g.enter(t.Context(), giveUp, "app")
		var ends sync.WaitGroup
		for _, key := range []string{"base", ""} {
			ends.Go(func() {
				if g.enter(t.Context(), giveUp, key) {
					t.Errorf("%q got in", key)
				}
			})
		}
		synctest.Wait()
		close(giveUp)
		ends.Wait()
		g.leave("app")
		if len(g.tokens) > 0 || len(g.by) > 0 {
			t.Errorf("%d tokens and %d keys are left", len(g.tokens), len(g.by))
		}
	})
}

// TestGateNeverLetsInMore: whoever comes, goes and gives up in whatever order, no more
// keys than places are in, nobody is forgotten, and nothing is left at the end.
func TestGateNeverLetsInMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		places := rapid.IntRange(1, 3).Draw(rt, "places")
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "c", "d"}), 1, 20).Draw(rt, "keys")
		impatient := rapid.SliceOfN(rapid.Bool(), len(keys), len(keys)).Draw(rt, "impatient")
		synctest.Test(t, func(t *testing.T) {
			g := newGate(places)
			var mu sync.Mutex // guards in and most
			in, most := map[string]int{}, 0
			var ends sync.WaitGroup
			giveUp := make(chan struct{})
			for i, key := range keys {
				ends.Go(func() {
					patience := make(chan struct{})
					if impatient[i] {
						patience = giveUp
					}
					if !g.enter(t.Context(), patience, key) {
						return
					}
					mu.Lock()
					in[key]++
					n := in[""]
					for k := range in {
						if k != "" {
							n++
						}
					}
					most = max(most, n)
					mu.Unlock()
					time.Sleep(time.Second) // of the bubble: all others do what they can
					mu.Lock()
					if in[key]--; in[key] == 0 {
						delete(in, key)
					}
					mu.Unlock()
					g.leave(key)
				})
			}
			close(giveUp)
			ends.Wait()
			if most > places || len(g.tokens) > 0 || len(g.by) > 0 {
				t.Errorf("%d were in, %d may; %d tokens and %d keys are left", most, places, len(g.tokens), len(g.by))
			}
		})
	})
}
