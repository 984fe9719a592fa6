// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) scaleCmd() *cobra.Command {
	var w wishFlags
	cmd := &cobra.Command{
		Use: "scale SERVICE=N|SERVICE+N|SERVICE-N...", Short: "Change numbers of replicas", Args: someArgs(0),
		Long: `Change how many replicas services have. =N sets the number; +N and -N add to whatever
it is, so that adds on both sides of a split both count.`,
		Example: "  shoal scale web=10\n  shoal scale web+2 worker-1\n  shoal scale web=0 -d\n  shoal scale web+2 --plan",
		RunE: func(cmd *cobra.Command, args []string) error {
			targets := make([]shoal.ScaleTarget, len(args))
			for i, arg := range args {
				t, err := parseScale(arg)
				if err != nil && i == 0 && len(args) == 2 && isNumber(args[1]) { // as kubectl and nomad would almost have it
					return usage("%w; write %s=%s", err, arg, args[1])
				}
				if err != nil {
					return err
				}
				targets[i] = t
			}
			return a.wish(cmd, &w, func(ctx context.Context, c *api.Client, opts api.WishOptions) (api.Outcome, error) {
				return c.Scale(ctx, targets, opts)
			})
		},
	}
	w.add(cmd.Flags())
	return cmd
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

func (a *app) rmCmd() *cobra.Command {
	var ignore bool
	var w wishFlags
	cmd := &cobra.Command{
		Use: "rm SERVICE...", Short: "Remove services", Args: someArgs(0),
		Long: `Remove services and stop their replicas. One that does not exist is an error, and
then nothing is removed, unless --ignore-not-found is given.`,
		Example: "  shoal rm web\n  shoal rm --ignore-not-found web worker --wait\n  shoal rm web --plan",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if err := shoal.CheckName("name", name); err != nil {
					return err
				}
			}
			return a.wish(cmd, &w, func(ctx context.Context, c *api.Client, opts api.WishOptions) (api.Outcome, error) {
				return c.Remove(ctx, shoal.RemoveWish{Services: args, IgnoreNotFound: ignore}, opts)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&ignore, "ignore-not-found", false, "a service that does not exist is no error")
	f.BoolVar(&w.wait, "wait", false, "wait until the replicas are gone")
	ackFlag(f, &w.acks)
	w.planFlags.add(f)
	return cmd
}
