// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/api"
)

func (a *app) portsCmd() *cobra.Command {
	var l listFlags
	by := facets[api.PublishedPort]{
		"service": func(p api.PublishedPort) string { return p.Service }, "protocol": func(p api.PublishedPort) string { return p.Protocol },
		"port": func(p api.PublishedPort) string { return fmt.Sprint(p.Port) },
	}
	cmd := &cobra.Command{
		Use: "ports [SERVICE...]", Short: "List the ports that answer on every peer", Args: atLeast(0, 0),
		Long: `List the published ports, as the asked peer serves them: where it listens, how many replicas
it may give a connection now, and what it carried since it started. A connection goes to a
ready replica, here or on another peer. Ports of mode host are not listed: "shoal ps" has them.
--selector compares service and protocol.`,
		Example: "  shoal ports\n  shoal ports web -o wide\n  shoal ports -f protocol=udp -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.list(cmd, &l, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
				all, err := c.Ports(ctx)
				if err != nil {
					return api.Freshness{}, err
				}
				items := all.Items
				if len(args) > 0 {
					items = slices.DeleteFunc(slices.Clone(items), func(p api.PublishedPort) bool { return !slices.Contains(args, p.Service) })
				}
				labels := func(p api.PublishedPort) map[string]string {
					return map[string]string{"service": p.Service, "protocol": p.Protocol}
				}
				if items, err = keep(items, &l, by, labels); err != nil {
					return api.Freshness{}, err
				}
				return all.Freshness, show(a, w, items, portTable())
			})
		},
	}
	a.addListFlags(cmd, &l, by.keys())
	return cmd
}

func portTable() table[api.PublishedPort] {
	return table[api.PublishedPort]{
		name: func(p api.PublishedPort) string { return fmt.Sprintf("%d/%s", p.Port, p.Protocol) },
		columns: []column[api.PublishedPort]{
			{head: "PORT", cell: func(p api.PublishedPort) string { return fmt.Sprintf("%d/%s", p.Port, p.Protocol) }},
			{head: "SERVICE", cell: func(p api.PublishedPort) string { return fmt.Sprintf("%s:%d", p.Service, p.Target) }},
			{head: "LISTENS", cell: func(p api.PublishedPort) string { return cmp.Or(p.Address, "no") }},
			{head: "USABLE", cell: func(p api.PublishedPort) string { return fmt.Sprint(p.Usable) }},
			{head: "OPEN", cell: func(p api.PublishedPort) string { return fmt.Sprint(p.Open) }},
			{head: "CONNECTIONS", cell: func(p api.PublishedPort) string { return fmt.Sprint(p.Total) }},
			{head: "REFUSED", cell: func(p api.PublishedPort) string { return fmt.Sprint(total(p.Refused)) }},
			{head: "IN", wide: true, cell: func(p api.PublishedPort) string { return size(int64(p.In)) }},
			{head: "OUT", wide: true, cell: func(p api.PublishedPort) string { return size(int64(p.Out)) }},
			{head: "NOTE", cell: portNote},
		},
	}
}

func total(counts map[string]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// portNote says what is wrong with a port, and why connections were refused.
func portNote(p api.PublishedPort) string {
	var out []string
	if p.Trouble != "" {
		out = append(out, p.Trouble)
	}
	if len(p.Losers) > 0 {
		out = append(out, "wanted by "+strings.Join(p.Losers, ", ")+", too")
	}
	for _, why := range slices.Sorted(maps.Keys(p.Refused)) {
		out = append(out, fmt.Sprintf("%d refused: %s", p.Refused[why], why))
	}
	return strings.Join(out, "; ")
}

// explainReach shows how the asked peer sees each replica when it chooses.
func (a *app) explainReach(ctx context.Context, c *api.Client, service string, slot int) error {
	all, err := c.Reach(ctx, service)
	if err != nil {
		return err
	}
	items := all.Items
	if slot >= 0 {
		items = slices.DeleteFunc(slices.Clone(items), func(r api.ReachedReplica) bool { return r.Slot != slot })
	}
	if err := show(a, a.out, items, reachTable()); err != nil {
		return err
	}
	a.freshness(all.Freshness)
	return nil
}

func reachTable() table[api.ReachedReplica] {
	took := func(seconds float64) string {
		if seconds <= 0 {
			return "-"
		}
		return time.Duration(seconds * float64(time.Second)).Round(10 * time.Microsecond).String()
	}
	name := func(r api.ReachedReplica) string { return fmt.Sprintf("%s/%d", r.Service, r.Slot) }
	return table[api.ReachedReplica]{
		name: name,
		columns: []column[api.ReachedReplica]{
			{head: "SLOT", cell: name},
			{head: "PEER", cell: func(r api.ReachedReplica) string { return r.Holder.Name }},
			{head: "USABLE", cell: func(r api.ReachedReplica) string { return yesNo(r.Usable) }},
			{head: "PATH", cell: func(r api.ReachedReplica) string { return r.Path }},
			{head: "WEIGHT", cell: func(r api.ReachedReplica) string { return fmt.Sprint(r.Weight) }},
			{head: "OPEN", cell: func(r api.ReachedReplica) string { return fmt.Sprint(r.Open) }},
			{head: "CONNECT", cell: func(r api.ReachedReplica) string { return took(r.Connect) }},
			{head: "FIRST BYTE", cell: func(r api.ReachedReplica) string { return took(r.FirstByte) }},
			{head: "WHY", cell: func(r api.ReachedReplica) string { return r.Why }},
		},
	}
}
