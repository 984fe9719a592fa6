// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command measure prints what Shoal costs on this machine: its own share of a
// deploy on three peers, and an idle daemon. "make bench" runs it.
//
// The share is taken with three whole peers in one process over real libp2p on
// loopback and real stores on disk; only the engine is the in-memory one, as its
// time is not ours. The idle daemon is the built binary. The command refuses to
// compare with figures of other machines or days.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	deploys, idle := 100, 20*time.Second
	if slices.Equal(args, []string{"full"}) {
		deploys, idle = 1000, 2*time.Minute
	} else if len(args) > 0 && !slices.Equal(args, []string{"quick"}) {
		return fmt.Errorf("usage: measure quick|full, got %q", args)
	}
	fmt.Printf("machine: %s\n\n", machine())
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "WHAT\tP50\tP99\tAIM")
	share, err := measureShare(ctx, deploys)
	if err != nil {
		return fmt.Errorf("measure our share of a deploy: %w", err)
	}
	for _, s := range share {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", s.what, s.at(50), s.at(99), s.aim)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	cost, err := measureIdle(ctx, idle)
	if err != nil {
		return fmt.Errorf("measure an idle daemon: %w", err)
	}
	fmt.Println()
	fmt.Fprintf(out, "IDLE DAEMON OF THREE, %s\tVALUE\tAIM\n", idle)
	fmt.Fprintf(out, "resident memory\t%.0f MB\tbelow 80 MB\n", float64(cost.rss)/1e6)
	fmt.Fprintf(out, "processor\t%.2f %% of a core\t1 %%\n", 100*cost.cpu)
	fmt.Fprintf(out, "written to disk\t%d bytes\t0\n", cost.written)
	return out.Flush()
}

// machine names this machine, for whoever reads the figures.
func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s/%s", goruntime.NumCPU(), model, goruntime.Version(), goruntime.GOOS, goruntime.GOARCH)
}

// series are the times of one thing done again and again.
type series struct {
	what, aim string
	times     []time.Duration
}

// at returns a percentile, nearest rank.
func (s *series) at(percent int) time.Duration {
	slices.Sort(s.times)
	i := (len(s.times)*percent+99)/100 - 1
	return s.times[max(i, 0)].Round(10 * time.Microsecond)
}
