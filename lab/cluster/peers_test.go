// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// change asks at p for a change of another peer.
func (p *peer) change(of *peer, what shoal.PeerChange) {
	p.w.t.Helper()
	p.ask(shoal.Wish{Peer: &shoal.PeerWish{Peer: of.id.Self(), Change: what}})
}

// sees returns what p knows of another peer's marks.
func (p *peer) sees(of *peer) string {
	q, ok := p.view().Peer(of.id.Self())
	switch {
	case !ok:
		return "nobody"
	case q.Draining:
		return "draining"
	case q.Cordoned:
		return "cordoned"
	}
	return "no mark"
}

// F37: a drain on one peer, and the death of another under it. Nothing that lives is
// stopped before it is ready elsewhere, and the drained peer is empty in the end.
func TestDrainBesideDeath(t *testing.T) {
	const n = 4
	play(t, 4005, n, func(w *world) {
		w.peers[0].deploy("web", 2*n)
		w.settled(10*time.Second, w.peers, map[string]int{"web": 2 * n})
		asked, drained, victim := w.peers[0], w.peers[1], w.peers[2]
		lost := len(victim.containers())
		w.floor("web", 2*n-lost, w.peers, func() {
			asked.change(drained, shoal.PeerDrain)
			time.Sleep(time.Duration(w.rng.IntN(400)) * time.Millisecond)
			victim.power()
			took := w.settled(30*time.Second, w.living(), map[string]int{"web": 2 * n})
			t.Logf("drained beside a death: %v", took)
		})
		w.until(30*time.Second, "the drained peer is empty", func() error {
			if got := drained.containers(); len(got) > 0 {
				return fmt.Errorf("it runs %d", len(got))
			}
			return nil
		})
		asked.change(drained, shoal.PeerUndrain)
		victim.boot()
		w.settled(100*time.Second, w.peers, map[string]int{"web": 2 * n})
		w.agreed(w.peers)
		w.quiet(w.peers)
	})
}

// A peer is marked on both sides of a split. Who lifts what it sees on one side lifts
// nothing that it did not see, and all agree in the end.
func TestMarksOnBothSides(t *testing.T) {
	const n = 4
	play(t, 4006, n, func(w *world) {
		left, right := w.peers[:2], w.peers[2:]
		target := w.peers[1]
		left[0].change(target, shoal.PeerCordon)
		w.until(5*time.Second, "everybody knows of the cordon", func() error { return w.all(target, "cordoned") })
		w.split(left, right)
		right[0].change(target, shoal.PeerDrain) // unseen on the left
		left[0].change(target, shoal.PeerUncordon)
		if got := left[0].sees(target); got != "no mark" {
			t.Errorf("left of the split: %s, want no mark", got)
		}
		if got := right[0].sees(target); got != "draining" {
			t.Errorf("right of the split: %s, want draining", got)
		}
		w.heal()
		w.until(time.Minute, "the unseen drain survives", func() error { return w.all(target, "draining") })
		right[1].change(target, shoal.PeerUncordon)
		w.until(5*time.Second, "no mark is left", func() error { return w.all(target, "no mark") })
		w.agreed(w.peers)
	})
}

// all checks that every peer sees this of one.
func (w *world) all(target *peer, want string) error {
	for _, p := range w.peers {
		if got := p.sees(target); got != want {
			return fmt.Errorf("peer %d sees %s, want %s", p.index, got, want)
		}
	}
	return nil
}

// A machine that died is removed, its slots are filled. When it is back it is told,
// stops what it runs and is a member no more; the others go on undisturbed.
func TestRemovedComesBack(t *testing.T) {
	const n = 4
	play(t, 4007, n, func(w *world) {
		w.peers[0].deploy("web", 2*n)
		w.settled(10*time.Second, w.peers, map[string]int{"web": 2 * n})
		victim := w.peers[3]
		rest := w.peers[:3]
		for _, p := range rest { // its link is lost, its containers run on
			w.cut(p, victim, true)
		}
		w.settled(60*time.Second, rest, map[string]int{"web": 2 * n})
		rest[1].change(victim, shoal.PeerRemove)
		w.agreed(rest)
		if len(victim.containers()) == 0 {
			t.Fatal("it runs nothing alone")
		}
		w.floor("web", 2*n, rest, func() {
			w.heal()
			w.until(3*time.Minute, "it is a member no more", func() error {
				if st := victim.node.Status(); st.Cluster != "" || st.Trouble != "it was removed from its cluster by p1" {
					return fmt.Errorf("it is in cluster %q, trouble %q", st.Cluster, st.Trouble)
				}
				if got := victim.containers(); len(got) > 0 {
					return errors.New("it still runs replicas")
				}
				return nil
			})
		})
		for _, c := range rest[0].view().Desired().Claims {
			if c.Holder == victim.id.Self() {
				t.Errorf("it still holds %s/%d for the others", c.Service, c.Slot)
			}
		}
		w.unbroken(rest)
		w.settled(10*time.Second, rest, map[string]int{"web": 2 * n})
		w.quiet(rest)
	})
}
