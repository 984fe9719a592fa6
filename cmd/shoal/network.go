// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) networkCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "network", Short: "List networks, and what names mean there", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.networkLsCmd(), a.networkInspectCmd())
	return cmd
}

func (a *app) networkLsCmd() *cobra.Command {
	var l listFlags
	by := facets[api.Network]{"name": func(n api.Network) string { return n.Name }, "project": projects}
	cmd := &cobra.Command{
		Use: "ls [SERVICE...]", Short: "List the networks that services are on", Args: atLeast(0, 0),
		Long: `List the networks, all or those that the named services are on. One is there because a
service names it, in its Compose file or with "shoal run --network", or is on the default
one of its project: nobody makes or removes it. PEERS have ready replicas on it, as far as
the asked peer knows. --selector compares name and project; several projects are joined by
commas.`,
		Example: "  shoal network ls\n  shoal network ls web -o wide\n  shoal network ls -f project=shop -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.list(cmd, &l, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
				all, err := c.Networks(ctx, "")
				if err != nil {
					return api.Freshness{}, err
				}
				items := all.Items
				if len(args) > 0 {
					items = slices.DeleteFunc(slices.Clone(items), func(n api.Network) bool {
						return !slices.ContainsFunc(n.Services, func(s api.NetworkService) bool { return slices.Contains(args, s.Service) })
					})
				}
				labels := func(n api.Network) map[string]string {
					return map[string]string{"name": n.Name, "project": projects(n)}
				}
				if items, err = keep(items, &l, by, labels); err != nil {
					return api.Freshness{}, err
				}
				return all.Freshness, show(a, w, items, networkTable())
			})
		},
	}
	a.addListFlags(cmd, &l, by.keys())
	return cmd
}

func projects(n api.Network) string { return strings.Join(n.Projects, ",") }

func networkTable() table[api.Network] {
	return table[api.Network]{
		name: func(n api.Network) string { return n.Name },
		columns: []column[api.Network]{
			{head: "NAME", cell: func(n api.Network) string { return n.Name }},
			{head: "PROJECT", cell: projects},
			{head: "SERVICES", cell: func(n api.Network) string { return fmt.Sprint(len(n.Services)) }},
			{head: "PEERS", cell: func(n api.Network) string { return fmt.Sprint(len(n.Peers)) }},
			{head: "SERVICE NAMES", wide: true, cell: func(n api.Network) string {
				return joined(n.Services, func(s api.NetworkService) string { return s.Service })
			}},
			{head: "PEER NAMES", wide: true, cell: func(n api.Network) string { return joined(n.Peers, placeName) }},
			{head: "NOTE", some: true, cell: func(n api.Network) string { return strings.Join(clashes(n, n.Services), "; ") }},
		},
	}
}

func joined[T any](in []T, of func(T) string) string {
	out := make([]string, len(in))
	for i, x := range in {
		out[i] = of(x)
	}
	return strings.Join(out, ", ")
}

func placeName(p api.Place) string { return p.Name }

// clashes says which aliases of services stand for another service of the network.
func clashes(n api.Network, of []api.NetworkService) []string {
	var out []string
	for _, s := range of {
		for _, alias := range s.Aliases {
			for _, o := range n.Services {
				if o.Service != s.Service && slices.Contains(o.Names, alias) {
					out = append(out, fmt.Sprintf("%s is %s, not %s", alias, o.Service, s.Service))
				}
			}
		}
	}
	return out
}

func (a *app) networkInspectCmd() *cobra.Command {
	return &cobra.Command{
		Use: "inspect NETWORK...", Short: "Tell all about networks", Args: someArgs(0),
		Long: `Tell all about networks: which services are on them, where, and by which names their
containers know each other. Besides those that are listed there are, for a service web of
project shop: web.shop, tasks.web (an address of each ready replica) and 0.web (the replica
of slot 0). A name goes before an alias; of several services with one alias the first by
name has it, and NOTE tells.`,
		Example: "  shoal network inspect shop_default\n  shoal network inspect shop_back -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			var all []api.Network
			var fresh api.Freshness
			for _, name := range args {
				if err := shoal.CheckNetworkName("network", name); err != nil {
					return err
				}
				one, err := c.Networks(ctx, name)
				if err != nil {
					return err
				}
				all, fresh = append(all, one.Items...), one.Freshness
			}
			if err := inspect(a, all, a.describeNetwork, func(n api.Network) string { return n.Name }); err != nil {
				return err
			}
			a.freshness(fresh)
			return nil
		},
	}
}

func (a *app) describeNetwork(n api.Network) error {
	err := a.fields([][2]string{
		{"Name", n.Name},
		{"Projects", strings.Join(n.Projects, ", ")},
		{"Peers", joined(n.Peers, placeName)},
	})
	if err != nil {
		return err
	}
	return tabulate(a.out, n.Services, []column[api.NetworkService]{
		{head: "SERVICE", cell: func(s api.NetworkService) string { return s.Service }},
		{head: "PROJECT", cell: func(s api.NetworkService) string { return s.Project }},
		{head: "READY", cell: func(s api.NetworkService) string { return fmt.Sprintf("%d/%d", s.Ready, s.Replicas) }},
		{head: "NAMES", cell: func(s api.NetworkService) string { return strings.Join(s.Names, ", ") }},
		{head: "PEERS", cell: func(s api.NetworkService) string { return joined(s.Peers, placeName) }},
		{head: "NOTE", some: true, cell: func(s api.NetworkService) string {
			return strings.Join(clashes(n, []api.NetworkService{s}), "; ")
		}},
	}, a.output == "wide")
}
