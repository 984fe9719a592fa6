// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"time"

	"github.com/shoalnet/shoal"
)

// Config holds the times of the algorithm (PLACEMENT.md, "Constants") and the
// switches that turn one safety rule off each. The switches exist for the
// simulation, which proves with them that every rule earns its keep; a daemon
// leaves them all false.
type Config struct {
	Stagger       time.Duration // D: between ranks that step in; p99 one-way delay with the flush
	Hold          time.Duration // H: from an unproposed claim to its start; twice the p99 one-way delay
	StepIn        time.Duration // T: an open slot is overdue after this
	DeadExtra     time.Duration // more than T for a dead holder's slots: the spread of detection
	Settle        time.Duration // S: after somebody returns nobody fills or releases for this long
	Brake         time.Duration // counted from the first silence, when half the peers vanish together
	BrakeWindow   time.Duration // "together"
	BootGrace     time.Duration // after own boot, renewed by each newly seen peer
	Cold          time.Duration // a peer never heard since own boot is unknown, not dead, for this long
	WarmUptime    time.Duration // a heard peer up this long means that this is no cold start
	Vouch         time.Duration // a release that yields to a peer is word that it lives, for this long
	Young         time.Duration // a proposal younger than this starts at once
	SurplusRelief time.Duration // after settling, one loser at a time goes even if not all slots are ready
	EngineGrace   time.Duration // an engine down this long hands over its peer's slots
	PullValid     time.Duration // how long a pull proves freshness
	PullRetry     time.Duration // between two requests to pull from the same peer

	NoProposal bool // ignore proposals
	NoHold     bool // start unproposed claims at once
	NoStepIn   bool // never step in for another
	NoPull     bool // step in and claim without proof of freshness
	NoVouch    bool // a release says nothing about its winner
	NoSettle   bool // fill and release at once after a return
	NoAllReady bool // a loser looks at its own slot's winner only
	NoCold     bool // unknown peers are dead after the boot grace
	NoGrace    bool // no boot grace
	NoBrake    bool // half the peers vanishing is nothing special
	NoReuse    bool // a surplus replica never takes another slot
}

// LAN returns the profile for peers within a few milliseconds of each other.
func LAN() Config {
	return Config{
		Stagger:       30 * time.Millisecond,
		Hold:          50 * time.Millisecond,
		StepIn:        1500 * time.Millisecond,
		DeadExtra:     1500 * time.Millisecond,
		Settle:        3 * time.Second,
		Brake:         5 * time.Second,
		BrakeWindow:   2 * time.Second,
		BootGrace:     10 * time.Second,
		Cold:          75 * time.Second,
		WarmUptime:    2 * time.Minute,
		Vouch:         5 * time.Second,
		Young:         time.Second,
		SurplusRelief: 30 * time.Second,
		EngineGrace:   10 * time.Second,
		PullValid:     time.Second,
		PullRetry:     time.Second,
	}
}

// WAN returns the profile for peers with up to some 200 ms between them.
func WAN() Config {
	c := LAN()
	c.Stagger = 300 * time.Millisecond
	c.Hold = 350 * time.Millisecond
	c.StepIn = 2500 * time.Millisecond
	c.PullValid = 2 * time.Second
	c.PullRetry = 2 * time.Second
	return c
}

// Sim returns the profile of simulated clusters: the LAN's.
func Sim() Config { return LAN() }

// Validate reports the first time that makes no sense.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"stagger", c.Stagger},
		{"hold", c.Hold},
		{"step-in", c.StepIn},
		{"settle", c.Settle},
		{"boot grace", c.BootGrace},
		{"pull validity", c.PullValid},
		{"pull retry", c.PullRetry},
	} {
		if f.d <= 0 {
			return &shoal.InvalidError{Field: f.name, Why: "must be above 0"}
		}
	}
	if c.Hold < c.Stagger {
		return &shoal.InvalidError{Field: "hold", Why: "must not be below stagger"}
	}
	if c.Cold < c.BootGrace {
		return &shoal.InvalidError{Field: "cold", Why: "must not be below boot grace"}
	}
	return nil
}

// WithRTT returns c with hold and stagger fitted to a measured p99 round trip
// (PLACEMENT.md: H is twice the p99 one-way delay, within 30 ms to 1 s; the
// flush adds 20 ms).
func (c Config) WithRTT(p99 time.Duration) Config {
	oneWay := p99/2 + 20*time.Millisecond
	c.Hold = min(max(2*oneWay, 30*time.Millisecond), time.Second)
	c.Stagger = min(max(oneWay, 15*time.Millisecond), 500*time.Millisecond)
	return c
}
