// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// shaped is web with 8 replicas of an image, two of which may be not ready.
func shaped(image string, fn ...func(*shoal.Rollout)) shoal.Spec {
	s := spec("web", 8)
	s.Image, s.Rollout = image, shoal.DefaultRollout()
	s.Rollout.MinHealthy = 3 * time.Second
	for _, f := range fn {
		f(&s.Rollout)
	}
	return s
}

func (p *peer) update(s shoal.Spec) {
	p.w.t.Helper()
	p.ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{s}}})
}

// program says on every engine what an image does; all engines then have the images of
// these tests.
func (w *world) program(name string, what runtime.Program) {
	for _, p := range w.peers {
		p.twin.SetImages(image, "bad:1", "latent:1", "hello:2", "hello:3")
		p.twin.SetProgram(name, what)
	}
}

// rolled waits until every replica of web is ready at the current revision, which runs image
// and has settled, as these peers see it.
func (w *world) rolled(within time.Duration, image string, peers []*peer) time.Duration {
	w.t.Helper()
	return w.until(within, "web is "+image+" and has settled", func() error {
		for _, p := range peers {
			v := p.view()
			s, ok := v.Service("web")
			if !ok || s.Spec.Image != image || !s.Rollout.Settled {
				return fmt.Errorf("peer %d sees %s, %+v", p.index, s.Revision, s.Rollout)
			}
			ready := 0
			for _, c := range v.ClaimsOf("web") {
				if r, ok := v.Replica(c.Replica); ok && v.Alive(c.Holder) && c.Revision == s.Revision && r.Phase == shoal.PhaseReady {
					ready++
				}
			}
			if ready != s.Replicas {
				return fmt.Errorf("peer %d sees %d of %d ready at %s", p.index, ready, s.Replicas, s.Revision)
			}
		}
		return exact("web", 8, peers)
	})
}

// TestBadRevisionGoesBack (F20): a revision that crashes takes one wave, the last good one
// comes back by itself, though the peer that took the wish is dead; others are untouched.
func TestBadRevisionGoesBack(t *testing.T) {
	t.Parallel()
	play(t, 7001, 5, func(w *world) {
		w.program("bad:1", runtime.Program{Exits: true, ExitAfter: 200 * time.Millisecond, ExitCode: 3, Lines: []string{"begins", "panic: \x1b[31mbad"}})
		w.peers[0].update(shaped(image))
		w.peers[0].deploy("other", 5)
		w.rolled(60*time.Second, image, w.peers)
		w.settled(10*time.Second, w.peers, map[string]int{"other": 5})
		good, _ := w.peers[1].view().Service("web")
		accepting := w.peers[w.rng.IntN(5)]
		before := map[int]int{}
		for _, p := range w.peers {
			before[p.index] = p.twin.Counts(shoal.ReplicaID{}).Starts
		}
		var took time.Duration
		w.floor("web", 6, w.peers, func() {
			accepting.update(shaped("bad:1"))
			took = w.rolled(60*time.Second, image, w.peers)
		})
		t.Logf("back after %v", took)
		now, _ := w.peers[1].view().Service("web")
		if now.Undoes.Seq != good.Revision.Seq+1 || now.Why == "" || len(now.Past) == 0 || now.Past[0].Good {
			t.Errorf("service %+v, want one that says what it undoes and why", now)
		}
		t.Logf("why: %s", now.Why)
		w.told(&now.Past[0])
		if n := len(w.peers[1].view().Desired().Conflicts); n != 0 {
			t.Errorf("%d conflicts", n)
		}
		w.quiet(w.peers)
		w.unbrokenService("other")
	})
}

// told checks that every peer can be told what the replica had said that failed first,
// though its container is gone, and only of the service that it asks about.
func (w *world) told(past *shoal.PastRevision) {
	w.t.Helper()
	f := past.Failure
	if f.IsZero() || f.After < 0 || f.After > 20*time.Second || f.Reason != "exited with code 3" {
		w.t.Errorf("failure %+v, want that of a replica that exited with code 3", f)
	}
	for _, p := range w.peers {
		c, _ := p.node.Cluster()
		words, err := c.Remote.LastWords(w.t.Context(), f.Peer, "web")
		i := slices.IndexFunc(words, func(l shoal.LastWords) bool { return l.Replica == f.Replica })
		if err != nil || i < 0 || words[i].Revision != past.Revision || !slices.Equal(words[i].Lines, []string{"begins", "panic:  [31mbad"}) {
			w.t.Errorf("peer %d is told %+v, %v of %s", p.index, words, err, f.Replica.Short())
		}
		if words, err := c.Remote.LastWords(w.t.Context(), f.Peer, "other"); err != nil || len(words) > 0 {
			w.t.Errorf("peer %d is told %+v, %v of what did not fail", p.index, words, err)
		}
	}
}

// unbrokenService checks that no replica of a service was started twice.
func (w *world) unbrokenService(name string) {
	w.t.Helper()
	for _, c := range w.peers[0].view().ClaimsOf(name) {
		for _, p := range w.peers {
			if n := p.twin.Counts(c.Replica).Starts; n > 1 {
				w.t.Errorf("%s/%d was started %d times", name, c.Slot, n)
			}
		}
	}
}

// TestLatentCrash (F21): a revision whose replicas die half a minute after they were ready
// goes back as well, as long as it is watched.
func TestLatentCrash(t *testing.T) {
	t.Parallel()
	play(t, 7002, 3, func(w *world) {
		w.program("latent:1", runtime.Program{Exits: true, ExitAfter: 30 * time.Second, ExitCode: 1})
		w.peers[0].update(shaped(image))
		w.rolled(60*time.Second, image, w.peers)
		took := time.Duration(0)
		w.floor("web", 5, w.peers, func() { // a wave, and who dies meanwhile
			w.peers[1].update(shaped("latent:1", func(r *shoal.Rollout) { r.Monitor = 40 * time.Second }))
			w.until(120*time.Second, "it goes back", func() error {
				if s, _ := w.peers[2].view().Service("web"); s.Undoes.IsZero() {
					return fmt.Errorf("it is at %s", s.Revision)
				}
				return nil
			})
			took = w.rolled(60*time.Second, image, w.peers)
		})
		t.Logf("back %v after it was decided", took)
	})
}

// TestRolloutOutlivesItsAuthor: the peer that took the update loses power in the middle;
// the others finish it, and never have fewer replicas than may be.
func TestRolloutOutlivesItsAuthor(t *testing.T) {
	t.Parallel()
	play(t, 7003, 5, func(w *world) {
		w.program("hello:2", runtime.Program{})
		w.peers[0].update(shaped(image))
		w.rolled(60*time.Second, image, w.peers)
		author := w.peers[2]
		author.update(shaped("hello:2"))
		time.Sleep(time.Duration(500+w.rng.IntN(6000)) * time.Millisecond)
		author.power()
		t.Logf("finished after %v", w.rolled(90*time.Second, "hello:2", w.living()))
		w.agreed(w.living())
	})
}

// TestRolloutAcrossARestartOfAll: every daemon restarts at once in the middle of a wave;
// the rollout goes on from records alone, and nothing is replaced twice.
func TestRolloutAcrossARestartOfAll(t *testing.T) {
	t.Parallel()
	play(t, 7004, 3, func(w *world) {
		w.program("hello:2", runtime.Program{})
		w.peers[0].update(shaped(image))
		w.rolled(60*time.Second, image, w.peers)
		w.floor("web", 6, w.peers, func() {
			w.peers[0].update(shaped("hello:2"))
			time.Sleep(5 * time.Second)
			for _, p := range w.peers {
				p.end()
			}
			for _, p := range w.peers {
				p.boot()
			}
			t.Logf("finished after %v", w.rolled(120*time.Second, "hello:2", w.peers))
		})
		starts := 0
		for _, p := range w.peers {
			starts += p.twin.Counts(shoal.ReplicaID{}).Starts
		}
		if starts != 16 {
			t.Errorf("%d starts, want 16", starts)
		}
	})
}

// TestRolloutAcrossASplit: each side rolls within its own floor; after healing the newest
// revision is everywhere, and the other side's replicas of it are not started again.
func TestRolloutAcrossASplit(t *testing.T) {
	t.Parallel()
	play(t, 7005, 4, func(w *world) {
		w.program("hello:2", runtime.Program{})
		w.program("hello:3", runtime.Program{})
		w.peers[0].update(shaped(image))
		w.rolled(60*time.Second, image, w.peers)
		left, right := w.peers[:2], w.peers[2:]
		w.peers[0].update(shaped("hello:2"))
		time.Sleep(2 * time.Second)
		w.split(left, right)
		w.rolled(120*time.Second, "hello:2", left)
		w.rolled(120*time.Second, "hello:2", right)
		right[0].update(shaped("hello:3"))
		time.Sleep(4 * time.Second)
		w.floor("web", 6, w.peers, func() {
			w.heal()
			t.Logf("newest everywhere after %v", w.rolled(180*time.Second, "hello:3", w.peers))
		})
		w.agreed(w.peers)
		w.quiet(w.peers)
	})
}

// TestSameContainerRestartsNothing: a revision that differs in what the container does not
// know is taken without touching it.
func TestSameContainerRestartsNothing(t *testing.T) {
	t.Parallel()
	play(t, 7006, 3, func(w *world) {
		w.peers[0].update(shaped(image))
		w.rolled(60*time.Second, image, w.peers)
		s := shaped(image)
		s.Labels = map[string]string{"team": "blue"}
		s.Rollout.Parallelism, s.Restart.Delay = 3, 7*time.Second
		w.peers[1].update(s)
		took := w.until(5*time.Second, "every claim is of revision 2", func() error {
			for _, c := range w.peers[2].view().ClaimsOf("web") {
				if c.Revision.Seq != 2 {
					return fmt.Errorf("slot %d is of %s", c.Slot, c.Revision)
				}
			}
			return nil
		})
		t.Logf("taken after %v", took)
		w.rolled(60*time.Second, image, w.peers)
		w.unbroken(w.peers)
		for _, p := range w.peers { // and a daemon that starts anew takes them for what they are
			p.end()
			p.boot()
		}
		w.rolled(60*time.Second, image, w.peers)
		w.quiet(w.peers)
		w.unbroken(w.peers)
	})
}
