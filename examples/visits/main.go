// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Visits is the two-tier application of many Compose tutorials in one static binary:
// "visits web" is a page that counts who comes, "visits redis" the store that it keeps the
// number in, which it finds by name. The store speaks as much of the Redis protocol as that
// takes, and keeps numbers in memory only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: visits web|redis|ask [flags]
  web     count visits on -listen (:5000) in the store at -store (redis:6379)
  redis   keep numbers on -listen (:6379)
  ask     print the page at a URL; no shell or curl is needed in its image
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "visits:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return flag.ErrHelp
	}
	flags := flag.NewFlagSet("visits "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	switch args[0] {
	case "web":
		listen := flags.String("listen", ":5000", "address to answer on")
		at := flags.String("store", "redis:6379", "where the store is")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return serveWeb(ctx, *listen, *at)
	case "redis":
		listen := flags.String("listen", ":6379", "address to answer on")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return serveStore(ctx, *listen)
	case "ask":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return ask(ctx, flags.Arg(0), stdout)
	}
	fmt.Fprint(stderr, usage)
	return fmt.Errorf("no such command: %s", args[0])
}
