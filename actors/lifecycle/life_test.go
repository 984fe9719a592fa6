// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// world is a small engine that answers effects, rightly or wrongly.
type world struct {
	s       State
	now     time.Duration
	c       *shoal.Container // nil: none
	pending EffectKind
	looks   bool
	wakeAt  time.Duration
	made    int
}

func (w *world) step(t *rapid.T, e Event) {
	e.Now, e.Wall = w.now, int64(w.now/time.Second)
	before := w.s
	after, effects := Step(before, e)
	checkStep(t, before, after, effects)
	w.s = after
	for _, f := range effects {
		switch {
		case f.Kind <= EffectRemove:
			if w.pending != 0 {
				t.Fatalf("two operations in flight: %d and %d", w.pending, f.Kind)
			}
			w.pending = f.Kind
		case f.Kind == EffectLook:
			w.looks = true
		case f.Kind == EffectWake:
			w.wakeAt = f.At
		case f.Kind == EffectEnd:
			if w.c != nil {
				t.Fatalf("ended while the engine holds %+v", *w.c)
			}
		}
	}
}

// answer carries out the operation in flight.
func (w *world) answer(t *rapid.T) {
	op := w.pending
	w.pending = 0
	e := Event{Kind: EventDone}
	switch op {
	case EffectPull:
		e.ID = "sha256:1234"
	case EffectCreate:
		w.create()
		e.ID = w.c.ID
	case EffectStart:
		if w.c == nil {
			e = Event{Kind: EventFail, Fault: FaultMissing, Why: "no such container"}
			break
		}
		w.c.State, w.c.ExitCode, w.c.OOM, w.c.Health = shoal.ContainerRunning, 0, false, ""
	case EffectStop:
		if w.c != nil && w.c.State == shoal.ContainerRunning {
			w.c.State, w.c.ExitCode = shoal.ContainerExited, 143
		}
	case EffectRemove:
		w.c = nil
	case EffectCancel, EffectLook, EffectWake, EffectRefuse, EffectEnd:
	}
	w.step(t, e)
}

func (w *world) create() {
	if w.c == nil {
		w.made++
		w.c = &shoal.Container{ID: string(rune('a' + w.made%26)), State: shoal.ContainerCreated}
	}
}

// misfortune makes the operation in flight fail; it may have happened all the same.
func (w *world) misfortune(t *rapid.T, f Fault) {
	if f == FaultDown || f == FaultOther {
		if w.pending == EffectCreate && rapid.Bool().Draw(t, "happened") {
			w.create()
		}
	}
	w.pending = 0
	w.step(t, Event{Kind: EventFail, Fault: f, Why: "misfortune"})
}

func (w *world) sight() Event {
	if w.c == nil {
		return Event{Kind: EventSeen}
	}
	c := *w.c
	return Event{Kind: EventSeen, Container: &c}
}

// outside lets the container die, sicken, vanish or come up by other hands.
func (w *world) outside(t *rapid.T) {
	if w.c == nil {
		return
	}
	switch rapid.IntRange(0, 4).Draw(t, "outside") {
	case 0:
		w.c = nil
	case 1:
		if w.c.State == shoal.ContainerRunning {
			w.c.State, w.c.ExitCode = shoal.ContainerExited, rapid.IntRange(0, 2).Draw(t, "code")
			w.c.OOM = w.c.ExitCode == 2
		}
	case 2:
		w.c.Health = rapid.SampledFrom([]string{"", shoal.HealthStarting, shoal.HealthHealthy, shoal.HealthUnhealthy}).Draw(t, "health")
	case 3:
		w.c.State = shoal.ContainerRunning
	}
}

func drawWorld(t *rapid.T) *world {
	spec := shoal.Spec{Image: "hello:1", Restart: shoal.Restart{
		Condition:   rapid.SampledFrom([]shoal.RestartCondition{"", shoal.RestartAny, shoal.RestartOnFailure, shoal.RestartNone}).Draw(t, "condition"),
		MaxAttempts: rapid.IntRange(0, 3).Draw(t, "max"),
		Delay:       time.Duration(rapid.IntRange(0, 100).Draw(t, "delay")) * time.Second,
	}}
	var so shoal.JobOutcome
	if rapid.IntRange(0, 2).Draw(t, "job") == 0 {
		spec.Mode, spec.Restart = shoal.ModeReplicatedJob, shoal.Restart{Condition: shoal.RestartOnFailure, Delay: spec.Restart.Delay}
		spec.Job = &shoal.Job{Attempts: rapid.IntRange(1, 6).Draw(t, "attempts"), Deadline: time.Duration(rapid.IntRange(0, 9).Draw(t, "deadline")) * time.Minute}
		so.Attempts = rapid.IntRange(0, spec.Job.Attempts-1).Draw(t, "tried")
	}
	w := &world{s: New(RulesOf(&spec), rapid.Uint64().Draw(t, "seed"), rapid.Bool().Draw(t, "fresh"), 0, so), now: time.Second}
	if !w.s.Known && rapid.Bool().Draw(t, "left over") {
		w.create()
		w.outside(t)
	}
	return w
}

// chaos lets n arbitrary things happen.
func (w *world) chaos(t *rapid.T, n int) {
	for range n {
		w.now += time.Duration(rapid.IntRange(0, 30_000).Draw(t, "ms")) * time.Millisecond
		switch rapid.IntRange(0, 10).Draw(t, "what") {
		case 0:
			w.step(t, Event{Kind: EventAllow})
		case 1:
			w.step(t, Event{Kind: EventHold})
		case 2, 3, 4:
			if w.pending != 0 {
				w.answer(t)
			}
		case 5:
			if w.pending != 0 {
				w.misfortune(t, Fault(rapid.IntRange(0, 4).Draw(t, "fault")))
			}
		case 6:
			w.outside(t)
		case 7, 8:
			if w.pending == 0 { // the shell keeps older sights away
				w.step(t, w.sight())
			}
		case 9:
			w.step(t, Event{Kind: EventTick})
		case 10:
			pace := time.Duration(rapid.IntRange(0, 3).Draw(t, "pace"))
			w.step(t, Event{Kind: EventBrake, Brake: Brake{Delay: pace * 10 * time.Second, Cap: pace * 100 * time.Second}})
		}
	}
}

// TestHaltAlwaysEnds: whatever happened, a halted replica on an engine that works
// again is stopped, its container removed, and then asks for nothing more.
func TestHaltAlwaysEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.chaos(t, rapid.IntRange(0, 60).Draw(t, "before"))
		w.step(t, Event{Kind: EventHalt})
		w.chaos(t, rapid.IntRange(0, 20).Draw(t, "after"))
		for i := 0; !w.s.Ended; i++ {
			if i > 20 {
				t.Fatalf("not ended after %d fair steps: %+v", i, w.s)
			}
			w.fair(t)
		}
		if w.s.Phase != shoal.PhaseStopped || w.c != nil {
			t.Fatalf("ended in %s with container %v", w.s.Phase, w.c)
		}
		w.chaos(t, 5) // checkStep asserts that nothing is asked for after the end
	})
}

// TestAllowedComesUp: whatever happened before, an allowed replica on an engine
// that works again and a container that behaves is ready, unless its policy says
// that its life is over.
func TestAllowedComesUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.chaos(t, rapid.IntRange(0, 60).Draw(t, "before"))
		w.step(t, Event{Kind: EventAllow})
		for i := 0; ; i++ {
			p := w.s.Phase
			if w.pending == 0 && (p == shoal.PhaseReady || p == shoal.PhaseFailed || p == shoal.PhaseStopped) {
				break
			}
			if i > 30 {
				t.Fatalf("not settled after %d fair steps: %+v", i, w.s)
			}
			if w.c != nil && w.c.State == shoal.ContainerRunning {
				w.c.Health = shoal.HealthHealthy
			}
			w.fair(t)
		}
		if over := w.s.Phase != shoal.PhaseReady; over && w.s.Rules.Condition == shoal.RestartAny && w.s.Rules.MaxAttempts == 0 {
			t.Fatalf("restart any without a limit ended in %s: %s", w.s.Phase, w.s.Reason)
		}
		if w.s.Phase == shoal.PhaseReady && (w.c == nil || w.c.State != shoal.ContainerRunning) {
			w.step(t, w.sight()) // the engine changed behind its back: the next sight tells
			if w.s.Phase == shoal.PhaseReady {
				t.Fatalf("ready although the engine holds %v", w.c)
			}
		}
	})
}

// TestHeldHasItsImage: whatever happened, a replica that may not start has its image made
// available on an engine that works, and no container is created or started for it.
func TestHeldHasItsImage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.s.Known, w.c, w.made = true, nil, 0 // no container of it can exist
		for range rapid.IntRange(0, 60).Draw(t, "before") {
			w.now += time.Duration(rapid.IntRange(0, 30_000).Draw(t, "ms")) * time.Millisecond
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				if w.pending != 0 {
					w.answer(t)
				}
			case 1:
				if w.pending != 0 {
					w.misfortune(t, Fault(rapid.IntRange(0, 4).Draw(t, "fault")))
				}
			case 2:
				if w.pending == 0 {
					w.step(t, w.sight())
				}
			case 3:
				w.step(t, Event{Kind: EventTick})
			}
		}
		for range 6 {
			w.fair(t)
		}
		if w.made > 0 || w.s.Phase != shoal.PhasePulling || !w.s.HasImage() || w.s.Image == "" || w.pending != 0 {
			t.Fatalf("made %d containers, state %+v; want the image and no more", w.made, w.s)
		}
		w.step(t, Event{Kind: EventAllow})
		if w.pending != EffectCreate {
			t.Fatalf("its turn has come, and it asks for %d", w.pending)
		}
	})
}

// fair is one step of a world where everything works.
func (w *world) fair(t *rapid.T) {
	if w.pending != 0 {
		w.answer(t)
		return
	}
	w.now += 3 * time.Minute // longer than any back-off
	w.step(t, Event{Kind: EventTick})
	if w.pending == 0 && !w.s.Ended {
		w.step(t, w.sight())
	}
}

// TestBackoff: doubles from Delay to Cap with at most a fifth of jitter, equal for
// equal seeds.
func TestBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := RulesOf(&shoal.Spec{Restart: shoal.Restart{Delay: time.Duration(rapid.IntRange(1, 3600).Draw(t, "s")) * time.Second}})
		seed := rapid.Uint64().Draw(t, "seed")
		want := r.Delay
		for n := 1; n < 12; n++ {
			p, q := step{State: New(r, seed, true, 0, shoal.JobOutcome{})}, step{State: New(r, seed, true, 0, shoal.JobOutcome{})}
			got := p.backoff(n)
			if got < want || got > want+want/5 || got != q.backoff(n) {
				t.Fatalf("backoff(%d) = %s, want %s to %s", n, got, want, want+want/5)
			}
			want = min(2*want, r.Cap)
		}
	})
}

func TestRankKnowsEveryPhase(t *testing.T) {
	for p := shoal.PhasePending; p <= shoal.PhaseLost; p++ {
		if Rank(p) < 0 {
			t.Errorf("Rank(%s) = %d, want a rank", p, Rank(p))
		}
	}
	if Rank(shoal.PhaseUnknown) != -1 || Rank(99) != -1 {
		t.Error("Rank of no phase is not -1")
	}
}
