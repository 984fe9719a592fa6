// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/driver"
	"github.com/shoalnet/shoal/lab/topology"
)

// table prints rows under a head.
func (a *app) table(rows [][]string) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t")) // Flush says it
	}
	return w.Flush()
}

func (a *app) lsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the labs of this machine", Args: exactly(0),
		Long: `List the labs of this machine, also those whose drivers are gone: "shoal-lab down" removes
what is left of them.`,
		Example: "  shoal-lab ls\n  shoal-lab ls -o json",
		RunE: func(*cobra.Command, []string) error {
			labs, err := lab.List()
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(append([]lab.Info{}, labs...)) // never null
			}
			rows := [][]string{{"NAME", "STATE", "HOSTS", "SINCE", "DIR"}}
			for _, i := range labs {
				state := "no driver"
				if i.IsRunning {
					state = "up"
				}
				since := "-"
				if !i.Since.IsZero() {
					since = i.Since.Format(time.DateTime)
				}
				rows = append(rows, []string{i.Name, state, strconv.Itoa(len(i.Hosts)), since, i.Dir})
			}
			return a.table(rows)
		},
	}
}

func (a *app) psCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ps", Short: "List the hosts of a lab", Args: exactly(0),
		Long:    "List the hosts of a lab and their states: up, frozen, down.",
		Example: "  shoal-lab ps\n  shoal-lab ps -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ps(cmd.Context()) },
	}
}

func (a *app) ps(ctx context.Context) error {
	var hosts []driver.Host
	if err := a.ask(ctx, driver.Hosts, driver.Ask{}, &hosts); err != nil {
		return err
	}
	if a.output == "json" {
		return a.json(hosts)
	}
	rows := [][]string{{"HOST", "STATE", "ADDRESS", "ZONE", "BEHIND", "PID"}}
	for _, h := range hosts {
		name := h.Name
		if h.Router {
			name += " (router)"
		}
		rows = append(rows, []string{name, h.State, h.Addr, cmp.Or(h.Zone, "-"), cmp.Or(h.Behind, "-"), cmp.Or(strconv.Itoa(h.PID), "0")})
	}
	return a.table(rows)
}

func (a *app) statsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "Show what every host has used", Args: exactly(0),
		Long: `Show the memory of every host's processes now, the processor time and the bytes on its
links since the lab began, and the bytes written to its disks since it booted.`,
		Example: "  shoal-lab stats\n  shoal-lab stats -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []driver.Stat
			if err := a.ask(cmd.Context(), driver.Stats, driver.Ask{}, &all); err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(all)
			}
			rows := [][]string{{"HOST", "STATE", "CPU", "MEMORY", "SHOALD", "DOCKERD", "IN", "OUT", "WRITTEN"}}
			for _, s := range all {
				written := int64(0)
				for _, n := range s.Written {
					written += n
				}
				rows = append(rows, []string{
					s.Host, s.State, fmt.Sprintf("%.1fs", s.CPUSeconds), size(s.RSS[driver.Total]), size(s.RSS["shoald"]), size(s.RSS["dockerd"]),
					size(int64(s.BytesIn)), size(int64(s.BytesOut)), size(written),
				})
			}
			return a.table(rows)
		},
	}
}

func size(n int64) string {
	if n == 0 {
		return "-"
	}
	return units.BytesSize(float64(n))
}

func (a *app) linkCmd() *cobra.Command {
	var c topology.Change
	var oneWay, cut, join bool
	cmd := &cobra.Command{
		Use: "link [A B]", Short: "Show the links, or change what is between two hosts",
		Long: `Show what is between every two cards, one way, and what became of what passed. With flags,
change it between two hosts or routers, both ways or one; what no flag names stays as it is.
"shoal-lab heal" makes all links what the topology says.

What is behind a router shares the router's links outside: name the router.`,
		Example: "  shoal-lab link\n  shoal-lab link h1 h2\n  shoal-lab link h1 h2 --delay 75ms --loss 2% --rate 20mbit\n  shoal-lab link h1 h3 --cut --one-way",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return usage("link needs two hosts, or none to show all; see shoal-lab link --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cut && join {
				return usage("--cut and --no-cut are opposites; name one")
			}
			if cut || join {
				c.Cut = &cut
			}
			if c.IsEmpty() {
				if oneWay {
					return usage("--one-way changes nothing by itself; say what is to change")
				}
				return a.showLinks(cmd, args)
			}
			if len(args) == 0 {
				return usage("between whom? link A B changes what is between A and B")
			}
			return a.ask(cmd.Context(), driver.SetLink, driver.Ask{Host: args[0], Other: args[1], Change: c, OneWay: oneWay}, nil)
		},
	}
	linkFlags(cmd.Flags(), &c)
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "from A to B only")
	cmd.Flags().BoolVar(&cut, "cut", false, "nothing passes")
	cmd.Flags().BoolVar(&join, "no-cut", false, "it passes again")
	return cmd
}

func (a *app) showLinks(cmd *cobra.Command, ends []string) error {
	var all []driver.Link
	if err := a.ask(cmd.Context(), driver.Links, driver.Ask{}, &all); err != nil {
		return err
	}
	shown := []driver.Link{}
	for _, l := range all {
		if len(ends) == 0 || l.From == ends[0] && l.To == ends[1] || l.From == ends[1] && l.To == ends[0] {
			shown = append(shown, l)
		}
	}
	if len(ends) > 0 && len(shown) == 0 {
		return usage("there is no link between %s and %s; shoal-lab link lists all", ends[0], ends[1])
	}
	if a.output == "json" {
		return a.json(shown)
	}
	rows := [][]string{{"FROM", "TO", "SEGMENT", "DELAY", "JITTER", "LOSS", "RATE", "PACKETS", "BYTES", "LOST", "CUT", "OVERFLOWED"}}
	for _, l := range shown {
		cut := strconv.FormatUint(l.WhileCut, 10)
		if l.Cut {
			cut = "yes, " + cut
		}
		rate := "-"
		if l.Rate > 0 {
			rate = topology.RateText(l.Rate)
		}
		rows = append(rows, []string{
			l.From, l.To, l.Segment, l.Delay, l.Jitter, fmt.Sprintf("%g%%", 100*l.Loss), rate,
			strconv.FormatUint(l.Packets, 10), size(int64(l.Bytes)), strconv.FormatUint(l.Lost, 10), cut, strconv.FormatUint(l.Overflowed, 10),
		})
	}
	return a.table(rows)
}
