// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// doctorTime bounds a whole examination.
const doctorTime = time.Minute

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor [PEER]", Short: "Look for what is wrong with machines and the ways between them",
		Long: `Check the machine of the asked peer (engine, disk, clock, limits) and every way to each
other member: each address by itself, round trip, clock offset, address translation,
packet size, and what that member finds on its own machine and on the way back. With
PEER only that one. Every finding that is not ok says what to do. Of members that are
not named only what is not ok is shown, unless -o wide.

Exit 1 if a check failed. Before a machine is a member "shoal join --dry-run TOKEN"
does the same for the peers of the token.`,
		Example: "  shoal doctor\n  shoal doctor osaka\n  shoal doctor -o json | jq '.[] | select(.state != \"ok\")'",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, doctorTime)
			if err != nil {
				return err
			}
			defer done()
			peer := ""
			switch {
			case len(args) == 1 && a.local:
				return usage("--local and a peer exclude each other")
			case len(args) == 1:
				peer = args[0]
			case a.local:
				if peer, err = a.self(ctx, c); err != nil {
					return err
				}
			}
			return a.doctor(ctx, c, peer, "")
		},
	}
}

// atMost refuses more arguments than n.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage("%s takes at most %s, got %d", strings.TrimPrefix(cmd.CommandPath(), "shoal "), count(n, "argument"), len(args))
		}
		return nil
	}
}

// doctor shows the checks of a peer, of all, or of a token.
func (a *app) doctor(ctx context.Context, c *api.Client, peer, token string) error {
	var all []api.Check
	if err := c.Doctor(ctx, peer, token, func(check api.Check) error {
		all = append(all, check)
		return nil
	}); err != nil {
		return err
	}
	shown, well := all, 0
	if peer == "" && token == "" && a.output == "table" && len(all) > 0 {
		shown, well = telling(all)
	}
	if err := show(a, a.out, shown, a.checkTable()); err != nil {
		return err
	}
	if well > 0 {
		a.say("and %s of other peers that are ok; -o wide shows them", count(well, "check"))
	}
	failed := 0
	for _, check := range all {
		if check.State == string(shoal.CheckFail) {
			failed++
		}
	}
	if token == "" && failed > 0 {
		return &coded{code: exitError, name: "unwell", err: fmt.Errorf("%s failed; what to do stands behind each", count(failed, "check"))}
	}
	if token == "" {
		return nil
	}
	// The verdict in join's own words and with its exit code: a machine whose engine is
	// down can join all the same.
	if _, err := c.Join(ctx, token, shoal.JoinOptions{DryRun: true}); err != nil {
		return err
	}
	if failed > 0 {
		a.say("warning: %s failed; what to do stands behind each", count(failed, "check"))
	}
	a.say("this machine could join")
	return nil
}

// telling leaves out what is ok of every peer but the first, which was asked.
func telling(all []api.Check) (shown []api.Check, well int) {
	for _, check := range all {
		if check.State == string(shoal.CheckOK) && check.Peer != all[0].Peer {
			well++
			continue
		}
		shown = append(shown, check)
	}
	return shown, well
}

func (a *app) checkTable() table[api.Check] {
	return table[api.Check]{
		name: func(c api.Check) string { return c.PeerName + "/" + c.Area + "/" + c.Name },
		columns: []column[api.Check]{
			{head: "PEER", cell: func(c api.Check) string { return c.PeerName }},
			{head: "AREA", cell: func(c api.Check) string { return c.Area }},
			{head: "CHECK", cell: func(c api.Check) string { return c.Name }},
			{head: "STATE", cell: func(c api.Check) string { return strings.ToUpper(c.State) }},
			{head: "FOUND", cell: func(c api.Check) string { return c.Detail }},
			{head: "WHAT TO DO", some: true, cell: func(c api.Check) string { return c.Remedy }},
		},
	}
}
