// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/shoalnet/shoal"
)

// Buckets of histograms: the first ends at 16 µs, each further one at twice as much, the
// last bounded one at 134 s.
const (
	buckets     = 25
	firstBucket = 16 * time.Microsecond
)

// bounds are where all buckets but the last end.
var bounds = func() (out []time.Duration) {
	for i := range buckets - 1 {
		out = append(out, firstBucket<<i)
	}
	return out
}()

// bucketOf returns the bucket of a duration.
func bucketOf(d time.Duration) int {
	return min(bits.Len64(uint64(max(d, 0)/firstBucket)), buckets-1)
}

// Stats are what was counted of one service since this peer started.
type Stats struct {
	Total, Open uint64          // connections and UDP flows
	In, Out     uint64          // bytes: from clients, to clients
	Errors      [reasons]uint64 // by Reason; also those that another replica made good
	Retries     uint64          // tries on one more replica
	Connect     shoal.Histogram // from the first try to the connected replica
	FirstByte   shoal.Histogram // from the client's first byte to the answer's
}

// Served are what was counted of connections that this peer made for others.
type Served struct {
	Total, Open uint64
	In, Out     uint64          // bytes: to replicas, from replicas
	Errors      [reasons]uint64 // by Reason
}

type atomicHistogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

func (h *atomicHistogram) add(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	h.sum.Add(int64(max(d, 0)))
}

func (h *atomicHistogram) read() shoal.Histogram {
	out := shoal.Histogram{Bounds: bounds, Counts: make([]uint64, buckets), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		out.Counts[i] = h.counts[i].Load()
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
