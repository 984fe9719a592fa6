// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// tick is a job of one slot that runs for 10 s at every full minute.
func (w *world) tick() shoal.Spec {
	w.work("tick:1", runtime.Program{Exits: true, ExitAfter: 10 * time.Second})
	s := jobSpec("tick", "tick:1", 1, shoal.DefaultJob())
	s.Schedule = &shoal.Schedule{Cron: "* * * * *"}
	return s
}

// minute waits for the next full minute, and then for its run to be over on these peers; it
// returns how long after its time the run began.
func (w *world) minute(peers []*peer) time.Duration {
	w.t.Helper()
	at := time.Now().Truncate(time.Minute).Add(time.Minute)
	time.Sleep(time.Until(at))
	isRun := func() error {
		for _, p := range peers {
			if s, ok := p.view().Service("tick"); !ok || s.Spec.Run != at.Unix() {
				return fmt.Errorf("peer %d does not know of the run of %s", p.index, at)
			}
		}
		return nil
	}
	late := w.until(40*time.Second, "a run begins", isRun)
	w.comes(40*time.Second, "tick", "is over", peers, shoal.JobStatus.IsComplete)
	return late
}

// TestSchedule: each time begins one run, on one peer; it begins also if the peer whose turn
// it is has died, or if all daemons start anew in the middle of one.
func TestSchedule(t *testing.T) {
	t.Parallel()
	play(t, 7701, 4, func(w *world) {
		w.peers[0].ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{w.tick()}}})
		time.Sleep(5 * time.Second)
		if started, _ := w.runs("tick"); started != 0 {
			t.Errorf("%d runs before the first time", started)
		}
		for range 3 {
			if late := w.minute(w.peers); late > time.Second {
				t.Errorf("the run began %v late", late)
			}
		}
		if started, _ := w.runs("tick"); started != 3 {
			t.Errorf("%d runs in three minutes", started)
		}

		lost := w.peers[w.rng.IntN(4)] // among other things it may have been the next to write
		lost.power()
		others := w.living()
		for range 2 {
			w.minute(others)
		}
		started, _ := w.runs("tick")
		if started != 5 {
			t.Errorf("%d runs in five minutes", started)
		}

		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute + 5*time.Second)))
		for _, p := range others {
			p.end()
		}
		for _, p := range others {
			p.boot()
		}
		lost.boot()
		w.comes(40*time.Second, "tick", "is over", w.peers, shoal.JobStatus.IsComplete)
		w.minute(w.peers)
		if started, _ := w.runs("tick"); started != 7 {
			t.Errorf("%d runs in seven minutes, in the sixth of which all daemons started anew", started)
		}
		if n := len(w.peers[0].view().Desired().Conflicts); n != 0 {
			t.Errorf("%d conflicts", n)
		}
	})
}

// TestScheduleSplit: each side of a split begins its runs; that is no conflict when they
// meet, and from then on each time begins one run again.
func TestScheduleSplit(t *testing.T) {
	t.Parallel()
	play(t, 7702, 4, func(w *world) {
		w.peers[0].ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{w.tick()}}})
		w.minute(w.peers)
		w.split(w.peers[:1], w.peers[1:])
		time.Sleep(20 * time.Second) // until each has given up the other
		before, _ := w.runs("tick")
		for range 2 {
			w.minute(w.peers[:1])
			w.comes(40*time.Second, "tick", "is over on the other side", w.peers[1:], shoal.JobStatus.IsComplete)
		}
		started, _ := w.runs("tick")
		if started != before+4 {
			t.Errorf("%d runs in two minutes of two sides", started-before)
		}
		w.heal()
		w.agreed(w.peers)
		started, _ = w.runs("tick")
		for range 2 {
			w.minute(w.peers)
		}
		if after, _ := w.runs("tick"); after != started+2 {
			t.Errorf("%d runs in two minutes after the sides met", after-started)
		}
		if n := len(w.peers[0].view().Desired().Conflicts); n != 0 {
			t.Errorf("%d conflicts", n)
		}
	})
}
