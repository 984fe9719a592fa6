// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Loads are told every 15 s by each peer, at times of its own.
const (
	// period is how far the steps go, and the time before replicas are taken away after a
	// change: nobody has measured before what that did.
	period = 15 * time.Second
	// gap is the time before there are more after a change. It can be short: the load that
	// is known, divided by the target, does not grow by adding replicas.
	gap = 5 * time.Second
)

// Input is what a decision is made from.
type Input struct {
	Now     time.Duration    // own monotonic clock
	Current int              // replicas wanted now
	Said    shoal.RevisionID // the scale intent that says Current: another one is news
	Manual  bool             // a user asked for Current
	Metrics []Metric
	Ready   int    // of the wanted replicas, whose load could be known
	IsBusy  bool   // a connection is open, or came lately
	Held    string // why nothing may be changed, whatever the load; "": it may
}

// Decision is how many replicas there should be, and why.
type Decision struct {
	Want int           // Current: change nothing
	Why  string        // one line: "cpu 83% of 60%: 3 -> 5"; of no change what is measured, and what holds it
	Wake time.Duration // when to decide again though nothing changed; 0: never

	Metrics []shoal.Measured // in the order of the input's
	// Silent is for how long nobody has reported some metric though replicas are ready; 0:
	// all are. A replica that starts is measured twice before it counts.
	Silent time.Duration
}

// Memory is what a decision has to know of those before. The zero value knows nothing: then
// what there is counts as called for, so that a daemon that starts takes nothing away
// before the window has passed. It is a value: Decide does not write to the one it gets.
type Memory struct {
	started  bool
	current  int
	said     shoal.RevisionID
	since    time.Duration // current and said were first seen
	busy     time.Duration // a connection was last seen
	isBusy   bool          // when looked at last
	silent   time.Duration // since when nobody reports some metric of ready replicas; with isSilent
	isSilent bool
	low      calls // what current was in the last period, as up
	up       calls // each of more than those before
	down     calls // each of fewer
}

// Decide returns how many replicas a service should have now.
func Decide(a *shoal.Autoscale, m Memory, in Input) (Memory, Decision) {
	m = m.see(&in)
	d := decision{a: a, in: &in, m: &m}
	for i := range in.Metrics {
		d.measured = append(d.measured, in.Metrics[i].measured(in.Current))
	}
	d.recommend()
	least := func(old, now int) bool { return old >= now }
	m.low = m.low.add(in.Current, in.Now, period, least)
	m.up = m.up.add(d.n, in.Now, a.UpWindow, least)
	m.down = m.down.add(d.n, in.Now, a.DownWindow, func(old, now int) bool { return old <= now })
	out := d.gate()
	out.Metrics = d.measured
	if m.isSilent {
		out.Silent = max(in.Now-m.silent, 1)
	}
	return m, out
}

// see notes what is news.
func (m Memory) see(in *Input) Memory {
	if !m.started {
		seed := calls{{in.Current, in.Now}}
		m = Memory{started: true, current: in.Current, said: in.Said, since: in.Now, busy: in.Now, up: seed, down: seed}
	}
	if m.current != in.Current || m.said != in.Said {
		m.current, m.said, m.since = in.Current, in.Said, in.Now
	}
	if in.IsBusy || m.isBusy { // it was until now
		m.busy = in.Now
	}
	m.isBusy = in.IsBusy
	isSilent := in.Ready > 0 && slices.ContainsFunc(in.Metrics, func(x Metric) bool { return x.nobody(in.Current) })
	if isSilent && !m.isSilent {
		m.silent = in.Now
	}
	m.isSilent = isSilent
	return m
}

// decision is one call of Decide.
type decision struct {
	a        *shoal.Autoscale
	in       *Input
	m        *Memory
	measured []shoal.Measured
	n        int           // what the load calls for at this moment, within the bounds
	says     string        // all that is measured
	why      string        // of it what calls for n
	isIdle   bool          // nobody came for as long as the last replica waits
	wake     time.Duration // when it is, if nobody comes; 0: it is, or somebody is here
}

// recommend says what the load calls for at this moment.
func (d *decision) recommend() {
	silent := ""
	if d.m.isSilent && d.in.Now > d.m.silent {
		silent = " for " + words(d.in.Now-d.m.silent)
	}
	d.n, d.why, d.says = combine(d.in.Metrics, d.in.Current, d.a, silent)
	if d.a.Min == 0 {
		switch idle := d.in.Now - d.m.busy; {
		case d.in.IsBusy:
			d.n = max(d.n, 1)
		case d.in.Current == 0:
			d.n, d.says = 0, "no connection"
		case idle >= d.a.Idle: // whatever it uses by itself
			d.n, d.isIdle, d.why = 0, true, "no connection for "+words(idle)
		default:
			d.n, d.wake = max(d.n, 1), d.m.busy+d.a.Idle
		}
	}
	d.n = d.a.Clamp(d.n)
}

// gate says which of what is called for is done now.
func (d *decision) gate() Decision {
	cur, now := d.in.Current, d.in.Now
	manual := d.m.since + d.a.Manual - now
	switch bound := d.a.Clamp(cur); {
	case d.in.Held != "":
		return d.stay(d.in.Held, 0)
	case bound != cur: // the bounds wait for nothing
		return Decision{Want: bound, Why: fmt.Sprintf("%d is outside of %d-%d: %[1]d -> %[4]d", cur, d.a.Min, d.a.Max, bound)}
	case cur == 0 && d.n > 0: // somebody waits
		return d.change(d.limit(d.n))
	case d.in.Manual && manual > 0:
		return d.stay(fmt.Sprintf("manual: %d for another %s", cur, words(manual)), now+manual)
	}
	want := cur
	up, down := d.m.up[0], d.m.down[0]
	switch {
	case d.isIdle: // that is a window of its own
		want = 0
	case want < up.n:
		want = up.n
	case want > down.n:
		want = down.n
	}
	want = d.a.Clamp(want) // what was called for within other bounds
	paced := d.m.since + period
	if want > cur {
		paced = d.m.since + gap
	}
	switch limit := d.limit(want); {
	case want != cur && paced > now:
		return d.stay(fmt.Sprintf("%d called for, in %s: the last change is too near", d.n, words(paced-now)), paced)
	case limit != cur:
		return d.change(limit)
	case want > cur:
		return d.stay(fmt.Sprintf("%d called for, the next step in %s", d.n, words(d.m.low[0].at+period-now)), d.m.low[0].at+period)
	case d.n > cur:
		return d.stay(fmt.Sprintf("%d called for, held by the up window for %s", d.n, words(up.at+d.a.UpWindow-now)), up.at+d.a.UpWindow)
	case d.n < cur:
		return d.stay(fmt.Sprintf("%d called for, held by the down window for %s", d.n, words(down.at+d.a.DownWindow-now)), down.at+d.a.DownWindow)
	case d.wake > 0 && cur == 1:
		return d.stay(fmt.Sprintf("the last replica goes after another %s without a connection", words(d.wake-now)), d.wake)
	}
	return d.stay("", d.wake)
}

// limit goes towards want, a step at most: to more from the fewest there were in the last
// period, to fewer from what there is, as that happens once in a period.
func (d *decision) limit(want int) int {
	cur, low := d.in.Current, d.m.low[0].n
	want = min(want, max(cur, low+step(d.a.UpStep, low, max(low, 4))))
	if !d.isIdle {
		want = max(want, cur-step(d.a.DownStep, cur, cur))
	}
	return want
}

// change says what is done, and why.
func (d *decision) change(want int) Decision {
	cur, calls := d.in.Current, ""
	if want != d.n {
		calls = fmt.Sprintf(" calls for %d", d.n)
	}
	return Decision{Want: want, Why: fmt.Sprintf("%s%s: %d -> %d", d.why, calls, cur, want), Wake: d.wake}
}

// step is how many replicas may come or go at once.
func step(s shoal.Share, cur, unsaid int) int {
	if s == (shoal.Share{}) {
		return unsaid
	}
	return max(1, s.Of(cur))
}

// stay changes nothing, for a reason that ends at a time; 0: it is not known when.
func (d *decision) stay(why string, until time.Duration) Decision {
	out := Decision{Want: d.in.Current, Why: d.says, Wake: until}
	switch {
	case d.says == "":
		out.Why = why
	case why != "":
		out.Why += "; " + why
	}
	if d.wake > 0 && (out.Wake == 0 || d.wake < out.Wake) {
		out.Wake = d.wake
	}
	return out
}

// words writes a duration in whole seconds, rounded up: "3m12s".
func words(d time.Duration) string {
	return ((d + time.Second - 1).Truncate(time.Second)).String()
}

// calls are numbers that were called for within a window, without those that cannot be
// the extreme of it any more. The first one is.
type calls []call

type call struct {
	n  int
	at time.Duration // when it was called for last
}

// add adds what is called for now. Of those before, what beats drops out for good, and
// those that are older than the window too.
func (c calls) add(n int, now, window time.Duration, beats func(old, now int) bool) calls {
	var out calls
	for i, old := range c {
		if i == len(c)-1 {
			old.at = now // it was called for until now
		}
		if old.at+window > now && !beats(old.n, n) {
			out = append(out, old)
		}
	}
	return append(out, call{n, now})
}
