// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"time"

	"github.com/shoalnet/shoal"
)

// How long one that refuses is left out. The first wait is about what a container takes
// to restart; the longest bounds how late a replica that came back is noticed, and costs
// a dead one two connections a minute.
const (
	firstWait   = time.Second
	longestWait = 30 * time.Second
)

// decay is the mean life of a measured time (Finagle's default for its peak EWMA). One
// that was a hundred times slower than the others is tried again after 4.6 of them.
const decay = 10 * time.Second

// Opened counts a connection to a replica that was named and not picked. It ends with
// Closed or Refused like one that was.
func (t *Table) Opened(id shoal.ReplicaID) {
	if e := t.entries[id]; e != nil {
		e.open++
	}
}

// Connected says that a replica accepted a connection after took. It forgives earlier
// refusals.
func (t *Table) Connected(id shoal.ReplicaID, took, now time.Duration) {
	if e := t.entries[id]; e != nil {
		t.pardon(e)
		e.connect.add(took, now)
	}
}

// FirstByte says that the first byte of an answer came took after the first byte had
// gone out. It forgives refusals, too: over UDP nothing else shows that somebody is there.
func (t *Table) FirstByte(id shoal.ReplicaID, took, now time.Duration) {
	if e := t.entries[id]; e != nil {
		t.pardon(e)
		e.first.add(took, now)
	}
}

// Refused ends a connection that failed before a byte went out, for whatever reason. The
// replica is left out for 1 s, twice as long after each further one in a row, at most
// 30 s. One that comes while the replica is left out changes nothing: many connections
// that were under way at once are one piece of news.
func (t *Table) Refused(id shoal.ReplicaID, now time.Duration) {
	e := t.entries[id]
	if e == nil {
		return
	}
	if e.refusals == 0 || now >= e.until {
		if e.refusals == 0 {
			t.refusing++
		}
		e.refusals++
		e.until = now + wait(e.refusals)
	}
	t.close(e)
	t.drop(e)
}

// wait is how long one is left out after so many refusals in a row.
func wait(refusals int) time.Duration {
	const enough = 5 // doublings to pass the longest
	return min(firstWait<<min(refusals-1, enough), longestWait)
}

// Closed ends a connection that was picked or opened and not refused, also one that was
// given up before it was known whether it would be.
func (t *Table) Closed(id shoal.ReplicaID) {
	if e := t.entries[id]; e != nil {
		t.close(e)
		t.drop(e)
	}
}

// close also ends a trial. If it was another connection that ended, one more is tried:
// that costs less than telling them apart.
func (t *Table) close(e *entry) {
	e.open = max(0, e.open-1)
	e.trial = false
}

// pardon forgets the refusals of e.
func (t *Table) pardon(e *entry) {
	if e.refusals > 0 {
		t.refusing--
	}
	e.refusals, e.until, e.trial = 0, 0, false
}

// average is a moving average of times that come unevenly: a sample counts for more the
// longer there was none. A slow one counts in full at once, and is forgotten by and by
// (the peak EWMA of Finagle, loadbalancer/PeakEwma.scala, which takes the weighting from
// Eckner, "Algorithms for Unevenly Spaced Time Series"). Unlike there, reading it changes
// nothing.
type average struct {
	nanos float64
	at    time.Duration // of the last sample
	known bool
}

func (a *average) add(took, now time.Duration) {
	x := float64(max(took, 0))
	if w := a.fade(now); a.known && x < a.nanos*w {
		x += (a.nanos - x) * w
	}
	a.nanos, a.at, a.known = x, max(now, a.at), true
}

// read returns the average, faded by the time without a sample: one that is avoided
// because it was slow looks better by and by, until it is tried again.
func (a *average) read(now time.Duration) float64 { return a.nanos * a.fade(now) }

func (a *average) fade(now time.Duration) float64 {
	return math.Exp(-float64(max(now-a.at, 0)) / float64(decay))
}
