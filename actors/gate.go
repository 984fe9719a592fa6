// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"sync"
)

// gate lets so many launches be under way at a time, who came first first. Those of the
// same key are one: two replicas of an image wait for one pull of it. It is safe for
// concurrent use.
type gate struct {
	tokens chan struct{}

	mu sync.Mutex // guards by
	by map[string]*place
}

// place is what those of one key share.
type place struct {
	users, waiting int
	in             chan struct{} // closed when the first of the users came in
}

func newGate(n int) *gate { return &gate{tokens: make(chan struct{}, n), by: map[string]*place{}} }

// enter waits for a place; key "" shares it with nobody. false: it was given up.
func (g *gate) enter(ctx context.Context, giveUp <-chan struct{}, key string) bool {
	for {
		p, in, isIn := g.join(key)
		if isIn {
			return true
		}
		select {
		case g.tokens <- struct{}{}:
			g.took(key, p)
			return true
		case <-in:
			if g.share(key, p) {
				return true
			}
		case <-giveUp:
			g.lose(key, p)
			return false
		case <-ctx.Done():
			g.lose(key, p)
			return false
		}
	}
}

// join shares the place of those that are in, or waits with who else wants one.
func (g *gate) join(key string) (p *place, in <-chan struct{}, isIn bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p = g.by[key]
	if p == nil || key == "" {
		p = &place{in: make(chan struct{})}
		if key != "" {
			g.by[key] = p
		}
	}
	if p.users > 0 {
		p.users++
		return p, nil, true
	}
	p.waiting++
	return p, p.in, false
}

// took notes that one of those who wait got a token, which goes back if another was first.
func (g *gate) took(key string, p *place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.waiting--
	p.users++
	switch {
	case key == "":
	case p.users > 1:
		<-g.tokens
	default:
		close(p.in)
	}
}

// share takes the place of one that came in meanwhile. false: it is out again.
func (g *gate) share(key string, p *place) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.waiting--
	if p.users == 0 {
		g.tidy(key, p)
		return false
	}
	p.users++
	return true
}

func (g *gate) lose(key string, p *place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.waiting--
	g.tidy(key, p)
}

// leave gives a place back.
func (g *gate) leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if key != "" {
		p := g.by[key]
		p.users--
		if p.users > 0 {
			return
		}
		p.in = make(chan struct{}) // who waits still has the closed one, and comes again
		g.tidy(key, p)
	}
	<-g.tokens
}

// tidy forgets a place that nobody uses. The caller holds mu.
func (g *gate) tidy(key string, p *place) {
	if p.users == 0 && p.waiting == 0 && g.by[key] == p {
		delete(g.by, key)
	}
}
