// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// oneWeb starts one peer with n ready replicas of "web".
func oneWeb(s *sea, n int, change ...func(*shoal.Spec)) *tank {
	s.t.Helper()
	p := s.first()
	if p.cancel == nil {
		p.start()
	}
	s.wait(time.Second)
	spec := shoal.Spec{Name: "web"}
	for _, c := range change {
		c(&spec)
	}
	proposed := make([]shoal.PeerID, n)
	for i := range proposed {
		proposed[i] = p.id
	}
	s.wish(spec, 1, n, proposed...)
	s.until(5*time.Second, "web ready", func() bool { return p.ready("web") == n })
	return p
}

// F20, F21: a crash loop is slowed down, says why, and leaves the others alone.
func TestCrashLoopBacksOff(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.engine.SetImages("hello:1", "crash:1")
		p.engine.SetProgram("crash:1", runtime.Program{Exits: true, ExitAfter: time.Second, ExitCode: 7})
		oneWeb(s, 2)
		s.wish(shoal.Spec{Name: "crash", Image: "crash:1"}, 1, 1, p.id)
		s.wait(10 * time.Minute)
		r := p.replica("crash", 0)
		// 1, 2, 4 ... 60 s: 6 restarts in the first 64 s, then one a minute or so.
		if r.Restarts < 10 || r.Restarts > 18 {
			t.Errorf("%d restarts in 10 minutes, want 10 to 18", r.Restarts)
		}
		s.until(2*time.Minute, "back in back-off", func() bool { return p.replica("crash", 0).Phase == shoal.PhasePending })
		if r := p.replica("crash", 0); !strings.HasPrefix(r.Reason, "exited with code 7; starts again after ") || r.ExitCode != 7 {
			t.Errorf("status = %+v, want its exit code and when it starts again", r)
		}
		if p.ready("web") != 2 {
			t.Error("web is not ready")
		}
		if c := p.engine.Counts(p.replica("web", 0).ID); c.Starts != 1 {
			t.Errorf("web/0: %+v, want it untouched", c)
		}
	})
}

// F19: an OOM kill is visible within 2 s, with the limit.
func TestOOMSaysTheLimit(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 1, func(spec *shoal.Spec) { spec.Limits.MemBytes = 64 << 20 })
		id := p.replica("web", 0).ID
		p.engine.Exit(id, 137, true)
		took := s.until(2*time.Second, "OOM told", func() bool {
			return strings.HasPrefix(p.replica("web", 0).Reason, "OOM-killed at 64 MiB")
		})
		if took > 100*time.Millisecond {
			t.Errorf("told after %s, want an event, not the periodic list", took)
		}
		s.until(5*time.Second, "ready again", func() bool { return p.ready("web") == 1 })
		if r := p.replica("web", 0); r.ID != id || r.Restarts != 1 {
			t.Errorf("status = %+v, want the same replica, restarted once", r)
		}
	})
}

// F36: docker rm -f is healed, foreign containers are never touched.
func TestRemovedByHand(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 3)
		foreign := p.engine.AddForeign("postgres")
		old := p.replica("web", 1)
		p.engine.RemoveByHand(old.ID)
		took := s.until(10*time.Second, "healed", func() bool {
			return p.ready("web") == 3 && p.containers() == 3 && p.replica("web", 1).Container != old.Container
		})
		t.Logf("healed after %s", took)
		if r := p.replica("web", 1); r.ID != old.ID || r.Container == old.Container || r.Restarts != 1 {
			t.Errorf("status = %+v, want the same replica in a new container", r)
		}
		if !p.engine.ForeignRuns(foreign) {
			t.Error("a container that is not ours was touched")
		}
	})
}

// F4: an engine that is gone: marked within 10 s, nothing crashes, and everything
// recovers by itself without a restart.
func TestEngineDownAndBack(t *testing.T) {
	testEngineGone(t, func(p *tank, gone bool) { p.engine.SetDown(gone) })
}

// F5: the same for an engine that hangs.
func TestEngineHangsAndBack(t *testing.T) {
	testEngineGone(t, func(p *tank, gone bool) { p.engine.SetHang(gone) })
}

func testEngineGone(t *testing.T, set func(*tank, bool)) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 2)
		s.wait(time.Minute)
		before := p.engine.Counts(shoal.ReplicaID{})
		set(p, true)
		took := s.until(10*time.Second, "marked", func() bool { return p.state().Engine.Down })
		t.Logf("marked after %s", took)
		s.wait(12 * time.Second)
		if e := p.state().Engine; !strings.HasPrefix(e.Reason, "no answer for ") || e.Reason == "no answer for 1s" {
			t.Errorf("engine = %+v, want how long it has not answered", e)
		}
		s.wait(5 * time.Minute)
		for slot := range 2 {
			if r := p.replica("web", slot); r.Phase != shoal.PhaseReady || r.Restarts != 0 {
				t.Errorf("web/%d = %+v, want what was known last", slot, r)
			}
		}
		set(p, false)
		took = s.until(10*time.Second, "recovered", func() bool { return !p.state().Engine.Down })
		t.Logf("recovered after %s", took)
		s.wait(time.Minute)
		if after := p.engine.Counts(shoal.ReplicaID{}); after != before || p.ready("web") != 2 {
			t.Errorf("counts = %+v after %+v, %d ready; want nothing touched", after, before, p.ready("web"))
		}
	})
}

// TestDeployWhileEngineIsDown: a replica that could not be made waits, is never
// failed, and comes up when the engine is back.
func TestDeployWhileEngineIsDown(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 1)
		p.engine.SetLatency(runtime.Latency{Create: time.Second})
		s.wish(shoal.Spec{Name: "db"}, 1, 1, p.id)
		s.until(time.Second, "creating", func() bool {
			for _, r := range p.state().Replicas {
				if r.Service == "db" {
					return r.Phase == shoal.PhaseCreating
				}
			}
			return false
		})
		p.engine.SetDown(true)
		for range 8 {
			s.wait(time.Second)
			if r := p.replica("db", 0); r.Phase == shoal.PhaseFailed {
				t.Fatalf("failed because the engine is down: %+v", r)
			}
		}
		p.engine.SetDown(false)
		s.until(10*time.Second, "db ready", func() bool { return p.ready("db") == 1 && p.ready("web") == 1 })
	})
}

// F32: a panic in one replica's actor touches nothing else; its actor is back within
// a second and resumes from the container, which is not restarted.
func TestPanicIsIsolated(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		var panics atomic.Int32
		p.deps.Record = func(e shoal.Event) {
			if e.Kind == "replica" && e.Service == "web" && e.Slot == 1 && e.Text == "ready" && panics.Add(1) <= 2 {
				panic("a bug in one actor")
			}
		}
		oneWeb(s, 3)
		s.wait(time.Minute)
		if n := panics.Load(); n != 3 {
			t.Fatalf("became ready %d times, want 3: two panics and a good one", n)
		}
		if c := p.engine.Counts(shoal.ReplicaID{}); c.Creates != 3 || c.Starts != 3 || c.Stops != 0 {
			t.Errorf("counts = %+v, want 3 created and started, none touched", c)
		}
		for slot := range 3 {
			if r := p.replica("web", slot); r.Phase != shoal.PhaseReady || r.Restarts != 0 {
				t.Errorf("web/%d = %+v, want ready with zero restarts", slot, r)
			}
		}
		if n := strings.Count(p.logs.String(), "actor panicked"); n != 2 {
			t.Errorf("log tells of %d panics, want 2", n)
		}
		s.wish(shoal.Spec{Name: "web"}, 1, 0)
		s.until(time.Second, "gone", func() bool { return p.containers() == 0 })
	})
}

// TestPanicWithOperationUnderWay: the actor dies while its create is under way; the
// next incarnation waits for its end and makes no second container.
func TestPanicWithOperationUnderWay(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		e := &countingEngine{Twin: p.engine}
		p.deps.Engine = e
		p.start()
		s.wait(time.Second)
		p.engine.SetLatency(runtime.Latency{Create: 4 * time.Second, Start: time.Second})
		s.wish(shoal.Spec{Name: "web"}, 1, 1, p.id)
		s.until(time.Second, "creating", func() bool { return len(p.state().Replicas) == 1 && p.replica("web", 0).Phase == shoal.PhaseCreating })
		var victim *cell
		r := p.system.run
		r.mu.Lock()
		for c := range r.cells {
			if strings.HasPrefix(c.name, "replica ") {
				victim = c
			}
		}
		r.mu.Unlock()
		r.send(victim.pid, (*result)(nil)) // the actor panics
		s.until(10*time.Second, "ready", func() bool { return p.ready("web") == 1 && len(p.state().Replicas) == 1 })
		if c := p.engine.Counts(shoal.ReplicaID{}); c.Creates != 1 || c.Starts != 1 {
			t.Errorf("counts = %+v, want one container, started once", c)
		}
		if m := e.most.Load(); m != 1 {
			t.Errorf("%d operations on one replica at a time", m)
		}
	})
}

// TestHigherActorsPanic: a service's or the peer's actor that panics is replaced and
// nothing is restarted.
func TestHigherActorsPanic(t *testing.T) {
	for _, kind := range []string{"service ", "peer"} {
		inSea(t, 1, func(s *sea) {
			p := oneWeb(s, 3)
			for range 3 {
				r := p.system.run
				r.mu.Lock()
				for c := range r.cells {
					if strings.HasPrefix(c.name, kind) {
						r.send(c.pid, (*part)(nil))
						r.send(c.pid, (*written)(nil))
					}
				}
				r.mu.Unlock()
				s.wait(time.Second)
			}
			s.wait(time.Minute)
			if c := p.engine.Counts(shoal.ReplicaID{}); c.Creates != 3 || c.Starts != 3 || c.Stops != 0 || p.ready("web") != 3 {
				t.Errorf("%s: counts = %+v, %d ready; want nothing touched", kind, c, p.ready("web"))
			}
			if n := strings.Count(p.logs.String(), "actor panicked"); n != 3 {
				t.Errorf("%s: log tells of %d panics, want 3", kind, n)
			}
			s.wish(shoal.Spec{Name: "web"}, 1, 5, p.id, p.id, p.id, p.id, p.id)
			s.until(2*time.Second, "5 ready", func() bool { return p.ready("web") == 5 })
		})
	}
}

// TestWatchdogReplacesStuckActor: an actor that hangs is replaced; what the old one
// does when it wakes has no effect; the others never notice.
func TestWatchdogReplacesStuckActor(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		release := make(chan struct{})
		var hung atomic.Bool
		p.deps.Record = func(e shoal.Event) {
			if e.Kind == "replica" && e.Slot == 0 && e.Text == "ready" && hung.CompareAndSwap(false, true) {
				<-release
			}
		}
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 2, p.id, p.id)
		s.until(time.Second, "one ready", func() bool { return p.ready("web") == 1 })
		took := s.until(20*time.Second, "both ready", func() bool { return p.ready("web") == 2 })
		t.Logf("replaced after %s", took)
		p.engine.Exit(p.replica("web", 1).ID, 1, false)
		s.until(5*time.Second, "the other restarted", func() bool { return p.ready("web") == 2 && p.replica("web", 1).Restarts == 1 })
		close(release)
		s.wait(time.Minute)
		if c := p.engine.Counts(p.replica("web", 0).ID); c.Creates != 1 || c.Starts != 1 || c.Stops != 0 {
			t.Errorf("counts = %+v, want its container untouched", c)
		}
	})
}

// TestStuckActorWakesTooLate: it hung just before it began an operation; when it
// wakes, its successor has long done it.
func TestStuckActorWakesTooLate(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		e := &countingEngine{Twin: p.engine}
		release := make(chan struct{})
		var hung atomic.Bool
		p.deps.Engine = e
		p.deps.Record = func(e shoal.Event) {
			if e.Kind == "replica" && e.Text == "creating" && hung.CompareAndSwap(false, true) {
				<-release
			}
		}
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 1, p.id)
		s.until(20*time.Second, "ready", func() bool { return p.ready("web") == 1 })
		close(release)
		s.wait(time.Minute)
		if n := e.creates.Load(); n != 1 || p.ready("web") != 1 {
			t.Errorf("%d calls of create, %d ready; want 1, 1", n, p.ready("web"))
		}
	})
}

// staleEngine answers lists late: what it tells is 400 ms old.
type staleEngine struct{ *runtime.Twin }

func (e staleEngine) List(ctx context.Context) ([]shoal.Container, error) {
	cs, err := e.Twin.List(ctx)
	if !sleep(ctx, 400*time.Millisecond) {
		return nil, ctx.Err()
	}
	return cs, err
}

// TestStaleListsAreIgnored: a list that began before an operation ended does not
// tell that its container vanished, or still runs.
func TestStaleListsAreIgnored(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.deps.Engine = staleEngine{p.engine}
		p.start()
		s.wait(time.Second)
		for n := 1; n <= 6; n++ {
			s.wish(shoal.Spec{Name: "web"}, 1, n, p.id, p.id, p.id, p.id, p.id, p.id)
			s.wait(170 * time.Millisecond)
		}
		s.until(5*time.Second, "ready", func() bool { return p.ready("web") == 6 })
		s.wait(time.Minute)
		if c := p.engine.Counts(shoal.ReplicaID{}); c.Creates != 6 || c.Starts != 6 || c.Stops != 0 {
			t.Errorf("counts = %+v, want 6 created and started", c)
		}
		for slot := range 6 {
			if r := p.replica("web", slot); r.Restarts != 0 {
				t.Errorf("web/%d = %+v, want no restart", slot, r)
			}
		}
	})
}

// TestStoreRefuses: a full disk under the store delays claims, and is told.
func TestStoreRefuses(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.start()
		s.all(func(p *tank) { p.storeErr = errDisk })
		s.wish(shoal.Spec{Name: "web"}, 1, 1, p.id)
		s.wait(10 * time.Second)
		if p.containers() != 0 {
			t.Error("a container was made for a claim that was never written")
		}
		s.all(func(p *tank) { p.storeErr = nil })
		s.until(2*time.Second, "ready", func() bool { return p.ready("web") == 1 })
		if !strings.Contains(p.logs.String(), "claims not written") {
			t.Error("the log does not tell")
		}
	})
}

// F26: a copied identity stops claiming; what runs, runs on.
func TestTroubleStopsClaiming(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		var trouble atomic.Value
		trouble.Store("")
		p.deps.Trouble = func() string { return trouble.Load().(string) }
		oneWeb(s, 2)
		updates, _ := p.counts()
		trouble.Store("another daemon uses this identity")
		s.wish(shoal.Spec{Name: "web"}, 1, 6, p.id, p.id, p.id, p.id, p.id, p.id)
		s.wait(time.Minute)
		if u, _ := p.counts(); u != updates || p.containers() != 2 || p.ready("web") != 2 {
			t.Errorf("%d updates, %d containers, %d ready; want none, 2, 2", u-updates, p.containers(), p.ready("web"))
		}
		trouble.Store("")
		s.wish(shoal.Spec{Name: "web"}, 1, 4, p.id, p.id, p.id, p.id)
		s.until(5*time.Second, "4 ready", func() bool { return p.ready("web") == 4 })
	})
}

// countingEngine counts calls, and how many launches are under way together.
type countingEngine struct {
	*runtime.Twin
	lists, creates, busy, most atomic.Int32
}

func (e *countingEngine) List(ctx context.Context) ([]shoal.Container, error) {
	e.lists.Add(1)
	return e.Twin.List(ctx)
}

func (e *countingEngine) enter() func() {
	n := e.busy.Add(1)
	for m := e.most.Load(); n > m && !e.most.CompareAndSwap(m, n); m = e.most.Load() {
	}
	return func() { e.busy.Add(-1) }
}

func (e *countingEngine) Create(ctx context.Context, s shoal.ContainerSpec) (string, error) {
	defer e.enter()()
	e.creates.Add(1)
	return e.Twin.Create(ctx, s)
}

func (e *countingEngine) Start(ctx context.Context, id string) error {
	defer e.enter()()
	return e.Twin.Start(ctx, id)
}

// TestLaunchCap: at most 4 creates and starts at a time, and never fewer while
// there is work (DESIGN section 5).
func TestLaunchCap(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		e := &countingEngine{Twin: p.engine}
		p.deps.Engine = e
		p.start()
		s.wait(time.Second)
		proposed := make([]shoal.PeerID, 20)
		for i := range proposed {
			proposed[i] = p.id
		}
		s.wish(shoal.Spec{Name: "web"}, 1, 10, proposed[:10]...)
		s.wish(shoal.Spec{Name: "api"}, 1, 10, proposed[:10]...)
		took := s.until(10*time.Second, "20 ready", func() bool { return p.ready("") == 20 })
		if m := e.most.Load(); m != 4 {
			t.Errorf("%d launches at a time, want 4", m)
		}
		if took > 1400*time.Millisecond { // 20 x 250 ms / 4 = 1.25 s
			t.Errorf("took %s, want about 1.25 s", took)
		}
	})
}

// countingPuller counts how many pulls are under way together.
type countingPuller struct {
	*runtime.Twin
	busy, most, calls atomic.Int32
}

func (p *countingPuller) Images(context.Context) ([]string, error) { return nil, nil }

func (p *countingPuller) Ensure(ctx context.Context, _ string, _ func(shoal.ImageProgress)) (string, error) {
	p.calls.Add(1)
	n := p.busy.Add(1)
	defer p.busy.Add(-1)
	for m := p.most.Load(); n > m && !p.most.CompareAndSwap(m, n); m = p.most.Load() {
	}
	if !sleep(ctx, time.Second) {
		return "", ctx.Err()
	}
	return "", nil
}

// TestPullsOfOneImage: replicas of one image are pulled for together.
func TestPullsOfOneImage(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		puller := &countingPuller{Twin: p.engine}
		p.deps.Puller = puller
		p.deps.Decide = everything(p.id)
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 6)
		s.wait(500 * time.Millisecond)
		if n := puller.busy.Load(); n != 6 {
			t.Errorf("%d of 6 replicas of one image have their pull under way", n)
		}
	})
}

// TestPullCap: at most 2 images are pulled at a time; a halted replica's pull is given up.
func TestPullCap(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		puller := &countingPuller{Twin: p.engine}
		p.deps.Puller = puller
		p.deps.Decide = everything(p.id)
		p.start()
		s.wait(time.Second)
		names := []string{"a", "b", "c", "d", "e", "f"}
		for _, name := range names {
			s.wish(shoal.Spec{Name: name, Image: name + ":1"}, 1, 1)
		}
		s.wait(1500 * time.Millisecond)
		if n := puller.calls.Load(); n != 4 {
			t.Errorf("%d pulls after 1.5 s of pulls of 1 s, want 4", n)
		}
		for _, name := range names {
			s.remove(name)
		}
		s.until(time.Second, "given up", func() bool { return len(p.state().Replicas) == 0 && p.containers() == 0 })
		// A waiting pull may get its turn just before its own end is told.
		if n, m := puller.calls.Load(), puller.most.Load(); n > 6 || m != 2 {
			t.Errorf("%d pulls, %d at a time; want at most 6, 2", n, m)
		}
	})
}

// F30: 200 containers die at once: few lists, few lines, all back.
func TestEventStormIsCoalesced(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		e := &countingEngine{Twin: p.engine}
		p.deps.Engine = e
		p.engine.SetLatency(runtime.Latency{Call: 2 * time.Millisecond})
		oneWeb(s, 200)
		s.wait(time.Minute)
		lines, lists := strings.Count(p.logs.String(), "level=INFO"), e.lists.Load()
		for _, r := range p.state().Replicas {
			p.engine.Exit(r.ID, 1, false)
		}
		s.until(10*time.Second, "all back", func() bool { return p.ready("web") == 200 })
		lines, lists = strings.Count(p.logs.String(), "level=INFO")-lines, e.lists.Load()-lists
		if lists > 300 {
			t.Errorf("%d lists for 200 deaths and starts, want them coalesced", lists)
		}
		if lines > 300 {
			t.Errorf("%d lines, want at most 20 of a kind a second", lines)
		}
	})
}

// TestMissingImageIsRefused: the peer says why, and takes the slot once the image
// is there.
func TestMissingImageIsRefused(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.deps.Decide = everything(p.id)
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web", Image: "late:1"}, 1, 1)
		s.until(time.Second, "refused", func() bool { return len(p.state().Refusals) == 1 })
		if r := p.state().Refusals[0]; r.Reason != "image late:1 is not there (shoal image push it where docker has it)" || r.Service != "web" || r.Revision.Seq != 1 {
			t.Errorf("refusal = %+v", r)
		}
		p.engine.SetImages("late:1")
		s.until(31*time.Second, "ready", func() bool { return p.ready("web") == 1 && len(p.state().Refusals) == 0 })
	})
}

// countedImages counts the lists of images.
type countedImages struct {
	shoal.Puller
	lists atomic.Int32
}

func (c *countedImages) Images(ctx context.Context) ([]string, error) {
	c.lists.Add(1)
	return c.Puller.Images(ctx)
}

// TestLoadedImageIsToldSoon: whoever loads an image and deploys at once finds a peer
// that has it, also while the machine's usage is measured.
func TestLoadedImageIsToldSoon(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		machine := &slowMachine{Machine: p.deps.Machine}
		p.deps.Machine = machine
		p.start()
		s.wait(15 * time.Second)
		s.until(30*time.Second, "measuring", machine.busy.Load)
		tells := func(ref string) func() bool {
			return func() bool { return slices.Contains(p.state().Images, ref) }
		}
		p.engine.SetImages("hello:1", "late:1")
		s.until(50*time.Millisecond, "told", tells("late:1"))
		p.engine.SetImages("hello:1")
		s.until(time.Second+50*time.Millisecond, "told that it went", func() bool { return !tells("late:1")() })
	})
}

// slowMachine takes two seconds to measure.
type slowMachine struct {
	shoal.Machine
	busy atomic.Bool
}

func (m *slowMachine) Usage(ctx context.Context) (shoal.Resources, error) {
	m.busy.Store(true)
	defer m.busy.Store(false)
	if !sleep(ctx, 2*time.Second) {
		return shoal.Resources{}, ctx.Err()
	}
	return m.Machine.Usage(ctx)
}

// TestManyImageEventsMakeFewLists: a build tags and deletes all the time.
func TestManyImageEventsMakeFewLists(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		count := &countedImages{Puller: p.deps.Puller}
		p.deps.Puller = count
		p.start()
		s.wait(15 * time.Second)
		before := count.lists.Load()
		for range 500 {
			p.engine.SetImages("hello:1", "late:1")
			s.wait(10 * time.Millisecond)
			p.engine.SetImages("hello:1")
			s.wait(10 * time.Millisecond)
		}
		if n := count.lists.Load() - before; n < 8 || n > 11 {
			t.Errorf("%d lists of images in 10 s of events, want about one a second", n)
		}
		before = count.lists.Load()
		s.wait(15 * time.Second)
		if n := count.lists.Load() - before; n > 2 {
			t.Errorf("%d lists of images in 15 s without events, want the last one's and the periodic", n)
		}
	})
}

// TestLaunchFailuresAreRefused: three in a row, with growing length each time.
func TestLaunchFailuresAreRefused(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.deps.Decide = everything(p.id)
		const layers = "Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: "
		p.engine.SetProgram("hello:1", runtime.Program{StartErr: errors.New(layers + "port 80 is taken")})
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 1)
		s.wait(2 * time.Second)
		if r := p.state().Refusals; len(r) != 0 {
			t.Errorf("refused at once: %v", r)
		}
		s.until(10*time.Second, "refused", func() bool { return len(p.state().Refusals) == 1 })
		if r := p.state().Refusals[0]; !strings.HasSuffix(r.Reason, ": port 80 is taken") || strings.Contains(r.Reason, "daemon") {
			t.Errorf("refusal = %+v", r)
		}
		s.remove("web")
		s.until(time.Second, "gone", func() bool { return p.containers() == 0 })
		s.wait(31 * time.Second)
		if r := p.state().Refusals; len(r) != 0 {
			t.Errorf("refusals = %v after 30 s, want none", r)
		}
	})
}
