// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "time"

// maxQueued bounds what is on its way to one card: a gigabit a second for half a second.
const maxQueued = 64 << 20

// parcel is a frame on its way.
type parcel struct {
	due  time.Duration
	seq  uint64 // of equal times, the earlier sent comes first
	data []byte
	road *road
}

// queue is what is on its way to one card, by the time of arrival: a binary heap. It is
// not safe for concurrent use.
type queue struct {
	heap  []parcel
	bytes int
	seq   uint64
}

// push adds a parcel; false: there is no room.
func (q *queue) push(p parcel) bool {
	if q.bytes+len(p.data) > maxQueued {
		return false
	}
	q.bytes += len(p.data)
	q.seq++
	p.seq = q.seq
	q.heap = append(q.heap, p)
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.before(i, up) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
	return true
}

// next is when the first parcel is due.
func (q *queue) next() (time.Duration, bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].due, true
}

// pop takes the first parcel out; there must be one.
func (q *queue) pop() parcel {
	first, end := q.heap[0], len(q.heap)-1
	q.heap[0] = q.heap[end]
	q.heap[end] = parcel{} // lets go of its data
	q.heap = q.heap[:end]
	q.bytes -= len(first.data)
	for i := 0; ; {
		least := i
		for _, down := range [...]int{2*i + 1, 2*i + 2} {
			if down < end && q.before(down, least) {
				least = down
			}
		}
		if least == i {
			return first
		}
		q.heap[i], q.heap[least] = q.heap[least], q.heap[i]
		i = least
	}
}

func (q *queue) before(i, j int) bool {
	a, b := &q.heap[i], &q.heap[j]
	return a.due < b.due || a.due == b.due && a.seq < b.seq
}
