// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	sayEvery   = time.Minute // how often one client's flood is logged
	sweepEvery = time.Second // how often room is made for clients when there is none
)

// clients is what is remembered of those who ask. Safe for concurrent use.
type clients struct {
	cfg Config

	mu    sync.Mutex // guards all below
	known map[netip.Addr]*client
	rest  client // all those for whom there was no room
	conns int
	swept time.Time
}

type client struct {
	bucket *rate.Limiter
	said   time.Time // when its flood was last logged
	flying int       // questions under way
	conns  int
}

func newClients(cfg Config) *clients {
	c := &clients{cfg: cfg, known: map[netip.Addr]*client{}}
	c.rest.bucket = c.bucket()
	return c
}

func (c *clients) bucket() *rate.Limiter { return rate.NewLimiter(rate.Limit(c.cfg.Rate), c.cfg.Burst) }

// ask takes one question off a client's allowance. say: the flood is worth a line.
func (c *clients) ask(a netip.Addr, now time.Time) (ok, say bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(a, now)
	if k.bucket.AllowN(now, 1) {
		return true, false
	}
	say = k.said.IsZero() || now.Sub(k.said) >= sayEvery
	if say {
		k.said = now
	}
	return false, say
}

// fly begins a foreign question of a client; end it with the function returned.
func (c *clients) fly(a netip.Addr, now time.Time) (land func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(a, now)
	if k.flying >= c.cfg.ClientInFlight {
		return nil, false
	}
	k.flying++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		k.flying--
	}, true
}

// connect counts a connection of a client; end it with the function returned.
func (c *clients) connect(a netip.Addr, now time.Time) (hangUp func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(a, now)
	if c.conns >= c.cfg.Conns || k.conns >= c.cfg.ClientConns {
		return nil, false
	}
	c.conns++
	k.conns++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.conns--
		k.conns--
	}, true
}

// of returns what is known of a client; mu is held.
func (c *clients) of(a netip.Addr, now time.Time) *client {
	if k := c.known[a]; k != nil {
		return k
	}
	if len(c.known) >= c.cfg.Clients && now.Sub(c.swept) >= sweepEvery {
		c.swept = now
		for a, k := range c.known {
			if k.idle(now) {
				delete(c.known, a)
			}
		}
	}
	if len(c.known) >= c.cfg.Clients {
		return &c.rest
	}
	k := &client{bucket: c.bucket()}
	c.known[a] = k
	return k
}

// idle reports whether forgetting the client changes nothing.
func (k *client) idle(now time.Time) bool {
	full := k.bucket.TokensAt(now) >= float64(k.bucket.Burst())
	return full && k.flying == 0 && k.conns == 0 && (k.said.IsZero() || now.Sub(k.said) >= sayEvery)
}
