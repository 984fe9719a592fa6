// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command shoald is the daemon: one on every machine. It serves the control socket
// and, once its machine is a member of a cluster, runs its share of the containers.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	cfg := node.Config{Version: version}
	var level slog.Level
	var memory int64
	cmd := &cobra.Command{
		Use:   "shoald",
		Short: "Run this machine's share of a Shoal cluster",
		Long: `shoald is the daemon of Shoal. Start one on every machine, then make the machines
one cluster with "shoal init" on the first and "shoal join TOKEN" on the others.

It keeps its identity and its records in the data directory, answers "shoal" on a
unix socket, and listens for other members only. Stopping it leaves the containers
running; it adopts them when it starts again.`,
		Example: `  shoald
  shoald --listen 192.0.2.11 --label zone=eu
  shoald --data /tmp/a --socket /tmp/a.sock --listen 127.0.0.11 --publish 127.0.0.11`,
		Version:       version,
		Args:          noArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if memory > math.MaxInt64>>20 {
				return usageError{fmt.Errorf("--reserve-memory: %d MiB is no number in range", memory)}
			}
			cfg.Reserved.MemBytes = memory << 20
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			return node.Run(cmd.Context(), cfg, log)
		},
	}
	cmd.SetFlagErrorFunc(flagError)
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "data", "/var/lib/shoal", "data directory")
	f.StringVar(&cfg.Socket, "socket", "/run/shoal.sock", "control socket")
	f.StringSliceVar(&cfg.Listen, "listen", nil, fmt.Sprintf("IP or IP:PORT to listen on (default every address, port %d)", node.DefaultPort))
	f.StringSliceVar(&cfg.Advertise, "advertise", nil, "IP or IP:PORT that others should dial (default what listening shows)")
	f.StringVar(&cfg.Publish, "publish", "", "IP that containers' ports are published on (default every address)")
	f.StringVar(&cfg.Name, "name", "", "name of this peer in listings (default the host's name)")
	f.StringToStringVar(&cfg.Labels, "label", nil, "label of this peer, such as zone=eu (repeatable)")
	f.Int64Var(&cfg.Reserved.CPUMilli, "reserve-cpu", 0, "thousandths of a core kept from containers")
	f.Int64Var(&memory, "reserve-memory", 0, "MiB of memory kept from containers")
	f.StringVar(&cfg.Profile, "profile", node.ProfileLAN, "distance between peers: lan or wan")
	f.StringVar(&cfg.Docker, "docker", "", "address of the Docker Engine (default its own socket)")
	f.BoolVar(&cfg.MDNS, "mdns", false, "look for members on the local network")
	f.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	return cmd
}

// flagError puts pflag's errors into our words.
func flagError(cmd *cobra.Command, err error) error {
	const see = "; see shoald --help"
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return usageError{fmt.Errorf("unknown flag -%s%s", name, see)}
		}
		if near := nearest(cmd, name); near != "" {
			return usageError{fmt.Errorf("unknown flag --%s; did you mean --%s?", name, near)}
		}
		return usageError{fmt.Errorf("unknown flag --%s%s", name, see)}
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		cause := bad.Unwrap().Error()
		switch {
		case strings.HasPrefix(cause, "strconv.ParseBool"):
			cause = fmt.Sprintf("must be true or false, got %q", bad.GetValue())
		case strings.HasPrefix(cause, "strconv."):
			cause = fmt.Sprintf("%q is no number in range", bad.GetValue())
		case strings.HasPrefix(cause, "slog: "):
			cause = fmt.Sprintf("must be %s, got %q", bad.GetFlag().Usage, bad.GetValue())
		}
		return usageError{fmt.Errorf("--%s: %s", bad.GetFlag().Name, cause)}
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usageError{fmt.Errorf("--%s needs a value", missing.GetSpecifiedName())}
	}
	return usageError{fmt.Errorf("%w%s", err, see)}
}

// nearest returns the flag whose name is near to what was typed, "" if none is. Cobra
// knows near names of commands only.
func nearest(cmd *cobra.Command, name string) string {
	flags := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	near := flags.SuggestionsFor(name)
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
