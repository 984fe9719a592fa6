// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/shoalnet/shoal"
)

// DefaultHost is where an engine listens unless told otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// Config configures [Docker]. Zero durations and counts mean the defaults.
type Config struct {
	Host    string // "": DefaultHost
	Cluster shoal.PeerID
	Peer    shoal.PeerID

	// Rules returns what the machine's owner allows now, for shoal.Forbidden; nil:
	// nothing is allowed.
	Rules func() []string
	// Guarded are paths of this machine, beside the engine's own, that only a rule
	// about them alone allows to mount: a key, a control socket.
	Guarded []string

	// Pool is what the subnets of our networks are cut from, a /22 each. 10.213.0.0/16.
	Pool netip.Prefix

	// Quick bounds what an engine answers from memory: ping, list, inspect, the
	// opening of a stream. 5s: a hanging engine is known within 10 s (FAILURES F4).
	Quick time.Duration
	// Slow bounds what an engine works for: create, start, remove. 30s: one of
	// eight parallel starts was seen to take 3 s on a busy machine (FACTS section 7).
	Slow time.Duration
	// Stall bounds how long a pull, a load or a save of an image may stand still; in all
	// it takes as long as it takes. 2m: an engine tells several times a second of what it
	// moves, but nothing while it syncs a layer to a slow disk.
	Stall time.Duration
	// StopMargin is what Stop waits beyond the grace, for the kill. 10s.
	StopMargin time.Duration
	// Parallel bounds the inspections and measurements at a time. 4: above that an
	// engine only gets later (FACTS section 7).
	Parallel int
	// Refresh is how old what was learnt by inspecting a container may get before
	// List asks again although nothing seems to have changed. 60s.
	Refresh time.Duration
}

// Validate checks the configuration and names the first wrong field.
func (c *Config) Validate() error {
	switch {
	case c.Cluster == "":
		return &shoal.InvalidError{Field: "runtime.cluster", Why: "is missing"}
	case c.Peer == "":
		return &shoal.InvalidError{Field: "runtime.peer", Why: "is missing"}
	case c.Parallel < 0:
		return &shoal.InvalidError{Field: "runtime.parallel", Why: fmt.Sprintf("must not be negative, got %d", c.Parallel)}
	}
	if c.Pool.IsValid() {
		if err := CheckPool("runtime.pool", c.Pool); err != nil {
			return err
		}
	}
	for name, d := range map[string]time.Duration{
		"quick": c.Quick, "slow": c.Slow, "stall": c.Stall, "stop margin": c.StopMargin, "refresh": c.Refresh,
	} {
		if d < 0 {
			return &shoal.InvalidError{Field: "runtime." + name, Why: fmt.Sprintf("must not be negative, got %s", d)}
		}
	}
	return nil
}

// defaults fills in what is not set.
func (c *Config) defaults() {
	if c.Host == "" {
		c.Host = DefaultHost
	}
	setDefault(&c.Pool, defaultPool)
	setDefault(&c.Quick, 5*time.Second)
	setDefault(&c.Slow, 30*time.Second)
	setDefault(&c.Stall, 2*time.Minute)
	setDefault(&c.StopMargin, 10*time.Second)
	setDefault(&c.Parallel, 4)
	setDefault(&c.Refresh, time.Minute)
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
