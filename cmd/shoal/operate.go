// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) stopCmd() *cobra.Command {
	return a.operateCmd(shoal.OpStop, &cobra.Command{
		Use: "stop SERVICE...", Short: "Stop services without removing them",
		Long: `Stop every replica of services, and wait until they have ended. The services stay,
with their number of replicas and their data: "shoal start" runs them again, and so
does a deploy. Scaling one does not.`,
		Example: "  shoal stop web\n  shoal stop web worker -d",
	})
}

func (a *app) startCmd() *cobra.Command {
	return a.operateCmd(shoal.OpStart, &cobra.Command{
		Use: "start SERVICE...", Short: "Start services that were stopped",
		Long: `Run as many replicas of stopped services as before, and wait until they are healthy.
A service that is not stopped stays as it is.`,
		Example: "  shoal start web\n  shoal start web worker --timeout 1m",
	})
}

func (a *app) restartCmd() *cobra.Command {
	return a.operateCmd(shoal.OpRestart, &cobra.Command{
		Use: "restart SERVICE...", Short: "Replace every replica by a new one, in waves",
		Long: `Replace the replicas of services by new ones of the same image and settings, in
waves as an update does, and wait until they are healthy. A stopped service starts.`,
		Example: "  shoal restart web\n  shoal restart web worker -d\n  shoal restart web --plan",
	})
}

// operateCmd completes a command that asks for an operation.
func (a *app) operateCmd(op shoal.Operation, cmd *cobra.Command) *cobra.Command {
	var w wishFlags
	cmd.Args = someArgs(0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range args {
			if err := shoal.CheckName("name", name); err != nil {
				return err
			}
		}
		return a.wish(cmd, &w, func(ctx context.Context, c *api.Client, opts api.WishOptions) (api.Outcome, error) {
			return c.Operate(ctx, shoal.OperateWish{Services: args, Op: op}, opts)
		})
	}
	w.add(cmd.Flags())
	return cmd
}
