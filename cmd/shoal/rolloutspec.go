// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal"
)

// Orders of a rollout, in Compose's words.
const (
	startFirst = "start-first"
	stopFirst  = "stop-first"
)

// rolloutFlag is a flag that changes one thing of a rollout.
type rolloutFlag struct {
	name, usage string
	set         func(r *shoal.Rollout, text string) error
}

// rolloutFlags are docker's flags, behind --update- and --rollback-.
var rolloutFlags = []rolloutFlag{
	{"parallelism", "`slots` changed at once (default: a quarter)", func(r *shoal.Rollout, text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > shoal.MaxReplicas {
			return fmt.Errorf("must be 1-%d, got %s; all at once is the number of replicas", shoal.MaxReplicas, text)
		}
		usual := shoal.DefaultRollout() // whose shares would hold back what was asked for
		if r.Parallelism = n; r.MaxUnavailable == usual.MaxUnavailable {
			r.MaxUnavailable = shoal.Share{}
		}
		if r.MaxSurge == usual.MaxSurge {
			r.MaxSurge = shoal.Share{}
		}
		return nil
	}},
	{"delay", "`duration` from when a slot is ready until the next changes", spanFlag(func(r *shoal.Rollout) *time.Duration { return &r.Delay })},
	{"order", "stop-first or start-first", func(r *shoal.Rollout, text string) error {
		if text != startFirst && text != stopFirst {
			return fmt.Errorf("must be start-first or stop-first, got %q", text)
		}
		r.StartFirst = text == startFirst
		return nil
	}},
	{"monitor", "`duration` that the last slots are watched", spanFlag(func(r *shoal.Rollout) *time.Duration { return &r.Monitor })},
	{"max-failure-ratio", "`part` of the slots that may fail, 0-1", func(r *shoal.Rollout, text string) error {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || f < 0 || f > 1 {
			return fmt.Errorf("must be 0-1, got %s", text)
		}
		r.MaxFailureRatio = int(math.Round(f * 1000))
		return nil
	}},
	{"failure-action", "when more fail: pause, continue, or of an update rollback", func(r *shoal.Rollout, text string) error {
		r.OnFailure = shoal.FailureAction(text) // the spec judges it
		return nil
	}},
}

// shapeFlags are those of x-shoal, behind --update-.
var shapeFlags = []rolloutFlag{
	{"max-unavailable", "`replicas`, or a part like 25%, that may be not ready", func(r *shoal.Rollout, text string) (err error) {
		r.MaxUnavailable, err = shoal.ParseShare(text)
		return err
	}},
	{"max-surge", "`replicas`, or a part like 25%, beyond the number wanted; implies start-first", func(r *shoal.Rollout, text string) (err error) {
		r.MaxSurge, err = shoal.ParseShare(text)
		return err
	}},
	{"min-healthy", "`duration` for which a new replica is ready before the next slot changes (default: 10s)", spanFlag(func(r *shoal.Rollout) *time.Duration { return &r.MinHealthy })},
	{"deadline", "`duration` in which some slot has to become healthy, else it failed; 0: without end (default: 10m)", spanFlag(func(r *shoal.Rollout) *time.Duration { return &r.Deadline })},
}

func spanFlag(of func(*shoal.Rollout) *time.Duration) func(*shoal.Rollout, string) error {
	return func(r *shoal.Rollout, text string) (err error) {
		*of(r), err = parseDuration(text)
		return err
	}
}

// addRolloutFlags adds them all, and --canary.
func addRolloutFlags(f *pflag.FlagSet) {
	for _, x := range slices.Concat(rolloutFlags, shapeFlags) {
		f.String("update-"+x.name, "", x.usage)
	}
	for _, x := range rolloutFlags {
		f.String("rollback-"+x.name, "", "the same for going back")
	}
	f.String("canary", "", "`replicas`, or a part like 10%, that try a revision before the others change; 0: none")
}

// anyRolloutFlag reports whether one of them is given.
func anyRolloutFlag(f *pflag.FlagSet) bool {
	found := false
	f.Visit(func(x *pflag.Flag) {
		found = found || strings.HasPrefix(x.Name, "update-") || strings.HasPrefix(x.Name, "rollback-") || x.Name == "canary"
	})
	return found
}

// editRollouts changes what the flags name.
func editRollouts(f *pflag.FlagSet, spec *shoal.Spec) error {
	r := &spec.Rollout
	if err := applyFlags(f, "update-", slices.Concat(rolloutFlags, shapeFlags), r); err != nil {
		return err
	}
	none := shoal.Share{}
	switch given := f.Changed; {
	case given("update-max-surge") && r.MaxSurge != none && !given("update-order"):
		r.StartFirst = true
	case given("update-max-surge") && r.MaxSurge == none && r.StartFirst:
		return usage("--update-max-surge: is 0, and with start-first a new replica starts beside the old one; say at least 1, or --update-order stop-first")
	case given("update-max-unavailable") && r.MaxUnavailable == none && !r.StartFirst:
		return usage("--update-max-unavailable: is 0, and with stop-first an old replica stops before the new one starts; say at least 1, or --update-max-surge 1")
	}
	if f.Changed("canary") {
		share, err := shoal.ParseShare(f.Lookup("canary").Value.String())
		if err != nil {
			return usage("--canary: %s", err)
		}
		if r.Canary.Slots = share; share == none {
			r.Canary = shoal.Canary{}
		}
	}
	if !slices.ContainsFunc(rolloutFlags, func(x rolloutFlag) bool { return f.Changed("rollback-" + x.name) }) {
		return nil
	}
	back := shoal.Rollout{
		MaxUnavailable: r.MaxUnavailable, MaxSurge: r.MaxSurge, MinHealthy: r.MinHealthy, Deadline: r.Deadline, OnFailure: shoal.FailurePause,
	}
	if spec.Rollback != nil {
		back = *spec.Rollback
	}
	spec.Rollback = &back
	return applyFlags(f, "rollback-", rolloutFlags, &back)
}

func applyFlags(f *pflag.FlagSet, prefix string, flags []rolloutFlag, r *shoal.Rollout) error {
	for _, x := range flags {
		if !f.Changed(prefix + x.name) {
			continue
		}
		if err := x.set(r, f.Lookup(prefix+x.name).Value.String()); err != nil {
			return usage("--%s%s: %s", prefix, x.name, err)
		}
	}
	return nil
}

// rolloutJSON is how a revision takes the place of another, with the names of Compose.
type rolloutJSON struct {
	Parallelism     int         `json:"parallelism,omitempty"`
	Order           string      `json:"order"`
	MaxUnavailable  string      `json:"max_unavailable,omitempty"`
	MaxSurge        string      `json:"max_surge,omitempty"`
	Delay           float64     `json:"delay_seconds,omitempty"`
	MinHealthy      float64     `json:"min_healthy_seconds"`
	Monitor         float64     `json:"monitor_seconds,omitempty"`
	Deadline        float64     `json:"deadline_seconds"`
	MaxFailureRatio float64     `json:"max_failure_ratio"`
	OnFailure       string      `json:"failure_action"`
	Canary          *canaryJSON `json:"canary,omitempty"`
}

type canaryJSON struct {
	Replicas     string  `json:"replicas"`
	PromoteAfter float64 `json:"promote_after_seconds,omitempty"`
	Weight       int     `json:"weight_percent,omitempty"`
	MaxRestarts  int     `json:"max_restarts,omitempty"`
}

func rolloutJSONOf(r *shoal.Rollout) rolloutJSON {
	share := func(s shoal.Share) string {
		if s == (shoal.Share{}) {
			return ""
		}
		return s.String()
	}
	out := rolloutJSON{
		Parallelism: r.Parallelism, Order: stopFirst, MaxUnavailable: share(r.MaxUnavailable), MaxSurge: share(r.MaxSurge),
		Delay: r.Delay.Seconds(), MinHealthy: r.MinHealthy.Seconds(), Monitor: r.Monitor.Seconds(), Deadline: r.Deadline.Seconds(),
		MaxFailureRatio: float64(r.MaxFailureRatio) / 1000, OnFailure: string(cmp.Or(r.OnFailure, shoal.FailureContinue)),
	}
	if r.StartFirst {
		out.Order = startFirst
	}
	if c := r.Canary; c != (shoal.Canary{}) {
		out.Canary = &canaryJSON{share(c.Slots), c.PromoteAfter.Seconds(), c.Weight, c.MaxRestarts}
	}
	return out
}

// text says how slots are changed; "" of what is usual.
func (r *rolloutJSON) text() string {
	usual := rolloutJSONOf(new(shoal.DefaultRollout()))
	if r == nil || *r == usual {
		return ""
	}
	var out []string
	add := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(r.Parallelism > 0, "%d at a time", r.Parallelism)
	add(r.Order == startFirst, "the new one starts first")
	add(r.MaxUnavailable != "" && r.MaxUnavailable != usual.MaxUnavailable, "%s may be not ready", r.MaxUnavailable)
	add(r.MaxSurge != "" && r.MaxSurge != usual.MaxSurge, "%s more", r.MaxSurge)
	add(r.Delay > 0, "%s between them", seconds(r.Delay))
	add(r.MinHealthy != usual.MinHealthy, "healthy for %s", seconds(r.MinHealthy))
	add(r.Monitor > 0, "watched for %s", seconds(r.Monitor))
	add(r.Deadline != usual.Deadline && r.Deadline > 0, "failed after %s", seconds(r.Deadline))
	add(r.Deadline == 0, "without a deadline")
	add(r.MaxFailureRatio > 0, "%g%% may fail", 100*r.MaxFailureRatio)
	switch shoal.FailureAction(r.OnFailure) {
	case shoal.FailurePause:
		out = append(out, "a failure pauses it")
	case shoal.FailureContinue:
		out = append(out, "it goes on whatever fails")
	case shoal.FailureRollback:
	}
	if c := r.Canary; c != nil {
		text := "canary " + c.Replicas
		if c.PromoteAfter > 0 {
			text += " promoted after " + seconds(c.PromoteAfter)
		}
		if c.MaxRestarts > 0 {
			text += fmt.Sprintf(" failed after %d restarts", c.MaxRestarts)
		}
		if c.Weight > 0 {
			text += fmt.Sprintf(" with %d%% of the traffic", c.Weight)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
