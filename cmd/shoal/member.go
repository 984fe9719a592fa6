// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// memberTime bounds init and join, which dial; leave waits for others.
const memberTime = time.Minute

// maxToken bounds a token read from stdin.
const maxToken = 64 << 10

func (a *app) initCmd() *cobra.Command {
	var name string
	var labels []string
	cmd := &cobra.Command{
		Use: "init", Short: "Make a cluster of this machine alone", Args: a.noArgs,
		Long: `Make a cluster whose first member is this machine, and print the line that makes
another machine join it. The token in it works once and for an hour; make more with
"shoal token create".`,
		Example: "  shoal init\n  shoal init --name tokyo --label zone=a",
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := parsePairs("label", labels, nil)
			if err != nil {
				return err
			}
			ctx, c, done, err := a.client(cmd, memberTime)
			if err != nil {
				return err
			}
			defer done()
			token, err := c.Init(ctx, shoal.InitOptions{Name: name, Labels: set})
			if err != nil {
				return err
			}
			return a.showToken(token)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of this machine (default: its host name)")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "KEY=VALUE label of this machine, for constraints; zone=... is where it stands")
	cmd.Flags().BoolVarP(&a.quiet, "quiet", "q", false, "only the token")
	return cmd
}

// tokenJSON is a token and how to use it.
type tokenJSON struct {
	Token string `json:"token"`
	Join  string `json:"join"`
}

func (a *app) showToken(token string) error {
	join := "shoal join " + token
	switch {
	case a.quiet, a.output == "name":
		_, err := fmt.Fprintln(a.out, token)
		return err
	case a.forPeople():
		a.say("run this on the machine that is to join:")
		_, err := fmt.Fprintln(a.out, join)
		return err
	}
	return a.encode(a.out, tokenJSON{token, join})
}

func (a *app) joinCmd() *cobra.Command {
	var opts shoal.JoinOptions
	var labels []string
	cmd := &cobra.Command{
		Use: "join TOKEN", Short: "Make this machine a member of a cluster", Args: someArgs(1),
		Long: `Redeem a token made by "shoal init" or "shoal token create" on a member. TOKEN - is
read from stdin, so that it is in no list of processes. With --dry-run nothing is
redeemed: it checks this machine, every way to the peers that the token names, and
whether they would admit it, as "shoal doctor" does for a member.`,
		Example: "  shoal join TOKEN --name osaka --label zone=b\n  shoal join --dry-run TOKEN        # only check that it would work\n  shoal join - < token",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if opts.Labels, err = parsePairs("label", labels, nil); err != nil {
				return err
			}
			token, err := a.token(args[0])
			if err != nil {
				return err
			}
			ctx, c, done, err := a.client(cmd, memberTime)
			if err != nil {
				return err
			}
			defer done()
			if opts.DryRun {
				return a.doctor(ctx, c, "", token)
			}
			st, err := c.Join(ctx, token, opts)
			if err != nil {
				return err
			}
			a.say("joined cluster %s as %s", a.shortPeer(st.Cluster), a.shortPeer(st.Self))
			return nil
		},
	}
	cmd.Flags().StringVar(&opts.Name, "name", "", "name of this machine (default: its host name)")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "KEY=VALUE label of this machine, for constraints")
	cmd.Flags().BoolVar(&opts.DryRun, "dry-run", false, "only check that it would work")
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten IDs")
	return cmd
}

func (a *app) token(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, maxToken)).ReadString('\n')
	if err != nil && line == "" {
		return "", usage("join: no token on stdin")
	}
	return strings.TrimPrefix(strings.TrimSpace(line), "shoal join "), nil
}

func (a *app) leaveCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "leave", Short: "Make this machine leave its cluster", Args: a.noArgs,
		Long: `Hand over this machine's slots, wait until others have taken them, stop its containers
and forget the cluster. --timeout bounds the wait (60s); --force does not wait.`,
		Example: "  shoal leave\n  shoal leave --force -y",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.confirm(cmd.Context(), "Stop this machine's containers and forget the cluster?"); err != nil {
				return err
			}
			_, c, done, err := a.client(cmd, 0)
			if err != nil {
				return err
			}
			defer done()
			if err := c.Leave(cmd.Context(), shoal.LeaveOptions{Timeout: time.Duration(a.timeout), Force: force}); err != nil {
				return err
			}
			a.say("left the cluster")
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "do not wait for others to take over")
	return cmd
}

func (a *app) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Create, list and revoke tokens to join by", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tokenCreateCmd(), a.tokenLsCmd(), a.tokenRevokeCmd())
	return cmd
}

func (a *app) tokenCreateCmd() *cobra.Command {
	var ttl duration
	var uses int
	var role string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token", Args: a.noArgs,
		Long: `Make a token and print the line that uses it. A machine that joins is an operator
(may ask for services and admit others) unless the role is peer.`,
		Example: "  shoal token create\n  shoal token create --ttl 24h --uses 5 --role peer -q",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if uses < 1 || uses > 1000 {
				return usage("--uses: must be 1–1000, got %d", uses)
			}
			if role != string(shoal.RoleOperator) && role != string(shoal.RolePeer) {
				return usage("--role: must be operator or peer, got %q", role)
			}
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			token, err := c.CreateToken(ctx, shoal.TokenOptions{TTL: time.Duration(ttl), Uses: uses, Role: shoal.Role(role)})
			if err != nil {
				return err
			}
			return a.showToken(token)
		},
	}
	ttl = duration(time.Hour)
	cmd.Flags().Var(&ttl, "ttl", "how long it works")
	cmd.Flags().IntVar(&uses, "uses", 1, "how often it works")
	cmd.Flags().StringVar(&role, "role", string(shoal.RoleOperator), "operator or peer")
	cmd.Flags().BoolVarP(&a.quiet, "quiet", "q", false, "only the token")
	return cmd
}

func (a *app) tokenLsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "List the tokens", Args: a.noArgs,
		Long:    `List the tokens that were made. The tokens themselves are nowhere: lose one, make another.`,
		Example: "  shoal token ls\n  shoal token ls -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.list(cmd, &listFlags{}, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
				all, err := c.Tokens(ctx)
				if err != nil {
					return api.Freshness{}, err
				}
				return all.Freshness, show(a, w, all.Items, a.tokenTable())
			})
		},
	}
	cmd.Flags().BoolVarP(&a.quiet, "quiet", "q", false, "only IDs")
	return cmd
}

func (a *app) tokenTable() table[api.Token] {
	return table[api.Token]{
		name: func(t api.Token) string { return t.ID },
		columns: []column[api.Token]{
			{head: "ID", cell: func(t api.Token) string { return t.ID }},
			{head: "ROLE", cell: func(t api.Token) string { return t.Role }},
			{head: "USES", cell: func(t api.Token) string { return fmt.Sprintf("%d/%d", t.Used, t.Uses) }},
			{head: "STATE", cell: func(t api.Token) string { return t.State }},
			{head: "EXPIRES", cell: func(t api.Token) string {
				if left := t.Expires.Sub(a.now()); left > 0 {
					return "in " + age(left)
				}
				return a.since(t.Expires) + " ago"
			}},
			{head: "ISSUER", cell: func(t api.Token) string { return t.Issuer }},
		},
	}
}

func (a *app) tokenRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID...", Short: "End tokens before their time", Args: someArgs(0),
		Long:    `End tokens by their IDs ("shoal token ls"). Who joined by one stays a member.`,
		Example: "  shoal token revoke 3f9a2b",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			for _, id := range args {
				if err := c.RevokeToken(ctx, id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
