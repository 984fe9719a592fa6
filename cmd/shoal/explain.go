// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/api"
)

func (a *app) explainCmd() *cobra.Command {
	var reach bool
	cmd := &cobra.Command{
		Use: "explain SERVICE[/SLOT]", Short: "Say why replicas are where they are, or nowhere", Args: someArgs(1),
		Long: `Say of each slot of a service where it was meant to go, who holds it, where its data
is and what it waits for; of a rollout that is not complete how far it is, which slots
are next and what they wait for; then of each peer whether it could take one more replica, and
why not. What it waits for is the last decision of the peer that is asked: where it
looks wrong, ask another.

With --reach say instead how the asked peer sees each replica when it gives it a
connection: usable or why not, by which path, its weight, the connections that are open
from here, and how long it took lately to connect and to the first byte.`,
		Example: "  shoal explain web\n  shoal explain web/2\n  shoal explain web --reach\n  shoal explain web -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			service, slot, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			if reach {
				return a.explainReach(ctx, c, service, slot)
			}
			x, err := c.Explain(ctx, service, slot)
			if err != nil {
				return err
			}
			if err := inspect(a, []api.Explanation{x}, a.describeExplanation, func(x api.Explanation) string { return x.Name }); err != nil {
				return err
			}
			a.freshness(x.Freshness)
			return nil
		},
	}
	cmd.Flags().BoolVar(&reach, "reach", false, "how the asked peer reaches each replica")
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten IDs")
	return cmd
}

func (a *app) describeExplanation(x api.Explanation) error {
	err := a.fields([][2]string{
		{"Service", fmt.Sprintf("%s, %s, %s", x.Name, x.Mode, howMany(x.Service))},
		{"Image", x.Image},
		{"Revision", a.revision(x.Revision)},
		{"Autoscale", autoscaleText(x.Autoscale)},
		{"Load", loadText(x.Autoscale)},
		{"Scaled by", lastText(x.Autoscale)},
		{"Never", x.Never},
	})
	if err != nil {
		return err
	}
	if err := a.explainRollout(x.Rollout); err != nil {
		return err
	}
	for i := range x.Slots {
		if err := a.describeSlot(x.Name, &x.Slots[i]); err != nil {
			return err
		}
	}
	if len(x.Placement) > 0 {
		if _, err := fmt.Fprintln(a.out, "\nOne more replica:"); err != nil {
			return err
		}
	}
	return a.candidates(x.Placement)
}

// explainRollout writes where a rollout stands that is not complete.
func (a *app) explainRollout(r *api.Rollout) error {
	if r == nil || r.State == stateComplete || r.State == stateStopped {
		return nil
	}
	err := a.fields([][2]string{
		{"Rollout", rolloutLine(*r)},
		{"First failure", r.FirstFailure},
	})
	if err != nil {
		return err
	}
	return a.words(r.Failure)
}

// describeSlot writes a slot's head and what is known of it below.
func (a *app) describeSlot(service string, s *api.ExplainedSlot) error {
	if _, err := fmt.Fprintf(a.out, "\nSlot %s/%d:\n", clean(service), s.Slot); err != nil {
		return err
	}
	rows := [][2]string{{"Proposed", s.Proposed.Name}}
	for i, r := range s.Holders {
		head := "Held by"
		if i > 0 {
			head = "Also held by"
		}
		rows = append(rows, [2]string{head, holderText(r)})
	}
	if len(s.Holders) == 0 {
		rows = append(rows, [2]string{"Held by", "nobody"})
	}
	rows = append(rows, [2]string{"Data on", s.Home.Name})
	for i, w := range s.Waits {
		head := "Decided"
		if i > 0 {
			head = strings.Repeat(" ", len(head))
		}
		rows = append(rows, [2]string{head, w})
	}
	for i := range rows {
		rows[i][0] = "  " + rows[i][0]
	}
	return a.fields(rows)
}

// holderText says how a holder fares. Of one that is not heard what it last said is
// left: for how long it has not been is said below, and at the end of the listing.
func holderText(r api.Replica) string {
	text := r.PeerName + ", " + r.State
	if _, said, ok := strings.Cut(r.Reason, "; "); ok && r.State == "silent" {
		return text + "; " + said
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

// candidates writes which peers could hold one more replica, and why not.
func (a *app) candidates(all []api.Verdict) error {
	return tabulate(a.out, all, []column[api.Verdict]{
		{head: "CANDIDATE", cell: func(v api.Verdict) string { return v.PeerName }},
		{head: "FITS", cell: func(v api.Verdict) string {
			if v.Feasible {
				return "yes"
			}
			return "no"
		}},
		{head: "WHY", cell: func(v api.Verdict) string { return cmp.Or(v.Reason, v.Score) }},
	}, false)
}
