// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/api"
)

// topTime bounds one round without a terminal.
const topTime = 20 * time.Second

type topFlags struct {
	once     bool
	sort     string
	interval duration
}

func (a *app) topCmd() *cobra.Command {
	t := topFlags{sort: "cpu"}
	cmd := &cobra.Command{
		Use: "top [peers|services]", Short: "Show what peers and services use, live", Args: atMost(1),
		Long: `Show what the replicas of every peer and of every service use: processor, memory,
restarts and phases, measured again every two seconds until Ctrl-C. Without a terminal,
or with --once, it measures once. A peer that does not answer is shown with the reason.
100% of CPU and MEM are what a peer has for containers.`,
		Example: "  shoal top\n  shoal top services --sort mem\n  shoal top peers --once -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			what := ""
			if len(args) == 1 {
				what = args[0]
			}
			if what != "" && what != "peers" && what != "services" {
				return usage("top takes peers or services, got %q", what)
			}
			if !slices.Contains([]string{"cpu", "mem", "name"}, t.sort) {
				return usage("--sort: must be cpu, mem or name, got %q", t.sort)
			}
			return a.top(cmd, &t, what)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&t.once, "once", false, "measure once and end")
	f.StringVar(&t.sort, "sort", t.sort, "cpu, mem or name")
	f.Var(&t.interval, "interval", "time between measurements, like 5s; at least 1s")
	return cmd
}

func (a *app) top(cmd *cobra.Command, t *topFlags, what string) error {
	once := t.once || !a.terminal || !a.forPeople()
	limit := time.Duration(0)
	if once {
		limit = topTime
	}
	ctx, c, done, err := a.client(cmd, limit)
	if err != nil {
		return err
	}
	defer done()
	var last api.Freshness
	err = c.Usage(ctx, time.Duration(t.interval), once, func(u api.Usage) error {
		last = u.Freshness
		var page bytes.Buffer
		if err := a.topPage(&page, t, what, u); err != nil {
			return err
		}
		if once {
			_, err := a.out.Write(page.Bytes())
			return err
		}
		a.redraw(page.Bytes(), true)
		a.freshness(u.Freshness)
		return nil
	})
	switch {
	case !once && ended(ctx, err):
		return nil
	case err == nil && once:
		a.freshness(last)
	}
	return err
}

// load is one line of either table.
type load struct {
	Name     string   `json:"name"`
	State    string   `json:"state,omitempty"` // of a peer
	Ready    int      `json:"ready"`
	Replicas int      `json:"replicas"` // held by a peer, or wanted of a service
	CPU      int64    `json:"cpu_milli"`
	Mem      int64    `json:"memory_bytes"`
	AllCPU   int64    `json:"allocatable_cpu_milli,omitempty"` // of a peer, if known
	AllMem   int64    `json:"allocatable_memory_bytes,omitempty"`
	Restarts int      `json:"restarts"`
	Phases   []string `json:"phases"`  // "2 ready"
	Partial  bool     `json:"partial"` // not all of it could be measured
	Trouble  string   `json:"trouble,omitempty"`
}

// add counts one replica in.
func (l *load) add(r *api.UsedReplica, phases map[string]int) {
	phases[r.State]++
	l.Restarts += r.Restarts
	if r.State == "ready" {
		l.Ready++
	}
	if r.CPU < 0 {
		l.Partial = true
		return
	}
	l.CPU, l.Mem = l.CPU+r.CPU, l.Mem+r.Mem
}

func phaseList(phases map[string]int) []string {
	out := []string{}
	for _, p := range slices.Sorted(maps.Keys(phases)) {
		out = append(out, fmt.Sprintf("%d %s", phases[p], p))
	}
	return out
}

func peerLoads(u api.Usage) []load {
	out := []load{}
	for i := range u.Peers {
		p := &u.Peers[i]
		l := load{
			Name: p.Peer.Name, State: p.Peer.State, Replicas: len(p.Replicas), Trouble: p.Trouble,
		}
		if room := p.Peer.Room; room != nil {
			l.AllCPU, l.AllMem = room.CPUMilli, room.Mem
		}
		phases := map[string]int{}
		for j := range p.Replicas {
			l.add(&p.Replicas[j], phases)
		}
		l.Phases = phaseList(phases)
		out = append(out, l)
	}
	return out
}

func serviceLoads(u api.Usage) []load {
	out := []load{}
	for _, s := range u.Services {
		l := load{Name: s.Name, Replicas: s.Replicas}
		phases := map[string]int{}
		for i := range u.Peers {
			for j := range u.Peers[i].Replicas {
				if r := &u.Peers[i].Replicas[j]; r.Service == s.Name {
					l.add(r, phases)
				}
			}
		}
		if s.Unplaced > 0 {
			phases["unplaced"] = s.Unplaced
		}
		l.Phases = phaseList(phases)
		out = append(out, l)
	}
	return out
}

// sortLoads sorts by what --sort says, the largest first, then by name.
func sortLoads(loads []load, by string) {
	slices.SortStableFunc(loads, func(a, b load) int {
		switch by {
		case "cpu":
			return cmp.Or(cmp.Compare(b.CPU, a.CPU), cmp.Compare(a.Name, b.Name))
		case "mem":
			return cmp.Or(cmp.Compare(b.Mem, a.Mem), cmp.Compare(a.Name, b.Name))
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

// topPage writes the tables that are asked for, or one object with both.
func (a *app) topPage(w io.Writer, t *topFlags, what string, u api.Usage) error {
	peers, services := peerLoads(u), serviceLoads(u)
	sortLoads(peers, t.sort)
	sortLoads(services, t.sort)
	switch {
	case what == "peers":
		return show(a, w, peers, loadTable(true))
	case what == "services":
		return show(a, w, services, loadTable(false))
	case !a.forPeople() && a.output != "name":
		return a.encode(w, map[string][]load{"peers": peers, "services": services})
	}
	if err := show(a, w, peers, loadTable(true)); err != nil {
		return err
	}
	if a.forPeople() {
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
	}
	return show(a, w, services, loadTable(false))
}

// loadTable is the table of peers, or of services.
func loadTable(peers bool) table[load] {
	name := column[load]{head: "SERVICE", cell: func(l load) string { return l.Name }}
	columns := []column[load]{name, {head: "READY", cell: func(l load) string { return fmt.Sprintf("%d/%d", l.Ready, l.Replicas) }}}
	if peers {
		columns[0].head = "PEER"
		columns = append(columns[:1], column[load]{head: "STATE", cell: func(l load) string { return l.State }}, columns[1])
	}
	columns = append(columns, column[load]{head: "CPU", cell: func(l load) string { return measured(l, fmt.Sprintf("%.2f", float64(l.CPU)/1000)) }})
	if peers {
		columns = append(columns, column[load]{head: "CPU%", cell: func(l load) string { return measured(l, percent(l.CPU, l.AllCPU)) }})
	}
	columns = append(columns, column[load]{head: "MEM", cell: func(l load) string { return measured(l, size(l.Mem)) }})
	if peers {
		columns = append(columns, column[load]{head: "MEM%", cell: func(l load) string { return measured(l, percent(l.Mem, l.AllMem)) }})
	}
	columns = append(columns,
		column[load]{head: "RESTARTS", cell: func(l load) string { return fmt.Sprint(l.Restarts) }},
		column[load]{head: "PHASES", cell: func(l load) string { return strings.Join(l.Phases, ", ") }},
		column[load]{head: "TROUBLE", some: true, cell: func(l load) string { return l.Trouble }},
	)
	return table[load]{name: func(l load) string { return l.Name }, columns: columns}
}

// measured marks a sum that lacks what could not be measured; of nothing there is none.
func measured(l load, text string) string {
	switch {
	case l.Partial && l.CPU == 0 && l.Mem == 0:
		return "?"
	case text == "": // a share of what is not known
		return ""
	case l.Partial:
		return text + "+"
	}
	return text
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}
