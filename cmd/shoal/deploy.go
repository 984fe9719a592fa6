// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/compose"
)

type deployFlags struct {
	wishFlags
	files, profiles []string
	envFiles        []string
	project         string
	strict          bool
	reference       bool
	resetScale      bool
	allowUnplaced   bool
	prune           bool
}

// unplacedFlag adds --allow-unplaced.
func unplacedFlag(f *pflag.FlagSet, allow *bool) {
	f.BoolVar(allow, "allow-unplaced", false, "accept what no peer could ever run as they are: one that can will come")
}

func (a *app) deployCmd() *cobra.Command {
	var d deployFlags
	cmd := &cobra.Command{
		Use: "deploy [SERVICE...]", Short: "Make services be as a Compose file says",
		Long: `Read a Compose file (compose.yaml, compose.yml, docker-compose.yaml or
docker-compose.yml), show the plan, ask, and make it so: all services of it or none.
Deploying the same file again changes nothing. Then wait until every replica is
healthy: exit 0 if so, 4 if not in time or a canary waits for "shoal rollout promote",
5 if some are failing, or the service went back to its last good revision. Without a
terminal there is nobody to ask: use -y.

Each key of the file is supported, harmless (named once with its line; an error with
--strict), or means something that Shoal cannot do: all of those are listed at once,
with file and line, and nothing is deployed. docs/compose.md has the table.

A line of the plan begins with + (create), ~ (change), - (remove) or = (stays).
With --prune, services of the project that the file does not name any more go: those
that the plan shows, as it shows them.
The number of replicas stays what "shoal scale" made it, unless the file's own number
changed or --reset-scale is given.`,
		Example: `  shoal deploy
  shoal deploy -f compose.yaml -f prod.yaml -p shop -y
  shoal deploy --plan --exit-code          # exit 3 if there is something to do
  cat compose.yaml | shoal deploy -f - -y`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.deploy(cmd, &d, args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&d.files, "file", "f", nil, "Compose file, later ones are merged over earlier ones; - is stdin")
	f.StringVarP(&d.project, "project", "p", "", "project name (default: the file's, or its directory's)")
	f.StringArrayVar(&d.profiles, "profile", nil, "enable a profile of the file; * is all of them")
	f.StringArrayVar(&d.envFiles, "env-file", nil, "file of variables for the Compose file (default: .env beside it, if it is there)")
	f.BoolVar(&d.strict, "strict", false, "take what the file says to no effect for an error")
	f.BoolVar(&d.reference, "print-reference", false, "print docs/compose.md and end")
	_ = f.MarkHidden("print-reference") // for make docs
	f.BoolVar(&d.resetScale, "reset-scale", false, "set the numbers of replicas to the file's")
	f.BoolVar(&d.prune, "prune", false, "remove the project's services that the file does not name")
	unplacedFlag(f, &d.allowUnplaced)
	d.add(f)
	return cmd
}

func (a *app) deploy(cmd *cobra.Command, d *deployFlags, services []string) error {
	if d.reference {
		return compose.Reference(a.out)
	}
	if err := d.check(); err != nil {
		return err
	}
	if d.prune && len(services) > 0 {
		return usage("--prune goes with the whole file, not with %s alone", strings.Join(services, " "))
	}
	project, err := a.load(cmd.Context(), d, services)
	if err != nil {
		return err
	}
	wish := shoal.DeployWish{Specs: project.Specs, ResetScale: d.resetScale, AllowUnplaced: d.allowUnplaced}
	if d.prune {
		wish.Prune, wish.Keep = project.Name, project.Others
	}
	_, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	plan, err := a.planned(cmd.Context(), func(ctx context.Context) (api.Outcome, error) {
		return c.Deploy(ctx, wish, api.WishOptions{PlanOnly: true})
	})
	if err != nil {
		return err
	}
	if d.plan {
		return a.onlyPlan(plan, d.planFlags)
	}
	if err := a.showPlan(plan); err != nil {
		return err
	}
	if changes := changing(plan); changes > 0 {
		if err := a.confirm(cmd.Context(), fmt.Sprintf("Deploy %s?", count(changes, "change"))); err != nil {
			return err
		}
	}
	if err := pin(&wish, plan); err != nil {
		return err
	}
	out, err := a.submit(cmd.Context(), func(ctx context.Context) (api.Outcome, error) {
		return c.Deploy(ctx, wish, api.WishOptions{Acks: d.acks, AckTimeout: time.Duration(a.timeout)})
	})
	if err != nil {
		return err
	}
	return a.accepted(cmd.Context(), c, out, d.waits())
}

// pin makes a wish remove what its plan showed, and nothing that came since.
func pin(wish *shoal.DeployWish, plan api.Outcome) error {
	wish.Prune, wish.Keep, wish.Remove = "", nil, map[string]shoal.RevisionID{}
	for _, ch := range plan.Changes {
		if ch.Kind != string(shoal.ChangeRemove) {
			continue
		}
		seen, err := shoal.ParseRevisionID(ch.Revision)
		if err != nil {
			return err
		}
		wish.Remove[ch.Service] = seen
	}
	return nil
}

// load reads the Compose file; whatever is wrong with it is a usage error.
func (a *app) load(ctx context.Context, d *deployFlags, services []string) (*compose.Project, error) {
	project, err := compose.Load(ctx, compose.Options{
		Files: d.files, Project: d.project, Env: a.env, EnvFiles: d.envFiles, Services: services, Profiles: d.profiles,
		Strict: d.strict, Stdin: a.in,
	})
	if err != nil {
		return nil, &coded{code: exitUsage, name: "file", err: err}
	}
	for _, w := range project.Warnings {
		a.say("warning: %s", clean(w.String()))
	}
	return project, nil
}

type runFlags struct {
	wishFlags
	name, cpus, memory, restart, partition string
	replicas                               int
	global, allowUnplaced                  bool
	spread                                 string
	lb, prefer                             string
	publish, env, constraints, labels      []string
	volumes, networks, aliases             []string
	job                                    jobFlags
}

func (a *app) runCmd() *cobra.Command {
	var r runFlags
	cmd := &cobra.Command{
		Use: "run IMAGE [COMMAND [ARG...]]", Short: "Run a new service without a file", Args: someArgs(0),
		Long: `Create one service and wait until its replicas are healthy, or with --job until each has
ended well: exit 5 if one of them is given up. With --schedule it waits for no run. Flags go before the image; what follows it
is the command, after -- also if it begins with -. A service of that name must not exist.`,
		Example: `  shoal run --replicas 3 -p 80 hello:1
  shoal run --name web -p 8080:80 -e MODE=fast --cpus 0.5 --memory 64m hello:1
  shoal run --name db -v dbdata:/data -v /etc/db.conf:/etc/db.conf:ro db:1
  shoal run --name cache --network back --network-alias redis cache:1
  shoal run --constraint zone=a --label tier=back worker:2 -- --queue mail
  shoal run --job --name migrate --attempts 3 --deadline 10m app:2 migrate
  shoal run --job --global scan:1
  shoal run --job --name backup --schedule "0 3 * * *" --zone Europe/Vienna db:1 backup`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.global && cmd.Flags().Changed("replicas") {
				return usage("--replicas and --global exclude each other: --global is one on every peer")
			}
			spec, err := a.specOfRun(cmd.Flags(), &r, args)
			if err != nil {
				return err
			}
			return a.wish(cmd, &r.wishFlags, func(ctx context.Context, c *api.Client, opts api.WishOptions) (api.Outcome, error) {
				wish := shoal.DeployWish{Specs: []shoal.Spec{spec}, Create: true, AllowUnplaced: r.allowUnplaced}
				return c.Deploy(ctx, wish, opts)
			})
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&r.name, "name", "", "name of the service (default: the image's)")
	f.IntVar(&r.replicas, "replicas", 1, "how many")
	f.BoolVar(&r.global, "global", false, "one on every peer that can")
	r.job.add(f)
	f.StringArrayVarP(&r.publish, "publish", "p", nil, "[PUBLISHED:]CONTAINER[/udp]: PUBLISHED answers on every peer; without it the engine of the holder picks one. published=8080,target=80,mode=host: on the holder only")
	f.StringVar(&r.lb, "lb", "", "which replica serves a connection: p2c (the default), rr, weighted, least-conn, least-time, hash or random")
	f.StringVar(&r.prefer, "prefer", "", "which replicas go first: any (the default), zone or local")
	f.StringArrayVarP(&r.env, "env", "e", nil, "KEY=VALUE, or KEY to pass on this shell's")
	f.StringArrayVarP(&r.volumes, "volume", "v", nil, "[VOLUME|/PATH:]TARGET[:ro]; a path is the machine's, and its owner has to allow it")
	f.StringArrayVar(&r.networks, "network", nil, "network that it is on, and reaches others there by name; host or none instead (default: the network default)")
	f.StringArrayVar(&r.aliases, "network-alias", nil, "another name that it has on all its networks")
	f.StringVar(&r.cpus, "cpus", "", "limit, in cores, like 0.5")
	f.StringVar(&r.memory, "memory", "", "limit, like 64m or 1g")
	f.StringVar(&r.spread, "spread", "", "label whose values replicas are spread over first (default: zone)")
	f.StringArrayVar(&r.constraints, "constraint", nil, "only peers whose labels match: zone=a, disk!=hdd, 'zone in (a,b)'")
	f.StringArrayVar(&r.labels, "label", nil, "KEY=VALUE label of the service")
	f.StringVar(&r.restart, "restart", "always", "no, on-failure[:N] or always")
	unplacedFlag(f, &r.allowUnplaced)
	f.StringVar(&r.partition, "on-partition", string(shoal.PartitionAvailable), "available or sticky")
	addRolloutFlags(f)
	r.add(f)
	return cmd
}

func (a *app) specOfRun(f *pflag.FlagSet, r *runFlags, args []string) (shoal.Spec, error) {
	image, command := args[0], args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	} else if len(command) > 0 && strings.HasPrefix(command[0], "-") {
		return shoal.Spec{}, usage("flags go before the image; write run %s -- %s if %s is for the command", image, command[0], command[0])
	}
	spec := shoal.Spec{
		Name: r.name, Image: image, Mode: shoal.ModeReplicated, Replicas: r.replicas,
		Strategy: shoal.StrategySpread, SpreadBy: r.spread, OnPartition: shoal.OnPartition(r.partition),
		LB: shoal.LB(r.lb), Prefer: shoal.Prefer(r.prefer), Rollout: shoal.DefaultRollout(),
	}
	if len(command) > 0 {
		spec.Command = command
	}
	if r.global {
		spec.Mode, spec.Replicas = shoal.ModeGlobal, 0
	}
	if spec.Name == "" {
		spec.Name, _, _ = strings.Cut(path.Base(strings.Split(image, "@")[0]), ":")
	}
	var err error
	if spec.Env, err = parsePairs("env", r.env, a.env); err != nil {
		return spec, err
	}
	if spec.Labels, err = parsePairs("label", r.labels, nil); err != nil {
		return spec, err
	}
	if spec.Limits.CPUMilli, err = parseCPUs(r.cpus); err != nil {
		return spec, err
	}
	if spec.Limits.MemBytes, err = parseMemory(r.memory); err != nil {
		return spec, err
	}
	if spec.Restart, err = parseRestart(r.restart); err != nil {
		return spec, err
	}
	if err = r.job.apply(f, &spec); err != nil {
		return spec, err
	}
	if spec.Constraints, err = parseSelectors(r.constraints); err != nil {
		return spec, err
	}
	if err = editRollouts(f, &spec); err != nil {
		return spec, err
	}
	for _, p := range r.publish {
		port, err := parsePort(p)
		if err != nil {
			return spec, err
		}
		spec.Ports = append(spec.Ports, port)
	}
	for _, v := range r.volumes {
		m, err := parseVolume(v)
		if err != nil {
			return spec, err
		}
		spec.Setup.Mounts = append(spec.Setup.Mounts, m)
	}
	if err := attach(&spec, r.networks, r.aliases); err != nil {
		return spec, err
	}
	return spec, spec.Validate()
}

// attach puts a service on the networks that --network names, in their order, and under
// the aliases on all of them.
func attach(spec *shoal.Spec, networks, aliases []string) error {
	if err := shoal.CheckAliases("--network-alias", aliases); err != nil {
		return err
	}
	for _, name := range networks {
		switch {
		case name == "bridge":
			return usage("--network: bridge is the engine's own; without --network a service is on the network default")
		case name != "host" && name != "none":
		case len(networks) > 1 || len(aliases) > 0:
			return usage("--network: %s excludes other networks, and --network-alias", name)
		default:
			spec.Setup.HostNetwork, spec.Setup.NoNetwork = name == "host", name == "none"
			return nil
		}
		if err := shoal.CheckNetworkName("--network", name); err != nil {
			return err
		}
		spec.Networks = append(spec.Networks, shoal.Attachment{Network: name, Aliases: aliases})
	}
	usual := (&shoal.Spec{}).Attachments()[0].Network
	switch {
	case len(networks) == 0 && len(aliases) > 0:
		spec.Networks = []shoal.Attachment{{Network: usual, Aliases: aliases}}
	case len(networks) == 1 && networks[0] == usual && len(aliases) == 0:
		spec.Networks = nil // it says the same
	}
	return nil
}
