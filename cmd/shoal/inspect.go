// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// specJSON is a spec with the stable names of -o json.
type specJSON struct {
	Image        string            `json:"image"`
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Command      []string          `json:"command,omitempty"`
	Env          map[string]string `json:"environment,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Ports        []api.Port        `json:"ports,omitempty"`
	LimitCPU     int64             `json:"limit_cpu_milli,omitempty"`
	LimitMem     int64             `json:"limit_mem_bytes,omitempty"`
	ReserveCPU   int64             `json:"reserve_cpu_milli,omitempty"`
	ReserveMem   int64             `json:"reserve_mem_bytes,omitempty"`
	PidsLimit    int64             `json:"pids_limit,omitempty"`
	Mode         string            `json:"mode"`
	FileReplicas int               `json:"file_replicas"`
	Constraints  []string          `json:"constraints,omitempty"`
	Strategy     string            `json:"strategy"`
	MaxPerPeer   int               `json:"max_per_peer,omitempty"`
	Priority     int               `json:"priority,omitempty"`
	OnPartition  string            `json:"on_partition"`
	Health       *healthJSON       `json:"health,omitempty"`
	Restart      restartJSON       `json:"restart"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	StopGrace    float64           `json:"stop_grace_seconds,omitempty"`
	Parallelism  int               `json:"rollout_parallelism,omitempty"`
	StartFirst   bool              `json:"rollout_start_first,omitempty"`
}

type healthJSON struct {
	Disable     bool     `json:"disable,omitempty"`
	Test        []string `json:"test,omitempty"`
	Interval    float64  `json:"interval_seconds,omitempty"`
	Timeout     float64  `json:"timeout_seconds,omitempty"`
	StartPeriod float64  `json:"start_period_seconds,omitempty"`
	Retries     int      `json:"retries,omitempty"`
}

type restartJSON struct {
	Condition   string  `json:"condition"`
	Delay       float64 `json:"delay_seconds,omitempty"`
	MaxAttempts int     `json:"max_attempts,omitempty"`
	Window      float64 `json:"window_seconds,omitempty"`
}

// serviceJSON is a service with all that is known of it.
type serviceJSON struct {
	api.Service
	Spec      specJSON      `json:"spec"`
	Slots     []api.Replica `json:"slots"`
	Heads     []string      `json:"heads"`
	Lost      []lostJSON    `json:"lost_wishes"`
	Placement []api.Verdict `json:"placement"`
}

// lostJSON is a concurrent wish that lost.
type lostJSON struct {
	Loser  string `json:"loser"`
	Winner string `json:"winner"`
	Rule   string `json:"rule"`
}

func lostOf(in []shoal.Conflict) []lostJSON {
	out := make([]lostJSON, len(in))
	for i, c := range in {
		out[i] = lostJSON{c.Loser.String(), c.Winner.String(), c.Rule}
	}
	return out
}

func specOf(s *shoal.Spec) specJSON {
	out := specJSON{
		Image: s.Image, Entrypoint: s.Entrypoint, Command: s.Command, Env: s.Env, Labels: s.Labels,
		LimitCPU: s.Limits.CPUMilli, LimitMem: s.Limits.MemBytes, ReserveCPU: s.Reservations.CPUMilli, ReserveMem: s.Reservations.MemBytes,
		PidsLimit: s.PidsLimit, Mode: string(s.Mode), FileReplicas: s.Replicas, Strategy: string(s.Strategy), MaxPerPeer: s.MaxPerPeer,
		Priority: s.Priority, OnPartition: string(s.OnPartition), StopSignal: s.StopSignal, StopGrace: s.StopGrace.Seconds(),
		Parallelism: s.Rollout.Parallelism, StartFirst: s.Rollout.StartFirst,
		Restart: restartJSON{string(s.Restart.Condition), s.Restart.Delay.Seconds(), s.Restart.MaxAttempts, s.Restart.Window.Seconds()},
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, api.Port{Container: p.Container, Protocol: p.Protocol, HostPort: p.Published})
	}
	for _, c := range s.Constraints {
		out.Constraints = append(out.Constraints, c.String())
	}
	if h := s.Health; h != nil {
		out.Health = &healthJSON{h.Disable, h.Test, h.Interval.Seconds(), h.Timeout.Seconds(), h.StartPeriod.Seconds(), h.Retries}
	}
	return out
}

// text is the policy in a few words.
func (r restartJSON) text() string {
	if r.MaxAttempts > 0 {
		return fmt.Sprintf("%s, at most %s", r.Condition, count(r.MaxAttempts, "time"))
	}
	return r.Condition
}

func (a *app) inspectCmd() *cobra.Command {
	var showEnv bool
	cmd := &cobra.Command{
		Use: "inspect SERVICE...", Short: "Tell all about services", Args: someArgs(0),
		Long: `Tell all about services: what was asked for, what runs, which wishes lost, and which
peers could hold one more replica. Values of the environment are masked: they may be
secrets.`,
		Example: "  shoal inspect web\n  shoal inspect web -o json\n  shoal inspect web --show-env -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			var all []serviceJSON
			var fresh api.Freshness
			for _, name := range args {
				d, err := c.Service(ctx, name, showEnv)
				if err != nil {
					return err
				}
				all = append(all, serviceJSON{d.Service, specOf(&d.Spec), d.Rows, d.Heads, lostOf(d.Lost), d.Verdicts})
				fresh = d.Freshness
			}
			if err := inspect(a, all, a.describeService, func(s serviceJSON) string { return s.Name }); err != nil {
				return err
			}
			a.freshness(fresh)
			return nil
		},
	}
	cmd.Flags().BoolVar(&showEnv, "show-env", false, "show the values of the environment")
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten IDs")
	return cmd
}

func (a *app) describeService(s serviceJSON) error {
	err := a.fields([][2]string{
		{"Name", s.Name},
		{"Project", s.Project},
		{"Mode", s.Mode},
		{"Replicas", fmt.Sprintf("%d of %d ready", s.Ready, s.Replicas)},
		{"Revision", a.revision(s.Revision)},
		{"Accepted", moment(s.Accepted)},
		{"Image", s.Image},
		{"Entrypoint", strings.Join(s.Spec.Entrypoint, " ")},
		{"Command", strings.Join(s.Spec.Command, " ")},
		{"Environment", pairs(s.Spec.Env)},
		{"Labels", pairs(s.Labels)},
		{"Ports", ports(s.Ports)},
		{"Limits", amount(s.Spec.LimitCPU, s.Spec.LimitMem)},
		{"Reserves", amount(s.Spec.ReserveCPU, s.Spec.ReserveMem)},
		{"Constraints", strings.Join(s.Spec.Constraints, ", ")},
		{"Strategy", s.Spec.Strategy},
		{"On partition", s.Spec.OnPartition},
		{"Restart", s.Spec.Restart.text()},
	})
	if err != nil {
		return err
	}
	for _, l := range s.Lost {
		if err := a.fields([][2]string{{"Lost wish", fmt.Sprintf("%s superseded by %s: %s", a.revision(l.Loser), a.revision(l.Winner), l.Rule)}}); err != nil {
			return err
		}
	}
	if err := tabulate(a.out, s.Slots, a.replicaTable().columns, false); err != nil {
		return err
	}
	var any []api.Verdict
	for _, v := range s.Placement {
		if v.Slot < 0 {
			any = append(any, v)
		}
	}
	return tabulate(a.out, any, []column[api.Verdict]{
		{head: "CANDIDATE", cell: func(v api.Verdict) string { return v.PeerName }},
		{head: "FITS", cell: func(v api.Verdict) string {
			if v.Feasible {
				return "yes"
			}
			return "no"
		}},
		{head: "WHY", cell: func(v api.Verdict) string { return cmp.Or(v.Reason, v.Score) }},
	}, false)
}

func amount(cpu, mem int64) string {
	var out []string
	if cpu > 0 {
		out = append(out, cores(cpu)+" CPU")
	}
	if mem > 0 {
		out = append(out, size(mem))
	}
	return strings.Join(out, ", ")
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// fields writes "Name:  value" lines, without the empty ones.
func (a *app) fields(in [][2]string) error {
	for _, f := range in {
		if f[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "%-14s%s\n", f[0]+":", clean(f[1])); err != nil {
			return err
		}
	}
	return nil
}

// inspect shows things one by one for people, as one array for programs.
func inspect[T any](a *app, all []T, describe func(T) error, name func(T) string) error {
	switch a.output {
	case "name":
		return lines(a.out, all, name)
	case "table", "wide":
	default:
		return a.encode(a.out, all)
	}
	for i, it := range all {
		if i > 0 {
			if _, err := fmt.Fprintln(a.out); err != nil {
				return err
			}
		}
		if err := describe(it); err != nil {
			return err
		}
	}
	return nil
}
