// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// How often the autoscaler is told of connections.
const (
	measure = 15 * time.Second // of a load that stays
	sample  = 5 * time.Second  // of a step, which shows in two of them
	// few connections more or less are no step, nor is a quarter of what is there.
	few = 5
)

// wakes reports whether a service sleeps, or wakes up: a client that comes to it waits. That
// it came is told at once, and an operator that hears it asks for the first replica.
func (r *Room) wakes(name string) bool {
	v := r.deps.Views.View()
	if v == nil || r.deps.Tell == nil {
		return false
	}
	s, ok := v.Service(name)
	if !ok || s.Stopped || s.Spec.Autoscale == nil || s.Spec.Autoscale.Min > 0 {
		return false
	}
	select {
	case r.came <- struct{}{}:
	default:
	}
	return true
}

// tellCarried tells what is carried to autoscaled services: every period, a step of it
// sooner, and that somebody came to one that sleeps at once.
func (r *Room) tellCarried(ctx context.Context) {
	m := meter{}
	tick := time.NewTicker(sample)
	defer tick.Stop()
	var told []shoal.Carried
	for n := 1; ; {
		how := ofWaiting
		select {
		case <-tick.C:
			how = ofSteps
			if n%int(measure/sample) == 0 {
				how = ofAll
			}
			n++
		case <-r.came:
			if !rest(ctx, gather) {
				return
			}
		case <-ctx.Done():
			return
		}
		now := m.read(r.watched(), r.deps.Clock.Mono(), how)
		if !slices.Equal(now, told) {
			told = now
			r.deps.Tell(now)
		}
	}
}

// watched returns what was carried to services whose connections decide how many replicas
// they have.
func (r *Room) watched() map[string]shoal.Traffic {
	v := r.deps.Views.View()
	out := r.Traffic()
	for name := range out {
		var a *shoal.Autoscale
		if v != nil {
			if s, ok := v.Service(name); ok {
				a = s.Spec.Autoscale
			}
		}
		if a == nil || a.Connections == 0 && a.Requests == 0 {
			delete(out, name)
		}
	}
	return out
}

// reading is what a reading of a [meter] tells anew.
type reading int

const (
	ofWaiting reading = iota // what is open
	ofSteps                  // what is far from what was told
	ofAll
)

// meter makes rates of counters. The zero value has read nothing.
type meter struct {
	begun bool
	at    time.Duration // of the last reading
	of    map[string]counted
}

// counted is what is known of one service. Times are this peer's monotonic clock, totals
// those of its connections since this peer started.
type counted struct {
	told shoal.Carried
	from time.Duration // when the rate that is told next begins
	base uint64        // the total then

	seen  time.Duration // the last sample
	total uint64        // then
	open  int           // then
	rate  int64         // since the one before, thousandths a second
}

// read returns what is carried now, by service; nothing of those to which nothing is.
// Rates are those of the time since they were told last, and of a step what the last
// sample saw.
func (m *meter) read(all map[string]shoal.Traffic, now time.Duration, how reading) []shoal.Carried {
	next := make(map[string]counted, len(all))
	var out []shoal.Carried
	for name, t := range all {
		c, known := m.of[name]
		switch {
		case !known && !m.begun: // when that came is not known
			c = counted{from: now, base: t.Total, seen: now, total: t.Total}
		case !known:
			c = counted{from: m.at, seen: m.at}
		}
		c.told.Service = name
		if how == ofWaiting {
			c.told.Open = int(steady(int64(c.told.Open), int64(t.Open)))
		} else {
			c.sample(t, now, how == ofAll)
		}
		next[name] = c
		if c.told.Open > 0 || c.told.Rate > 0 {
			out = append(out, c.told)
		}
	}
	m.begun, m.at, m.of = true, now, next
	slices.SortFunc(out, func(a, b shoal.Carried) int { return strings.Compare(a.Service, b.Service) })
	return out
}

// sample takes a sample, and tells all, or a step that the sample before saw, too.
func (c *counted) sample(t shoal.Traffic, now time.Duration, isAll bool) {
	c.base, c.total = min(c.base, t.Total), min(c.total, t.Total) // what counted may have been made anew
	rate := c.rate
	if now > c.seen {
		rate = perSecond(t.Total-c.total, now-c.seen)
	}
	switch {
	case stepOf(c.told.Rate, c.rate, rate, perSecond(few, sample)):
		c.told.Rate, c.from, c.base = rate, c.seen, c.total
	case isAll && now > c.from:
		c.told.Rate = steady(c.told.Rate, perSecond(t.Total-c.base, now-c.from))
		c.from, c.base = now, t.Total
	}
	switch told := int64(c.told.Open); {
	case isAll:
		c.told.Open = int(steady(told, int64(t.Open)))
	case stepOf(told, int64(c.open), int64(t.Open), few):
		c.told.Open = t.Open
	}
	c.seen, c.total, c.open, c.rate = now, t.Total, t.Open, rate
}

// perSecond is a rate in thousandths.
func perSecond(n uint64, in time.Duration) int64 { return int64(float64(n) * 1000 / in.Seconds()) }

// stepOf reports whether the last two samples are both far above what was told, or below.
func stepOf(told, before, now, bit int64) bool {
	far := told/4 + bit
	return min(before, now) > told+far || max(before, now) < told-far
}

// steady returns what was told before if what is counted now differs by no more than a
// sixteenth, so that peers do not tell each other of every connection. Nothing, and
// something, always count.
func steady(told, now int64) int64 {
	if d := now - told; max(d, -d) <= told/16 && now > 0 {
		return told
	}
	return now
}
