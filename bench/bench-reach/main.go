// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench-reach is what the bench's requests go through, each part in a process of
// its own so that its memory can be told: "replicas" are small HTTP servers, and "peer"
// carries to replicas of its own and to those of another peer. It prints where it answers,
// as one line of JSON, and goes on until it is told to end.
//
// A peer here is a libp2p host and a carrier, without store, view and membership: what
// they do is not done for a connection.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/bench/reachwire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-reach:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: bench-reach replicas|peer [flags]")
	}
	flags := flag.NewFlagSet("bench-reach "+args[0], flag.ContinueOnError)
	n := flags.Int("n", 3, "replicas to run")
	replicas := flags.String("replicas", "", "addresses of the replicas to carry to, with commas between")
	holder := flags.String("holder", "", "address of the peer that holds the same replicas for the remote door; none: no such door")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "replicas":
		return serveReplicas(ctx, out, *n)
	case "peer":
		return servePeer(ctx, out, strings.Split(*replicas, ","), *holder)
	}
	return fmt.Errorf("there is no %q", args[0])
}

// say tells the bench, at out, where this process answers.
func say(out io.Writer, at reachwire.Addresses) error { return json.NewEncoder(out).Encode(at) }

// serveReplicas runs n HTTP servers on loopback until ctx ends.
func serveReplicas(ctx context.Context, out io.Writer, n int) error {
	mux := http.NewServeMux()
	mux.HandleFunc(reachwire.Small, func(w http.ResponseWriter, _ *http.Request) { send(w, reachwire.SmallBytes) })
	mux.HandleFunc(reachwire.Bulk, func(w http.ResponseWriter, _ *http.Request) { send(w, reachwire.BulkBytes) })
	var at reachwire.Addresses
	g, ctx := errgroup.WithContext(ctx)
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		at.Replicas = append(at.Replicas, l.Addr().String())
		srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
		context.AfterFunc(ctx, func() { _ = srv.Close() }) // nothing is left to lose
		g.Go(func() error {
			if err := srv.Serve(l); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	if err := say(out, at); err != nil {
		return err
	}
	return g.Wait()
}

// send answers with so many bytes.
func send(w http.ResponseWriter, size int) {
	w.Header().Set("Content-Length", strconv.Itoa(size))
	piece := make([]byte, min(size, reachwire.Piece))
	for left := size; left > 0; left -= len(piece) {
		if _, err := w.Write(piece[:min(left, len(piece))]); err != nil {
			return // the client misses the rest
		}
	}
}
