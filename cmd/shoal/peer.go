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
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/api"
)

func (a *app) peerCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "peer", Short: "List, inspect and change the peers", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.peerLsCmd(), a.peerInspectCmd(), a.peerRenameCmd(), a.peerLabelCmd(), a.peerRmCmd())
	cmd.AddCommand(a.markCmds()...)
	return cmd
}

func (a *app) peerLsCmd() *cobra.Command {
	var l listFlags
	var removed bool
	by := facets[api.Peer]{
		"name": func(p api.Peer) string { return p.Name }, "state": func(p api.Peer) string { return p.State },
		"zone": func(p api.Peer) string { return p.Zone }, "role": func(p api.Peer) string { return p.Role },
	}
	cmd := &cobra.Command{
		Use: "ls", Short: "List the peers as the asked one sees them", Args: a.noArgs,
		Long: `List the members of the cluster. * marks the asked peer. SEEN is how long ago it was
last heard, CPU and MEM what is reserved of what containers may use; - while the asked
peer has not learned that yet.`,
		Example: "  shoal peer ls\n  shoal peer ls -l zone=a\n  shoal peer ls -f state=dead -o name",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.list(cmd, &l, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
				all, err := c.Peers(ctx, removed)
				if err != nil {
					return api.Freshness{}, err
				}
				items, err := keep(all.Items, &l, by, peerLabels)
				if err != nil {
					return api.Freshness{}, err
				}
				return all.Freshness, show(a, w, items, a.peerTable())
			})
		},
	}
	a.addListFlags(cmd, &l, by.keys())
	cmd.Flags().BoolVarP(&removed, "all", "a", false, "also those that left or were removed")
	return cmd
}

// peerLabels are a peer's labels with the pseudo-labels of constraints.
func peerLabels(p api.Peer) map[string]string {
	out := maps.Clone(p.Labels)
	if out == nil {
		out = map[string]string{}
	}
	out["peer"], out["peer.id"] = p.Name, p.ID
	if p.Zone != "" {
		out["zone"] = p.Zone
	}
	if len(p.Platforms) > 0 {
		out["platform"] = p.Platforms[0]
	}
	return out
}

func (a *app) peerTable() table[api.Peer] {
	return table[api.Peer]{
		name: func(p api.Peer) string { return p.Name },
		id:   func(p api.Peer) string { return p.ID },
		columns: []column[api.Peer]{
			{head: "NAME", cell: func(p api.Peer) string {
				if p.Self {
					return p.Name + "*"
				}
				return p.Name
			}},
			{head: "STATE", cell: peerStateText},
			{head: "SEEN", cell: seen},
			{head: "RTT", cell: rtt},
			{head: "ZONE", cell: func(p api.Peer) string { return p.Zone }},
			{head: "CPU", cell: func(p api.Peer) string { cpu, _ := roomTexts(p.Room, "/"); return cpu }},
			{head: "MEM", cell: func(p api.Peer) string { _, mem := roomTexts(p.Room, "/"); return mem }},
			{head: "CTRS", cell: func(p api.Peer) string { return fmt.Sprint(p.Replicas) }},
			{head: "ENGINE", cell: func(p api.Peer) string {
				if p.EngineTrouble != "" {
					return "down: " + p.EngineTrouble
				}
				return p.Engine
			}},
			{head: "VERSION", cell: func(p api.Peer) string { return p.Version }},
			{head: "ROLE", wide: true, cell: func(p api.Peer) string { return p.Role }},
			{head: "ID", wide: true, cell: func(p api.Peer) string {
				if a.noTrunc {
					return p.ID
				}
				return p.ID[max(0, len(p.ID)-12):] // the beginning is the same for all
			}},
			{head: "PATH", wide: true, cell: func(p api.Peer) string { return p.Path }},
			{head: "LOSS", wide: true, cell: loss},
			{head: "PUBLISHES", wide: true, cell: func(p api.Peer) string { return p.PublishAddr }},
			{head: "LABELS", wide: true, cell: func(p api.Peer) string { return pairs(p.Labels) }},
		},
	}
}

func peerStateText(p api.Peer) string {
	switch {
	case p.Draining:
		return p.State + ",draining"
	case p.Cordoned:
		return p.State + ",cordoned"
	case p.Trouble != "":
		return p.State + ",in trouble"
	}
	return p.State
}

func seen(p api.Peer) string {
	switch {
	case p.Self:
		return ""
	case p.Seen < 0:
		return "never"
	}
	return ago(p.Seen)
}

func rtt(p api.Peer) string {
	if p.RTT <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1fms", p.RTT*1000)
}

// loss is the share of the last pings that was lost.
func loss(p api.Peer) string {
	if p.Pings == 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", 100*p.PingsLost/p.Pings)
}

// roomTexts say what is reserved of what a peer has; "" while that is not known.
func roomTexts(r *api.Room, of string) (cpu, mem string) {
	if r == nil {
		return "", ""
	}
	return cores(r.CPUMilli-r.CPUFree) + of + cores(r.CPUMilli), size(r.Mem-r.MemFree) + of + size(r.Mem)
}

func cores(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}

// size is a number of bytes for people, binary.
func size(n int64) string {
	for _, u := range []struct {
		unit string
		n    int64
	}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}} {
		if n >= u.n {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.n)), ".0") + u.unit
		}
	}
	return fmt.Sprint(n)
}

func pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

// peerJSON is a peer with what it holds.
type peerJSON struct {
	api.Peer
	Slots    []api.Replica `json:"slots"`
	Images   []string      `json:"images"`
	Refusals []string      `json:"refusals"`
	Marks    []api.Mark    `json:"marks"`
	Edits    []api.Edit    `json:"edits"`
}

func (a *app) peerInspectCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect [PEER...]", Short: "Tell all about peers; none named: the asked one",
		Long:    `Tell all about peers. Name one by its name, its ID, or the end of its ID.`,
		Example: "  shoal peer inspect\n  shoal peer inspect osaka -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			if len(args) == 0 {
				args = []string{""}
			}
			var all []peerJSON
			var fresh api.Freshness
			for _, name := range args {
				d, err := c.Peer(ctx, name)
				if err != nil {
					return err
				}
				all = append(all, peerJSON{d.Peer, d.Rows, d.Images, d.Refusals, d.Marks, d.Edits})
				fresh = d.Freshness
			}
			if err := inspect(a, all, a.describePeer, func(p peerJSON) string { return p.Name }); err != nil {
				return err
			}
			a.freshness(fresh)
			return nil
		},
	}
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten IDs")
	return cmd
}

func (a *app) describePeer(p peerJSON) error {
	cpu, mem := roomTexts(p.Room, " reserved of ")
	err := a.fields([][2]string{
		{"Name", p.Name},
		{"ID", p.ID},
		{"State", peerStateText(p.Peer)},
		{"Marks", marksText(p.Marks)},
		{"Edited", editsText(p.Edits)},
		{"Seen", seen(p.Peer)},
		{"RTT", rtt(p.Peer)},
		{"Path", p.Path},
		{"Loss", loss(p.Peer)},
		{"Role", p.Role},
		{"Labels", pairs(p.Labels)},
		{"CPU", cmp.Or(cpu, "not known yet")},
		{"Memory", cmp.Or(mem, "not known yet")},
		{"Platforms", strings.Join(p.Platforms, ", ")},
		{"Engine", p.Engine},
		{"Engine API", p.EngineAPI},
		{"Trouble", troubleText(p.Peer)},
		{"Version", p.Version},
		{"Addresses", strings.Join(p.Addrs, ", ")},
		{"Publishes on", p.PublishAddr},
		{"Allows", strings.Join(p.Allows, ", ")},
		{"Images", strings.Join(p.Images, ", ")},
		{"Refuses", strings.Join(p.Refusals, "; ")},
	})
	if err != nil || len(p.Slots) == 0 {
		return err
	}
	return tabulate(a.out, p.Slots, a.replicaTable().columns, false)
}

// troubleText says what is wrong with a peer's engine, and why it takes no new slots.
func troubleText(p api.Peer) string {
	var out []string
	if p.EngineTrouble != "" {
		out = append(out, p.EngineTrouble)
	}
	if p.Trouble != "" {
		out = append(out, "takes no new slots: "+p.Trouble)
	}
	return strings.Join(out, "; ")
}

// marksText says who laid which mark.
func marksText(marks []api.Mark) string {
	var out []string
	for _, m := range marks {
		what := "cordon"
		if m.Drain {
			what = "drain"
		}
		out = append(out, what+" by "+m.By.Name)
	}
	return strings.Join(out, ", ")
}

// editsText says what operators changed, and what the peer itself says.
func editsText(edits []api.Edit) string {
	var out []string
	for _, e := range edits {
		what := "name " + e.Value
		switch {
		case e.Gone:
			what = e.Label + "-"
		case e.Label != "":
			what = e.Label + "=" + e.Value
		}
		out = append(out, fmt.Sprintf("%s by %s (itself: %s)", what, e.By.Name, cmp.Or(e.Own, "none")))
	}
	return strings.Join(out, ", ")
}
