// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// unaryTime bounds one question.
const unaryTime = 15 * time.Second

// listFlags are those of commands that list.
type listFlags struct {
	filters   []string
	selectors []string
	watch     bool
}

func (a *app) addListFlags(cmd *cobra.Command, l *listFlags, keys []string) {
	f := cmd.Flags()
	f.BoolVarP(&a.quiet, "quiet", "q", false, "only names or IDs")
	f.BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten IDs")
	f.StringArrayVarP(&l.filters, "filter", "f", nil, "only where KEY=VALUE: "+strings.Join(keys, ", "))
	f.StringArrayVarP(&l.selectors, "selector", "l", nil, "only labels that match: k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', k, !k")
	f.BoolVarP(&l.watch, "watch", "w", false, "show again at every change, until interrupted or --timeout")
}

// facets are the values that --filter compares, by key.
type facets[T any] map[string]func(T) string

func (f facets[T]) keys() []string {
	var out []string
	for k := range f {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// keep applies --filter and --selector.
func keep[T any](items []T, l *listFlags, by facets[T], labels func(T) map[string]string) ([]T, error) {
	sels, err := parseSelectors(l.selectors)
	if err != nil {
		return nil, err
	}
	out := items
	for _, f := range l.filters {
		k, v, ok := strings.Cut(f, "=")
		of, known := by[k]
		if !ok || !known {
			return nil, usage("--filter: %q is not KEY=VALUE with KEY one of %s", f, strings.Join(by.keys(), ", "))
		}
		out = slices.DeleteFunc(slices.Clone(out), func(it T) bool { return of(it) != v })
	}
	for _, sel := range sels {
		out = slices.DeleteFunc(slices.Clone(out), func(it T) bool {
			v, ok := labels(it)[sel.Key]
			return !sel.Matches(v, ok)
		})
	}
	return out, nil
}

// list runs one listing, once or again and again. look writes it and returns how
// fresh it is.
func (a *app) list(cmd *cobra.Command, l *listFlags, look func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error)) error {
	if !l.watch {
		ctx, c, done, err := a.client(cmd, unaryTime)
		if err != nil {
			return err
		}
		defer done()
		fresh, err := look(ctx, c, a.out)
		if err == nil {
			a.freshness(fresh)
		}
		return err
	}
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last []byte
	for {
		var now bytes.Buffer
		fresh, err := look(ctx, c, &now)
		if ended(ctx, err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(last, now.Bytes()) {
			a.redraw(now.Bytes(), last != nil)
			a.freshness(fresh)
			last = now.Bytes()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *app) redraw(page []byte, again bool) {
	switch {
	case a.terminal:
		_, _ = io.WriteString(a.out, "\x1b[H\x1b[2J") // home, clear
	case again:
		_, _ = io.WriteString(a.out, "\n")
	}
	_, _ = a.out.Write(page) // a reader that is gone ends us by SIGPIPE
}

func (a *app) lsCmd() *cobra.Command {
	var l listFlags
	by := facets[api.Service]{
		"name": func(s api.Service) string { return s.Name }, "mode": func(s api.Service) string { return s.Mode },
		"image": func(s api.Service) string { return s.Image }, "project": func(s api.Service) string { return s.Project },
	}
	cmd := &cobra.Command{
		Use: "ls", Short: "List the services", Args: a.noArgs,
		Long: `List all services: how many replicas are ready of how many wanted, what they run,
and which ports they publish.`,
		Example: "  shoal ls\n  shoal ls -f project=shop\n  shoal ls -l 'tier in (front,back)' -o json\n  shoal ls -w",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.list(cmd, &l, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
				all, err := c.Services(ctx)
				if err != nil {
					return api.Freshness{}, err
				}
				items, err := keep(all.Items, &l, by, func(s api.Service) map[string]string { return s.Labels })
				if err != nil {
					return api.Freshness{}, err
				}
				return all.Freshness, show(a, w, items, a.serviceTable())
			})
		},
	}
	a.addListFlags(cmd, &l, by.keys())
	return cmd
}

func (a *app) serviceTable() table[api.Service] {
	return table[api.Service]{
		name: func(s api.Service) string { return s.Name },
		columns: []column[api.Service]{
			{head: "NAME", cell: func(s api.Service) string { return s.Name }},
			{head: "MODE", cell: func(s api.Service) string { return s.Mode }},
			{head: "REPLICAS", cell: readiness},
			{head: "IMAGE", cell: func(s api.Service) string { return s.Image }},
			{head: "PORTS", cell: func(s api.Service) string { return ports(s.Ports) }},
			{head: "PROJECT", cell: func(s api.Service) string { return s.Project }},
			{head: "REVISION", wide: true, cell: func(s api.Service) string { return a.revision(s.Revision) }},
			{head: "UNPLACED", wide: true, cell: func(s api.Service) string { return fmt.Sprint(s.Unplaced) }},
			{head: "CONFLICTS", wide: true, cell: func(s api.Service) string { return fmt.Sprint(s.Conflicts) }},
		},
	}
}

// readiness is "2/3", with the bounds of one that is autoscaled; it says so of a service that
// is stopped.
func readiness(s api.Service) string {
	if s.Job != nil && !s.Stopped {
		return jobProgress(s)
	}
	text := fmt.Sprintf("%d/%d", s.Ready, s.Replicas)
	if s.Autoscale != nil {
		text += fmt.Sprintf(" (%d-%d)", s.Autoscale.Min, s.Autoscale.Max)
	}
	if s.Stopped {
		text += " stopped"
	}
	return text
}

func (a *app) psCmd() *cobra.Command {
	var l listFlags
	by := facets[api.Replica]{
		"service": func(r api.Replica) string { return r.Service }, "peer": func(r api.Replica) string { return r.PeerName },
		"state": func(r api.Replica) string { return r.State }, "health": func(r api.Replica) string { return r.Health },
		"image": func(r api.Replica) string { return r.Image },
	}
	cmd := &cobra.Command{
		Use: "ps [SERVICE...]", Short: "List the replicas, and the slots without any",
		Long: `List what runs where: one line for each replica, as SERVICE/SLOT, and one with the
reason for each slot that nobody holds. --selector compares the service's labels.`,
		Example: "  shoal ps\n  shoal ps web -o wide\n  shoal ps -f peer=osaka -f state=ready\n  shoal ps -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.list(cmd, &l, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
				all, err := c.Replicas(ctx, args...)
				if err != nil {
					return api.Freshness{}, err
				}
				labels := map[string]map[string]string{}
				if len(l.selectors) > 0 {
					services, err := c.Services(ctx)
					if err != nil {
						return api.Freshness{}, err
					}
					for _, s := range services.Items {
						labels[s.Name] = s.Labels
					}
				}
				items, err := keep(all.Items, &l, by, func(r api.Replica) map[string]string { return labels[r.Service] })
				if err != nil {
					return api.Freshness{}, err
				}
				return all.Freshness, show(a, w, items, a.replicaTable())
			})
		},
	}
	a.addListFlags(cmd, &l, by.keys())
	return cmd
}

func (a *app) replicaTable() table[api.Replica] {
	return table[api.Replica]{
		name: slotName,
		id:   func(r api.Replica) string { return a.short(r.ID) },
		columns: []column[api.Replica]{
			{head: "SLOT", cell: slotName},
			{head: "PEER", cell: func(r api.Replica) string { return r.PeerName }},
			{head: "STATE", cell: func(r api.Replica) string { return r.State }},
			{head: "HEALTH", cell: func(r api.Replica) string { return r.Health }},
			{head: "AGE", cell: func(r api.Replica) string { return a.since(r.Started) }},
			{head: "RESTARTS", cell: func(r api.Replica) string { return fmt.Sprint(r.Restarts) }},
			{head: "PORTS", cell: func(r api.Replica) string { return ports(r.Ports) }},
			{head: "IMAGE", cell: a.imageText},
			{head: "DIGEST", wide: true, cell: func(r api.Replica) string { return a.short(r.Digest) }},
			{head: "REPLICA", wide: true, cell: func(r api.Replica) string { return a.short(r.ID) }},
			{head: "REVISION", wide: true, cell: func(r api.Replica) string { return a.revision(r.Revision) }},
			{head: "REASON", some: true, cell: func(r api.Replica) string { return r.Reason }},
		},
	}
}

// imageText is what a replica runs: of an older revision only the digest is known.
func (a *app) imageText(r api.Replica) string {
	if strings.HasPrefix(r.Image, "sha256:") {
		return a.short(r.Image)
	}
	return r.Image
}

func slotName(r api.Replica) string { return fmt.Sprintf("%s/%d", r.Service, r.Slot) }

func (a *app) since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(a.now().Sub(t))
}

// revision shortens "SEQ@PEER" to the sequence and the end of the peer.
func (a *app) revision(r string) string {
	rev, err := shoal.ParseRevisionID(r)
	if err != nil || a.noTrunc {
		return r
	}
	return fmt.Sprintf("%d@%s", rev.Seq, rev.Author.Short())
}

func ports(in []api.Port) string {
	out := make([]string, len(in))
	for i, p := range in {
		out[i] = fmt.Sprintf("%d/%s", p.Container, p.Protocol)
		if p.HostPort != 0 {
			out[i] = fmt.Sprintf("%d->%s", p.HostPort, out[i])
		}
		if p.HostIP != "" {
			out[i] = p.HostIP + ":" + out[i]
		}
		if p.Host {
			out[i] += " (host)"
		}
	}
	return strings.Join(out, ", ")
}

// noArgs refuses arguments in our words.
func (*app) noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no argument, got %q", strings.TrimPrefix(cmd.CommandPath(), "shoal "), args[0])
	}
	return nil
}

// someArgs refuses no arguments and more than most of them; 0: any number.
func someArgs(most int) cobra.PositionalArgs { return atLeast(1, most) }

// atLeast refuses fewer than least arguments and more than most of them; 0: any number.
func atLeast(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		path := strings.TrimPrefix(cmd.CommandPath(), "shoal ")
		switch {
		case len(args) < least:
			return usage("%s needs %s", path, strings.TrimPrefix(strings.TrimPrefix(cmd.Use, cmd.Name()+" "), "[flags] "))
		case most > 0 && len(args) > most:
			return usage("%s takes %s, got %d", path, count(most, "argument"), len(args))
		}
		return nil
	}
}
