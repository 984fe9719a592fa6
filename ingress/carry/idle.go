// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalnet/shoal"
)

// idleTimer calls a function once nothing has touched it for a while. nil never does.
type idleTimer struct {
	clock shoal.Clock
	after time.Duration
	last  atomic.Int64 // when it was touched

	mu     sync.Mutex // guards what follows
	timer  *time.Timer
	isDone bool
}

func newIdleTimer(clock shoal.Clock, after time.Duration, fn func()) *idleTimer {
	t := &idleTimer{clock: clock, after: after}
	t.touch()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(after, func() {
		if t.isOver() {
			fn()
		}
	})
	return t
}

// isOver reports whether the while is over, and sets the timer anew if not.
func (t *idleTimer) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isDone {
		return false
	}
	left := t.touched() + t.after - t.clock.Mono()
	if left > 0 {
		t.timer.Reset(left)
		return false
	}
	t.isDone = true
	return true
}

func (t *idleTimer) touch() {
	if t != nil {
		t.last.Store(int64(t.clock.Mono()))
	}
}

func (t *idleTimer) touched() time.Duration { return time.Duration(t.last.Load()) }

func (t *idleTimer) stop() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isDone = true
	t.timer.Stop()
}
