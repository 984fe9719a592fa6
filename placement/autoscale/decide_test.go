// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// shape is 2-10 replicas at cpu 60%, as users get it.
func shape(fn ...func(*shoal.Autoscale)) *shoal.Autoscale {
	a := shoal.DefaultAutoscale()
	a.Min, a.Max, a.CPU = 2, 10, 60
	for _, f := range fn {
		f(&a)
	}
	return &a
}

// cpu is the metric of replicas of one core, used at these shares; below 0: not known.
func cpu(percent ...float64) Metric {
	m := Metric{Name: "cpu", Target: 600, Shown: 60, Unit: "%", Used: true}
	for _, p := range percent {
		if p < 0 {
			m.Missing++
			continue
		}
		m.Load += 10 * p
	}
	return m
}

func conns(open float64) Metric {
	return Metric{Name: "connections", Load: open, Target: 100, Shown: 100}
}

// TestCalls: each rule of the HorizontalPodAutoscaler about ratio, tolerance and missing
// metrics, by what it calls for.
func TestCalls(t *testing.T) {
	tests := map[string]struct {
		metrics []Metric
		current int
		want    int
		why     string
	}{
		"above":                                {[]Metric{cpu(80, 90, 79)}, 3, 5, "cpu 83% of 60%"},
		"below":                                {[]Metric{cpu(20, 20, 20, 20)}, 4, 2, "cpu 20% of 60%"},
		"nothing to do":                        {[]Metric{cpu(0, 0)}, 2, 0, "cpu 0% of 60%"},
		"at the target":                        {[]Metric{cpu(60, 60)}, 2, 2, "cpu 60% of 60%"},
		"within the tolerance":                 {[]Metric{cpu(66, 66)}, 2, 2, "cpu 66% of 60%"},
		"beyond it":                            {[]Metric{cpu(67, 67)}, 2, 3, "cpu 67% of 60%"},
		"a rounding error above":               {[]Metric{cpu(80, 80, 80)}, 3, 4, "cpu 80% of 60%"},
		"one starts: it will take its share":   {[]Metric{cpu(80, 80, -1)}, 3, 3, "cpu 80% of 60%"},
		"one starts, and it is not enough":     {[]Metric{cpu(120, 120, -1)}, 3, 4, "cpu 120% of 60%"},
		"one is silent: it may have much":      {[]Metric{cpu(30, 30, -1)}, 3, 2, "cpu 30% of 60%"},
		"two are silent: nothing is taken":     {[]Metric{cpu(50, -1, -1)}, 3, 3, "cpu 50% of 60%"},
		"nobody reports":                       {[]Metric{cpu(-1, -1)}, 2, 2, "nobody reports cpu"},
		"the metric that calls for most":       {[]Metric{cpu(20, 20), conns(500)}, 2, 5, "connections 250 of 100"},
		"an unknown one takes nothing away":    {[]Metric{cpu(-1, -1), conns(10)}, 2, 2, "nobody reports cpu"},
		"an unknown one does not keep others":  {[]Metric{cpu(-1, -1), conns(500)}, 2, 5, "connections 250 of 100"},
		"half known: more may be called for":   {[]Metric{{Name: "requests", Load: 500, Target: 100, Shown: 100, Unit: "/s", Blind: true}}, 2, 5, "requests 250/s of 100/s"},
		"half known: nothing is taken":         {[]Metric{{Name: "requests", Load: 5, Target: 100, Shown: 100, Unit: "/s", Blind: true}}, 2, 2, "requests 2.5/s of 100/s"},
		"from none: all connections":           {[]Metric{cpu(), conns(250)}, 0, 3, "connections 250 in all"},
		"more than any service may have":       {[]Metric{{Name: "connections", Load: 1e30, Target: 1, Shown: 1}}, 2, shoal.MaxReplicas, ""},
		"nothing at all is known of no metric": {nil, 3, 0, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n, why, _ := combine(tt.metrics, tt.current, shape(), "")
			if n != tt.want || tt.why != "" && why != tt.why {
				t.Errorf("combine = %d, %q; want %d, %q", n, why, tt.want, tt.why)
			}
		})
	}
}

// TestNobodyReports: a load that nobody reports of ready replicas is told with for how long,
// until somebody does.
func TestNobodyReports(t *testing.T) {
	in := Input{Now: time.Hour, Current: 2, Ready: 2, Said: shoal.RevisionID{Seq: 1, Author: "a"}}
	var m Memory
	for _, step := range []struct {
		after   time.Duration
		ready   int
		metrics []Metric
		silent  time.Duration
		why     string
	}{
		{0, 0, []Metric{cpu(-1, -1)}, 0, "nobody reports cpu"}, // who could?
		{time.Minute, 1, []Metric{cpu(-1, -1), conns(200)}, 1, "nobody reports cpu, connections 100 of 100"},
		{45 * time.Second, 2, []Metric{cpu(-1, -1), conns(200)}, 45 * time.Second, "nobody reports cpu for 45s, connections 100 of 100"},
		{time.Second, 2, []Metric{cpu(60, -1), conns(200)}, 0, "cpu 60% of 60%, connections 100 of 100"},
		{time.Second, 2, []Metric{cpu(-1, -1), conns(200)}, 1, "nobody reports cpu, connections 100 of 100"},
	} {
		in.Now, in.Ready, in.Metrics = in.Now+step.after, step.ready, step.metrics
		var d Decision
		if m, d = Decide(shape(), m, in); d.Want != 2 || d.Why != step.why || d.Silent != step.silent {
			t.Errorf("Decide = %d, %q, silent %s; want %q, %s", d.Want, d.Why, d.Silent, step.why, step.silent)
		}
	}
}

// TestMeasured: what one replica has of each target, and of how many nothing is known.
func TestMeasured(t *testing.T) {
	in := Input{Now: time.Hour, Current: 3, Metrics: []Metric{cpu(80, 90, -1), conns(450)}}
	_, d := Decide(shape(), Memory{}, in)
	want := []shoal.Measured{
		{Metric: "cpu", Unit: "%", Target: 60, Observed: 85, Known: true, Missing: 1},
		{Metric: "connections", Target: 100, Observed: 150, Known: true},
	}
	if !slices.Equal(d.Metrics, want) {
		t.Errorf("Metrics = %+v, want %+v", d.Metrics, want)
	}
	in.Metrics = []Metric{cpu(-1, -1, -1)}
	if _, d = Decide(shape(), Memory{}, in); !slices.Equal(d.Metrics, []shoal.Measured{{Metric: "cpu", Unit: "%", Target: 60, Missing: 3}}) {
		t.Errorf("Metrics = %+v of what nobody reports", d.Metrics)
	}
	in.Current, in.Metrics = 0, []Metric{cpu(), conns(30)}
	if _, d = Decide(shape(func(a *shoal.Autoscale) { a.Min = 0 }), Memory{}, in); d.Metrics[0].Known || d.Metrics[1].Observed != 30 {
		t.Errorf("Metrics = %+v without replicas", d.Metrics)
	}
}

// story plays loads at times, and what is decided changes the number of replicas.
type story struct {
	t  *testing.T
	a  *shoal.Autoscale
	in Input
	m  Memory
}

func begin(t *testing.T, a *shoal.Autoscale, current int) *story {
	return &story{t: t, a: a, in: Input{Now: time.Hour, Current: current, Said: shoal.RevisionID{Seq: 1, Author: "a"}}}
}

// pass lets time pass with a load, waking when asked to, and returns what was decided.
func (s *story) pass(d time.Duration, ms ...func(current int) Metric) (out []string) {
	for end := s.in.Now + d; ; {
		s.in.Metrics = nil
		for _, m := range ms {
			s.in.Metrics = append(s.in.Metrics, m(s.in.Current))
		}
		m, got := Decide(s.a, s.m, s.in)
		s.m = m
		if got.Want != s.in.Current {
			out = append(out, fmt.Sprintf("%s %s", s.in.Now-time.Hour, got.Why))
			s.in.Current, s.in.Manual = got.Want, false
			s.in.Said.Seq++
			continue
		}
		switch {
		case s.in.Now == end:
			return append(out, got.Why)
		case got.Wake <= s.in.Now || got.Wake > end:
			s.in.Now = end
		default:
			s.in.Now = got.Wake
		}
	}
}

// spread is a load of the processor that all replicas share evenly.
func spread(cores float64) func(int) Metric {
	return func(n int) Metric {
		return Metric{Name: "cpu", Load: cores * 1000, Target: 600, Shown: 60, Unit: "%", Used: true, Missing: min(0, n)}
	}
}

func (s *story) want(got []string, want ...string) {
	s.t.Helper()
	if !reflect.DeepEqual(got, want) {
		s.t.Errorf("at %s: %q, want %q", s.in.Now-time.Hour, got, want)
	}
}

func TestWindowsStepsAndPace(t *testing.T) {
	s := begin(t, shape(), 3)
	s.want(s.pass(time.Minute, spread(1.8)), "cpu 60% of 60%")
	s.want(s.pass(10*time.Second, spread(3)), "1m0s cpu 100% of 60%: 3 -> 5", "cpu 60% of 60%")
	s.want(s.pass(4*time.Minute, spread(1.2)), "cpu 24% of 60%; 2 called for, held by the down window for 1m0s")
	s.want(s.pass(2*time.Minute, spread(1.2)), "6m10s cpu 24% of 60%: 5 -> 2", "cpu 60% of 60%")
}

func TestDaemonThatStartsTakesNothingAway(t *testing.T) {
	s := begin(t, shape(), 8)
	s.want(s.pass(4*time.Minute, spread(1)), "cpu 12% of 60%; 2 called for, held by the down window for 1m0s")
	s.want(s.pass(2*time.Minute, spread(1)), "5m0s cpu 12% of 60%: 8 -> 2", "cpu 50% of 60%")
}

func TestSteps(t *testing.T) {
	s := begin(t, shape(func(a *shoal.Autoscale) {
		a.Max, a.UpStep, a.DownStep = 100, shoal.Share{Percent: 50}, shoal.Share{N: 10}
	}), 4)
	s.want(s.pass(time.Minute, spread(18)),
		"5s cpu 450% of 60% calls for 30: 4 -> 6", "20s cpu 300% of 60% calls for 30: 6 -> 9",
		"35s cpu 200% of 60% calls for 30: 9 -> 13", "50s cpu 138% of 60% calls for 30: 13 -> 19",
		"cpu 95% of 60%; 30 called for, the next step in 5s")
	s = begin(t, shape(func(a *shoal.Autoscale) { a.Max, a.DownStep, a.DownWindow = 100, shoal.Share{N: 10}, 0 }), 30)
	s.want(s.pass(35*time.Second, spread(1.2)),
		"15s cpu 4% of 60% calls for 2: 30 -> 20", "30s cpu 6% of 60% calls for 2: 20 -> 10",
		"cpu 12% of 60%; 2 called for, in 10s: the last change is too near")
	s = begin(t, shape(func(a *shoal.Autoscale) { a.Max = 100 }), 2) // nothing is said: 4 more, then twice as many
	s.want(s.pass(40*time.Second, spread(60)), "5s cpu 3000% of 60% calls for 100: 2 -> 6", "20s cpu 1000% of 60% calls for 100: 6 -> 12",
		"35s cpu 500% of 60% calls for 100: 12 -> 24", "cpu 250% of 60%; 100 called for, the next step in 10s")
	s = begin(t, shape(), 3) // what is told bit by bit need not wait for a step to be over
	s.pass(20*time.Second, spread(1.8))
	s.want(s.pass(0, spread(2.4)), "20s cpu 80% of 60%: 3 -> 4", "cpu 60% of 60%")
	s.want(s.pass(10*time.Second, spread(3.6)), "25s cpu 90% of 60%: 4 -> 6", "cpu 60% of 60%")
	s.want(s.pass(4*time.Second, spread(6)), "30s cpu 100% of 60% calls for 10: 6 -> 7", "cpu 86% of 60%; 10 called for, in 1s: the last change is too near")
}

func TestUpWindow(t *testing.T) {
	s := begin(t, shape(func(a *shoal.Autoscale) { a.UpWindow = 30 * time.Second }), 3)
	s.want(s.pass(time.Minute, spread(1.8)), "cpu 60% of 60%")
	s.want(s.pass(20*time.Second, spread(5)), "cpu 167% of 60%; 9 called for, held by the up window for 10s")
	s.want(s.pass(20*time.Second, spread(1.8)), "cpu 60% of 60%") // a spike shorter than the window
	s.want(s.pass(time.Minute, spread(3)), "2m10s cpu 100% of 60%: 3 -> 5", "cpu 60% of 60%")
}

func TestManual(t *testing.T) {
	s := begin(t, shape(), 3)
	s.pass(time.Minute, spread(1.8))
	s.in.Current, s.in.Manual, s.in.Said = 4, true, shoal.RevisionID{Seq: 7, Author: "b"}
	s.want(s.pass(9*time.Minute, spread(5)), "cpu 125% of 60%; manual: 4 for another 1m0s")
	s.want(s.pass(2*time.Minute, spread(5)), "11m0s cpu 125% of 60% calls for 9: 4 -> 8", "cpu 63% of 60%")
}

func TestBoundsAndHolds(t *testing.T) {
	s := begin(t, shape(), 30)
	s.in.Manual = true
	s.want(s.pass(time.Second, spread(1.8)), "0s 30 is outside of 2-10: 30 -> 10", "cpu 18% of 60%; 3 called for, held by the down window for 4m59s")
	s = begin(t, shape(), 1)
	s.want(s.pass(time.Second, spread(.6)), "0s 1 is outside of 2-10: 1 -> 2", "cpu 30% of 60%")
	s = begin(t, shape(), 3)
	s.in.Held = "the rollout is paused"
	s.want(s.pass(time.Hour, spread(9)), "cpu 300% of 60%; the rollout is paused")
	s.in.Held = ""
	s.want(s.pass(time.Second, spread(5.4)), "1h0m0s cpu 180% of 60% calls for 9: 3 -> 7", "cpu 77% of 60%; 9 called for, in 4s: the last change is too near")
}

func TestToZeroAndBack(t *testing.T) {
	a := shape(func(a *shoal.Autoscale) { a.Min, a.CPU, a.Connections, a.Idle = 0, 0, 100, time.Minute })
	open := func(n float64) func(int) Metric { return func(int) Metric { return conns(n) } }
	s := begin(t, a, 2)
	s.in.IsBusy = true
	s.want(s.pass(10*time.Minute, open(3)), "5m0s connections 1.5 of 100: 2 -> 1", "connections 3 of 100")
	s.in.IsBusy = false
	s.want(s.pass(30*time.Second, open(0)), "connections 0 of 100; the last replica goes after another 30s without a connection")
	s.in.IsBusy = true
	s.pass(time.Second, open(1))
	s.in.IsBusy = false
	s.want(s.pass(59*time.Second, open(0)), "connections 0 of 100; the last replica goes after another 1s without a connection")
	s.want(s.pass(10*time.Second, open(0)), "11m31s no connection for 1m0s: 1 -> 0", "no connection")
	s.in.IsBusy = true
	s.want(s.pass(time.Second, open(1)), "11m40s connections 1 in all: 0 -> 1", "connections 1 of 100")
}

// TestNeverOutside: whatever is measured, whatever was remembered, and however the bounds
// change, what is called for lies within them and moves a step at most; and a load that
// stays makes it settle.
func TestNeverOutside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func() *shoal.Autoscale {
			a := shape()
			a.Min = rapid.IntRange(0, 5).Draw(t, "min")
			a.Max = a.Min + rapid.IntRange(1, 20).Draw(t, "more")
			a.UpWindow = time.Duration(rapid.IntRange(0, 60).Draw(t, "up")) * time.Second
			a.DownWindow = time.Duration(rapid.IntRange(0, 300).Draw(t, "down")) * time.Second
			a.UpStep = shoal.Share{N: rapid.IntRange(0, 4).Draw(t, "step")}
			return a
		}
		a, m := draw(), Memory{}
		in := Input{Current: rapid.IntRange(0, 40).Draw(t, "current"), Said: shoal.RevisionID{Seq: 1, Author: "a"}}
		load := 0.0
		look := func() {
			in.Metrics = []Metric{{Name: "cpu", Load: load, Target: 600, Shown: 60, Unit: "%", Used: true, Missing: rapid.IntRange(0, in.Current).Draw(t, "missing")}}
			var d Decision
			m, d = Decide(a, m, in)
			if d.Want != in.Current {
				if d.Want < a.Min || d.Want > a.Max {
					t.Fatalf("%d is outside of %d-%d: %s", d.Want, a.Min, a.Max, d.Why)
				}
				if up := d.Want - in.Current; up > max(a.UpStep.N, 4, in.Current) && a.Clamp(in.Current) == in.Current {
					t.Fatalf("%d more at once: %s", up, d.Why)
				}
				in.Current = d.Want
				in.Said.Seq++
			}
			in.Now += time.Duration(rapid.IntRange(1, 20).Draw(t, "later")) * time.Second
		}
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			load = rapid.Float64Range(0, 20000).Draw(t, "load")
			in.IsBusy = rapid.Bool().Draw(t, "busy")
			if rapid.IntRange(0, 20).Draw(t, "new bounds?") == 0 {
				a = draw()
			}
			look()
		}
	})
}
