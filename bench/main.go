// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures Shoal on this machine and prints one table: what a wish
// costs, when all peers see it, what a deploy takes beside the same starts and stops
// made straight on the engine, what a listing and an idle daemon take, what requests over
// published ports take beside HAProxy, and what etcd takes for its durable writes. "make bench" builds and runs it; docs/bench.md says how
// to read it. It is a module of its own, so that etcd is none of Shoal's dependencies.
//
// It refuses to compare with other machines or days: every ratio is of one run. It
// leaves no process, container, image or file behind, also when it is interrupted.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoalnet/shoal/bench/figures"
	"github.com/shoalnet/shoal/runtime"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil && interrupted:
		fmt.Fprintln(os.Stderr, "interrupted:", err)
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// effort is how much is done for each figure.
type effort struct {
	name    string
	writing time.Duration // offered writes, for each number of peers
	shares  int           // deploys to take our own share of
	rounds  int           // of deploy, scale, scale, remove
	large   []int         // replicas of one large deploy each
	idle    time.Duration
	lists   int   // calls of ListReplicas
	shows   int   // runs of "shoal ps"
	etcd    []int // members
	moved   int64 // bytes of the layer that is moved
	swarmed []swarmSize
	reach   reachTime
}

var efforts = []effort{
	{
		name: "quick", writing: 15 * time.Second, shares: 100, rounds: 3, large: []int{50}, idle: 30 * time.Second,
		lists: 200, shows: 30, etcd: []int{1, 3},
		moved: 256 << 20, swarmed: []swarmSize{{"256 MiB", 256 << 20}},
		reach: reachTime{rounds: 3, each: time.Second},
	},
	{
		name: "full", writing: time.Minute, shares: 1000, rounds: 10, large: []int{50, 100}, idle: 2 * time.Minute,
		lists: 1000, shows: 100, etcd: []int{1, 3, 5},
		moved: 1 << 30, swarmed: []swarmSize{{"256 MiB", 256 << 20}, {"1 GiB", 1 << 30}},
		reach: reachTime{rounds: 5, each: 2 * time.Second},
	},
}

// bench is one run.
type bench struct {
	effort
	dir     string // of everything it writes; removed at the end
	sockets string // directory; their paths must be short
	docker  string // the engine's address
	engine  *engine
	daemons *daemons // nil before the first measurement that needs them
	table   figures.Table
}

// group is a part of the run that can be asked for by name.
type group struct {
	name   string
	engine bool // needs a container engine
	note   string
	run    func(*bench, context.Context) error
}

var groups = []group{
	{"write", false, noteWrite, (*bench).writes},
	{"etcd", false, noteEtcd, (*bench).etcds},
	{"share", false, noteShare, (*bench).share},
	{"ps", false, notePs, (*bench).listings},
	{"idle", true, noteIdle, (*bench).idling},
	{"deploy", true, noteDeploy, (*bench).deploys},
	{"images", true, noteImages, (*bench).moving},
	{"swarm", false, noteSwarm, (*bench).swarms},
	{"reach", false, noteReach, (*bench).reaching},
}

func run(ctx context.Context, args []string) (err error) {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	format := flags.String("o", figures.Text, "format: "+figures.Text+", "+figures.Markdown+" or "+figures.JSON)
	only := flags.String("only", strings.Join(names, ","), "what to measure")
	docker := flags.String("docker", cmp.Or(os.Getenv("DOCKER_HOST"), runtime.DefaultHost), "the engine's address (DOCKER_HOST)")
	dir := flags.String("dir", ".bench", "directory for the stores, on a real disk; removed at the end")
	flags.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: bench [flags] quick|full")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &bench{docker: *docker}
	i := slices.IndexFunc(efforts, func(e effort) bool { return e.name == flags.Arg(0) })
	if i < 0 || flags.NArg() != 1 {
		return fmt.Errorf("usage: bench [flags] quick|full, got %q", flags.Args())
	}
	b.effort = efforts[i]
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if err := (&figures.Table{}).Write(discard{}, *format); err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	if err := b.measure(ctx, chosen); err != nil {
		return err
	}
	return b.table.Write(os.Stdout, *format)
}

// discard is where a format is tried.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func choose(only string) ([]group, error) {
	var out []group
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: there is no %q", name)
		}
		out = append(out, groups[i])
	}
	return out, nil
}

// measure takes the groups one after the other: this machine has other things to do
// than to run two of them at once.
func (b *bench) measure(ctx context.Context, chosen []group) (err error) {
	unlock, err := b.claim(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	version := ""
	if slices.ContainsFunc(chosen, func(g group) bool { return g.engine }) {
		if b.engine, err = openEngine(ctx, b.docker); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.engine.close(ctx)) }()
		version = b.engine.version
	}
	defer func() {
		if b.daemons != nil {
			err = errors.Join(err, b.daemons.stop(ctx))
		}
	}()
	b.table = figures.Table{Run: b.name, Machine: figures.ThisMachine(b.dir, version), Notes: map[string]string{}}
	for _, g := range chosen {
		from := time.Now()
		fmt.Fprintf(os.Stderr, "bench: %s ... ", g.name)
		if err := g.run(b, ctx); err != nil {
			fmt.Fprintln(os.Stderr)
			return fmt.Errorf("measure %s: %w", g.name, err)
		}
		fmt.Fprintf(os.Stderr, "%.0f s\n", time.Since(from).Seconds())
		b.table.Notes[g.name] = g.note
	}
	return nil
}

func (b *bench) add(rows ...figures.Row) { b.table.Rows = append(b.table.Rows, rows...) }
