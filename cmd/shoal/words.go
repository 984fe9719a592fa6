// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// words writes what the replica had said that failed first, indented.
func (a *app) words(f *api.Failure) error {
	if f == nil {
		return nil
	}
	_, err := io.WriteString(a.out, wordsText(f)+"\n")
	return err
}

// pastWords writes what replicas had said of each revision that was undone for it, below
// a table for people.
func (a *app) pastWords(all []api.Revision) error {
	if !a.forPeople() {
		return nil
	}
	for _, r := range all {
		if r.Failure == nil {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "\nRevision %s: %s\n", seqOf(r.Revision), clean(r.Failure.Text)); err != nil {
			return err
		}
		if err := a.words(r.Failure); err != nil {
			return err
		}
	}
	return nil
}

// wordsText is what the replica had said that failed, or why that is not known.
func wordsText(f *api.Failure) string {
	who := fmt.Sprintf("%s/%d at %s", clean(f.Service), f.Slot, clean(f.PeerName))
	var out []string
	if f.Check != "" {
		out = append(out, fmt.Sprintf("Health check of %s: %s", who, clean(f.Check)))
	}
	switch {
	case len(f.Lines) > 0:
		out = append(out, fmt.Sprintf("Last lines of %s:", who))
	case f.Missing != "":
		out = append(out, fmt.Sprintf("Last lines of %s: not known: %s", who, clean(f.Missing)))
	default:
		out = append(out, fmt.Sprintf("Last lines of %s: it wrote none", who))
	}
	for _, line := range f.Lines {
		out = append(out, "  "+clean(line))
	}
	return strings.Join(out, "\n")
}

// Bounds of asking for what failed, after a command failed for it.
const (
	wordsLines = 10
	wordsTime  = 4 * time.Second
)

// lastWords goes with an error about replicas: it shows what the replica had said that
// failed first of a rollout, as its holder kept it, else the last lines of the first that
// fails now: what a user would ask for next. For programs it is in the error that is
// returned. That it cannot be had is no news beside what failed.
func (a *app) lastWords(ctx context.Context, c *api.Client, s snapshot, err error) error {
	i := slices.IndexFunc(s.services, func(p api.Progress) bool { return p.Trouble != "" || p.Rollout != nil && p.Rollout.Failure != nil })
	ended, ok := errors.AsType[*coded](err)
	if i < 0 || !ok {
		return err
	}
	p := s.services[i]
	ctx, cancel := context.WithTimeout(ctx, wordsTime)
	defer cancel()
	r, _, asked := c.Rollout(ctx, p.Service.Name)
	f := r.Failure
	switch {
	case asked != nil || f == nil || p.Trouble != "" && f.Revision != r.Revision:
		a.lastLines(ctx, c, p)
	case !a.forPeople():
		return &coded{code: ended.code, name: ended.name, err: ended.err, failure: f}
	default:
		if !strings.Contains(err.Error(), f.Text) { // else the error says it
			a.say("%s", clean(f.Text))
		}
		a.say("%s", wordsText(f))
	}
	return err
}

// lastLines shows the last lines of the first replica of a service that fails now.
func (a *app) lastLines(ctx context.Context, c *api.Client, p api.Progress) {
	if p.Trouble == "" {
		return
	}
	q := api.LogRequest{LogQuery: shoal.LogQuery{
		Service: p.Service.Name, Slot: p.TroubleSlot, LogOptions: shoal.LogOptions{Tail: wordsLines},
	}}
	var lines []string
	_ = c.Logs(ctx, q, func(l api.LogLine) error {
		lines = append(lines, "  "+clean(l.Text))
		return nil
	}, func(string, string) {})
	if len(lines) > 0 {
		lines = lines[max(0, len(lines)-wordsLines):]
		a.say("Last lines of %s/%d:\n%s", p.Service.Name, p.TroubleSlot, strings.Join(lines, "\n"))
	}
}
