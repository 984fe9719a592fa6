// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Card is a network card's other end: each Read gives one frame, each Write takes one,
// both behind a header of HeaderBytes that is passed on as it is. Close ends a Read.
type Card interface {
	io.ReadWriteCloser
	// SetOffload says whether the host may hand over frames larger than its MTU, to be
	// cut into packets by whoever needs that.
	SetOffload(on bool) error
}

// Config says how a switch works.
type Config struct {
	Seed uint64 // of loss and jitter
	Log  *slog.Logger
}

// Switch joins cards. It is safe for concurrent use. Close ends it.
type Switch struct {
	cfg   Config
	start time.Time

	mu    sync.RWMutex // guards the rest; frames take it for reading
	roads map[Pair]*road
	ports map[string][]*Port // by segment
}

// New returns a switch without cards.
func New(cfg Config) *Switch {
	return &Switch{cfg: cfg, start: time.Now(), roads: map[Pair]*road{}, ports: map[string][]*Port{}}
}

// road is a pair's course and its counters.
type road struct {
	mu     sync.Mutex // guards course
	course *course

	queued                                atomic.Int64 // parcels on their way
	packets, bytes, lost, cut, overflowed atomic.Uint64
	lateSum, lateMax                      atomic.Int64
}

func (r *road) counters() Counters {
	return Counters{
		Packets: r.packets.Load(), Bytes: r.bytes.Load(), Lost: r.lost.Load(), Cut: r.cut.Load(), Overflowed: r.overflowed.Load(),
		LateSum: time.Duration(r.lateSum.Load()), LateMax: time.Duration(r.lateMax.Load()),
	}
}

// arrived counts a frame that was due and is delivered now.
func (r *road) arrived(bytes int, late time.Duration) {
	r.packets.Add(1)
	r.bytes.Add(uint64(bytes))
	r.lateSum.Add(int64(late))
	for {
		most := r.lateMax.Load()
		if int64(late) <= most || r.lateMax.CompareAndSwap(most, int64(late)) {
			return
		}
	}
}

// Attach plugs a card in. A name has one card on a segment; mac is the card's. The
// switch owns the card from here on, if it returns no error.
func (s *Switch) Attach(segment, name string, mac net.HardwareAddr, card Card) (*Port, error) {
	if len(mac) != macBytes {
		return nil, fmt.Errorf("attach %s: %q is no MAC address", name, mac)
	}
	p := &Port{s: s, segment: segment, name: name, mac: [macBytes]byte(mac), card: card, wake: make(chan struct{}, 1), over: make(chan struct{}), roads: map[string]*road{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.ports[segment] {
		if other.name == name || other.mac == p.mac {
			return nil, fmt.Errorf("attach %s: %s has a card on %s already", name, other.name, segment)
		}
	}
	if err := p.setOffload(); err != nil {
		return nil, fmt.Errorf("attach %s: %w", name, err)
	}
	s.ports[segment] = append(s.ports[segment], p)
	p.ended.Go(p.read)
	p.ended.Go(p.deliver)
	return p, nil
}

// Detach unplugs a card and closes it. What is on its way to it is dropped. A second
// call does nothing.
func (s *Switch) Detach(p *Port) error {
	s.mu.Lock()
	ports := s.ports[p.segment]
	found := false
	for i, other := range ports {
		if other == p {
			s.ports[p.segment] = append(append([]*Port(nil), ports[:i]...), ports[i+1:]...)
			found = true
			break
		}
	}
	s.mu.Unlock()
	if !found {
		return nil
	}
	close(p.over)
	err := p.card.Close()
	p.ended.Wait()
	p.drop()
	return err
}

// Close unplugs every card. Links and counters stay readable.
func (s *Switch) Close() error {
	s.mu.RLock()
	var all []*Port
	for _, ports := range s.ports {
		all = append(all, ports...)
	}
	s.mu.RUnlock()
	var err error
	for _, p := range all {
		err = errors.Join(err, s.Detach(p))
	}
	return err
}

// SetLink says what a pair has between it from now on, whether its cards are plugged in
// or not. Frames on their way arrive as they would have.
func (s *Switch) SetLink(p Pair, l Link) error {
	if err := l.Validate(); err != nil {
		return fmt.Errorf("link %s: %w", p, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.road(p)
	r.mu.Lock()
	r.course.set(l)
	r.mu.Unlock()
	for _, port := range s.ports[p.Segment] {
		if port.name == p.From {
			if err := port.setOffload(); err != nil {
				return fmt.Errorf("link %s: %w", p, err)
			}
		}
	}
	return nil
}

// Link returns what a pair has between it.
func (s *Switch) Link(p Pair) Link {
	s.mu.RLock()
	r := s.roads[p]
	s.mu.RUnlock()
	if r == nil {
		return Link{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.course.link
}

// Counters returns what became of the frames of every pair that has a link or has sent.
func (s *Switch) Counters() map[Pair]Counters {
	s.mu.RLock()
	roads := maps.Clone(s.roads)
	s.mu.RUnlock()
	all := make(map[Pair]Counters, len(roads))
	for p, r := range roads {
		all[p] = r.counters()
	}
	return all
}

// road returns a pair's road. s.mu is held for writing.
func (s *Switch) road(p Pair) *road {
	r := s.roads[p]
	if r == nil {
		r = &road{course: newCourse(s.cfg.Seed, p)}
		s.roads[p] = r
	}
	return r
}

func (s *Switch) now() time.Duration { return time.Since(s.start) }
