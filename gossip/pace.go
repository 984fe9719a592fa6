// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import "time"

// flow says how much of something is taken: burst at once, then rate a second.
type flow struct{ rate, burst float64 }

// slower returns the flow of those who hold more than their share.
func (f flow) slower() flow { return flow{f.rate / heavyFactor, f.burst / heavyFactor} }

// bucket measures something against a flow, on a monotonic clock. The zero bucket is
// unused.
type bucket struct {
	used float64
	at   time.Duration
}

func (b *bucket) drain(now time.Duration, f flow) {
	b.used = max(0, b.used-f.rate*(now-b.at).Seconds())
	b.at = now
}

// take counts n and reports whether the flow had room for it; without room nothing is
// counted. What is larger than a whole burst fits an unused bucket.
func (b *bucket) take(now time.Duration, f flow, n float64) bool {
	if !b.room(now, f, n) {
		return false
	}
	b.used += n
	return true
}

// room reports whether take would count n.
func (b *bucket) room(now time.Duration, f flow, n float64) bool {
	b.drain(now, f)
	return b.used == 0 || b.used+n <= f.burst
}

// owe counts n whether there is room or not, and returns how long the flow takes to
// make up for what is too much.
func (b *bucket) owe(now time.Duration, f flow, n float64) time.Duration {
	b.drain(now, f)
	b.used += n
	return time.Duration(max(0, b.used-f.burst) / f.rate * float64(time.Second))
}
