// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

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
		Example: "  shoal scale web=10\n  shoal scale web+2 worker-1\n  shoal scale web=0 -d",
		RunE: func(cmd *cobra.Command, args []string) error {
			targets := make([]shoal.ScaleTarget, len(args))
			for i, arg := range args {
				t, err := parseScale(arg)
				if err != nil {
					return err
				}
				targets[i] = t
			}
			return a.wish(cmd, w.waits(), func(ctx context.Context, c *api.Client) (api.Outcome, error) {
				return c.Scale(ctx, targets, api.WishOptions{Acks: w.acks, AckTimeout: time.Duration(a.timeout)})
			})
		},
	}
	w.add(cmd.Flags())
	return cmd
}

func (a *app) rmCmd() *cobra.Command {
	var ignore, wait bool
	var acks int
	cmd := &cobra.Command{
		Use: "rm SERVICE...", Short: "Remove services", Args: someArgs(0),
		Long: `Remove services and stop their replicas. One that does not exist is an error, and
then nothing is removed, unless --ignore-not-found is given.`,
		Example: "  shoal rm web\n  shoal rm --ignore-not-found web worker --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if err := shoal.CheckName("name", name); err != nil {
					return err
				}
			}
			return a.wish(cmd, wait, func(ctx context.Context, c *api.Client) (api.Outcome, error) {
				wish := shoal.RemoveWish{Services: args, IgnoreNotFound: ignore}
				return c.Remove(ctx, wish, api.WishOptions{Acks: acks, AckTimeout: time.Duration(a.timeout)})
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&ignore, "ignore-not-found", false, "a service that does not exist is no error")
	f.BoolVar(&wait, "wait", false, "wait until the replicas are gone")
	f.IntVar(&acks, "ack", 0, "wait until so many other peers hold the record too")
	return cmd
}

// wish submits, shows what changed, and waits.
func (a *app) wish(cmd *cobra.Command, waits bool, ask func(context.Context, *api.Client) (api.Outcome, error)) error {
	_, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	out, err := a.submit(cmd.Context(), func(ctx context.Context) (api.Outcome, error) { return ask(ctx, c) })
	if err != nil {
		return err
	}
	if err := a.showPlan(out); err != nil {
		return err
	}
	return a.accepted(cmd.Context(), c, out, waits)
}
