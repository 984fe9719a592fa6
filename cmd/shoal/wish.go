// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal/api"
)

// How long a wish may take to be accepted, and how long a Ctrl-C waits to learn
// whether it was.
const (
	acceptTime = 30 * time.Second
	learnTime  = 5 * time.Second
)

// wishFlags are those of every command that asks for something.
type wishFlags struct {
	planFlags
	acks         int
	wait, detach bool
}

func (w *wishFlags) add(f *pflag.FlagSet) {
	w.planFlags.add(f)
	ackFlag(f, &w.acks)
	f.BoolVarP(&w.detach, "detach", "d", false, "do not wait until replicas are healthy")
	f.BoolVar(&w.wait, "wait", true, "wait until replicas are healthy")
}

func ackFlag(f *pflag.FlagSet, acks *int) {
	f.IntVar(acks, "ack", 0, "wait until so many other peers hold the record too")
}

func (w *wishFlags) waits() bool { return w.wait && !w.detach }

// wish submits, shows what changed, and waits; or it only shows what would change.
func (a *app) wish(cmd *cobra.Command, w *wishFlags, ask func(context.Context, *api.Client, api.WishOptions) (api.Outcome, error)) error {
	if err := w.check(); err != nil {
		return err
	}
	_, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	if w.plan {
		plan, err := a.planned(cmd.Context(), func(ctx context.Context) (api.Outcome, error) {
			return ask(ctx, c, api.WishOptions{PlanOnly: true})
		})
		if err != nil {
			return err
		}
		return a.onlyPlan(plan, w.planFlags)
	}
	out, err := a.submit(cmd.Context(), func(ctx context.Context) (api.Outcome, error) {
		return ask(ctx, c, api.WishOptions{Acks: w.acks, AckTimeout: time.Duration(a.timeout)})
	})
	if err != nil {
		return err
	}
	if err := a.showPlan(out); err != nil {
		return err
	}
	return a.accepted(cmd.Context(), c, out, w.waits())
}

// submit asks for acceptance and never leaves open whether there was one: after an
// interrupt it still waits a moment for the answer.
func (a *app) submit(ctx context.Context, ask func(context.Context) (api.Outcome, error)) (api.Outcome, error) {
	if ctx.Err() != nil {
		return api.Outcome{}, interrupted("not accepted: nothing was written")
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), acceptTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { // the clock starts with the interrupt
		time.AfterFunc(learnTime, cancel)
	})
	defer stop()
	out, err := ask(call)
	switch {
	case err != nil && ctx.Err() != nil && call.Err() != nil:
		return out, interrupted("whether it was accepted is not known; shoal ls shows it")
	case err != nil && ctx.Err() != nil:
		return out, interrupted("not accepted: " + clean(err.Error()))
	case err != nil:
		return out, err
	case ctx.Err() != nil:
		return out, &coded{code: exitTimeout, name: "interrupted", err: errors.New("interrupted; accepted: it goes on, shoal ps shows how")}
	}
	return out, nil
}

func interrupted(what string) error {
	return &coded{code: exitError, name: "interrupted", err: errors.New("interrupted; " + what)}
}

// accepted tells what was accepted, and waits for it. The names are those to watch.
func (a *app) accepted(ctx context.Context, c *api.Client, out api.Outcome, waits bool) error {
	a.freshness(out.Freshness)
	few := a.fewAcks(out)
	if waits {
		if err := a.await(ctx, c, names(out), written(out)); err != nil {
			a.hintImages(ctx, c, names(out))
			return err
		}
	} else if slices.ContainsFunc(out.Changes, func(ch api.Change) bool { return len(ch.Unplaced) > 0 }) {
		a.hintImages(ctx, c, names(out))
	}
	return few
}

// hintImages names the images that services lack and nobody pushed. What cannot be known
// now is no hint.
func (a *app) hintImages(ctx context.Context, c *api.Client, services []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), learnTime)
	defer cancel()
	known, err := c.Images(ctx)
	if err != nil {
		return
	}
	all, err := c.Services(ctx)
	if err != nil {
		return
	}
	rows, err := c.Replicas(ctx)
	if err != nil {
		return
	}
	var said []string
	for _, r := range rows.Items {
		i := slices.IndexFunc(all.Items, func(s api.Service) bool { return s.Name == r.Service })
		if i < 0 || !slices.Contains(services, r.Service) || r.State == "ready" && r.Current || !strings.Contains(r.Reason, "image") {
			continue
		}
		if image := all.Items[i].Image; !slices.Contains(said, image) && len(named(known.Items, image)) == 0 {
			said = append(said, image)
			a.say("nobody pushed %s: shoal image push %s, where docker has it", clean(image), clean(image))
		}
	}
}

// fewAcks warns if fewer peers than asked confirmed, and returns what the command ends
// with for that.
func (a *app) fewAcks(out api.Outcome) error {
	if out.Acks >= out.AcksWanted {
		return nil
	}
	a.say("warning: accepted, and on disk here; %d of %d other peers confirmed it in time", out.Acks, out.AcksWanted)
	return silent(exitTimeout)
}

// written are the revisions of an outcome, by service.
func written(out api.Outcome) map[string]string {
	all := map[string]string{}
	for _, ch := range out.Changes {
		all[ch.Service] = ch.Revision
	}
	return all
}

func names(out api.Outcome) []string {
	all := make([]string, len(out.Changes))
	for i, ch := range out.Changes {
		all[i] = cmp.Or(ch.Service, ch.PeerName)
	}
	return all
}
