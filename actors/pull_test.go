// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/runtime"
)

// digest2 is what app:v2 stands for in these tests.
var digest2 = "sha256:" + strings.Repeat("2", 64)

// swarm is a puller that brings images to a twin as a swarm does: in some time, telling
// how far it is, or not.
type swarm struct {
	*runtime.Twin

	mu    sync.Mutex // guards all below
	takes time.Duration
	quiet bool  // it tells nothing
	fails error // it brings none
	began []time.Duration
	clock shoal.Clock
}

func (w *swarm) set(fn func(*swarm)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(w)
}

func (w *swarm) calls() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.began)
}

// Images implements shoal.Puller: images with a digest can be had anywhere.
func (w *swarm) Images(ctx context.Context) ([]string, error) {
	all, err := w.Twin.Images(ctx)
	return append(all, "app:v1", "app:v2"), err
}

// Ensure implements shoal.Puller.
func (w *swarm) Ensure(ctx context.Context, ref string, tell func(shoal.ImageProgress)) (string, error) {
	if found, err := w.Find(ctx, ref); err == nil {
		return found.ID, nil
	}
	w.mu.Lock()
	w.began = append(w.began, w.clock.Mono())
	takes, quiet, fails := w.takes, w.quiet, w.fails
	w.mu.Unlock()
	const step, total = 100 * time.Millisecond, 200_000_000
	for past := time.Duration(0); past < takes; past += step {
		if !quiet {
			tell(shoal.ImageProgress{What: "receive", Done: int64(float64(total) * float64(past) / float64(takes)), Total: total, Rate: int64(total / takes.Seconds()), Peers: 3})
		}
		if !sleep(ctx, step) {
			return "", ctx.Err()
		}
	}
	if fails != nil {
		return "", fails
	}
	all, err := w.Twin.Images(ctx)
	if err != nil {
		return "", err
	}
	w.SetImages(append(all, shoal.NormalizeRef(ref))...)
	found, err := w.Find(ctx, ref)
	return found.ID, err
}

// swarming gives a peer a puller that brings images.
func (s *sea) swarming(p *tank, takes time.Duration) *swarm {
	w := &swarm{Twin: p.engine, takes: takes, clock: s.clock}
	p.deps.Puller = w
	return w
}

// appV2 is an update of web to an image that no engine has.
func appV2(change ...func(*shoal.Spec)) shoal.Spec {
	spec := shoal.Spec{Name: "web", Image: "app:v2", Digest: digest2}
	for _, c := range change {
		c(&spec)
	}
	return spec
}

// slowly is until for what takes minutes.
func (s *sea) slowly(limit time.Duration, what string, cond func() bool) time.Duration {
	s.t.Helper()
	begin := s.clock.Mono()
	for !cond() && s.clock.Mono()-begin <= limit {
		s.wait(time.Second)
	}
	return s.clock.Mono() - begin + s.until(0, what, cond)
}

// of returns the published statuses of a slot by revision.
func (p *tank) of(slot int) map[uint64]shoal.ReplicaStatus {
	out := map[uint64]shoal.ReplicaStatus{}
	for _, r := range p.state().Replicas {
		if r.Slot == slot {
			out[r.Revision.Seq] = r
		}
	}
	return out
}

// TestOldRunsUntilTheImageIsThere: an update in place pulls at once, and stops what runs
// when it can be replaced; people see how far it is.
func TestOldRunsUntilTheImageIsThere(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		w := s.swarming(p, 60*time.Second)
		oneWeb(s, 1)
		old := p.replica("web", 0)
		begin := s.clock.Mono()
		s.wish(appV2(), 2, 1)
		s.wait(30 * time.Second)
		if at := w.calls(); len(at) != 1 || at[0]-begin > 100*time.Millisecond {
			t.Errorf("pulls began at %v, want one at %s", at, begin)
		}
		both := p.of(0)
		if r := both[1]; r.Phase != shoal.PhaseReady || r.ID != old.ID {
			t.Errorf("old replica while the image is pulled: %+v", r)
		}
		if r := both[2]; r.Phase != shoal.PhasePulling || !strings.HasPrefix(r.Reason, "pulling app:v2: 9") || !strings.HasSuffix(r.Reason, "/200.0 MB, 3.3 MB/s from 3 peers, 31s left") {
			t.Errorf("new replica while the image is pulled: %+v", r)
		}
		_, before := p.counts()
		s.wait(20 * time.Second)
		if _, after := p.counts(); after-before < 15 || after-before > 25 {
			t.Errorf("%d states told in 20 s of pulling, want one a second", after-before)
		}
		if c := p.engine.Counts(old.ID); c.Stops != 0 {
			t.Errorf("old replica: %+v before the image is there", c)
		}
		s.until(15*time.Second, "changed", func() bool { return len(p.of(0)) == 1 && p.of(0)[2].Phase == shoal.PhaseReady })
		if got, want := kinds(p, begin), []string{"stop", "exit", "remove", "create", "start"}; !slices.Equal(got, want) {
			t.Errorf("happened %v, want %v", got, want)
		}
		image, err := p.engine.Find(s.t.Context(), "app@"+digest2)
		if r := p.replica("web", 0); err != nil || r.Image != image.ID || r.Reason != "" {
			t.Errorf("status = %+v, %v; want image %s", r, err, image.ID)
		}
	})
}

// TestPullBeginsInTheHoldOff: a replica that may not start yet pulls already.
func TestPullBeginsInTheHoldOff(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		w := s.swarming(p, 3*time.Second)
		p.cfg.Placement.Hold = 4 * time.Second
		p.start()
		s.wait(time.Minute)
		begin := s.clock.Mono()
		s.wish(appV2(), 1, 1)
		s.until(10*time.Second, "claimed", func() bool { return len(p.Desired().Claims) == 1 })
		claimed := s.clock.Mono()
		s.wait(3500 * time.Millisecond)
		if at := w.calls(); len(at) != 1 || at[0] > claimed+100*time.Millisecond {
			t.Fatalf("wished at %s, claimed at %s, pulls began at %v", begin, claimed, at)
		}
		if r := p.replica("web", 0); r.Phase != shoal.PhasePulling || r.Reason != "its image is here; waits for its turn" || p.containers() != 0 {
			t.Errorf("held off: %+v, %d containers", r, p.containers())
		}
		s.until(time.Second, "ready", func() bool { return p.ready("web") == 1 })
	})
}

// F17: an image that is nowhere, or is corrupt everywhere: the old version stays, for as
// long as it takes, and the reason is shown; it is asked for again at ever longer
// intervals, and taken when it can be had.
func TestOldVersionStaysWithoutTheNewImage(t *testing.T) {
	nowhere := fmt.Errorf("image app:v2 is on none of 3 peers (shoal image push app:v2): %w", shoal.ErrNotFound)
	same := func(*shoal.Spec) {}
	for name, c := range map[string]struct {
		fails  error
		change func(*shoal.Spec)
	}{
		"nowhere":     {nowhere, same},
		"corrupt":     {errors.New("image app:v2: layer sha256:1234 is corrupt on all 3 peers that have it"), same},
		"refused":     {fmt.Errorf("image app:v2 has 1000 layers: %w", shoal.ErrRefused), same},
		"start first": {nowhere, func(sp *shoal.Spec) { sp.Rollout.StartFirst = true }},
		"global":      {nowhere, func(sp *shoal.Spec) { sp.Mode = shoal.ModeGlobal }},
		"with data": {nowhere, func(sp *shoal.Spec) {
			sp.Setup.Mounts = []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}
		}},
	} {
		inSea(t, 1, func(s *sea) {
			p := s.first()
			w := s.swarming(p, 2*time.Second)
			w.fails = c.fails
			oneWeb(s, 1, c.change)
			old := p.replica("web", 0)
			updates, _ := p.counts()
			s.wish(appV2(c.change), 2, 1)
			s.wait(time.Minute)
			var behind string
			for range 30 {
				s.wait(time.Minute)
				if r := p.of(0)[1]; r.ID != old.ID || r.Phase != shoal.PhaseReady {
					t.Fatalf("%s: old replica = %+v", name, r)
				}
				for _, x := range placement.Slots(p.View(), "web") {
					behind = cmp.Or(x.Behind, behind)
				}
			}
			text, _, _ := strings.Cut(c.fails.Error(), ":")
			if c := p.engine.Counts(old.ID); c.Stops != 0 || c.Starts != 1 || !strings.Contains(behind, text) {
				t.Errorf("%s: old replica %+v, explained by %q; want %q in it", name, c, behind, text)
			}
			if n := len(w.calls()); n < 4 || n > 40 {
				t.Errorf("%s: asked for %d times in half an hour", name, n)
			}
			if u, _ := p.counts(); u-updates > 25 {
				t.Errorf("%s: %d updates in half an hour, want a back-off", name, u-updates)
			}
			w.set(func(w *swarm) { w.fails = nil })
			s.slowly(12*time.Minute, "changed when it can be had", func() bool { return p.of(0)[2].Phase == shoal.PhaseReady })
			s.wait(time.Minute)
			if p.containers() != 1 || len(p.state().Refusals) != 0 {
				t.Errorf("%s: %d containers, refusals %+v", name, p.containers(), p.state().Refusals)
			}
		})
	}
}

// TestUpdateGoesWhereTheImageIs: a peer that cannot have the new image keeps the old
// replica until another peer runs the new one in its slot.
func TestUpdateGoesWhereTheImageIs(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		for i, id := range s.ids {
			w := s.swarming(s.peers[id], 20*time.Second)
			if i == 0 {
				w.fails = fmt.Errorf("image app:v2: no space left on %s: %w", id, shoal.ErrRefused)
			}
		}
		s.startAll()
		s.wait(3 * time.Minute)
		s.wish(shoal.Spec{Name: "web"}, 1, 3, s.deal(3)...)
		s.until(10*time.Second, "deployed", func() bool { return s.exact("web", 3) })
		first := s.first()
		old := first.state().Replicas[0]
		s.wish(appV2(), 2, 3)
		least := 3
		s.until(5*time.Minute, "changed", func() bool {
			ready, current := 0, 0
			for _, id := range s.ids {
				for _, r := range s.peers[id].state().Replicas {
					if r.Phase == shoal.PhaseReady {
						ready++
						if r.Revision.Seq == 2 {
							current++
						}
					}
				}
			}
			least = min(least, ready)
			return current == 3 && s.exact("web", 3)
		})
		if least < 2 || first.containers() != 0 || first.engine.Counts(old.ID).Stops != 1 {
			t.Errorf("at least %d ready, %d containers at the first peer", least, first.containers())
		}
	})
}

// TestRestartWhilePulling: a daemon that starts anew in the middle of an update takes the
// old replica, which no record claims any more, for what it is.
func TestRestartWhilePulling(t *testing.T) {
	for _, fails := range []error{nil, fmt.Errorf("image app:v2 is on none of 3 peers: %w", shoal.ErrNotFound)} {
		inSea(t, 1, func(s *sea) {
			p := s.first()
			w := s.swarming(p, 2*time.Minute)
			oneWeb(s, 2)
			old := p.replica("web", 0)
			s.wish(appV2(func(sp *shoal.Spec) { sp.Rollout.Parallelism = 2 }), 2, 2)
			s.wait(30 * time.Second)
			p.stop()
			w.fails = fails
			s.wait(5 * time.Second)
			p.start()
			s.wait(time.Minute)
			if n := p.engineRunning(); n != 2 || p.engine.Counts(old.ID).Stops != 0 {
				t.Fatalf("%d run while the image is pulled, the old replica's %+v; want both left alone", n, p.engine.Counts(old.ID))
			}
			if fails == nil {
				s.slowly(2*time.Minute, "changed", func() bool { return p.of(0)[2].Phase == shoal.PhaseReady && p.of(1)[2].Phase == shoal.PhaseReady })
				s.wait(time.Minute)
				if c := p.engine.Counts(old.ID); p.containers() != 2 || c.Removes != 1 {
					t.Errorf("%d containers, the old one's %+v", p.containers(), c)
				}
				return
			}
			s.wait(time.Hour)
			if p.of(0)[1].Phase != shoal.PhaseReady || p.of(1)[1].Phase != shoal.PhaseReady || p.engine.Counts(old.ID).Stops != 0 {
				t.Errorf("statuses = %+v, %+v; want the old replicas", p.of(0), p.of(1))
			}
		})
	}
}

// TestPullThatStandsStill is given up; one that moves takes as long as it takes.
func TestPullThatStandsStill(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		w := s.swarming(p, 40*time.Minute)
		p.start()
		s.wait(time.Minute)
		s.wish(appV2(), 1, 1, p.id)
		took := s.slowly(41*time.Minute, "ready", func() bool { return p.ready("web") == 1 })
		if len(w.calls()) != 1 || took < 40*time.Minute {
			t.Errorf("%d pulls, ready after %s", len(w.calls()), took)
		}
		w.set(func(w *swarm) { w.quiet = true })
		s.wish(shoal.Spec{Name: "api", Image: "app:v2", Digest: "sha256:" + strings.Repeat("3", 64)}, 1, 1, p.id)
		s.slowly(4*time.Minute, "given up", func() bool {
			return slices.ContainsFunc(p.state().Replicas, func(r shoal.ReplicaStatus) bool { return r.Reason == "nothing moved for 3m0s" })
		})
		s.until(time.Minute, "tried again", func() bool { return len(w.calls()) == 3 })
	})
}

// TestUpdateOfWhatIsStillPulled: what does not run is not kept for the new image.
func TestUpdateOfWhatIsStillPulled(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		w := s.swarming(p, time.Hour)
		p.cfg.Pulls = 1
		p.start()
		s.wait(time.Minute)
		s.wish(shoal.Spec{Name: "web", Image: "app:v1", Digest: "sha256:" + strings.Repeat("1", 64)}, 1, 1, p.id)
		s.wait(10 * time.Second)
		w.set(func(w *swarm) { w.takes = time.Second })
		s.wish(appV2(), 2, 1)
		s.until(5*time.Second, "ready", func() bool { return p.ready("web") == 1 && len(p.state().Replicas) == 1 })
	})
}
