// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
)

// mergeDepth is how many lines wait per source before that source is made to wait.
const mergeDepth = 256

// merger puts lines of several sources into the order of their times. Each source is
// in order itself; a line goes out when every other open source has a later one, or
// when it waited for the window. All methods are safe for concurrent use, but only
// one goroutine takes.
type merger struct {
	window time.Duration
	clock  shoal.Clock
	wake   chan struct{}

	mu      sync.Mutex // guards what follows
	sources map[*source]bool
	notices []notice
	closed  bool
}

type source struct {
	m    *merger
	room chan struct{} // one token for each waiting line
	head []arrival     // guarded by m.mu
	done bool          // guarded by m.mu
}

type arrival struct {
	line shoal.LogLine
	at   time.Duration
}

// notice says that a holder's lines are missing from here on.
type notice struct {
	peer shoal.PeerID
	err  error
}

func newMerger(window time.Duration, clock shoal.Clock) *merger {
	return &merger{window: window, clock: clock, wake: make(chan struct{}, 1), sources: map[*source]bool{}}
}

func (m *merger) open() *source {
	s := &source{m: m, room: make(chan struct{}, mergeDepth)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources[s] = true
	return s
}

// put waits while the source has too many lines under way.
func (s *source) put(ctx context.Context, line shoal.LogLine) error {
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.m.mu.Lock()
	s.head = append(s.head, arrival{line, s.m.clock.Mono()})
	s.m.mu.Unlock()
	s.m.stir()
	return nil
}

// end says that no more lines come; err says why, if that is a loss.
func (s *source) end(peer shoal.PeerID, err error) {
	s.m.mu.Lock()
	s.done = true
	if err != nil {
		s.m.notices = append(s.m.notices, notice{peer, err})
	}
	s.m.mu.Unlock()
	s.m.stir()
}

// close says that no more sources come.
func (m *merger) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stir()
}

func (m *merger) stir() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// next returns the next line or notice; nil, nil, nil at the end.
func (m *merger) next(ctx context.Context) (*shoal.LogLine, *notice, error) {
	for {
		line, note, wait, end := m.take()
		if line != nil || note != nil || end {
			return line, note, nil
		}
		if err := m.sleep(ctx, wait); err != nil {
			return nil, nil, err
		}
	}
}

func (m *merger) sleep(ctx context.Context, wait time.Duration) error {
	var after <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-m.wake:
	case <-after:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// take returns what can go out now; else how long to wait at most (0: for a change).
func (m *merger) take() (*shoal.LogLine, *notice, time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.notices) > 0 {
		n := m.notices[0]
		m.notices = m.notices[1:]
		return nil, &n, 0, false
	}
	var first *source
	complete := true
	for s := range m.sources {
		switch {
		case len(s.head) == 0 && s.done:
			delete(m.sources, s)
		case len(s.head) == 0:
			complete = false
		case first == nil || earlier(s, first):
			first = s
		}
	}
	if first == nil {
		return nil, nil, 0, m.closed && len(m.sources) == 0
	}
	if waited := m.clock.Mono() - first.head[0].at; !complete && waited < m.window {
		return nil, nil, m.window - waited, false
	}
	line := first.head[0].line
	first.head = first.head[1:]
	<-first.room
	return &line, nil, 0, false
}

// earlier orders heads by time, then by who wrote them, so that maps do not matter.
func earlier(a, b *source) bool {
	x, y := a.head[0].line, b.head[0].line
	if !x.Time.Equal(y.Time) {
		return x.Time.Before(y.Time)
	}
	if x.Peer != y.Peer {
		return x.Peer < y.Peer
	}
	return x.Slot < y.Slot
}
