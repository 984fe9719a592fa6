// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var pair = Pair{"outside", "tokyo", "paris"}

func with(l Link) *course {
	c := newCourse(1, pair)
	c.set(l)
	return c
}

func TestLinkValidate(t *testing.T) {
	for name, l := range map[string]Link{
		"a negative delay":       {Delay: -1},
		"too long a delay":       {Delay: MaxDelay + 1},
		"jitter above the delay": {Delay: 1, Jitter: 2},
		"a negative loss":        {Loss: -0.1},
		"more than all lost":     {Loss: 1.1},
		"no number":              {Loss: math.NaN()},
		"too low a rate":         {Rate: MinRate - 1},
	} {
		if l.Validate() == nil {
			t.Errorf("%s is taken: %+v", name, l)
		}
	}
	if err := (Link{Delay: time.Second, Jitter: time.Second, Loss: 1, Rate: MinRate, Cut: true}).Validate(); err != nil {
		t.Errorf("a link at its bounds: %v", err)
	}
}

// A rate of 12 kbit/s takes a second for 1,500 bytes; what is offered beyond the queue is dropped.
func TestCourseRate(t *testing.T) {
	c := with(Link{Rate: 12_000_000, Delay: 10 * time.Millisecond})
	var dropped int
	for i := range 200 {
		due, what := c.send(0, 1500)
		if what == overflows {
			dropped++
			continue
		}
		if want := time.Duration(i+1)*time.Millisecond + 10*time.Millisecond; due != want {
			t.Fatalf("packet %d arrives at %s, want %s", i, due, want)
		}
	}
	if dropped != 100 {
		t.Errorf("%d of 200 packets of 1 ms dropped, want 100: the queue holds %s", dropped, queueTime)
	}
	if due, what := c.send(time.Second, 1500); what != passes || due != time.Second+11*time.Millisecond {
		t.Errorf("after a pause: %s, %v", due, what)
	}
}

// Loss is what was asked: of 20,000 packets at 2 %, within five standard deviations (20 each).
func TestCourseLoss(t *testing.T) {
	c := with(Link{Loss: 0.02})
	lost := 0
	for range 20_000 {
		if _, what := c.send(0, 100); what == isLost {
			lost++
		}
	}
	if lost < 300 || lost > 500 {
		t.Errorf("%d of 20,000 lost at 2 %%, want 400", lost)
	}
}

// Whatever the link, and however it changes: nothing arrives before it was sent, nothing
// sooner than the least delay, nothing is overtaken while the link stays, and the same
// frames meet the same fate again.
func TestCourseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		delay := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "delay"))
		l := Link{
			Delay: delay, Jitter: time.Duration(rapid.Int64Range(0, int64(delay)).Draw(t, "jitter")),
			Loss: rapid.Float64Range(0, 1).Draw(t, "loss"), Rate: rapid.SampledFrom([]int64{0, MinRate, 20_000_000}).Draw(t, "rate"),
		}
		if err := l.Validate(); err != nil {
			t.Fatal(err)
		}
		a, b := with(l), with(l)
		var now, last time.Duration
		for range rapid.IntRange(1, 50).Draw(t, "frames") {
			now += time.Duration(rapid.Int64Range(0, int64(50*time.Millisecond)).Draw(t, "pause"))
			size := rapid.IntRange(14, 1514).Draw(t, "size")
			due, what := a.send(now, size)
			if again, same := b.send(now, size); again != due || same != what {
				t.Fatalf("the same frame: %s %v, then %s %v", due, what, again, same)
			}
			if what != passes {
				continue
			}
			if due < now+l.Delay-l.Jitter || due < last {
				t.Fatalf("sent at %s over %+v it arrives at %s, the one before at %s", now, l, due, last)
			}
			last = due
		}
		a.set(Link{Cut: true})
		if _, what := a.send(now, 100); what != isCut {
			t.Fatalf("over a cut link: %v", what)
		}
		a.set(Link{})
		if due, what := a.send(now, 100); what != passes || due != now {
			t.Fatalf("over a healed link without length: %s, %v", due-now, what)
		}
	})
}

// The queue gives back what was put in by time, then by order, and is bounded.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		n := rapid.IntRange(0, 60).Draw(t, "n")
		for i := range n {
			due := time.Duration(rapid.IntRange(0, 5).Draw(t, "due"))
			if !q.push(parcel{due: due, data: []byte{byte(i)}}) {
				t.Fatal("no room for a byte")
			}
		}
		var before parcel
		for i := range n {
			x := q.pop()
			if i > 0 && (x.due < before.due || x.due == before.due && x.seq < before.seq) {
				t.Fatalf("%v came after %v", x, before)
			}
			before = x
		}
		if _, some := q.next(); some || q.bytes != 0 {
			t.Fatalf("%d bytes are left of nothing", q.bytes)
		}
	})
	full := queue{bytes: maxQueued}
	if full.push(parcel{data: []byte{1}}) {
		t.Error("a full queue took more")
	}
}
