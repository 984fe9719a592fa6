// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// TestMeter: connections and their rate by service, steady where little changes, and never
// below nothing.
func TestMeter(t *testing.T) {
	m := meter{}
	now := time.Hour
	for _, step := range []struct {
		name        string
		open, total int
		how         reading
		want        []shoal.Carried
	}{
		{"nothing yet", 0, 500, ofAll, nil},
		{"nothing came", 0, 500, ofAll, nil},
		{"one waits", 1, 501, ofWaiting, []shoal.Carried{{Service: "web", Open: 1}}},
		{"150 in 15 s", 32, 650, ofAll, []shoal.Carried{{Service: "web", Open: 32, Rate: 10_000}}},
		{"155 in 15 s, one more open", 33, 805, ofAll, []shoal.Carried{{Service: "web", Open: 32, Rate: 10_000}}},
		{"300 in 15 s, 35 open", 35, 1105, ofAll, []shoal.Carried{{Service: "web", Open: 35, Rate: 20_000}}},
		{"between two periods", 100, 2000, ofWaiting, []shoal.Carried{{Service: "web", Open: 100, Rate: 20_000}}},
		{"they went", 0, 1105, ofAll, nil},
		{"counted anew", 0, 15, ofAll, nil},
		{"a few", 1, 18, ofAll, []shoal.Carried{{Service: "web", Open: 1, Rate: 200}}},
		{"the last one", 0, 18, ofAll, nil},
	} {
		got := m.read(map[string]shoal.Traffic{"web": {Open: step.open, Total: uint64(step.total)}}, now, step.how)
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: read = %+v, want %+v", step.name, got, step.want)
		}
		if step.how == ofAll {
			now += 15 * time.Second
		}
	}
	if got := m.read(map[string]shoal.Traffic{"web": {Total: 18}, "new": {Total: 3}}, now, ofAll); !slices.Equal(got, []shoal.Carried{{Service: "new", Rate: 200}}) {
		t.Errorf("a service that was never carried to before: %+v", got)
	}
}

// TestMeterTellsSteps: a step that lasts is told in whole after two samples, wherever in the
// period it comes, up and down; what comes and goes within one is not, and is only part of
// the mean of the period.
func TestMeterTellsSteps(t *testing.T) {
	for phase := range 3 { // samples of a period of three before the step
		m, now, total := meter{}, time.Hour, 1000
		next := func(rate, open int) []shoal.Carried {
			now, total = now+sample, total+rate*5
			how := ofSteps
			if (now-time.Hour)%measure == 0 {
				how = ofAll
			}
			return m.read(map[string]shoal.Traffic{"web": {Open: open, Total: uint64(total)}}, now, how)
		}
		is := func(name string, got []shoal.Carried, rate int64, open int) {
			t.Helper()
			if want := []shoal.Carried{{Service: "web", Open: open, Rate: rate * 1000}}; !slices.Equal(got, want) {
				t.Errorf("%s, %d samples into a period: %+v, want %+v", name, phase, got, want)
			}
		}
		m.read(map[string]shoal.Traffic{"web": {Open: 8, Total: 1000}}, now, ofAll)
		for range 3 + phase {
			next(8, 8)
		}
		next(90, 90)
		is("up", next(90, 90), 90, 90)
		for range 4 {
			is("it stays", next(90, 90), 90, 90)
		}
		next(8, 8)
		is("down", next(8, 8), 8, 8)
		for range 3 {
			is("it stays down", next(8, 8), 8, 8)
		}
	}
	m, now := meter{}, time.Hour
	m.read(map[string]shoal.Traffic{"web": {Open: 8, Total: 0}}, now, ofAll)
	for i, total := range []uint64{50, 100, 150, 200, 650, 700} { // 450 in the fifth
		now += sample
		how := ofSteps
		if i%3 == 2 {
			how = ofAll
		}
		got := m.read(map[string]shoal.Traffic{"web": {Open: 8, Total: total}}, now, how)
		want := []int64{0, 10_000, 10_000, 10_000, 10_000, 36_666}[i]
		if got[0].Rate != want {
			t.Errorf("sample %d of a burst: %+v, want a rate of %d", i, got, want)
		}
	}
}

// TestSleepingServiceWakes: a client that comes to a service without replicas is told of at
// once, waits, and is carried to the first replica that is ready.
func TestSleepingServiceWakes(t *testing.T) {
	w := newWorld(t, 2)
	port := w.freePort()
	w.deploy("web", port, w.peers[1])
	claims := w.desired.Claims
	w.change(func() {
		s := &w.desired.Services[0]
		s.Replicas, s.Spec.Autoscale = 0, &shoal.Autoscale{Max: 3, Connections: 10}
		w.desired.Claims = nil
	})
	w.opened(port)
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := w.ask(w.peers[0], port, "hello")
		got <- answer{text, err}
	}()
	w.until("it is told", func() bool {
		w.peers[0].mu.Lock()
		defer w.peers[0].mu.Unlock()
		n := len(w.peers[0].told)
		return n > 0 && slices.Equal(w.peers[0].told[n-1], []shoal.Carried{{Service: "web", Open: 1}})
	})
	w.change(func() {
		w.desired.Services[0].Replicas, w.desired.Claims = 1, claims
		w.states[w.peers[1].id].Replicas[0].Phase = shoal.PhaseStarting
	})
	select {
	case a := <-got:
		t.Fatalf("%q, %v before a replica was ready", a.text, a.err)
	case <-time.After(100 * time.Millisecond): // nothing tells that it waits still
	}
	w.change(func() { w.states[w.peers[1].id].Replicas[0].Phase = shoal.PhaseReady })
	if a := <-got; a.text != "web/0\nhello" || a.err != nil {
		t.Errorf("%q, %v", a.text, a.err)
	}
}

// TestStoppedServiceDoesNotWake: only what sleeps because nobody came is woken.
func TestStoppedServiceDoesNotWake(t *testing.T) {
	w := newWorld(t, 1)
	m := w.peers[0]
	w.deploy("web", w.freePort(), m)
	set := func(a *shoal.Autoscale, stopped bool) {
		w.change(func() { w.desired.Services[0].Spec.Autoscale, w.desired.Services[0].Stopped = a, stopped })
	}
	for _, tt := range []struct {
		name    string
		a       *shoal.Autoscale
		stopped bool
		want    bool
	}{
		{"sleeps", &shoal.Autoscale{Max: 3, Connections: 10}, false, true},
		{"is stopped", &shoal.Autoscale{Max: 3, Connections: 10}, true, false},
		{"always has one", &shoal.Autoscale{Min: 1, Max: 3, Connections: 10}, false, false},
		{"is not autoscaled", nil, false, false},
	} {
		set(tt.a, tt.stopped)
		if got := m.room.wakes("web"); got != tt.want {
			t.Errorf("%s: wakes = %t", tt.name, got)
		}
	}
	if m.room.wakes("other") {
		t.Error("wakes a service that is not there")
	}
}
