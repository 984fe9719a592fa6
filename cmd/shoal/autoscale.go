// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// autoscaleFlags say what to change of how a service is scaled.
type autoscaleFlags struct {
	wishFlags
	off                                bool
	min, max                           int
	cpu, memory, tolerance             string
	connections, requests              int
	upStep, downStep                   string
	upWindow, downWindow, idle, manual duration
}

// autoscaleFields are the flags that change something.
var autoscaleFields = []string{
	"min", "max", "cpu", "memory", "connections", "requests", "tolerance", "up-window", "down-window", "up-step", "down-step", "idle", "manual", "off",
}

func (a *app) autoscaleCmd() *cobra.Command {
	var s autoscaleFlags
	cmd := &cobra.Command{
		Use: "autoscale [SERVICE]", Short: "Let the load of a service decide how many replicas it has", Args: atLeast(0, 1),
		Long: `Keep as many replicas of a service, within bounds, as its load calls for: each metric
that is named is kept near its target, and the one that calls for most replicas counts.
CPU and memory are shares of what a replica reserves, or of its limit where it reserves
nothing. Connections and requests are what Shoal carries to the service, for each
replica; a request is a new connection, since Shoal does not look into them.

Flags change what they name and leave all else as it is. No replica is restarted. There
are more replicas at once, and fewer once the load has called for fewer for five minutes.
A number that "shoal scale" sets stands for ten minutes. With --min 0 the last replica
goes when no connection came for five minutes, and the next one waits for the first
replica to start. A later deploy of its Compose file takes the file's settings again.

Without flags that change something it lists the services that are autoscaled, or the one
that is named: what the asked peer measures, and what holds a change. A target that nobody
reports is said to be so; until somebody does no replica is taken away.`,
		Example: `  shoal autoscale
  shoal autoscale web --min 2 --max 10 --cpu 60%
  shoal autoscale web --max 20 --connections 100
  shoal autoscale web --min 0 --idle 10m --plan
  shoal autoscale web --off`,
		RunE: func(cmd *cobra.Command, args []string) error {
			changes := slices.ContainsFunc(autoscaleFields, cmd.Flags().Changed)
			switch {
			case !changes:
				return a.autoscaled(cmd, args)
			case len(args) == 0:
				return usage("autoscale needs SERVICE, when it is to change something")
			}
			return a.autoscale(cmd, &s, args[0])
		},
	}
	d := shoal.DefaultAutoscale()
	f := cmd.Flags()
	f.IntVar(&s.min, "min", d.Min, "fewest replicas; 0: none while nobody comes")
	f.IntVar(&s.max, "max", 0, "most replicas; needed the first time")
	f.StringVar(&s.cpu, "cpu", "", "target of CPU, like 60%; 0: not looked at")
	f.StringVar(&s.memory, "memory", "", "target of memory, like 80%; 0: not looked at")
	f.IntVar(&s.connections, "connections", 0, "target of open connections for each replica; 0: not looked at")
	f.IntVar(&s.requests, "requests", 0, "target of new connections a second for each replica; 0: not looked at")
	f.StringVar(&s.tolerance, "tolerance", "", "a load this near to its target changes nothing (10%)")
	f.Var(&s.upWindow, "up-window", "how long more replicas must be called for (0s)")
	f.Var(&s.downWindow, "down-window", "how long fewer replicas must be called for (5m)")
	f.StringVar(&s.upStep, "up-step", "", "at most so many replicas more at once, like 4 or 50%; 0: twice as many, or 4 more")
	f.StringVar(&s.downStep, "down-step", "", "at most so many replicas fewer at once; 0: as many as it takes")
	f.Var(&s.idle, "idle", "with --min 0, how long nobody must have come (5m)")
	f.Var(&s.manual, "manual", "how long a number that a user set stands (10m)")
	f.BoolVar(&s.off, "off", false, "let users decide again; the number stays as it is")
	s.add(f)
	return cmd
}

func (a *app) autoscale(cmd *cobra.Command, s *autoscaleFlags, name string) error {
	if err := cmp.Or(s.check(), shoal.CheckName("name", name)); err != nil {
		return err
	}
	given := cmd.Flags().Changed
	if s.off && slices.ContainsFunc(autoscaleFields, func(f string) bool { return f != "off" && given(f) }) {
		return usage("--off ends autoscaling; leave the other flags out")
	}
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	now, err := c.Service(ctx, name, true) // with the values of its environment: they go back as they are
	if err != nil {
		return err
	}
	spec := now.Spec
	if spec.Autoscale, err = s.change(given, spec.Autoscale); err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	seen, err := shoal.ParseRevisionID(now.Revision)
	if err != nil {
		return err
	}
	wish := shoal.DeployWish{Specs: []shoal.Spec{spec}, KeepScale: true, AllowUnplaced: true, IfRevision: map[string]shoal.RevisionID{name: seen}}
	return a.wish(cmd, &s.wishFlags, func(ctx context.Context, c *api.Client, opts api.WishOptions) (api.Outcome, error) {
		return c.Deploy(ctx, wish, opts)
	})
}

// autoscaled lists services that are scaled by their load, or one.
func (a *app) autoscaled(cmd *cobra.Command, names []string) error {
	return a.list(cmd, &listFlags{}, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
		all, err := c.Services(ctx)
		if err != nil {
			return api.Freshness{}, err
		}
		var out []api.Service
		for _, s := range all.Items {
			switch named := slices.Contains(names, s.Name); {
			case named && s.Autoscale == nil:
				return api.Freshness{}, &api.Error{
					Code: api.CodeRefused, What: fmt.Sprintf("service %q is not autoscaled", s.Name),
					Todo: fmt.Sprintf("say what one replica should have to do, like shoal autoscale %s --max 10 --requests 100", s.Name),
				}
			case s.Autoscale != nil && (named || len(names) == 0):
				out = append(out, s)
			}
		}
		if len(out) == 0 && len(names) > 0 {
			_, err := c.Service(ctx, names[0], false) // it says what there is
			return api.Freshness{}, err
		}
		return all.Freshness, show(a, w, out, autoscaleTable())
	})
}

func autoscaleTable() table[api.Service] {
	number := func(of func(*api.Autoscaled) int) func(api.Service) string {
		return func(s api.Service) string { return strconv.Itoa(of(s.Autoscale)) }
	}
	return table[api.Service]{
		name: func(s api.Service) string { return s.Name },
		columns: []column[api.Service]{
			{head: "NAME", cell: func(s api.Service) string { return s.Name }},
			{head: "MIN", cell: number(func(a *api.Autoscaled) int { return a.Min })},
			{head: "MAX", cell: number(func(a *api.Autoscaled) int { return a.Max })},
			{head: "REPLICAS", cell: func(s api.Service) string { return fmt.Sprintf("%d/%d", s.Ready, s.Replicas) }},
			{head: "WANTED", cell: number(func(a *api.Autoscaled) int { return a.Wanted })},
			{head: "TARGETS", cell: func(s api.Service) string { return s.Autoscale.Targets }},
			{head: "LOAD", cell: func(s api.Service) string { return loadText(s.Autoscale) }},
			{head: "SCALED BY", wide: true, cell: func(s api.Service) string { return s.Autoscale.Last }},
		},
	}
}

// change returns what the flags make of old.
func (s *autoscaleFlags) change(given func(string) bool, old *shoal.Autoscale) (*shoal.Autoscale, error) {
	if s.off {
		return nil, nil
	}
	out := shoal.DefaultAutoscale()
	if old != nil {
		out = *old
	}
	if old == nil && !given("max") {
		return nil, usage("--max is needed: how many replicas may there be at most?")
	}
	for _, f := range []struct {
		name string
		from int
		to   *int
	}{{"min", s.min, &out.Min}, {"max", s.max, &out.Max}, {"connections", s.connections, &out.Connections}, {"requests", s.requests, &out.Requests}} {
		if given(f.name) {
			*f.to = f.from
		}
	}
	for _, f := range []struct {
		name, from string
		to         *int
	}{{"cpu", s.cpu, &out.CPU}, {"memory", s.memory, &out.Memory}, {"tolerance", s.tolerance, &out.Tolerance}} {
		if !given(f.name) {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(f.from, "%"), 10, 16)
		if err != nil {
			return nil, usage("--%s: %q is no share like 60%%", f.name, f.from)
		}
		*f.to = int(n) //nolint:gosec // 16 bits
	}
	for _, f := range []struct {
		name, from string
		to         *shoal.Share
	}{{"up-step", s.upStep, &out.UpStep}, {"down-step", s.downStep, &out.DownStep}} {
		if !given(f.name) {
			continue
		}
		share, err := shoal.ParseShare(f.from)
		if err != nil {
			return nil, usage("--%s: %w", f.name, err)
		}
		*f.to = share
	}
	for _, f := range []struct {
		name string
		from duration
		to   *time.Duration
	}{{"up-window", s.upWindow, &out.UpWindow}, {"down-window", s.downWindow, &out.DownWindow}, {"idle", s.idle, &out.Idle}, {"manual", s.manual, &out.Manual}} {
		if given(f.name) {
			*f.to = time.Duration(f.from)
		}
	}
	return &out, nil
}

// autoscaleText is "2-10 at cpu 60%".
func autoscaleText(a *api.Autoscaled) string {
	if a == nil {
		return ""
	}
	return fmt.Sprintf("%d-%d at %s", a.Min, a.Max, a.Targets)
}

// loadText is what the asked peer measures, and what holds it.
func loadText(a *api.Autoscaled) string {
	if a == nil {
		return ""
	}
	return cmp.Or(a.Says, "not watched by the peer that was asked")
}

// lastText is why there are as many replicas as there are, if the load called for them.
func lastText(a *api.Autoscaled) string {
	if a == nil {
		return ""
	}
	return a.Last
}

// autoscaleJSON is how a service is scaled, with the names of Compose.
type autoscaleJSON struct {
	Min         int     `json:"min"`
	Max         int     `json:"max"`
	CPU         int     `json:"cpu_percent,omitempty"`
	Memory      int     `json:"memory_percent,omitempty"`
	Connections int     `json:"connections,omitempty"`
	Requests    int     `json:"requests,omitempty"`
	Tolerance   int     `json:"tolerance_percent"`
	UpWindow    float64 `json:"up_window_seconds"`
	DownWindow  float64 `json:"down_window_seconds"`
	UpStep      string  `json:"up_step,omitempty"`
	DownStep    string  `json:"down_step,omitempty"`
	Idle        float64 `json:"idle_seconds"`
	Manual      float64 `json:"manual_seconds"`
}

func autoscaleJSONOf(a *shoal.Autoscale) *autoscaleJSON {
	if a == nil {
		return nil
	}
	step := func(s shoal.Share) string {
		if s == (shoal.Share{}) {
			return ""
		}
		return s.String()
	}
	return &autoscaleJSON{
		Min: a.Min, Max: a.Max, CPU: a.CPU, Memory: a.Memory, Connections: a.Connections, Requests: a.Requests, Tolerance: a.Tolerance,
		UpWindow: a.UpWindow.Seconds(), DownWindow: a.DownWindow.Seconds(), UpStep: step(a.UpStep), DownStep: step(a.DownStep),
		Idle: a.Idle.Seconds(), Manual: a.Manual.Seconds(),
	}
}
