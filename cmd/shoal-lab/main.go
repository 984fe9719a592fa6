// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command shoal-lab makes several hosts on one Linux machine, each with its own Docker
// engine and shoald, with distance and faults between them: a testbed (package lab).
//
// Data goes to stdout, progress to stderr; the exit code is 0 ok, 1 error, 2 usage; exec,
// shoal and docker end with the code of what they run. It decides nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/driver"
	"github.com/shoalnet/shoal/lab/host"
)

// version is set when linked.
var version = "dev"

// The commands that this one runs as: a host's first process, and a lab's driver.
const (
	initCommand  = "host-init"
	driveCommand = "drive"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == initCommand { // it is a host's first process, and no command line
		if err := host.Init(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if len(os.Args) < 2 || os.Args[1] != driveCommand { // a driver cleans up, however often it is told to end
		context.AfterFunc(ctx, stop) // the second signal ends who does not end by the first
	}
	code := (&app{out: os.Stdout, err: os.Stderr}).run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is one run of the command: where it writes, and the global flags.
type app struct {
	out, err io.Writer
	name     string // --name
	output   string // --output
}

const (
	exitError = 1
	exitUsage = 2
)

// usageError is an error in what was typed.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root() //nolint:contextcheck // each command gets it from cobra
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	_, _ = fmt.Fprintf(a.err, "error: %s\n", strings.ReplaceAll(err.Error(), "\n", "; ")) // there is nowhere to complain
	var isUsage usageError
	var refused *driver.Error
	switch {
	case errors.As(err, &isUsage), errors.As(err, &refused) && (refused.Kind == driver.KindUnknown || refused.Kind == driver.KindUsage):
		return exitUsage
	}
	return exitError
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "shoal-lab", Short: "Several hosts on this machine, with distance and faults between them",
		Long: `shoal-lab makes several hosts on this machine, each with a Docker engine, a shoald, disks
and addresses of its own, joined as one cluster. Between them there is what distance, loss,
bandwidth and cuts you say; hosts lose power, freeze, fill up, and their clocks go wrong.

It needs root and Linux, and touches nothing but its own: namespaces, control groups, the
directories /var/lib/shoal-lab and /run/shoal-lab. "shoal-lab down" removes all of it.
docs/lab.md goes through it.`,
		Example: "  sudo shoal-lab up 3-regions\n  sudo shoal-lab shoal h1 peer ls\n  sudo shoal-lab split \"h1 h2 | h3 h4 h5 h6\"\n  sudo shoal-lab down",
		Version: version, SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("unknown command %q; see shoal-lab --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	name := os.Getenv("SHOAL_LAB")
	if name == "" {
		name = "default"
	}
	root.PersistentFlags().StringVar(&a.name, "name", name, "the lab, of several side by side (SHOAL_LAB)")
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "table or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "table" && a.output != "json" {
			return usage("--output must be table or json, got %q", a.output)
		}
		if err := (&lab.Info{Name: a.name}).CheckName(); err != nil {
			return usageError{err}
		}
		return nil
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(
		a.upCmd(), a.downCmd(), a.lsCmd(), a.psCmd(), a.statsCmd(), a.topologyCmd(),
		a.execCmd(), a.shoalCmd(), a.dockerCmd(), a.logsCmd(),
		a.linkCmd(), a.splitCmd(), a.healCmd(), a.killCmd(), a.bootCmd(), a.freezeCmd(), a.thawCmd(),
		a.processCmd("engine", driver.Engine, "Docker engine"), a.processCmd("daemon", driver.Daemon, "shoald"),
		a.fillDiskCmd(), a.clockCmd(), a.loadImageCmd(), a.driveCmd(),
	)
	a.completions(root)
	return root
}

// driveCmd is what "up" starts.
func (a *app) driveCmd() *cobra.Command {
	return &cobra.Command{
		Use: driveCommand, Hidden: true, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGPIPE) // who started it may be gone: then there is a lab to remove
			return driver.Drive(cmd.Context(), os.Stdin, os.Stdout)
		},
	}
}

// exactly, atLeast and atMost want so many arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s needs %s; see %s --help", cmd.Name(), needed(cmd), cmd.CommandPath())
		}
		return nil
	}
}

func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usage("%s needs %s; see %s --help", cmd.Name(), needed(cmd), cmd.CommandPath())
		}
		return nil
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage("%s takes %s, got %q, too; see %s --help", cmd.Name(), needed(cmd), args[n], cmd.CommandPath())
		}
		return nil
	}
}

func needed(cmd *cobra.Command) string {
	_, words, _ := strings.Cut(cmd.Use, " ")
	if words == "" {
		return "no arguments"
	}
	return words
}

// ask asks the lab's driver. It says what to do if there is none.
func (a *app) ask(ctx context.Context, v driver.Verb, ask driver.Ask, into any) error {
	if err := lab.Privileged(); err != nil {
		return err
	}
	err := driver.Dial(a.name).Do(ctx, v, ask, into)
	if !errors.Is(err, driver.ErrNoDriver) {
		return err
	}
	if _, findErr := lab.Find(a.name); findErr == nil {
		return fmt.Errorf("the driver of lab %s is gone, and its hosts with it; remove what is left with shoal-lab down --name %s", a.name, a.name)
	}
	all, listErr := lab.List()
	if listErr != nil || len(all) == 0 {
		return fmt.Errorf("there is no lab %s; shoal-lab up makes one", a.name)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return fmt.Errorf("there is no lab %s; there are %s; choose one with --name", a.name, strings.Join(names, ", "))
}

// say writes one line to stderr.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, format+"\n", args...) // there is nowhere to complain
}

// json prints a value, which is never null.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
