// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalnet/shoal"
)

// Exec implements [shoal.Remote] with seven commands: where (peer and slot), echo
// WORD..., cat, env (what the options say), sleep
// (until it is left), read (one line of input) and exit N.
func (c *Cluster) Exec(ctx context.Context, peer shoal.PeerID, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error) {
	if t.In != nil {
		defer func() { _ = t.In.Close() }() // a pipe's never fails
	}
	if err := opts.Check(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	lost := c.lost[peer]
	c.mu.Unlock()
	switch {
	case lost:
		return 0, fmt.Errorf("exec: dial: no route: %w", shoal.ErrUnreachable)
	case opts.Privileged:
		return 0, &shoal.PolicyError{Demand: "privileged"}
	}
	say := func(format string, args ...any) error {
		_, err := fmt.Fprintf(t.Out, format+"\n", args...)
		return err
	}
	rest := strings.Join(opts.Command[1:], " ")
	switch opts.Command[0] {
	case "where":
		return 0, say("%s on %s", at, strings.TrimLeft(strings.TrimPrefix(string(peer), "12D3KooW"), "x0 "))
	case "echo":
		return 0, say("%s", rest)
	case "env":
		for _, k := range slices.Sorted(maps.Keys(opts.Env)) {
			if err := say("%s=%s", k, opts.Env[k]); err != nil {
				return 0, err
			}
		}
		return 0, say("user %q dir %q tty %v size %dx%d", opts.User, opts.WorkDir, opts.TTY, opts.Size.Width, opts.Size.Height)
	case "cat":
		if t.In == nil {
			return 0, nil
		}
		defer context.AfterFunc(ctx, func() { _ = t.In.Close() })() // as above
		_, err := io.Copy(t.Out, t.In)
		return 0, cmp.Or(ctx.Err(), err)
	case "read":
		line, err := bufio.NewReader(t.In).ReadString('\n')
		if err != nil {
			return 0, err
		}
		return 0, say("read %q", line)
	case "sleep":
		<-ctx.Done()
		return 0, ctx.Err()
	case "exit":
		n, err := strconv.Atoi(rest)
		return n, err
	}
	_, err := fmt.Fprintf(t.Err, "exec: %q: executable file not found in $PATH\n", opts.Command[0])
	return 127, err
}
