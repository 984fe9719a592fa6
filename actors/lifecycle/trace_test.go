// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

var update = flag.Bool("update", false, "rewrite the expected traces; explain the diff in the commit")

// TestTraces replays testdata/*.txt. A line that begins with a letter is a command;
// the indented lines under it are what the replica did: its phase and reason if
// they changed, then the effects.
//
//	new [adopt] [job=ATTEMPTS] [deadline=D] [tried=N@SECOND] [done] [failed] [image=I] [condition=C] [delay=D] [window=D] [max=N] [mem=BYTES] [signal=S] [grace=D]
//	[+D] allow | hold | halt | tick | done [ID] | fail down|missing|refused|canceled|other [WHY...]
//	[+D] brake DELAY CAP
//	[+D] seen none | created | running [HEALTH] | exited CODE | oom, each [started=SECOND]
//
// What the runs of a job came to is shown when it changes.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("found %d traces, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(raw))
			if *update {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(raw), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", f, d)
			}
		})
	}
}

func replay(t *testing.T, script string) string {
	t.Helper()
	var (
		out strings.Builder
		s   State
		now time.Duration
	)
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		out.WriteString(line)
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if words[0] == "new" {
			s = newFrom(t, words[1:])
			now = 0
			continue
		}
		if d, ok := strings.CutPrefix(words[0], "+"); ok {
			now += parse(t, d)
			words = words[1:]
		}
		before := s
		var effects []Effect
		s, effects = Step(s, eventFrom(t, words, now))
		checkStep(t, before, s, effects)
		if s.Phase != before.Phase || s.Attempt != before.Attempt || s.Reason != before.Reason {
			fmt.Fprintf(&out, "  %s attempt %d%s%s\n", s.Phase, s.Attempt, restartsText(s), reasonText(s.Reason))
		}
		if o := s.Outcome; o != before.Outcome {
			fmt.Fprintf(&out, "  came to %d attempts, completed %v, failed %v, code %d at %d%s\n", o.Attempts, o.Completed, o.Failed, o.Code, o.At, reasonText(o.Why))
		}
		for _, e := range effects {
			fmt.Fprintf(&out, "  -> %s\n", effectText(e, now))
		}
	}
	return out.String()
}

func restartsText(s State) string {
	if s.Restarts == 0 {
		return ""
	}
	return fmt.Sprintf(" restarts %d", s.Restarts)
}

func reasonText(r string) string {
	if r == "" {
		return ""
	}
	return ": " + r
}

func newFrom(t *testing.T, words []string) State {
	t.Helper()
	spec := shoal.Spec{Image: "hello:1"}
	fresh := true
	var so shoal.JobOutcome
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "adopt":
			fresh = false
		case "job":
			spec.Mode, spec.Job, spec.Restart.Condition = shoal.ModeReplicatedJob, &shoal.Job{Attempts: number(t, v)}, shoal.RestartOnFailure
		case "deadline":
			spec.Job.Deadline = parse(t, v)
		case "tried":
			n, at, _ := strings.Cut(v, "@")
			so = shoal.JobOutcome{Attempts: number(t, n), At: int64(number(t, at)), Code: 1, Why: "exited with code 1"}
		case "done":
			so.Completed, so.Why = true, ""
		case "failed":
			so.Failed = true
		case "image":
			spec.Image = v
		case "condition":
			spec.Restart.Condition = shoal.RestartCondition(v)
		case "delay":
			spec.Restart.Delay = parse(t, v)
		case "window":
			spec.Restart.Window = parse(t, v)
		case "max":
			spec.Restart.MaxAttempts = number(t, v)
		case "mem":
			spec.Limits.MemBytes = int64(number(t, v))
		case "signal":
			spec.StopSignal = v
		case "grace":
			spec.StopGrace = parse(t, v)
		default:
			t.Fatalf("unknown term %q", w)
		}
	}
	return New(RulesOf(&spec), 7, fresh, 0, so)
}

func eventFrom(t *testing.T, words []string, now time.Duration) Event {
	t.Helper()
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	e := Event{Now: now, Wall: int64(now / time.Second)}
	switch words[0] {
	case "allow":
		e.Kind = EventAllow
	case "hold":
		e.Kind = EventHold
	case "halt":
		e.Kind = EventHalt
	case "tick":
		e.Kind = EventTick
	case "brake":
		e.Kind, e.Brake = EventBrake, Brake{Delay: parse(t, words[1]), Cap: parse(t, words[2])}
	case "done":
		e.Kind, e.ID = EventDone, arg(1)
	case "fail":
		faults := map[string]Fault{"down": FaultDown, "missing": FaultMissing, "refused": FaultRefused, "canceled": FaultCanceled, "other": FaultOther}
		f, ok := faults[arg(1)]
		if !ok {
			t.Fatalf("unknown fault %q", arg(1))
		}
		e.Kind, e.Fault, e.Why = EventFail, f, strings.Join(words[2:], " ")
	case "seen":
		e.Kind, e.Container = EventSeen, &shoal.Container{ID: "c1", Created: time.Unix(1, 0)}
		if second, ok := strings.CutPrefix(words[len(words)-1], "started="); ok {
			words = words[:len(words)-1]
			e.Container.Started = time.Unix(int64(number(t, second)), 0)
		}
		switch arg(1) {
		case "none":
			e.Container = nil
		case "created":
			e.Container.State = shoal.ContainerCreated
		case "running":
			e.Container.State, e.Container.Health = shoal.ContainerRunning, arg(2)
		case "exited":
			e.Container.State, e.Container.ExitCode = shoal.ContainerExited, number(t, arg(2))
		case "oom":
			e.Container.State, e.Container.ExitCode, e.Container.OOM = shoal.ContainerExited, 137, true
		default:
			t.Fatalf("unknown sight %q", arg(1))
		}
	default:
		t.Fatalf("unknown event %q", words[0])
	}
	return e
}

func effectText(e Effect, now time.Duration) string {
	switch e.Kind {
	case EffectPull:
		return "pull"
	case EffectCreate:
		return "create"
	case EffectStart:
		return "start " + e.ID
	case EffectStop:
		return fmt.Sprintf("stop %s signal %q grace %s", e.ID, e.Signal, e.Grace)
	case EffectRemove:
		return "remove " + e.ID
	case EffectCancel:
		return "cancel"
	case EffectLook:
		return "look"
	case EffectWake:
		return fmt.Sprintf("wake in %s", (e.At - now).Round(time.Millisecond))
	case EffectRefuse:
		return "refuse: " + e.Why
	case EffectEnd:
		return "end"
	}
	return "?"
}

// checkStep asserts what holds for every single step.
func checkStep(t interface {
	Helper()
	Fatalf(string, ...any)
}, before, after State, effects []Effect,
) {
	t.Helper()
	if before.Ended && (len(effects) != 0 || after != before) {
		t.Fatalf("after the end: %+v asks %v", before, effects)
	}
	if after.Attempt < before.Attempt || after.Restarts < before.Restarts {
		t.Fatalf("a count fell: %+v -> %+v", before, after)
	}
	if after.Attempt == before.Attempt && Rank(after.Phase) < Rank(before.Phase) {
		t.Fatalf("went backwards in attempt %d: %s -> %s", after.Attempt, before.Phase, after.Phase)
	}
	ops := 0
	for _, e := range effects {
		if e.Kind <= EffectRemove {
			ops++
			if after.Op != e.Kind {
				t.Fatalf("asked for %d, but Op is %d", e.Kind, after.Op)
			}
		}
		if e.Kind == EffectEnd && (!after.Ended || !after.Halted || after.Phase != shoal.PhaseStopped || after.Container != "") {
			t.Fatalf("ended as %+v", after)
		}
	}
	if o, was := after.Outcome, before.Outcome; o.Attempts < was.Attempts || was.Over() && o != was || o.Over() && o.Attempts > before.Rules.Attempts {
		t.Fatalf("what runs came to is not so any more: %+v -> %+v of %d attempts", was, o, before.Rules.Attempts)
	}
	if after.Outcome.Over() && before.Op == 0 && (after.Op == EffectCreate || after.Op == EffectStart) {
		t.Fatalf("runs again: %+v -> %+v", before, after)
	}
	if ops > 1 {
		t.Fatalf("%d operations begun by one step from %+v", ops, before)
	}
	if after.Halted && !before.Halted && after.Phase != shoal.PhaseStopping && Rank(after.Phase) < Rank(shoal.PhaseStopping) {
		t.Fatalf("halted into %s", after.Phase)
	}
}

func parse(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
