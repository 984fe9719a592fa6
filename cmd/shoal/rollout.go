// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) rolloutCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rollout", Short: "See and steer how services come to a new revision", Args: noSuchCommand,
		Long: `See and steer how services come to a new revision. No peer conducts it: each changes its
own slots by rules that all know, so it goes on whoever dies. docs/rollouts.md tells of
waves, limits, failures and canaries.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.rolloutStatusCmd(), a.rolloutHistoryCmd(), a.steerCmd(shoal.RolloutPause, &cobra.Command{
			Use: "pause SERVICE", Short: "Let no more slots change",
			Long: `Let no more slots of a service change to its current revision. What has changed stays, and
what is on its way arrives. "shoal rollout resume" goes on; a new deploy starts anew.`,
			Example: "  shoal rollout pause web",
		}), a.steerCmd(shoal.RolloutResume, &cobra.Command{
			Use: "resume SERVICE", Short: "Let a paused rollout go on",
			Long: `Let a paused rollout go on, and wait until its replicas are healthy. One that paused by
itself because too much failed pauses again if that is still so.`,
			Example: "  shoal rollout resume web\n  shoal rollout resume web -d",
		}), a.steerCmd(shoal.RolloutPromote, &cobra.Command{
			Use: "promote SERVICE", Short: "Let all slots follow a canary",
			Long: `Say that the canary of a service's current revision has shown enough: the other slots
change too, in waves. A revision without a canary is refused.`,
			Example: "  shoal rollout promote web\n  shoal rollout promote web --plan",
		}), a.rolloutAbortCmd(),
	)
	return cmd
}

// steerCmd completes a command that asks for a change of a rollout.
func (a *app) steerCmd(change shoal.RolloutChange, cmd *cobra.Command) *cobra.Command {
	var w wishFlags
	cmd.Args = someArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.steer(cmd, &w, shoal.RolloutWish{Service: args[0], Change: change})
	}
	if change == shoal.RolloutPause { // there is nothing to wait for
		ackFlag(cmd.Flags(), &w.acks)
		w.planFlags.add(cmd.Flags())
		return cmd
	}
	w.add(cmd.Flags())
	return cmd
}

func (a *app) steer(cmd *cobra.Command, w *wishFlags, wish shoal.RolloutWish) error {
	if err := shoal.CheckName("name", wish.Service); err != nil {
		return err
	}
	return a.wish(cmd, w, func(ctx context.Context, c *api.Client, opts api.WishOptions) (api.Outcome, error) {
		return c.SteerRollout(ctx, wish, opts)
	})
}

func (a *app) rolloutAbortCmd() *cobra.Command {
	var w wishFlags
	cmd := &cobra.Command{
		Use: "abort SERVICE", Short: "End a rollout: back to the last good revision", Args: someArgs(1),
		Long: `End a rollout that is under way: the last revision that was good becomes current again,
by the rules for going back, and wait until its replicas are healthy. One that is
complete cannot be ended; "shoal rollback" goes back from it.`,
		Example: "  shoal rollout abort web\n  shoal rollout abort web --plan",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := shoal.CheckName("name", args[0]); err != nil {
				return err
			}
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			now, _, err := c.Rollout(ctx, args[0])
			done()
			if err != nil {
				return err
			}
			if now.State == stateComplete {
				return &api.Error{
					Code: api.CodeRefused, What: fmt.Sprintf("the rollout of revision %s of service %q is complete", seqOf(now.Revision), args[0]),
					Todo: "go back from it with shoal rollback " + args[0],
				}
			}
			of, err := shoal.ParseRevisionID(now.Revision)
			if err != nil {
				return err
			}
			return a.steer(cmd, &w, shoal.RolloutWish{Service: args[0], Change: shoal.RolloutBack, Of: of})
		},
	}
	w.add(cmd.Flags())
	return cmd
}

func (a *app) rollbackCmd() *cobra.Command {
	var w wishFlags
	var to string
	cmd := &cobra.Command{
		Use: "rollback SERVICE", Short: "Make an earlier revision current again", Args: someArgs(1),
		Long: `Make an earlier revision of a service current again, as a new one: the last that was
good, or that of --to. Its slots change in waves, by the rules for going back. The number
of replicas stays. "shoal rollout history" lists the revisions that are remembered.`,
		Example: "  shoal rollback web --plan\n  shoal rollback web\n  shoal rollback web --to 7",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.steer(cmd, &w, shoal.RolloutWish{Service: args[0], Change: shoal.RolloutBack, To: to})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`revision` to go back to, as rollout history lists it (default: the last good one)")
	w.add(cmd.Flags())
	return cmd
}

// What is asked for of a rollout's states.
const (
	stateComplete = "complete"
	stateStopped  = "stopped"
	stateFailed   = "failed" // a job
	stateCanary   = "canary"
	stateAsleep   = "scheduled" // a job that has not run yet
)

func (a *app) rolloutStatusCmd() *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use: "status SERVICE", Short: "Say how far a rollout is, and what it waits for", Args: someArgs(1),
		Long: `Say how far a service has come to its current revision, which slots change next, what
they wait for, and who acts next, as the asked peer sees it. Exit 0 if the rollout is
complete, 4 if it is not, 5 if it was paused by a failure or rolled back by itself.

With --watch a line for each change, until it ends or --timeout.`,
		Example: "  shoal rollout status web\n  shoal rollout status web -w --timeout 10m\n  shoal rollout status web -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unless(watch, unaryTime))
			if err != nil {
				return err
			}
			defer done()
			now, all, err := c.Rollout(ctx, args[0])
			if err != nil {
				return err
			}
			if watch {
				return a.watchRollout(ctx, c, now)
			}
			if err := inspect(a, []api.Rollout{now}, a.describeRollout, func(r api.Rollout) string { return r.Service }); err != nil {
				return err
			}
			a.freshness(all.Freshness)
			if over, err := rolloutEnd(now); over {
				return quiet(err)
			}
			return silent(exitTimeout)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "until it ends, or --timeout")
	return cmd
}

// unless is how long a command may take that does not watch.
func unless(watch bool, d time.Duration) time.Duration {
	if watch {
		return 0
	}
	return d
}

// quiet keeps the exit code of an error whose words were shown.
func quiet(err error) error {
	if err == nil {
		return nil
	}
	return silent(exitCode(err))
}

// rolloutEnd reports whether a rollout is over, or goes on only when somebody says so
// after a failure; then what the command ends with.
func rolloutEnd(r api.Rollout) (over bool, err error) {
	switch {
	case r.Paused && r.Why != "":
		return true, &coded{code: exitUnhealthy, name: "paused", err: fmt.Errorf("the rollout of %s is paused: %s; see shoal rollout status %s", r.Service, r.Why, r.Service)}
	case r.State == stateStopped, r.State == stateAsleep:
		return true, nil
	case r.Job != nil && r.State == stateFailed:
		return true, &coded{code: exitUnhealthy, name: "failed", err: fmt.Errorf("the job %s has failed: %s; see shoal logs %s", r.Service, r.FirstFailure, r.Service)}
	case r.State != stateComplete:
		return false, nil
	case r.Undoes != "" && r.UndoWhy != "":
		return true, &coded{code: exitUnhealthy, name: "rolled_back", err: errors.New(undoneText(r))}
	}
	return true, nil
}

// undoneText says from what a service went back, to what, and why.
func undoneText(r api.Rollout) string {
	to := "an earlier revision"
	if r.Restores != "" {
		to = "revision " + seqOf(r.Restores)
	}
	return fmt.Sprintf("%s was rolled back from revision %s to %s: %s", r.Service, seqOf(r.Undoes), to, cmp.Or(r.UndoWhy, "a user went back"))
}

// watchRollout writes a line for each change until the rollout is over.
func (a *app) watchRollout(ctx context.Context, c *api.Client, first api.Rollout) error {
	errOver := errors.New("over")
	line := ""
	var last []api.Progress
	var end error
	err := c.Watch(ctx, []string{first.Service}, func(all []api.Progress, _ api.Freshness) error {
		if len(all) == 0 || !all[0].Exists {
			end = &api.Error{Code: api.CodeNotFound, What: fmt.Sprintf("service %q is gone", first.Service)}
			return errOver
		}
		last = all
		r := all[0].Rollout
		if r == nil { // between two revisions
			return nil
		}
		if text := rolloutLine(*r); text != line {
			line = text
			if err := a.rolloutStep(*r, text); err != nil {
				return err
			}
		}
		over, err := rolloutEnd(*r)
		if over {
			end = err
			return errOver
		}
		return nil
	})
	switch {
	case errors.Is(err, errOver):
		if exitCode(end) == exitUnhealthy {
			end = a.lastWords(ctx, c, snapshot{services: last}, end)
		}
		return end
	case ctx.Err() != nil:
		return &coded{code: exitTimeout, name: api.CodeTimeout, err: fmt.Errorf("not complete; %s", cmp.Or(line, "nothing was heard of it"))}
	}
	return err
}

// rolloutStep writes one line, or one value.
func (a *app) rolloutStep(r api.Rollout, text string) error {
	switch {
	case a.output == "name":
		return nil
	case !a.forPeople():
		return a.streamed(r)
	}
	_, err := fmt.Fprintln(a.out, clean(text))
	return err
}

// rolloutLine is a rollout in a line.
func rolloutLine(r api.Rollout) string {
	parts := []string{fmt.Sprintf("%s: revision %s %s", r.Service, seqOf(r.Revision), r.State)}
	if r.Job != nil {
		return jobRolloutLine(parts[0], r)
	}
	if r.State != stateStopped {
		parts[0] += fmt.Sprintf(", %d of %s changed, %d healthy", r.Current, count(r.Slots, "slot"), r.Healthy)
	}
	if r.Failed > 0 {
		parts[0] += fmt.Sprintf(", %d failed", r.Failed)
	}
	if next := nextText(r); next != "" && r.State != stateComplete {
		parts = append(parts, "next "+next)
	}
	if waits := waitsText(r); waits != "" {
		parts = append(parts, "waits: "+waits)
	}
	return strings.Join(parts, "; ")
}

// waitsText is what a rollout waits for, with why it is paused.
func waitsText(r api.Rollout) string {
	switch {
	case r.Paused && r.Why != "":
		return "it is paused: " + r.Why
	case r.Paused:
		return "it is paused; shoal rollout resume " + r.Service + " goes on"
	case r.State == stateCanary && r.PromoteAfter > 0:
		return fmt.Sprintf("%s, after %s by itself", r.Waits, seconds(r.PromoteAfter))
	case r.State == stateCanary:
		return r.Waits + "; shoal rollout promote " + r.Service
	}
	return r.Waits
}

// nextText lists the slots that change next, at most a few.
func nextText(r api.Rollout) string {
	const most = 8
	var out []string
	for _, slot := range r.Next[:min(len(r.Next), most)] {
		out = append(out, strconv.Itoa(slot))
	}
	text := strings.Join(out, ", ")
	if more := len(r.Next) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func (a *app) describeRollout(r api.Rollout) error {
	state := r.State
	if r.State != stateComplete && r.State != stateStopped && r.Since > 0 && r.Job == nil {
		state += ", no slot became healthy for " + ago(r.Since)
	}
	slots := fmt.Sprintf("%d of %d changed, %d healthy, %d failed", r.Current, r.Slots, r.Healthy, r.Failed)
	if r.Job != nil {
		slots = slotsText(r.Job, r.Slots)
	}
	if r.State == stateStopped {
		slots = ""
	}
	acts := r.Actor.Name
	if acts != "" && r.ActsAfter > 0 {
		acts += ", after " + seconds(r.ActsAfter)
	}
	undoes := ""
	if r.Undoes != "" {
		undoes = undoneText(r)
	}
	err := a.fields([][2]string{
		{"Service", r.Service},
		{"Revision", a.revision(r.Revision)},
		{"Image", r.Image},
		{"Accepted", moment(r.Accepted)},
		{"State", state},
		{"Slots", slots},
		{"Next", nextText(r)},
		{"Waits", waitsText(r)},
		{"Acts next", acts},
		{"First failure", r.FirstFailure},
		{"Went back", undoes},
	})
	if err != nil {
		return err
	}
	return a.words(r.Failure)
}

func (a *app) rolloutHistoryCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "history SERVICE", Short: "List the revisions of a service that are remembered", Args: someArgs(1),
		Long: `List the current revision of a service and up to five before it, the newest first: when it
was accepted and by which peer, its image, whether it was good (all slots ran it and were
healthy), was undone, or was replaced before either, and why. "shoal rollback" takes them.`,
		Example: "  shoal rollout history web\n  shoal rollout history web -o wide\n  shoal rollout history web -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			_, all, err := c.Rollout(ctx, args[0])
			if err != nil {
				return err
			}
			if err := show(a, a.out, all.Items, a.revisionTable()); err != nil {
				return err
			}
			if err := a.pastWords(all.Items); err != nil {
				return err
			}
			a.freshness(all.Freshness)
			return nil
		},
	}
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten IDs")
	return cmd
}

func (a *app) revisionTable() table[api.Revision] {
	return table[api.Revision]{
		name: func(r api.Revision) string { return seqOf(r.Revision) },
		columns: []column[api.Revision]{
			{head: "REVISION", cell: func(r api.Revision) string { return seqOf(r.Revision) }},
			{head: "ID", wide: true, cell: func(r api.Revision) string { return a.revision(r.Revision) }},
			{head: "ACCEPTED", cell: func(r api.Revision) string {
				if r.Accepted.IsZero() {
					return ""
				}
				return age(a.now().Sub(r.Accepted)) + " ago"
			}},
			{head: "BY", cell: func(r api.Revision) string { return r.By.Name }},
			{head: "IMAGE", cell: func(r api.Revision) string { return r.Image }},
			{head: "DIGEST", wide: true, cell: func(r api.Revision) string { return a.short(r.Digest) }},
			{head: "STATE", cell: func(r api.Revision) string {
				if r.UndoneBy != "" {
					return r.State + " by " + seqOf(r.UndoneBy)
				}
				return r.State
			}},
			{head: "WHY", cell: func(r api.Revision) string { return r.Why }},
		},
	}
}

// seqOf is the number of a revision, which people say.
func seqOf(revision string) string {
	seq, _, _ := strings.Cut(revision, "@")
	return seq
}
