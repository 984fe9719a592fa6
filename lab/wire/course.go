// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// The queue of a link with a rate holds what it can send in queueTime, as routers are
// built for, and at least queueBytes.
const (
	queueTime  = 100 * time.Millisecond
	queueBytes = 64 << 10
)

// fate is what becomes of a frame.
type fate int

const (
	passes fate = iota
	isLost
	isCut
	overflows
)

// course is a pair's link and what it remembers of frames so far. It has no clock: all
// times are durations since one moment.
type course struct {
	link Link
	rng  *rand.Rand
	free time.Duration // when the last frame has left the sender, at the link's rate
	last time.Duration // when the last frame arrives; none arrives before it
}

// newCourse draws from a seed and the pair's names.
func newCourse(seed uint64, p Pair) *course {
	h := fnv.New64a()
	for _, s := range []string{p.Segment, p.From, p.To} {
		_, _ = h.Write([]byte(s)) // it never fails
		_, _ = h.Write([]byte{0})
	}
	return &course{rng: rand.New(rand.NewPCG(seed, h.Sum64()))} //nolint:gosec // it imitates a network, it hides nothing
}

// send takes a frame of so many bytes at a time, and says when it arrives.
func (c *course) send(now time.Duration, bytes int) (time.Duration, fate) {
	l := &c.link
	switch {
	case l.Cut:
		return 0, isCut
	case l.Loss > 0 && c.rng.Float64() < l.Loss:
		return 0, isLost
	}
	left := now
	if l.Rate > 0 {
		left = max(now, c.free) + sending(bytes, l.Rate)
		if left-now > max(queueTime, sending(queueBytes, l.Rate)) {
			return 0, overflows
		}
		c.free = left
	}
	due := left + l.Delay
	if l.Jitter > 0 {
		due += time.Duration((2*c.rng.Float64() - 1) * float64(l.Jitter))
	}
	due = max(due, c.last)
	c.last = due
	return due, passes
}

// set changes the link. What was sent keeps its time of arrival; what is sent over
// another link may overtake it, as packets do that take a new route.
func (c *course) set(l Link) {
	if l != c.link {
		c.link, c.free, c.last = l, 0, 0
	}
}

// sending is how long a rate takes for so many bytes.
func sending(bytes int, rate int64) time.Duration {
	return time.Duration(float64(bytes) * 8 / float64(rate) * float64(time.Second))
}
