// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo runs Shoal's main job on this machine and checks each outcome: three
// daemons on loopback addresses, a Compose file, a scale, a rude removal, the loss
// of a peer with all its containers, and its return. It prints every command before
// it runs it. "up" leaves the cluster running; "down" removes all that up made.
//
// It drives the built binaries as a user would and refuses to look inside them,
// but for proof.go, which joins the wire as a member to show that the state is real.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
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
	d, err := newDemo()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "up":
		if err := d.down(ctx); err != nil { // what an earlier run left
			return err
		}
		if err := d.up(ctx); err != nil {
			d.showLogs()
			return fmt.Errorf("%w (the cluster is left as it is; make demo-down removes it)", err)
		}
		return nil
	case len(args) == 1 && args[0] == "down":
		return d.down(ctx)
	}
	return fmt.Errorf("usage: demo up|down, got %q", args)
}
