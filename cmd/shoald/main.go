// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command shoald is the daemon: one on every machine. It serves the control socket
// and, once its machine is a member of a cluster, runs its share of the containers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/node"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(exitCode(err))
	}
}

// usageError marks what the command line got wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	var invalid *shoal.InvalidError
	if errors.As(err, &usage) || errors.As(err, &invalid) {
		return 2
	}
	return 1
}

func command() *cobra.Command {
	var flags []*flagValue
	var file, clock string
	var isCheck, isDocs, isSample bool
	cmd := &cobra.Command{
		Use:   "shoald",
		Short: "Run this machine's share of a Shoal cluster",
		Long: `shoald is the daemon of Shoal. Start one on every machine, then make the machines
one cluster with "shoal init" on the first and "shoal join TOKEN" on the others.

It keeps its identity and its records in the data directory, answers "shoal" on a
unix socket, and listens for other members only. Stopping it leaves the containers
running; it adopts them when it starts again.

What the flags say can also stand in a configuration file (--print-config writes one
to start from); a flag replaces what the file says.`,
		Example: `  shoald
  shoald --listen 192.0.2.11 --label zone=eu
  shoald --data /tmp/a --socket /tmp/a.sock --listen 127.0.0.11 --publish 127.0.0.11`,
		Version:       version,
		Args:          noArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case isDocs:
				return reference(cmd.OutOrStdout())
			case isSample:
				return sample(cmd.OutOrStdout())
			}
			cfg, read, err := configure(file, cmd.Flags().Changed("config"), flags)
			if err != nil {
				return err
			}
			if err := cfg.CheckPolicy(); err != nil {
				return err
			}
			if isCheck {
				return checked(cmd.OutOrStdout(), file, read)
			}
			return serve(cmd.Context(), cfg, clock)
		},
	}
	cmd.SetFlagErrorFunc(flagError)
	f := cmd.Flags()
	f.StringVar(&file, "config", defaultFile, "configuration `FILE`; the default one may be absent")
	for i := range settings {
		v := &flagValue{setting: &settings[i]}
		flags = append(flags, v)
		usage := v.usage
		if v.normal != "" && v.form != truth {
			usage += " (default " + v.normal + ")"
		}
		if f.Var(v, v.flag, usage); v.form == truth {
			f.Lookup(v.flag).NoOptDefVal = "true"
		}
	}
	f.BoolVar(&isCheck, "check-config", false, "check the configuration and end: 0 if it is right, 2 if not")
	f.BoolVar(&isSample, "print-config", false, "print a configuration file with every key at its default, and end")
	f.BoolVar(&isDocs, "print-reference", false, "print the reference of the configuration as Markdown, and end")
	f.StringVar(&clock, "testbed-clock", "", "`FILE` with what to add to the civil time, read again and again; for testbeds")
	for _, name := range []string{"print-reference", "testbed-clock"} {
		_ = f.MarkHidden(name) // it is there: the lines above made it
	}
	return cmd
}

// configure reads the file, puts the flags over it, and checks the whole.
func configure(file string, isNamed bool, flags []*flagValue) (cfg config, read bool, err error) {
	cfg = defaults()
	if read, err = loadFile(file, isNamed, &cfg); err != nil {
		return cfg, read, err
	}
	for _, f := range flags {
		if err := f.apply(&cfg); err != nil {
			return cfg, read, usageError{fmt.Errorf("--%s: %w", f.flag, err)}
		}
	}
	return cfg, read, cfg.Validate()
}

func checked(w io.Writer, file string, read bool) error {
	what := file + " is right"
	if !read {
		what = "no " + file + "; the defaults and flags are right"
	}
	_, err := fmt.Fprintln(w, what)
	return err
}

// serve runs the daemon, and tells the service manager when it answers and when it stops.
func serve(ctx context.Context, cfg config, clock string) error {
	cfg.Tail = &node.Tail{}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(os.Stderr, cfg.Tail), &slog.HandlerOptions{Level: cfg.level}))
	if clock != "" {
		cfg.Clock = newTestbedClock(clock, log)
	}
	tell := notifier(ctx, os.Getenv("NOTIFY_SOCKET"), log)
	cfg.Ready = func() { tell("READY=1") }
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	cfg.Reload = reload
	defer context.AfterFunc(ctx, func() { tell("STOPPING=1") })()
	return node.Run(ctx, cfg.Config, log)
}

// flagError puts pflag's errors into our words.
func flagError(cmd *cobra.Command, err error) error {
	const see = "; see shoald --help"
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return usageError{fmt.Errorf("unknown flag -%s%s", name, see)}
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := nearest(names, name); near != "" {
			return usageError{fmt.Errorf("unknown flag --%s; did you mean --%s?", name, near)}
		}
		return usageError{fmt.Errorf("unknown flag --%s%s", name, see)}
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		cause := bad.Unwrap().Error()
		if strings.HasPrefix(cause, "strconv.ParseBool") {
			cause = fmt.Sprintf("must be true or false, got %q", bad.GetValue())
		}
		return usageError{fmt.Errorf("--%s: %s", bad.GetFlag().Name, cause)}
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usageError{fmt.Errorf("--%s needs a value", missing.GetSpecifiedName())}
	}
	return usageError{fmt.Errorf("%w%s", err, see)}
}

// nearest returns the one of names that is near to what was typed, "" if none is.
// Cobra knows near names of commands only.
func nearest(names []string, got string) string {
	candidates := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, n := range names {
		candidates.AddCommand(&cobra.Command{Use: n, Run: func(*cobra.Command, []string) {}})
	}
	near := candidates.SuggestionsFor(got)
	if len(near) == 0 {
		return ""
	}
	return near[0]
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q; shoald takes flags only; see shoald --help", args[0])}
	}
	return nil
}
