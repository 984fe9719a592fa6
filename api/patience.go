// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"sync"
	"time"
)

// patience ends a stream on which something waits for the client for long.
type patience struct {
	limit time.Duration
	over  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	waiting map[*wait]time.Time // since when; guarded by mu
}

// wait is one wait for the client: for what it sends, or until it takes something.
type wait struct{ isRead bool }

// newPatience watches until end.
func newPatience(c *control, limit time.Duration) *patience {
	p := &patience{limit: limit, waiting: map[*wait]time.Time{}, over: make(chan struct{})}
	p.done.Go(func() {
		tick := time.NewTicker(limit / 8)
		defer tick.Stop()
		for {
			select {
			case <-p.over:
				return
			case <-tick.C:
				if p.isSpent(true) {
					c.end()
				}
				if p.isSpent(false) {
					_ = c.rc.SetWriteDeadline(time.Now()) // what cannot be ended ends with its connection
				}
			}
		}
	})
	return p
}

func (p *patience) isSpent(isRead bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w, since := range p.waiting {
		if w.isRead == isRead && time.Since(since) > p.limit {
			return true
		}
	}
	return false
}

// reading runs what waits for something that the client sends.
func (p *patience) reading(fn func() error) error { return p.during(&wait{isRead: true}, fn) }

// writing runs what waits until the client takes something.
func (p *patience) writing(fn func() error) error { return p.during(&wait{}, fn) }

func (p *patience) during(w *wait, fn func() error) error {
	p.mu.Lock()
	p.waiting[w] = time.Now()
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, w)
		p.mu.Unlock()
	}()
	return fn()
}

func (p *patience) end() {
	close(p.over)
	p.done.Wait()
}
