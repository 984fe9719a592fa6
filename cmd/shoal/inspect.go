// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/compose"
)

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

func (a *app) inspectCmd() *cobra.Command {
	var showEnv, asCompose bool
	cmd := &cobra.Command{
		Use: "inspect SERVICE...", Short: "Tell all about services", Args: someArgs(0),
		Long: `Tell all about services: what was asked for, what runs, which wishes lost, and which
peers could hold one more replica. Values of the environment are masked: they may be
secrets.

With --compose it is a Compose file that makes the same services, with the numbers of
replicas there are now. Masked values become variables of the same names, which have
to be set when it is deployed.`,
		Example: `  shoal inspect web
  shoal inspect web -o json
  shoal inspect web --show-env -o yaml
  shoal inspect web db --compose --show-env > compose.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			var all []serviceJSON
			var specs []shoal.Spec
			var fresh api.Freshness
			for _, name := range args {
				d, err := c.Service(ctx, name, showEnv)
				if err != nil {
					return err
				}
				all = append(all, serviceJSON{d.Service, specOf(&d.Spec), d.Rows, d.Heads, lostOf(d.Lost), d.Verdicts})
				fresh = d.Freshness
				if d.Spec.Mode == shoal.ModeReplicated {
					d.Spec.Replicas = d.Replicas
				}
				specs = append(specs, d.Spec)
			}
			if asCompose {
				return compose.Render(a.out, specs, !showEnv)
			}
			if err := inspect(a, all, a.describeService, func(s serviceJSON) string { return s.Name }); err != nil {
				return err
			}
			a.freshness(fresh)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asCompose, "compose", false, "as a Compose file")
	cmd.Flags().BoolVar(&showEnv, "show-env", false, "show the values of the environment")
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten IDs")
	return cmd
}

func (a *app) describeService(s serviceJSON) error {
	err := a.fields([][2]string{
		{"Name", s.Name},
		{"Project", s.Project},
		{"Mode", s.Mode},
		{"Replicas", readyText(s.Service)},
		{"Autoscale", autoscaleText(s.Autoscale)},
		{"Load", loadText(s.Autoscale)},
		{"Scaled by", lastText(s.Autoscale)},
		{"Revision", a.revision(s.Revision)},
		{"Accepted", moment(s.Accepted)},
		{"Image", s.Image},
		{"Digest", s.Spec.Digest},
		{"Platforms", strings.Join(s.Spec.Platforms, ", ")},
		{"Entrypoint", strings.Join(s.Spec.Entrypoint, " ")},
		{"Command", strings.Join(s.Spec.Command, " ")},
		{"Environment", pairs(s.Spec.Env)},
		{"Labels", pairs(s.Labels)},
		{"Ports", ports(s.Ports)},
		{"Networks", joined(s.Spec.Networks, networkJSON.text)},
		{"Depends on", joined(s.Spec.DependsOn, dependencyJSON.text)},
		{"Pre-deploy", s.Spec.PreDeploy.text()},
		{"Volumes", mounts(s.Spec.Setup)},
		{"Set-up", s.Spec.Setup.words()},
		{"Demands", strings.Join(s.Spec.Demands, ", ")},
		{"Limits", amount(s.Spec.LimitCPU, s.Spec.LimitMem)},
		{"Reserves", amount(s.Spec.ReserveCPU, s.Spec.ReserveMem)},
		{"Constraints", strings.Join(s.Spec.Constraints, ", ")},
		{"Strategy", s.Spec.strategyText()},
		{"On partition", s.Spec.OnPartition},
		{"Health", s.Spec.Health.text()},
		{"Restart", s.Spec.Restart.text()},
		{"Job", s.Spec.Job.text()},
		{"Schedule", runsText(s.Job)},
		{"Rollout", unlessJob(s.Spec.Job, s.Spec.Rollout.text())},
		{"Rollback", s.Spec.Rollback.text()},
		{"Stop", s.Spec.stopText()},
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
	return a.candidates(any)
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

// fields writes "Name:  value" lines, without the empty ones. The values stand in one
// column, also where several calls write one page, unless a name is longer than usual.
func (a *app) fields(in [][2]string) error {
	in = slices.DeleteFunc(slices.Clone(in), func(f [2]string) bool { return f[1] == "" })
	width := 14
	for _, f := range in {
		width = max(width, len(f[0])+len(": "))
	}
	for _, f := range in {
		if _, err := fmt.Fprintf(a.out, "%-*s%s\n", width, f[0]+":", clean(f[1])); err != nil {
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

// readyText is "2 of 3 ready", and what to do about a service that is stopped.
func readyText(s api.Service) string {
	if s.Stopped {
		return fmt.Sprintf("stopped, %d left; shoal start %s runs it again", s.Ready, s.Name)
	}
	return howMany(s)
}
