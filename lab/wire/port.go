// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"sync"
	"time"
)

const (
	// HeaderBytes is the length of the header before each frame: virtio_net_hdr without
	// the count of buffers (linux/virtio_net.h), which says how a frame larger than the
	// MTU is to be cut.
	HeaderBytes = 10
	macBytes    = 6
	etherBytes  = 14 // of a frame's head: two addresses and a type
	maxFrame    = HeaderBytes + etherBytes + 64<<10
	smallFrame  = 2 << 10
)

// Port is a card in a switch.
type Port struct {
	s       *Switch
	segment string
	name    string
	mac     [macBytes]byte
	card    Card
	wake    chan struct{} // something was queued that is due first
	over    chan struct{} // closed by Detach
	ended   sync.WaitGroup

	roads map[string]*road // to others; used by read only

	mu     sync.Mutex // guards the rest
	queue  queue
	isGone bool // unplugged: takes nothing more
}

// Frames on their way are copied into one of two sizes.
var (
	small = sync.Pool{New: func() any { b := make([]byte, smallFrame); return &b }}
	large = sync.Pool{New: func() any { b := make([]byte, maxFrame); return &b }}
)

func copied(frame []byte) []byte {
	pool := &large
	if len(frame) <= smallFrame {
		pool = &small
	}
	b := *pool.Get().(*[]byte)
	return b[:copy(b[:cap(b)], frame)]
}

func release(frame []byte) {
	b := frame[:cap(frame)]
	if len(b) <= smallFrame {
		small.Put(&b)
		return
	}
	large.Put(&b)
}

// read takes frames from the card until it is closed.
func (p *Port) read() {
	buf := make([]byte, maxFrame)
	for {
		n, err := p.card.Read(buf)
		if err != nil {
			return // it was closed, by Detach or by the host's end
		}
		if n >= HeaderBytes+etherBytes {
			p.forward(buf[:n])
		}
	}
}

// forward sends a frame to the card it is for, or to all.
func (p *Port) forward(frame []byte) {
	to := frame[HeaderBytes : HeaderBytes+macBytes]
	p.s.mu.RLock()
	ports := p.s.ports[p.segment] // never changed, only replaced
	p.s.mu.RUnlock()
	if to[0]&1 == 0 { // one card's address; the bit says a group's (IEEE 802.3, 3.2.3)
		for _, q := range ports {
			if bytes.Equal(to, q.mac[:]) {
				if q != p {
					p.send(q, frame)
				}
				return
			}
		}
	}
	for _, q := range ports {
		if q != p {
			p.send(q, frame)
		}
	}
}

// send puts a frame on its way to a card. One without delay that nothing goes before is
// delivered at once.
func (p *Port) send(to *Port, frame []byte) {
	r := p.roadTo(to.name)
	now := p.s.now()
	size := len(frame) - HeaderBytes
	r.mu.Lock()
	due, what := r.course.send(now, size)
	r.mu.Unlock()
	switch what {
	case isLost:
		r.lost.Add(1)
	case isCut:
		r.cut.Add(1)
	case overflows:
		r.overflowed.Add(1)
	case passes:
		if due <= now && r.queued.Load() == 0 {
			to.write(r, frame, now)
			return
		}
		to.enqueue(parcel{due: due, data: copied(frame), road: r})
	}
}

// roadTo returns the road to a name on this card's segment.
func (p *Port) roadTo(name string) *road {
	r := p.roads[name]
	if r == nil {
		p.s.mu.Lock()
		r = p.s.road(Pair{p.segment, p.name, name})
		p.s.mu.Unlock()
		p.roads[name] = r
	}
	return r
}

func (p *Port) enqueue(x parcel) {
	x.road.queued.Add(1)
	p.mu.Lock()
	first, some := p.queue.next()
	ok := !p.isGone && p.queue.push(x)
	p.mu.Unlock()
	if !ok {
		x.road.queued.Add(-1)
		x.road.overflowed.Add(1)
		release(x.data)
		return
	}
	if !some || x.due < first {
		select {
		case p.wake <- struct{}{}:
		default: // it is woken already
		}
	}
}

// deliver writes what is due to the card until it is unplugged.
func (p *Port) deliver() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		p.mu.Lock()
		due, some := p.queue.next()
		now := p.s.now()
		if some && due <= now {
			x := p.queue.pop()
			p.mu.Unlock()
			p.write(x.road, x.data, x.due)
			x.road.queued.Add(-1)
			release(x.data)
			continue
		}
		p.mu.Unlock()
		var tick <-chan time.Time
		if some {
			timer.Reset(due - now)
			tick = timer.C
		}
		select {
		case <-p.over:
			return
		case <-p.wake:
		case <-tick:
		}
	}
}

// write hands a frame to the card, and counts it.
func (p *Port) write(r *road, frame []byte, due time.Duration) {
	if _, err := p.card.Write(frame); err != nil {
		r.overflowed.Add(1) // the host takes none now: it is booting, ending or out of room
		return
	}
	r.arrived(len(frame)-HeaderBytes, p.s.now()-due)
}

// drop gives back what is on its way to a card that is unplugged.
func (p *Port) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isGone = true
	for len(p.queue.heap) > 0 {
		x := p.queue.pop()
		x.road.queued.Add(-1)
		x.road.overflowed.Add(1)
		release(x.data)
	}
}

// setOffload lets the host hand over large frames unless one of its links counts
// packets. The switch's lock is held.
func (p *Port) setOffload() error {
	on := true
	for pair, r := range p.s.roads {
		if pair.Segment == p.segment && pair.From == p.name {
			r.mu.Lock()
			on = on && !r.course.link.countsPackets()
			r.mu.Unlock()
		}
	}
	return p.card.SetOffload(on)
}
