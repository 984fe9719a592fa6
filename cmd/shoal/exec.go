// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// exitInterrupted is the code of who was interrupted: 128 and the signal's number.
const exitInterrupted = 128 + int(syscall.SIGINT)

type execFlags struct {
	stdin, tty, privileged bool
	user, workDir          string
	env                    []string
}

func (a *app) execCmd() *cobra.Command {
	var e execFlags
	cmd := &cobra.Command{
		Use: "exec [flags] SERVICE[/SLOT] COMMAND [ARG...]", Short: "Run a command in a replica, on whatever peer it is",
		Args: atLeast(2, 0),
		Long: `Run a command in a running replica, wherever it is. Without SLOT it is the lowest slot
that is ready, one on the asked peer first. Flags after SERVICE belong to the command.

The exit code is the command's: 126 or 127 if it could not be started, 128 and more if a
signal ended it. Ctrl-C without -t leaves the command alone: it may run on.

A peer of role "peer" reaches only into its own replicas.`,
		Example: "  shoal exec web date\n  shoal exec -it web/2 sh\n  echo hello | shoal exec -i web cat\n  shoal exec -u nobody -w /srv -e LEVEL=debug web/0 ./check --all",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.exec(cmd, &e, args) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&e.stdin, "interactive", "i", false, "pass standard input on")
	f.BoolVarP(&e.tty, "tty", "t", false, "give the command a terminal")
	f.StringVarP(&e.user, "user", "u", "", "run as USER[:GROUP], name or number")
	f.StringVarP(&e.workDir, "workdir", "w", "", "run in this directory")
	f.StringArrayVarP(&e.env, "env", "e", nil, "set KEY=VALUE; a KEY alone takes its value from here")
	f.BoolVar(&e.privileged, "privileged", false, "with all rights, where the machine's owner allows that")
	return cmd
}

func (a *app) exec(cmd *cobra.Command, e *execFlags, args []string) error {
	command := args[1:]
	if command[0] == "--" { // as kubectl has it
		command = command[1:]
	}
	env, err := parsePairs("env", e.env, a.env)
	if err != nil {
		return err
	}
	opts := shoal.ExecOptions{
		Command: command, Env: env, User: e.user, WorkDir: e.workDir, TTY: e.tty, Stdin: e.stdin, Privileged: e.privileged,
		Size: shoal.WindowSize{Width: uint16(a.width), Height: uint16(a.height)},
	}
	if err := opts.Check(); err != nil {
		return err
	}
	keys, _ := a.in.(*os.File)
	if e.tty && e.stdin && (keys == nil || !term.IsTerminal(int(keys.Fd()))) {
		return &coded{code: exitError, name: "error", err: errors.New("the input device is not a TTY; leave -t out to pass on what is no terminal")}
	}
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	at, err := a.target(ctx, c, args[0])
	if err != nil {
		return err
	}
	t := shoal.Terminal{Out: a.out, Err: a.err}
	if e.stdin {
		t.In = newInput(a.in)
	}
	if e.tty && e.stdin {
		back, err := term.MakeRaw(int(keys.Fd()))
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(int(keys.Fd()), back) }() // there is no way to say that it failed
	}
	if e.tty {
		var stop func()
		t.Resize, stop = sizes()
		defer stop()
	}
	code, err := c.Exec(ctx, at, opts, t)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), context.Canceled):
		return silent(exitInterrupted)
	case err != nil:
		return err
	case code != 0:
		return silent(code)
	}
	return nil
}

// target reads SERVICE[/SLOT]. Of several replicas it picks one, and says on a terminal
// which.
func (a *app) target(ctx context.Context, c *api.Client, text string) (shoal.Target, error) {
	service, slot, err := parseTarget(text)
	if err != nil {
		return shoal.Target{}, err
	}
	at := shoal.Target{Service: service, Slot: slot}
	if slot >= 0 {
		return at, nil
	}
	r, of, err := c.Pick(ctx, service)
	if err != nil {
		return at, err
	}
	at.Slot = r.Slot
	if of > 1 && a.terminal {
		a.say("%s on %s, one of %d", at, clean(r.PeerName), of)
	}
	return at, nil
}

// sizes tells the size of the terminal at every change, until stopped.
func sizes() (<-chan shoal.WindowSize, func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	out, over, ended := make(chan shoal.WindowSize), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-changed:
			case <-over:
				return
			}
			w, h, err := term.GetSize(int(os.Stdout.Fd()))
			if err != nil {
				continue // it is no terminal any more
			}
			select {
			case out <- shoal.WindowSize{Width: uint16(w), Height: uint16(h)}:
			case <-over:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(changed)
		close(over)
		<-ended
	}
}

// input is what the user types or pipes in. A Read of a terminal cannot be ended, so
// it waits in a goroutine that ends with the process.
type input struct {
	pieces chan []byte
	failed error // why it ended, once pieces is closed
	closed chan struct{}
	close  func()
	rest   []byte
}

func newInput(from io.Reader) *input {
	in := &input{pieces: make(chan []byte), closed: make(chan struct{})}
	in.close = sync.OnceFunc(func() { close(in.closed) })
	go func() {
		defer close(in.pieces)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case in.pieces <- buf[:n]:
				case <-in.closed:
					return
				}
			}
			if err != nil {
				in.failed = err
				return
			}
		}
	}()
	return in
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	if len(in.rest) == 0 {
		select {
		case piece, ok := <-in.pieces:
			if !ok {
				return 0, in.failed
			}
			in.rest = piece
		case <-in.closed:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// Close ends what Read waits for.
func (in *input) Close() error {
	in.close()
	return nil
}
