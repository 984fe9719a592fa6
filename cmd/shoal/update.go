// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// updateFlags say what to change of a service's spec.
type updateFlags struct {
	wishFlags
	allowUnplaced               bool
	image, cpus, memory         string
	restart                     string
	stopGrace                   duration
	env, envGone                []string
	labels, labelsGone          []string
	constraints, constraintGone []string
	job                         jobFlags
}

// updateFields are the flags that change something.
var updateFields = []string{
	"image", "env", "env-rm", "label", "label-rm", "cpus", "memory", "constraint", "constraint-rm", "restart", "stop-grace",
	"attempts", "parallelism", "deadline", "schedule", "zone", "missed", "overlap",
}

func (a *app) updateCmd() *cobra.Command {
	var u updateFlags
	cmd := &cobra.Command{
		Use: "update SERVICE [-- COMMAND [ARG...]]", Short: "Change settings of a service", Args: someArgs(0),
		Long: `Change what the flags name, leave all else as it is, and wait until the replicas are
healthy: they are replaced in waves, unless the change is none of the container (labels, how
it is replaced or placed): then they stay. What follows -- is the new command. The number of
replicas is changed by "shoal scale". A stopped service starts. If somebody else changed
the service meanwhile, nothing is written. A later deploy of its Compose file takes the
file's settings again.`,
		Example: `  shoal update web --image hello:2
  shoal update web -e MODE=slow --env-rm DEBUG --memory 128m
  shoal update web --constraint zone=a --plan
  shoal update web --image hello:2 --canary 1 --update-failure-action rollback
  shoal update worker -- work --queue mail
  shoal update backup --attempts 3 --deadline 1h
  shoal update backup --schedule "0 3 * * *" --zone Europe/Vienna`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.update(cmd, &u, args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.StringVar(&u.image, "image", "", "another image")
	f.StringArrayVarP(&u.env, "env", "e", nil, "KEY=VALUE to set, or KEY to pass on this shell's")
	f.StringArrayVar(&u.envGone, "env-rm", nil, "KEY to take away")
	f.StringArrayVar(&u.labels, "label", nil, "KEY=VALUE label of the service to set")
	f.StringArrayVar(&u.labelsGone, "label-rm", nil, "KEY of a label to take away")
	f.StringVar(&u.cpus, "cpus", "", "limit, in cores, like 0.5")
	f.StringVar(&u.memory, "memory", "", "limit, like 64m or 1g")
	f.StringArrayVar(&u.constraints, "constraint", nil, "constraint to add: zone=a, disk!=hdd, 'zone in (a,b)'")
	f.StringArrayVar(&u.constraintGone, "constraint-rm", nil, "constraint to take away, as inspect shows it")
	f.StringVar(&u.restart, "restart", "", "no, on-failure[:N] or always")
	f.Var(&u.stopGrace, "stop-grace", "how long a replica may take to stop, like 30s")
	u.job.addTerms(f, "of a job")
	addRolloutFlags(f)
	unplacedFlag(f, &u.allowUnplaced)
	u.add(f)
	return cmd
}

func (a *app) update(cmd *cobra.Command, u *updateFlags, name string, command []string) error {
	if err := cmp.Or(u.check(), shoal.CheckName("name", name)); err != nil {
		return err
	}
	changed := slices.ContainsFunc(updateFields, cmd.Flags().Changed) || anyRolloutFlag(cmd.Flags())
	switch dash := cmd.ArgsLenAtDash(); {
	case len(command) > 0 && dash != 1:
		return usage("update takes 1 service; write update %s -- %s if that is its new command", name, strings.Join(command, " "))
	case !changed && len(command) == 0:
		return usage("nothing to change; give at least one of --%s, --canary, --update-..., --rollback-..., or -- COMMAND", strings.Join(updateFields, ", --"))
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
	if err := a.edit(cmd, u, &spec); err != nil {
		return err
	}
	if len(command) > 0 {
		spec.Command = command
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	seen, err := shoal.ParseRevisionID(now.Revision)
	if err != nil {
		return err
	}
	wish := shoal.DeployWish{
		Specs: []shoal.Spec{spec}, KeepScale: true, AllowUnplaced: u.allowUnplaced,
		IfRevision: map[string]shoal.RevisionID{name: seen},
	}
	return a.wish(cmd, &u.wishFlags, func(ctx context.Context, c *api.Client, opts api.WishOptions) (api.Outcome, error) {
		return c.Deploy(ctx, wish, opts)
	})
}

// edit changes what the flags name.
func (a *app) edit(cmd *cobra.Command, u *updateFlags, spec *shoal.Spec) (err error) {
	given := cmd.Flags().Changed
	if given("image") {
		spec.Image, spec.Digest, spec.Platforms = u.image, "", nil // what it stands for now
	}
	if spec.Env, err = edited("env", spec.Env, u.env, u.envGone, a.env); err != nil {
		return err
	}
	if spec.Labels, err = edited("label", spec.Labels, u.labels, u.labelsGone, nil); err != nil {
		return err
	}
	if given("cpus") {
		if spec.Limits.CPUMilli, err = parseCPUs(u.cpus); err != nil {
			return err
		}
	}
	if given("memory") {
		if spec.Limits.MemBytes, err = parseMemory(u.memory); err != nil {
			return err
		}
	}
	if given("restart") {
		if spec.Restart, err = parseRestart(u.restart); err != nil {
			return err
		}
	}
	if given("stop-grace") {
		spec.StopGrace = time.Duration(u.stopGrace)
	}
	if err := u.job.edit(cmd.Flags(), spec); err != nil {
		return err
	}
	if err := editRollouts(cmd.Flags(), spec); err != nil {
		return err
	}
	return editConstraints(spec, u)
}

// edited sets and takes away pairs; one to take away that is not there is refused.
func edited(flag string, old map[string]string, set, gone []string, shell map[string]string) (map[string]string, error) {
	out := maps.Clone(old)
	for _, key := range gone {
		if _, ok := out[key]; !ok {
			return nil, usage("--%s-rm: there is no %s", flag, key)
		}
		delete(out, key)
	}
	more, err := parsePairs(flag, set, shell)
	if err != nil {
		return nil, err
	}
	if out == nil {
		return more, nil
	}
	maps.Copy(out, more)
	return out, nil
}

func editConstraints(spec *shoal.Spec, u *updateFlags) error {
	gone, err := parseSelectors(u.constraintGone)
	if err != nil {
		return err
	}
	add, err := parseSelectors(u.constraints)
	if err != nil {
		return err
	}
	out := slices.Clone(spec.Constraints)
	for _, g := range gone {
		i := slices.IndexFunc(out, func(s shoal.Selector) bool { return s.String() == g.String() })
		if i < 0 {
			return usage("--constraint-rm: there is no %s", g)
		}
		out = slices.Delete(out, i, i+1)
	}
	spec.Constraints = append(out, add...)
	return nil
}
