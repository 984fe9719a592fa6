// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal/api"
)

// planFlags are those of every command that can say what it would do.
type planFlags struct {
	plan, exitCode bool
}

func (p *planFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&p.plan, "plan", false, "only show the plan")
	f.BoolVar(&p.exitCode, "exit-code", false, "with --plan: exit 3 if the plan has changes")
}

func (p *planFlags) check() error {
	if p.exitCode && !p.plan {
		return usage("--exit-code goes with --plan")
	}
	return nil
}

// planned asks for a plan.
func (a *app) planned(ctx context.Context, ask func(context.Context) (api.Outcome, error)) (api.Outcome, error) {
	call, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	plan, err := ask(call)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return plan, interrupted("not accepted: nothing was written")
	}
	return plan, err
}

// onlyPlan ends a command that was asked what it would do.
func (a *app) onlyPlan(plan api.Outcome, p planFlags) error {
	if err := a.showPlan(plan); err != nil {
		return err
	}
	a.freshness(plan.Freshness)
	if p.exitCode && changing(plan) > 0 {
		return silent(exitChanges)
	}
	return nil
}

// showPlan writes a plan to stdout.
func (a *app) showPlan(plan api.Outcome) error {
	switch {
	case a.output == "name":
		return lines(a.out, names(plan), func(s string) string { return s })
	case !a.forPeople():
		return a.encode(a.out, plan.Changes)
	}
	for _, ch := range plan.Changes {
		if err := a.showChange(ch); err != nil {
			return err
		}
	}
	return nil
}

// signs are the colours of a plan's lines on a terminal.
var signs = map[string]string{"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[31m"}

func (a *app) showChange(ch api.Change) error {
	parts := append([]string{}, ch.Details...)
	if ch.Kind != "-" && ch.Peer == "" && !ch.Stopped {
		if ch.Replicas == 0 && len(ch.Places) > 0 { // a global service has no number
			parts = append(parts, "one on each of "+count(len(ch.Places), "peer"))
		} else {
			parts = append(parts, count(ch.Replicas, "replica"))
		}
		if where := places(ch.Places); where != "" {
			parts = append(parts, "on "+where)
		}
	}
	line := clean(fmt.Sprintf("%s %s: %s", ch.Kind, cmp.Or(ch.Service, ch.PeerName), strings.Join(parts, ", ")))
	if color := signs[ch.Kind]; color != "" && a.colors() {
		line = color + line + "\x1b[0m"
	}
	var b strings.Builder
	b.WriteString(line + "\n")
	for _, why := range unique(ch.Unplaced) {
		b.WriteString("    unplaced: " + clean(why) + "\n")
	}
	for _, n := range ch.Notes {
		b.WriteString("    " + clean(n) + "\n")
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

// places counts slots by peer, in the order of the first slot: "tokyo 2, osaka 1".
func places(slots []api.Place) string {
	n := map[string]int{}
	var order []string
	for _, p := range slots {
		if p.Name == "" {
			continue
		}
		if n[p.Name] == 0 {
			order = append(order, p.Name)
		}
		n[p.Name]++
	}
	for i, name := range order {
		order[i] = fmt.Sprintf("%s %d", name, n[name])
	}
	return strings.Join(order, ", ")
}

// slotPrefix is how a reason may begin.
var slotPrefix = regexp.MustCompile(`^slot \d+: `)

// unique joins equal sentences, whatever slot they are about: "3 slots: no room".
func unique(in []string) []string {
	n := map[string]int{}
	var out []string
	for _, s := range in {
		s = slotPrefix.ReplaceAllString(s, "")
		if n[s] == 0 {
			out = append(out, s)
		}
		n[s]++
	}
	for i, s := range out {
		out[i] = fmt.Sprintf("%s: %s", count(n[s], "slot"), s)
	}
	return out
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func changing(plan api.Outcome) int {
	n := 0
	for _, ch := range plan.Changes {
		if ch.Kind != "=" {
			n++
		}
	}
	return n
}

// confirm asks on a terminal; without one -y is needed.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.yes {
		return nil
	}
	if !a.terminal {
		return usage("there is no terminal to ask %q; use -y", question)
	}
	_, _ = fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // ends with the process at the latest: a terminal cannot be read with a deadline
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case got := <-answer:
		if got == "y" || got == "yes" {
			return nil
		}
		return &coded{code: exitError, name: "canceled", err: fmt.Errorf("not accepted: nothing was written")}
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.err)
		return interrupted("not accepted: nothing was written")
	}
}
