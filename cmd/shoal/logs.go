// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

type logFlags struct {
	follow, stamps     bool
	tail, since, until string
	peer               string
}

func (a *app) logsCmd() *cobra.Command {
	var l logFlags
	cmd := &cobra.Command{
		Use: "logs SERVICE[/SLOT]", Short: "Show what replicas print, from all peers in one stream", Args: someArgs(1),
		Long: `Show the output of a service's replicas, wherever they run, merged by time. Each line
begins with its slot. If a holder cannot be asked its lines are missing: a warning
names it, and the exit code is 4. With -o json each line is an object on a line of its
own, with -o yaml a document.`,
		Example: "  shoal logs web\n  shoal logs -f -n 20 web/2\n  shoal logs --since 10m --peer osaka web\n  shoal logs web -o json | jq .text",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.logs(cmd, &l, args[0]) },
	}
	f := cmd.Flags()
	f.BoolVarP(&l.follow, "follow", "f", false, "go on until interrupted or --timeout")
	f.StringVarP(&l.tail, "tail", "n", "all", "only the last lines of each replica")
	f.StringVar(&l.since, "since", "", "only after this time, or so long ago: 10m, 2026-01-02T15:04:05Z")
	f.StringVar(&l.until, "until", "", "only before this time, or so long ago")
	f.StringVar(&l.peer, "peer", "", "only from this holder")
	f.BoolVarP(&l.stamps, "timestamps", "t", false, "show the time of each line")
	return cmd
}

func (a *app) logs(cmd *cobra.Command, l *logFlags, target string) error {
	q, err := a.logRequest(l, target)
	if err = cmp.Or(err, a.unnamed("a line")); err != nil {
		return err
	}
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	if a.local {
		if q.Peer != "" {
			return usage("--local and --peer exclude each other")
		}
		if q.Peer, err = a.self(ctx, c); err != nil {
			return err
		}
	}
	partial := false
	err = c.Logs(ctx, q, func(line api.LogLine) error { return a.logLine(line, l.stamps) }, func(peer, why string) {
		partial = true
		a.say("warning: %s: %s; its lines are missing", clean(peer), clean(why))
	})
	if l.follow && ended(ctx, err) {
		err = nil
	}
	if err == nil && partial {
		return silent(exitTimeout)
	}
	return err
}

// ended reports whether a followed stream ended as following ends: by the user, or by
// --timeout, which the daemon may notice first.
func ended(ctx context.Context, err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return err != nil && (ctx.Err() != nil || ok && (e.Code == api.CodeTimeout || e.Code == api.CodeCanceled))
}

func (a *app) logRequest(l *logFlags, target string) (api.LogRequest, error) {
	service, slot, err := parseTarget(target)
	if err != nil {
		return api.LogRequest{}, err
	}
	q := api.LogRequest{Peer: l.peer, LogQuery: shoal.LogQuery{Service: service, Slot: slot, LogOptions: shoal.LogOptions{Follow: l.follow, Tail: -1}}}
	if l.tail != "all" {
		if q.Tail, err = strconv.Atoi(l.tail); err != nil || q.Tail < 0 || q.Tail > 1_000_000 {
			return q, usage("--tail: must be all or 0–1000000, got %s", orNothing(l.tail))
		}
	}
	now := a.now()
	if q.Since, err = parseMoment(l.since, now); err != nil {
		return q, usage("--since: %w", err)
	}
	if q.Until, err = parseMoment(l.until, now); err != nil {
		return q, usage("--until: %w", err)
	}
	if l.follow && l.until != "" {
		return q, usage("--until and --follow exclude each other")
	}
	return q, nil
}

// palette are the colours of slots on a terminal.
var palette = []int{36, 33, 32, 35, 34, 96, 93, 92, 95, 94}

func (a *app) logLine(l api.LogLine, stamps bool) error {
	if !a.forPeople() {
		return a.streamed(l)
	}
	prefix := fmt.Sprintf("%s/%d |", l.Service, l.Slot)
	if a.colors() {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", palette[l.Slot%len(palette)], prefix)
	}
	if stamps {
		prefix += " " + l.Time.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	_, err := fmt.Fprintf(a.out, "%s %s\n", prefix, l.Text)
	return err
}

func (a *app) eventsCmd() *cobra.Command {
	var follow bool
	var since, until string
	var tail int
	var filters []string
	by := facets[api.Event]{
		"kind": func(e api.Event) string { return e.Kind }, "service": func(e api.Event) string { return e.Service },
		"peer": func(e api.Event) string { return e.PeerName },
	}
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened, as the asked peer saw it", Args: a.noArgs,
		Long: `Show what changed in the cluster, in the order the asked peer saw it and by its clock:
services, claims, replicas, peers, images; of a rollout how it began, each wave, what
failed first, what holds it, that it was paused, promoted, went back or is over; and what
the asked peer holds to be at fault. It remembers the last 2000 events since its start.
With -o json each event is an object on a line of its own, with -o yaml a document.`,
		Example: "  shoal events\n  shoal events -f --filter service=web\n  shoal events --since 10m --filter kind=rollout\n  shoal events -n 20 --filter kind=peer -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseMoment(since, a.now())
			if err != nil {
				return usage("--since: %w", err)
			}
			to, err := parseMoment(until, a.now())
			if err != nil {
				return usage("--until: %w", err)
			}
			if follow && until != "" {
				return usage("--until and --follow exclude each other")
			}
			want := &listFlags{filters: filters}
			if _, err := keep(nil, want, by, nil); err != nil {
				return err
			}
			if err := a.unnamed("an event"); err != nil {
				return err
			}
			ctx, c, done, err := a.client(cmd, 0)
			if err != nil {
				return err
			}
			defer done()
			var all []api.Event
			err = c.Events(ctx, -1, from, follow, func(e api.Event) error {
				if !to.IsZero() && e.Time.After(to) {
					return nil
				}
				if hit, err := keep([]api.Event{e}, want, by, nil); err != nil || len(hit) == 0 {
					return err
				}
				if follow {
					return a.event(e)
				}
				all = append(all, e)
				return nil
			})
			if err != nil && (!follow || !ended(ctx, err)) {
				return err
			}
			if tail >= 0 && len(all) > tail {
				all = all[len(all)-tail:]
			}
			for _, e := range all {
				if err := a.event(e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until interrupted or --timeout")
	f.StringVar(&since, "since", "", "only after this time, or so long ago")
	f.StringVar(&until, "until", "", "only before this time, or so long ago")
	f.IntVarP(&tail, "tail", "n", -1, "only the last ones (not with --follow)")
	f.StringArrayVar(&filters, "filter", nil, "only where KEY=VALUE: "+strings.Join(by.keys(), ", "))
	return cmd
}

func (a *app) event(e api.Event) error {
	if !a.forPeople() {
		return a.streamed(e)
	}
	about := e.PeerName
	if e.Service != "" {
		about = e.Service
		if e.Slot >= 0 {
			about = fmt.Sprintf("%s/%d", e.Service, e.Slot)
		}
	}
	_, err := fmt.Fprintf(a.out, "%s  %-7s  %s  %s\n", e.Time.UTC().Format(time.RFC3339), e.Kind, clean(about), clean(e.Text))
	return err
}

// versionJSON is what both ends are.
type versionJSON struct {
	Client string      `json:"client"`
	Server *api.Status `json:"server,omitempty"`
}

func (a *app) versionCmd() *cobra.Command {
	var only bool
	cmd := &cobra.Command{
		Use: "version", Short: "Show the versions of the command and the daemon", Args: a.noArgs,
		Long:    `Show the version of this command and where the daemon stands.`,
		Example: "  shoal version\n  shoal version --client",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.unnamed("a version"); err != nil {
				return err
			}
			v := versionJSON{Client: version}
			var asked error
			if !only {
				v.Server, asked = a.status(cmd)
			}
			if err := a.showVersion(v); err != nil {
				return errors.Join(err, asked)
			}
			return asked
		},
	}
	cmd.Flags().BoolVar(&only, "client", false, "do not ask the daemon")
	return cmd
}

func (a *app) status(cmd *cobra.Command) (*api.Status, error) {
	ctx, c, done, err := a.client(cmd, unaryTime)
	if err != nil {
		return nil, err
	}
	defer done()
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &st, nil
}

func (a *app) showVersion(v versionJSON) error {
	if !a.forPeople() {
		return a.encode(a.out, v)
	}
	fields := [][2]string{{"shoal", v.Client}}
	if s := v.Server; s != nil {
		fields = append(fields, [][2]string{
			{"shoald", s.Version},
			{"API", s.API},
			{"Peer", s.Self},
			{"Cluster", orNone(s.Cluster)},
			{"Role", s.Role},
			{"Listens on", strings.Join(s.Listen, ", ")},
			{"Trouble", s.Trouble},
		}...)
	}
	return a.fields(fields)
}

func orNone(cluster string) string {
	if cluster == "" {
		return `none yet: run "shoal init" or "shoal join TOKEN"`
	}
	return cluster
}
