// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command shoal is how people talk to a peer: it reads arguments and Compose files,
// asks a daemon through its socket (package api), here or over ssh, and prints.
//
// Data goes to stdout, progress and warnings to stderr; the exit code is 0 ok, 1
// error, 2 usage, 3 the plan has changes, 4 timed out, partial or not converged, 5
// unhealthy, 6 no peer reachable, 7 refused. It decides nothing: what a service is
// and where it runs is known to the peers. It links neither libp2p nor an engine.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/term"
)

// version is set when linked.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: environment(os.Environ()), now: time.Now,
		terminal: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("TERM") != "dumb",
	}
	if w, h, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		a.width, a.height = w, h
	}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is one run of the command: where it reads and writes, and the global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      map[string]string
	now      func() time.Time
	terminal bool // somebody reads and can answer
	width    int  // of the terminal, 0: not known
	height   int  // the same

	host    string // --host
	context string // --context
	output  string
	// template is -o template=... once it was read.
	template *template.Template
	timeout  duration
	yes      bool
	noColor  bool
	debug    bool
	noTrunc  bool
	quiet    bool
	local    bool
	agreed   int
}

func environment(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		env[k] = v
	}
	return env
}

// colors reports whether output may be coloured (no-color.org).
func (a *app) colors() bool {
	return a.terminal && !a.noColor && a.env["NO_COLOR"] == ""
}
