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

// measure is the period in which connections are counted for the autoscaler.
const measure = 15 * time.Second

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

// tellCarried tells what is carried to autoscaled services: every period, and that somebody
// came to one that sleeps at once.
func (r *Room) tellCarried(ctx context.Context) {
	m := meter{}
	tick := time.NewTicker(measure)
	defer tick.Stop()
	var told []shoal.Carried
	for {
		whole := false
		select {
		case <-tick.C:
			whole = true
		case <-r.came:
			if !rest(ctx, gather) {
				return
			}
		case <-ctx.Done():
			return
		}
		now := m.read(r.watched(), r.deps.Clock.Mono(), whole)
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

// meter makes rates of counters. The zero value has read nothing.
type meter struct {
	at   time.Duration
	last map[string]uint64 // connections since this peer started
	told map[string]shoal.Carried
}

// read returns what is carried now, by service; nothing of those to which nothing is. Rates
// are those of the time since the last whole reading, and only a whole one makes them anew.
func (m *meter) read(all map[string]shoal.Traffic, now time.Duration, whole bool) []shoal.Carried {
	last, told := make(map[string]uint64, len(all)), make(map[string]shoal.Carried, len(all))
	var out []shoal.Carried
	for name, t := range all {
		old := m.told[name]
		c := shoal.Carried{Service: name, Open: int(steady(int64(old.Open), int64(t.Open))), Rate: old.Rate}
		if whole && m.last != nil && now > m.at {
			came := t.Total - min(m.last[name], t.Total) // what counted may have been made anew
			c.Rate = steady(old.Rate, int64(float64(came)*1000/(now-m.at).Seconds()))
		}
		last[name] = t.Total
		told[name] = c
		if c.Open > 0 || c.Rate > 0 {
			out = append(out, c)
		}
	}
	if whole {
		m.at, m.last = now, last
	}
	m.told = told
	slices.SortFunc(out, func(a, b shoal.Carried) int { return strings.Compare(a.Service, b.Service) })
	return out
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
