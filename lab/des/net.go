// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package des

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Net is how far peers are from each other (PLACEMENT.md, header).
type Net struct {
	Name string
	WAN  bool
	Loss float64 // of pushed records; repaired by a sync 1-5 s later
}

// LANNet has 1-5 ms x 1-3 hops and 0.05 % loss.
func LANNet() Net { return Net{Name: "LAN", Loss: 0.0005} }

// WANNet has 20-150 ms a pair, up to 50 ms of jitter, and 2 % loss.
func WANNet() Net { return Net{Name: "WAN", WAN: true, Loss: 0.02} }

// delay draws one message's way from a to b.
func (s *Sim) delay(a, b int) time.Duration {
	if s.net.WAN {
		return s.base[min(a, b)*len(s.peers)+max(a, b)] + s.between(0, 50*time.Millisecond)
	}
	return s.between(time.Millisecond, 5*time.Millisecond) * time.Duration(1+s.rng.IntN(3))
}

// between draws a duration evenly from [lo, hi).
func (s *Sim) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(s.rng.Int64N(int64(hi-lo)))
}

// event is something that will happen.
type event struct {
	at  time.Duration
	seq uint64 // ties happen in the order they were scheduled
	do  func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	old := *a
	e := old[len(old)-1]
	*a = old[:len(old)-1]
	return e
}

// after schedules do.
func (s *Sim) after(d time.Duration, do func()) {
	s.seq++
	heap.Push(&s.agenda, event{at: s.now + max(0, d), seq: s.seq, do: do})
}

// run lets virtual time pass until end.
func (s *Sim) run(end time.Duration) {
	for len(s.agenda) > 0 && s.agenda[0].at <= end {
		e := heap.Pop(&s.agenda).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// newRand returns the source of everything random in a run.
func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5b0a1)) }
