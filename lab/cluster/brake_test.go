// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// replace removes the containers of a service by hand where it runs, so that new ones are
// made.
func (p *peer) replace(service string) {
	p.w.t.Helper()
	v := p.view()
	for _, c := range v.ClaimsBy(p.id.Self()) {
		if c.Service == service && !p.twin.RemoveByHand(c.Replica) {
			p.w.t.Errorf("peer %d has no container of %s/%d", p.index, service, c.Slot)
		}
	}
}

// startsOf counts how often the replicas that hold a service's slots were started.
func (w *world) startsOf(service string) int {
	n := 0
	for _, c := range w.peers[0].view().ClaimsOf(service) {
		for _, p := range w.peers {
			n += p.twin.Counts(c.Replica).Starts
		}
	}
	return n
}

// movesOf lets d pass and returns how often a slot of a service came to another peer, and
// the most starts in a minute.
func (w *world) movesOf(service string, d time.Duration) (moves, starts int) {
	holders := map[int]shoal.PeerID{}
	at, before := time.Now(), w.startsOf(service)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		for _, c := range w.peers[0].view().ClaimsOf(service) {
			if was, known := holders[c.Slot]; known && was != c.Holder {
				moves++
			}
			holders[c.Slot] = c.Holder
		}
		if time.Since(at) >= time.Minute {
			n := w.startsOf(service)
			starts = max(starts, n-before)
			at, before = time.Now(), n
		}
	}
	return moves, starts
}

// TestSettledServiceDiesEverywhere (F21): a service that was fine for long begins to die on
// every peer. It restarts slowly everywhere, goes nowhere, and is not undone; others are
// not touched. When it works again it is well soon.
func TestSettledServiceDiesEverywhere(t *testing.T) {
	t.Parallel()
	play(t, 7101, 4, func(w *world) {
		w.peers[0].update(shaped(image))
		w.peers[0].deploy("other", 4)
		w.rolled(60*time.Second, image, w.peers)
		w.settled(10*time.Second, w.peers, map[string]int{"other": 4})
		good, _ := w.peers[1].view().Service("web")
		w.program("hello:2", runtime.Program{})
		w.peers[0].update(shaped("hello:2"))
		w.rolled(90*time.Second, "hello:2", w.peers)

		for _, p := range w.peers {
			p.twin.SetProgram("hello:2", runtime.Program{Exits: true, ExitAfter: 2 * time.Second, ExitCode: 1})
			p.replace("web")
		}
		time.Sleep(30 * time.Second)
		moves, starts := w.movesOf("web", 10*time.Minute)
		t.Logf("%d moves in 10 minutes, up to %d starts a minute", moves, starts)
		if moves > 0 || starts > 14 {
			t.Errorf("%d moves, %d starts a minute, want none, and 14 at most", moves, starts)
		}
		now, _ := w.peers[1].view().Service("web")
		if !now.Undoes.IsZero() || now.Rollout.Paused || now.Revision.Seq != good.Revision.Seq+1 {
			t.Errorf("service %s, undoes %s, %+v, want it as it was", now.Revision, now.Undoes, now.Rollout)
		}
		for _, p := range w.peers {
			if st := p.view().State(p.id.Self()); st.Trouble != "" {
				t.Errorf("peer %d is in trouble: %s", p.index, st.Trouble)
			}
		}
		w.unbrokenService("other")

		for _, p := range w.peers {
			p.twin.SetProgram("hello:2", runtime.Program{})
			p.replace("web")
		}
		t.Logf("well after %v", w.rolled(6*time.Minute, "hello:2", w.peers))
	})
}

// TestMachineInTrouble: a machine on which three unrelated services die says so and takes
// no new slots; the others fill, and are not in doubt.
func TestMachineInTrouble(t *testing.T) {
	t.Parallel()
	play(t, 7102, 4, func(w *world) {
		names := []string{"a", "b", "c"}
		ill := w.peers[w.rng.IntN(4)]
		for _, p := range w.peers {
			p.twin.SetImages(image, "a:1", "b:1", "c:1")
		}
		w.until(40*time.Second, "everybody knows of the images", func() error {
			for _, p := range w.peers {
				if st := w.peers[0].view().State(p.id.Self()); st == nil || len(st.Images) < 4 {
					return fmt.Errorf("peer %d has told of other ones", p.index)
				}
			}
			return nil
		})
		for _, name := range names {
			s := spec(name, 4)
			s.Image = name + ":1"
			w.peers[0].update(s)
			w.settled(20*time.Second, w.peers, map[string]int{name: 4})
		}
		for _, name := range names {
			ill.twin.SetProgram(name+":1", runtime.Program{Exits: true, ExitAfter: time.Second, ExitCode: 135})
			ill.replace(name)
		}
		trouble := func(p *peer) string {
			if st := p.view().State(ill.id.Self()); st != nil {
				return st.Trouble
			}
			return ""
		}
		took := w.until(30*time.Second, "everybody knows", func() error {
			for _, p := range w.peers {
				if trouble(p) == "" {
					return fmt.Errorf("peer %d does not", p.index)
				}
			}
			return nil
		})
		t.Logf("known after %v: %s", took, trouble(ill))
		w.peers[0].deploy("more", 6)
		w.settled(20*time.Second, w.peers, map[string]int{"more": 6})
		for _, c := range w.peers[0].view().ClaimsBy(ill.id.Self()) {
			if c.Service == "more" {
				t.Errorf("it took %s/%d", c.Service, c.Slot)
			}
		}
		if n := len(w.peers[0].view().ClaimsBy(ill.id.Self())); n != 3 {
			t.Errorf("it holds %d slots, want the 3 it had", n)
		}
		for _, p := range w.peers {
			if st := p.view().State(p.id.Self()); p != ill && st.Trouble != "" {
				t.Errorf("peer %d is in trouble: %s", p.index, st.Trouble)
			}
		}
		for _, name := range names {
			ill.twin.SetProgram(name+":1", runtime.Program{})
			ill.replace(name)
		}
		took = w.until(15*time.Minute, "it takes new slots", func() error {
			if trouble(w.peers[0]) != "" {
				return errors.New(trouble(w.peers[0]))
			}
			return nil
		})
		t.Logf("takes new slots after %v", took)
	})
}
