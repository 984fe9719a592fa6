// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalnet/shoal"
)

// loaded is a world whose service is autoscaled between 2 and 10 at cpu 60% of a core.
func loaded(change ...func(*shoal.Autoscale)) *world {
	w := newWorld()
	a := shoal.DefaultAutoscale()
	a.Min, a.Max, a.CPU = 2, 10, 60
	for _, c := range change {
		c(&a)
	}
	w.service.Spec.Autoscale, w.service.Rollout.Settled = &a, true
	w.service.Spec.Limits = shoal.Resources{CPUMilli: 1000, MemBytes: 64 << 20}
	w.service.Scale.Base = shoal.RevisionID{Seq: 1, Author: "a"}
	w.loads, w.carried = [3]int64{600, 600, 600}, map[shoal.PeerID]shoal.Carried{}
	return w
}

// settle is a stretch of time after which nothing of the start holds a change.
func (w *world) settle(m *scales) {
	w.ask(m, time.Minute)
}

// ask lets time pass, waking when asked to, and returns what was asked for, and when.
func (w *world) ask(m *scales, d time.Duration) []string {
	var out []string
	for end := w.now + d; ; {
		next, acts, wake := lookLoads(w.view(), *m, w.memory, w.now, w.from, &cfg)
		*m = next
		for _, a := range acts {
			out = append(out, fmt.Sprintf("%s=%d on %s at %s: %s", a.Service, a.N, a.Base, w.now-time.Hour, a.Why))
		}
		if wake == 0 || wake > end {
			w.now = end
			return out
		}
		w.now = wake
	}
}

func TestScalesInTurn(t *testing.T) {
	for i, at := range []string{"at 1m0s", "at 1m2s", "at 1m4s"} {
		w, m := loaded(), scales(nil)
		w.self = order(w.view(), &w.service)[i]
		w.settle(&m)
		w.loads = [3]int64{1000, 1000, 500}
		is(t, string(w.self), w.ask(&m, 5*time.Second), "web=5 on 1@a "+at+": cpu 83% of 60%: 3 -> 5")
		is(t, "it had no effect", w.ask(&m, 10*time.Second), "web=5")
		w.service.Replicas, w.service.Scale.Base = 5, shoal.RevisionID{Seq: 2, Author: "a"}
		is(t, "done", w.ask(&m, time.Minute)) // two slots are not there yet, and count as used to their target
	}
	w, m := loaded(), scales(nil)
	w.settle(&m)
	w.service.Spec.Autoscale = nil
	if is(t, "off", w.ask(&m, time.Hour)); len(m) != 0 {
		t.Errorf("memory %v of what is not autoscaled", m)
	}
}

// TestInput: what counts as measured, and what as missing.
func TestInput(t *testing.T) {
	tests := map[string]struct {
		change func(*world)
		want   string // what Scaling would say
	}{
		"all report":               {func(*world) {}, "cpu 60% of 60%"},
		"one is not measured yet":  {func(w *world) { w.loads[0] = 0 }, "cpu 60% of 60%"},
		"nobody is":                {func(w *world) { w.loads = [3]int64{} }, "nobody reports cpu"},
		"one is not ready":         {func(w *world) { w.loads[0], w.phases[0] = 1000, shoal.PhaseRunning }, "cpu 60% of 60%"},
		"one is not heard":         {func(w *world) { w.self, w.loads[2], w.dead["c"] = "a", 1000, true }, "cpu 60% of 60%"},
		"one is beyond the number": {func(w *world) { w.loads[2], w.service.Replicas = 900, 2 }, "cpu 60% of 60%"},
		"of the reservation":       {func(w *world) { w.service.Spec.Reservations.CPUMilli = 500 }, "cpu 120% of 60%; 6 called for, in 5s: the last change is too near"},
		"memory too":               {func(w *world) { w.service.Spec.Autoscale.Memory = 80 }, "cpu 60% of 60%, memory 0.9% of 80%"},
		"all peers carry": {func(w *world) {
			w.service.Spec.Autoscale.Connections, w.service.Spec.Autoscale.Requests = 50, 10
			w.carried["a"], w.carried["b"] = shoal.Carried{Service: "web", Open: 90, Rate: 30_000}, shoal.Carried{Service: "web", Open: 60}
		}, "cpu 60% of 60%, connections 50 of 50, requests 10/s of 10/s"},
		"a rollout is paused": {func(w *world) { w.loads[0], w.service.Rollout.Paused = 1000, true }, "cpu 73% of 60%; nothing changes while the rollout is paused"},
		"a rollout fails": {func(w *world) {
			w.service.Rollout.Settled, w.fails, w.loads = false, [3]int{2, 2, 2}, [3]int64{1000, 1000, 1000}
			w.phases = [3]shoal.Phase{shoal.PhaseReady, shoal.PhaseReady, shoal.PhaseReady}
			w.pass(time.Second)
		}, "cpu 100% of 60%; nothing changes while the rollout is failing"},
		"a user's number": {func(w *world) { w.service.Scale.Manual = true }, "cpu 60% of 60%; manual: 3 for another 10m0s"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := loaded()
			w.first()
			tt.change(w)
			v := w.view()
			at := still{view: v, now: w.now}
			s := New(Config{}, Deps{Views: at, Clock: at})
			s.memory = w.memory
			s.scales, _, _ = lookLoads(v, nil, w.memory, w.now, w.from, &cfg)
			if got, ok := s.Scaling("web"); !ok || got.Says != tt.want {
				t.Errorf("Scaling = %q, %t; want %q", got.Says, ok, tt.want)
			}
		})
	}
}

// TestWakesAtOnce: the peer that a client came to asks for the first replica without waiting
// for its turn, also when it has just begun; the others in theirs.
func TestWakesAtOnce(t *testing.T) {
	sleeping := func() *world {
		w := loaded(func(a *shoal.Autoscale) { a.Min, a.CPU, a.Connections = 0, 0, 100 })
		w.service.Replicas = 0
		return w
	}
	turns := order(sleeping().view(), &sleeping().service)
	for _, tt := range []struct{ self, at shoal.PeerID }{{turns[2], turns[2]}, {turns[0], turns[2]}} {
		w, m := sleeping(), scales(nil)
		w.self, w.from = tt.self, w.now+30*time.Second
		is(t, "nobody came", w.ask(&m, 5*time.Second))
		w.carried[tt.at] = shoal.Carried{Service: "web", Open: 1}
		want := "web=1 on 1@a at 5s: connections 1 in all: 0 -> 1"
		if tt.self != tt.at {
			want = "web=1 on 1@a at 30s"
		}
		is(t, fmt.Sprintf("%s, came to %s", tt.self, tt.at), w.ask(&m, 26*time.Second)[:1], want)
	}
	w := sleeping()
	w.service.Stopped = true
	w.carried["a"] = shoal.Carried{Service: "web", Open: 1}
	m := scales(nil)
	is(t, "stopped", w.ask(&m, time.Hour))
}

// desk takes wishes, and makes them so in a world.
type desk struct {
	shoal.Wishes
	mu      sync.Mutex // guards what follows
	w       *world
	changed chan struct{}
	asked   []string
}

func (d *desk) Submit(_ context.Context, w shoal.Wish, _ shoal.UpdateOptions) (shoal.Outcome, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := w.Scale.Targets[0]
	d.asked = append(d.asked, fmt.Sprintf("%d %s", t.N, t.Why))
	if t.Base != d.w.service.Scale.Base {
		return shoal.Outcome{}, shoal.ErrConflict
	}
	d.w.service.Replicas = t.N
	d.w.service.Scale.Base.Seq++
	d.stir()
	return shoal.Outcome{}, nil
}

// stir tells of a change. d.mu is held.
func (d *desk) stir() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *desk) View() *shoal.View {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w.view()
}

func (d *desk) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// TestRunScales: the shell looks when the view changes and when a window ends, asks once,
// and tells what it waits for.
func TestRunScales(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{w: loaded(), changed: make(chan struct{})}
		d.w.first()
		s := New(Config{}, Deps{Views: d, Wishes: d, Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		change := func(fn func()) {
			d.mu.Lock()
			defer d.mu.Unlock()
			fn()
			d.stir()
		}
		time.Sleep(time.Minute)
		change(func() { d.w.loads = [3]int64{1000, 1000, 500} })
		time.Sleep(time.Second)
		change(func() { d.w.service.Replicas, d.w.loads = 3, [3]int64{300, 300, 300} }) // as if the others were gone
		time.Sleep(time.Minute)
		if got, ok := s.Scaling("web"); !ok || got.Want != 3 || !strings.Contains(got.Says, "cpu 30% of 60%; 2 called for, held by the down window for 4m") {
			t.Errorf("Scaling = %+v, %t", got, ok)
		}
		time.Sleep(10 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if want := []string{"5 cpu 83% of 60%: 3 -> 5", "2 cpu 30% of 60%: 3 -> 2"}; !slices.Equal(d.asked, want) {
			t.Errorf("asked for %q, want %q", d.asked, want)
		}
	})
}

// TestTellsWhatNobodyReports: that nobody reports the load of ready replicas is logged once
// it has lasted, and that somebody does again.
func TestTellsWhatNobodyReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{w: loaded(), changed: make(chan struct{})}
		d.w.first()
		var log bytes.Buffer
		s := New(Config{}, Deps{Views: d, Wishes: d, Clock: shoal.NewSystemClock(), Log: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		report := func(loads [3]int64) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.w.loads = loads
			d.stir()
		}
		report([3]int64{})
		time.Sleep(44 * time.Second)
		if got, ok := s.Scaling("web"); !ok || got.Says != "nobody reports cpu for 44s" || got.Metrics[0].Known || got.Metrics[0].Missing != 3 {
			t.Errorf("Scaling = %+v, %t", got, ok)
		}
		time.Sleep(3 * time.Minute)
		report([3]int64{600, 600, 600})
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		for text, want := range map[string]int{"00:00:45.000Z level=WARN msg=\"service is not scaled down: nobody reports its load\" service=web": 1, "is reported again": 1} {
			if n := strings.Count(log.String(), text); n != want {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, n, want, log.String())
			}
		}
	})
}
