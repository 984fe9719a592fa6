// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// buckets of a [Histogram]: the last bounded one ends at 134 s.
const (
	buckets     = 25
	firstBucket = 16 * time.Microsecond
)

// Histogram counts durations. Bucket i has those below [BucketBound](i) that are in no
// bucket before; the last has the rest.
type Histogram [buckets]uint64

// BucketBound returns where bucket i of a histogram ends: 16 µs for the first, twice as
// much for each further one. The last has no end.
func BucketBound(i int) time.Duration { return firstBucket << i }

// bucketOf returns the bucket of a duration.
func bucketOf(d time.Duration) int {
	return min(bits.Len64(uint64(max(d, 0)/firstBucket)), buckets-1)
}

// Count returns how many durations there are.
func (h Histogram) Count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile returns the bound below which a part q, 0 to 1, of the durations lies; 0 if
// there are none.
func (h Histogram) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	var sum uint64
	for i, c := range h {
		if sum += c; sum > 0 && float64(sum) >= q*float64(n) {
			return BucketBound(i)
		}
	}
	return BucketBound(buckets - 1)
}

// Stats are what was counted of one service since this peer started.
type Stats struct {
	Total, Open uint64          // connections and UDP flows
	In, Out     uint64          // bytes: from clients, to clients
	Errors      [reasons]uint64 // by Reason; also those that another replica made good
	Retries     uint64          // tries on one more replica
	Connect     Histogram       // from the first try to the connected replica
	FirstByte   Histogram       // from the client's first byte to the answer's
}

// Served are what was counted of connections that this peer made for others.
type Served struct {
	Total, Open uint64
	In, Out     uint64          // bytes: to replicas, from replicas
	Errors      [reasons]uint64 // by Reason
}

type atomicHistogram [buckets]atomic.Uint64

func (h *atomicHistogram) add(d time.Duration) { h[bucketOf(d)].Add(1) }

func (h *atomicHistogram) read() (out Histogram) {
	for i := range h {
		out[i] = h[i].Load()
	}
	return out
}

// counts are counted by all connections of a service, or of a server, at once.
type counts struct {
	total, open, in, out atomic.Uint64
	retries              atomic.Uint64
	errors               [reasons]atomic.Uint64
	connect, first       atomicHistogram
}

func (c *counts) begin() {
	c.total.Add(1)
	c.open.Add(1)
}

func (c *counts) end() { c.open.Add(^uint64(0)) }

func (c *counts) fail(r Reason) { c.errors[r].Add(1) }

func (c *counts) errorsNow() (out [reasons]uint64) {
	for i := range c.errors {
		out[i] = c.errors[i].Load()
	}
	return out
}

func (c *counts) stats() Stats {
	return Stats{
		Total: c.total.Load(), Open: c.open.Load(), In: c.in.Load(), Out: c.out.Load(), Errors: c.errorsNow(),
		Retries: c.retries.Load(), Connect: c.connect.read(), FirstByte: c.first.read(),
	}
}

func (c *counts) served() Served {
	return Served{Total: c.total.Load(), Open: c.open.Load(), In: c.in.Load(), Out: c.out.Load(), Errors: c.errorsNow()}
}
