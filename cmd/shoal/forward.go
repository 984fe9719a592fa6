// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// forward is one port of this machine and where its connections go.
type forward struct{ local, remote uint16 }

func (a *app) portForwardCmd() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "port-forward SERVICE[/SLOT] [LOCAL:]REMOTE...", Short: "Reach a port of a replica from this machine", Args: atLeast(2, 0),
		Long: `Listen on this machine and carry each connection to a TCP port of a replica, published or
not, wherever it is: of SLOT, or of any that is ready, chosen for each connection. LOCAL 0
or nothing before the colon takes a free port. It goes on until it is interrupted.

A peer of role "peer" forwards to nobody.`,
		Example: "  shoal port-forward web 8080:80\n  shoal port-forward db/0 5432\n  shoal port-forward web :80 --address 0.0.0.0",
		RunE: func(cmd *cobra.Command, args []string) error {
			service, slot, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			var all []forward
			for _, text := range args[1:] {
				f, err := parseForward(text)
				if err != nil {
					return err
				}
				all = append(all, f)
			}
			return a.portForward(cmd, shoal.Target{Service: service, Slot: slot}, address, all)
		},
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1", "address of this machine to listen on")
	return cmd
}

// parseForward reads LOCAL:REMOTE, :REMOTE or a port that is both.
func parseForward(text string) (forward, error) {
	local, remote, has := strings.Cut(text, ":")
	if !has {
		remote = local
	}
	n, err := strconv.ParseUint(remote, 10, 16)
	if err != nil || n == 0 {
		return forward{}, usage("port %q: must be [LOCAL:]REMOTE with REMOTE 1–65535, got %s", text, orNothing(remote))
	}
	f := forward{remote: uint16(n)}
	if local != "" {
		if n, err = strconv.ParseUint(local, 10, 16); err != nil {
			return forward{}, usage("port %q: LOCAL must be 0–65535, got %q", text, local)
		}
		f.local = uint16(n)
	}
	return f, nil
}

// portForward opens all ports, or none.
func (a *app) portForward(cmd *cobra.Command, at shoal.Target, address string, all []forward) error {
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	if _, err := c.Reach(ctx, at.Service); err != nil {
		return err
	}
	var lc net.ListenConfig
	var open []net.Listener
	defer func() {
		for _, l := range open {
			_ = l.Close() // it may be closed already
		}
	}()
	for _, f := range all {
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(f.local))))
		if err != nil {
			return fmt.Errorf("listen for %s:%d: %w", at.Service, f.remote, err)
		}
		open = append(open, l)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for i, l := range open {
		to := fmt.Sprintf("%s:%d", at.Service, all[i].remote)
		if at.Slot >= 0 {
			to = fmt.Sprintf("%s:%d", at, all[i].remote)
		}
		if _, err := fmt.Fprintf(a.out, "%s -> %s\n", l.Addr(), to); err != nil {
			return err
		}
		serving.Go(func() { a.acceptAll(ctx, c, l, at, all[i].remote) })
	}
	<-ctx.Done()
	for _, l := range open {
		_ = l.Close() // no further connection
	}
	return nil
}

// acceptAll carries every connection of a listener, and says why one is not.
func (a *app) acceptAll(ctx context.Context, c *api.Client, l net.Listener, at shoal.Target, port uint16) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return // it was closed
		}
		open.Go(func() {
			err := c.Forward(ctx, at, port, conn)
			if err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				a.say("%s: %s", clean(conn.RemoteAddr().String()), clean(err.Error()))
			}
		})
	}
}
