// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

func (a *app) metricsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "metrics", Short: "Show what the asked peer counts, as Prometheus reads it", Args: a.noArgs,
		Long: `Show the metrics of the asked peer: what it does itself, and what it believes of the
others. They are text, in the form that Prometheus reads; docs/metrics.md lists them. For
Prometheus itself the peer answers at the address of metrics.listen in its configuration.`,
		Example: "  shoal metrics\n  shoal metrics | grep ^shoal_ingress\n  shoal -H ssh://osaka metrics",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !a.forPeople() {
				return usage("--output: metrics are text, in the form that Prometheus reads")
			}
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			text, err := c.Metrics(ctx)
			if err != nil {
				return err
			}
			_, err = a.out.Write(text)
			return err
		},
	}
}
