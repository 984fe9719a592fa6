// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// markCmds are the verbs that lay and lift marks; they stand both at the top and under
// "shoal peer", so each call makes new ones.
func (a *app) markCmds() []*cobra.Command {
	return []*cobra.Command{
		a.markCmd(shoal.PeerCordon, "Let peers take no new replicas",
			`Let peers take no new replicas. What they run, they keep, and restart if it fails.
"shoal uncordon" lifts it.`),
		a.markCmd(shoal.PeerUncordon, "Let peers take replicas again",
			`Lift all cordons and drains of peers. A cordon that another operator lays at the same
time on the other side of a split survives: lifting names what it lifts.`),
		a.drainCmd(),
		a.markCmd(shoal.PeerUndrain, "End the drain of peers",
			`End the drain of peers. One that was cordoned beside it stays cordoned; "shoal
uncordon" lifts both. Nothing moves back by itself.`),
	}
}

func (a *app) markCmd(change shoal.PeerChange, short, long string) *cobra.Command {
	ask := peerAsk{wish: shoal.PeerWish{Change: change}}
	verb := string(change)
	cmd := &cobra.Command{
		Use: verb + " PEER...", Short: short, Args: someArgs(0),
		Long:    long + "\n" + peerNaming,
		Example: "  shoal " + verb + " osaka\n  shoal " + verb + " osaka kyoto",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePeers(cmd, args, ask)
		},
	}
	ask.add(cmd.Flags())
	return cmd
}

const peerNaming = "Name a peer by its name, its ID, or the end of its ID."

func (a *app) drainCmd() *cobra.Command {
	var w wishFlags
	ask := peerAsk{wish: shoal.PeerWish{Change: shoal.PeerDrain}}
	cmd := &cobra.Command{
		Use: "drain PEER...", Short: "Hand over all replicas of peers", Args: someArgs(0),
		Long: `Let peers take no new replicas and hand over those they have, for maintenance. A replica
stops only when another is ready in its place, so no service runs with less than it
wants while other peers have room. Replicas of global services end. One whose data is in
a volume stays, for no other peer has it, and is named. A job that has ended stays too:
there is nothing to hand over.

Then wait until all is handed over: exit 0 if so, 4 if something stays, or not all was
in time. The drain goes on anyway; "shoal undrain" ends it. ` + peerNaming,
		Example: "  shoal drain osaka\n  shoal drain osaka --timeout 10m\n  shoal drain osaka -d\n  shoal drain osaka --plan",
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.waits = w.waits()
			return a.changePeers(cmd, args, ask)
		},
	}
	f := cmd.Flags()
	ask.add(f)
	f.BoolVarP(&w.detach, "detach", "d", false, "do not wait until all is handed over")
	f.BoolVar(&w.wait, "wait", true, "wait until all is handed over")
	return cmd
}

// peerAsk is what a command asks of peers.
type peerAsk struct {
	planFlags
	wish          shoal.PeerWish
	acks          int
	waits         bool // for drains
	ignoreMissing bool
}

func (p *peerAsk) add(f *pflag.FlagSet) {
	p.planFlags.add(f)
	ackFlag(f, &p.acks)
}

// changePeers asks for the same change of each peer, or what it would do.
func (a *app) changePeers(cmd *cobra.Command, names []string, ask peerAsk) error {
	if err := ask.check(); err != nil {
		return err
	}
	_, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	submit, opts := a.submit, api.WishOptions{Acks: ask.acks, AckTimeout: time.Duration(a.timeout)}
	if ask.plan {
		submit, opts = a.planned, api.WishOptions{PlanOnly: true}
	} else if err := a.allCan(cmd.Context(), c, names, ask); err != nil {
		return err
	}
	var few, failed error
	all := api.Outcome{}
	for _, name := range names {
		out, err := submit(cmd.Context(), func(ctx context.Context) (api.Outcome, error) {
			return c.ChangePeer(ctx, name, ask.wish, opts)
		})
		if ask.ignores(err) {
			continue
		}
		if err != nil {
			failed = err // those before it are accepted, and shown: allCan saw none of it
			break
		}
		all.Changes, all.Freshness = append(all.Changes, out.Changes...), out.Freshness
		few = cmp.Or(few, a.fewAcks(out))
	}
	if failed != nil && len(all.Changes) == 0 {
		return failed
	}
	if ask.plan {
		return cmp.Or(failed, a.onlyPlan(all, ask.planFlags))
	}
	if err := cmp.Or(a.showPlan(all), failed); err != nil {
		return err
	}
	a.freshness(all.Freshness)
	for _, ch := range all.Changes {
		if !ask.waits {
			break
		}
		if err := a.awaitDrain(cmd.Context(), c, ch); err != nil {
			return err
		}
	}
	return few
}

// allCan refuses a change of several peers, each of which is a record of its own, as
// long as one of them is known to be refused: nothing is half applied.
func (a *app) allCan(ctx context.Context, c *api.Client, names []string, ask peerAsk) error {
	for i := 0; len(names) > 1 && i < len(names); i++ {
		_, err := a.planned(ctx, func(ctx context.Context) (api.Outcome, error) {
			return c.ChangePeer(ctx, names[i], ask.wish, api.WishOptions{PlanOnly: true})
		})
		if err != nil && !ask.ignores(err) {
			return err
		}
	}
	return nil
}

// ignores reports whether an error is that of a peer that need not exist.
func (p *peerAsk) ignores(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Code == api.CodeNotFound && p.ignoreMissing
}

// awaitDrain shows what a peer still holds until it holds nothing but what stays.
func (a *app) awaitDrain(ctx context.Context, c *api.Client, ch api.Change) error {
	limit := cmp.Or(time.Duration(a.timeout), settleTime)
	seen := make(chan []api.Held)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g, watching := errgroup.WithContext(watching)
	g.Go(func() error {
		return c.WatchPeer(watching, ch.Peer, func(held []api.Held) error {
			select {
			case seen <- held:
				return nil
			case <-watching.Done():
				return watching.Err()
			}
		})
	})
	err := a.judgeDrain(ctx, watching, seen, ch, limit)
	stop()
	watchErr := g.Wait()
	switch {
	case errors.Is(err, errSettled):
		return nil
	case err == nil: // the watch ended by itself
		return fmt.Errorf("accepted, but its progress is not known: %w", watchErr)
	}
	return err
}

// judgeDrain returns errSettled, the verdict, or nil if the watch ended first.
func (a *app) judgeDrain(ctx, watching context.Context, seen <-chan []api.Held, ch api.Change, limit time.Duration) error {
	end := time.NewTimer(limit)
	defer end.Stop()
	var stuck <-chan time.Time
	var last drained
	said := ""
	for {
		select {
		case held := <-seen:
			last = newDrained(ch, held)
			if line := last.line(); line != said {
				a.say("%s", line)
				said = line
			}
			switch {
			case last.left == 0 && len(last.stays) == 0:
				return errSettled
			case last.left == 0:
				return &coded{code: exitTimeout, name: "partial", err: fmt.Errorf("drained, but for %s: no other peer has the data; stop the service meanwhile, or let it go without its data (x-shoal.volumes: anywhere)", listOf(last.stays))}
			}
			stuck = lasting(stuck, len(last.stuck) == last.left, patience)
		case <-stuck:
			return &coded{code: exitTimeout, name: "unplaced", err: fmt.Errorf("accepted, but no other peer can take %s; it goes on when one can, shoal undrain %s ends it", last.open(), ch.PeerName)}
		case <-end.C:
			return &coded{code: exitTimeout, name: api.CodeTimeout, err: fmt.Errorf("accepted, but not drained after %s: %s; it goes on, see shoal peer inspect %s", limit, last.open(), ch.PeerName)}
		case <-watching.Done(): // with ctx, or because the watch ended by itself
			if ctx.Err() == nil {
				return nil
			}
			return &coded{code: exitTimeout, name: "interrupted", err: fmt.Errorf("interrupted; accepted: it goes on, shoal peer inspect %s shows how", ch.PeerName)}
		}
	}
}

// drained is how far a drain has come.
type drained struct {
	name         string
	total, left  int
	waits        []string // "web/0 (starts on kyoto)", of what is left
	stuck, stays []string
}

func newDrained(ch api.Change, held []api.Held) drained {
	d := drained{name: ch.PeerName}
	for _, h := range held {
		slot := fmt.Sprintf("%s/%d", h.Service, h.Slot)
		if h.Stays {
			d.stays = append(d.stays, slot)
			continue
		}
		d.left++
		text := clean(fmt.Sprintf("%s (%s)", slot, h.Why))
		d.waits = append(d.waits, text)
		if h.Stuck {
			d.stuck = append(d.stuck, text)
		}
	}
	d.total = max(ch.Replicas, d.left)
	return d
}

// line is "osaka: 3 of 5 handed over".
func (d *drained) line() string {
	if d.total == 0 {
		return clean(d.name + ": nothing to hand over")
	}
	return clean(fmt.Sprintf("%s: %d of %d handed over", d.name, d.total-d.left, d.total))
}

// open names what is left, what no other peer can take first.
func (d *drained) open() string {
	if len(d.stuck) > 0 {
		return listOf(d.stuck)
	}
	return listOf(d.waits)
}

// listOf joins names, at most ten of them.
func listOf(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
