// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// noon is the wall clock of these tests at one hour of the monotonic one.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func (w *world) wall() time.Time { return noon.Add(w.now - time.Hour) }

// scheduled is a job that runs at every full hour, at ten seconds to noon.
func scheduled(change ...func(*shoal.Service)) *world {
	w := newWorld()
	w.now -= 10 * time.Second
	w.service.Spec.Mode, w.service.Spec.Job = shoal.ModeReplicatedJob, &shoal.Job{Attempts: 1}
	w.service.Spec.Schedule = &shoal.Schedule{Cron: "@hourly", From: noon.Add(-time.Minute).Unix()}
	w.service.Past = nil
	for _, c := range change {
		c(&w.service)
	}
	return w
}

// begin looks whenever it is asked to, and returns what is asked for with when it was.
func (w *world) begin(m *begins, d time.Duration) []string {
	var out []string
	for end := w.now + d; ; {
		next, acts, wake := lookSchedules(w.view(), *m, w.now, w.from, w.wall(), &cfg)
		*m = next
		for _, a := range acts {
			out = append(out, fmt.Sprintf("%s@%d run of %s at %s", a.Service, a.Of.Seq, time.Unix(a.At, 0).UTC().Format("15:04"), w.wall().Format("15:04:05")))
		}
		if wake == 0 || wake > end {
			w.now = end
			return out
		}
		w.now = wake
	}
}

// TestRunsInTurn: the first in order begins a run at its time; the others only if it does not.
func TestRunsInTurn(t *testing.T) {
	for i, at := range []string{"12:00:00", "12:00:02", "12:00:04"} {
		w, m := scheduled(), begins(nil)
		w.self = order(w.view(), &w.service)[i]
		is(t, string(w.self), w.begin(&m, 15*time.Second), "web@2 run of 12:00 at "+at)
		is(t, "it had no effect", w.begin(&m, 10*time.Second), "web@2 run of 12:00")
		w.service.Spec.Run, w.service.Revision = noon.Unix(), rev(3)
		is(t, "has begun, and is not over", w.begin(&m, 2*time.Hour))
	}
}

func TestRunsWhen(t *testing.T) {
	first := func(w *world) { w.self = order(w.view(), &w.service)[0] }
	for name, c := range map[string]struct {
		change func(*world)
		want   []string // of an hour and a minute, as if no run were ever written
	}{
		"each time anew":      {func(*world) {}, []string{"web@2 run of 12:00 at 12:00:00", "web@2 run of 13:00 at 13:00:00"}},
		"stopped":             {func(w *world) { w.service.Stopped = true }, nil},
		"no schedule":         {func(w *world) { w.service.Spec.Schedule = nil }, nil},
		"it just came":        {func(w *world) { w.from = w.now + 20*time.Second }, []string{"web@2 run of 12:00 at 12:00:10", "web@2 run of 13:00 at 13:00:00"}},
		"it came too late":    {func(w *world) { w.from = w.now + 2*time.Minute }, []string{"web@2 run of 13:00 at 13:00:00"}},
		"not an operator":     {func(w *world) { w.self = "z" }, nil},
		"from on 12:30":       {func(w *world) { w.service.Spec.Schedule.From = noon.Add(30 * time.Minute).Unix() }, []string{"web@2 run of 13:00 at 13:00:00"}},
		"made up for":         {func(w *world) { w.service.Spec.Schedule.Missed = shoal.MissedOnce; w.now += time.Minute * 9 }, []string{"web@2 run of 12:00 at 12:08:50", "web@2 run of 13:00 at 13:00:00"}},
		"never made up twice": {func(w *world) { w.service.Spec.Run = noon.Unix(); w.service.Spec.Schedule.Missed = shoal.MissedOnce }, nil},
	} {
		w, m := scheduled(), begins(nil)
		first(w)
		c.change(w)
		var got []string
		for _, text := range w.begin(&m, 61*time.Minute) {
			run, _, _ := strings.Cut(text, " at ") // asked for again and again, since nobody writes it
			if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, run+" ") }) {
				got = append(got, text)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
