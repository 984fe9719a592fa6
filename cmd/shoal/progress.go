// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// progress draws on stderr: on a terminal a tree that is redrawn, elsewhere a line
// for each service whenever it changed; not when only the reason did, for reasons
// tell how long something lasts.
type progress struct {
	app   *app
	drawn []string // of services
	rows  int      // of the terminal that the tree fills
}

func (d *progress) draw(s snapshot) {
	now := make([]string, len(s.services))
	for i, p := range s.services {
		now[i] = progressLine(p)
	}
	if d.app.terminal {
		d.redraw(d.app.tree(s))
	} else {
		for i, line := range now {
			if i >= len(d.drawn) || d.drawn[i] != line {
				d.app.say("%s%s", line, becauseOf(s.services[i]))
			}
		}
	}
	d.drawn = now
}

// redraw writes the tree over the one before.
func (d *progress) redraw(tree []branch) {
	var b strings.Builder
	if d.rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", d.rows) // up, and clear what is below
	}
	for _, br := range tree {
		line := d.app.fit(br.text)
		if d.app.colors() && br.color != 0 {
			line = fmt.Sprintf("\x1b[%dm%s\x1b[0m", br.color, line)
		}
		b.WriteString(line + "\n")
	}
	d.rows = len(tree)
	_, _ = fmt.Fprint(d.app.err, b.String())
}

// fit cuts a line to the terminal: one that wraps would spoil the next redraw.
func (a *app) fit(line string) string {
	if runes := []rune(line); a.width > 0 && len(runes) >= a.width {
		return string(runes[:a.width-1])
	}
	return line
}

// branch is one line of the tree.
type branch struct {
	text  string
	color int // SGR parameter, 0: none
}

// Colours of branches.
const (
	green  = 32
	yellow = 33
	red    = 31
)

// leastRows is how many lines a tree may have when the terminal does not say.
const leastRows = 24

// tree draws each service with its slots below it, as far as the terminal has room:
// slots that are ready give way first.
func (a *app) tree(s snapshot) []branch {
	room := cmp.Or(a.height, leastRows) - 1 - len(s.services)
	var out []branch
	for i, p := range s.services {
		out = append(out, branch{progressLine(p) + becauseOf(p), colorOf(p)})
		slots := slotsOf(p)
		left := len(s.services) - i // services that still want room
		most := max(0, room/left)
		shown := slots
		if len(slots) > most {
			slices.SortStableFunc(slots, func(x, y branch) int { return cmp.Compare(urgency(x), urgency(y)) })
			shown = slots[:max(0, most-1)]
		}
		for j, br := range shown {
			mark := "├ "
			if j == len(slots)-1 {
				mark = "└ "
			}
			out = append(out, branch{mark + br.text, br.color})
		}
		if hidden := len(slots) - len(shown); hidden > 0 && most > 0 {
			out = append(out, branch{text: fmt.Sprintf("└ and %d more", hidden)})
		}
		room -= min(len(slots), most)
	}
	return out
}

// urgency sorts failing slots before moving ones before ready ones.
func urgency(b branch) int { return slices.Index([]int{red, yellow, green}, b.color) }

func colorOf(p api.Progress) int {
	switch {
	case p.Trouble != "":
		return red
	case p.Settled:
		return green
	}
	return yellow
}

// slotsOf is one branch a replica or empty slot.
func slotsOf(p api.Progress) []branch {
	out := make([]branch, len(p.Replicas))
	wide := 0
	for _, r := range p.Replicas {
		wide = max(wide, len([]rune(r.PeerName)))
	}
	for i, r := range p.Replicas {
		state := r.State
		if p.Exists && !r.Current && r.State != "unplaced" {
			state += " (older revision)"
		}
		if r.Reason != "" {
			state += ": " + r.Reason
		}
		out[i].text = clean(fmt.Sprintf("%s/%d  %-*s  %s", r.Service, r.Slot, wide, cmp.Or(r.PeerName, "-"), state))
		switch {
		case r.State == "ready" && r.Current:
			out[i].color = green
		case r.State == "failed" || r.Health == shoal.HealthUnhealthy || p.Trouble != "" && r.Slot == p.TroubleSlot:
			out[i].color = red
		default:
			out[i].color = yellow
		}
	}
	return out
}
