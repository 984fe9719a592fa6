// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// Config holds the times and limits of this room. Take a profile and change it.
type Config struct {
	Placement placement.Config

	Coalesce time.Duration // from the first change of the view to the decision (DESIGN section 4: 1 ms)
	Creates  int           // creates and starts at a time on this peer (DESIGN section 5: 4)
	Pulls    int           // pulls at a time on this peer (DESIGN section 5: 2)

	ListEvery   time.Duration // period of the full list that corrects what events missed
	ListTimeout time.Duration // an engine that takes longer is down; ListEvery + ListTimeout < 10 s (FAILURES F4)
	ListGap     time.Duration // least time between two lists, so that storms of events coalesce
	CallTimeout time.Duration // of a create, a start, a remove; of a stop beyond its grace
	PullTimeout time.Duration // a pull in which nothing moves any more is given up; the puller itself does so earlier (2 min)
	OrphanGrace time.Duration // a container without a claim is left alone this long

	Refresh      time.Duration // period of the usage, and of the list of images that corrects what events missed
	Measure      time.Duration // period of what replicas of autoscaled services use
	RefuseFor    time.Duration // first length of a refusal, doubling
	RefuseCap    time.Duration // longest refusal
	ConfirmAfter time.Duration // pause after a pull of freshness that failed
	Confirm      time.Duration // deadline of a pull of freshness

	PingEvery    time.Duration // the watchdog's pings
	PingLost     time.Duration // an actor silent this long is replaced
	RestartDelay time.Duration // first back-off of a failed actor, doubling (FAILURES F32: back within 1 s)
	RestartCap   time.Duration // its longest back-off
	RestartReset time.Duration // living this long forgives an actor's earlier failures
	StopTimeout  time.Duration // Run waits this long for actors to end
}

// LAN returns the profile for peers within a few milliseconds of each other.
func LAN() Config {
	return Config{
		Placement:    placement.LAN(),
		Coalesce:     time.Millisecond,
		Creates:      4,
		Pulls:        2,
		ListEvery:    5 * time.Second,
		ListTimeout:  4 * time.Second,
		ListGap:      10 * time.Millisecond,
		CallTimeout:  30 * time.Second,
		PullTimeout:  3 * time.Minute,
		OrphanGrace:  10 * time.Second,
		Refresh:      30 * time.Second,
		Measure:      15 * time.Second,
		RefuseFor:    30 * time.Second,
		RefuseCap:    10 * time.Minute,
		ConfirmAfter: time.Second,
		Confirm:      5 * time.Second,
		PingEvery:    3 * time.Second,
		PingLost:     10 * time.Second,
		RestartDelay: 100 * time.Millisecond,
		RestartCap:   30 * time.Second,
		RestartReset: time.Minute,
		StopTimeout:  5 * time.Second,
	}
}

// WAN returns the profile for distant peers: what happens on this machine is the
// same, pulls of freshness get more time.
func WAN() Config {
	c := LAN()
	c.Placement = placement.WAN()
	c.Confirm = 10 * time.Second
	return c
}

// Sim returns the profile of the simulation.
func Sim() Config {
	c := LAN()
	c.Placement = placement.Sim()
	return c
}

// Validate returns an *shoal.InvalidError for the first value that makes no sense.
func (c Config) Validate() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"coalesce", c.Coalesce},
		{"list_every", c.ListEvery},
		{"list_timeout", c.ListTimeout},
		{"list_gap", c.ListGap},
		{"call_timeout", c.CallTimeout},
		{"pull_timeout", c.PullTimeout},
		{"orphan_grace", c.OrphanGrace},
		{"refresh", c.Refresh},
		{"measure", c.Measure},
		{"refuse_for", c.RefuseFor},
		{"refuse_cap", c.RefuseCap},
		{"confirm_after", c.ConfirmAfter},
		{"confirm", c.Confirm},
		{"ping_every", c.PingEvery},
		{"ping_lost", c.PingLost},
		{"restart_delay", c.RestartDelay},
		{"restart_cap", c.RestartCap},
		{"restart_reset", c.RestartReset},
		{"stop_timeout", c.StopTimeout},
	} {
		if d.d <= 0 {
			return &shoal.InvalidError{Field: "actors." + d.name, Why: "must be longer than 0, got " + d.d.String()}
		}
	}
	if c.Creates < 1 || c.Pulls < 1 {
		return &shoal.InvalidError{Field: "actors.creates, actors.pulls", Why: "must be at least 1"}
	}
	return c.Placement.Validate()
}
