// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package des

import (
	"testing"

	"github.com/shoalnet/shoal/placement"
)

// Each safety rule, switched off, makes its counter worse: a rule that cannot be
// seen to work is not worth its lines. Where PLACEMENT.md has a figure for the rule
// being off, it must come back within a factor of 2. These tests always run the
// same few seeds.

// worse fails unless the counter with the rule is at most good, and without it at
// least bad.
func worse(t *testing.T, what string, with, without, good, bad float64) {
	t.Helper()
	if with > good || without < bad {
		t.Errorf("%s: %.2f with the rule and %.2f without; want at most %.2f and at least %.2f", what, with, without, good, bad)
	}
}

func TestSwitchProposal(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoProposal = true }
	with := measure(t, "proposal on", 1, 1, wan(20), concurrent(120))
	without := measure(t, "proposal off", 1, 1, wan(20, off), concurrent(120))
	worse(t, "claims given up unstarted or extra", with.unheld+with.extra, without.unheld+without.extra, 20, 40)
	worse(t, "records", with.records, without.records, 90, 120)
}

// TestSwitchProposalAndHold has the "q" column of section 2: 55 extra.
func TestSwitchProposalAndHold(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoProposal, c.NoHold = true, true }
	without := measure(t, "proposal and hold-off off", 1, 1, wan(20, off), concurrent(120))
	worse(t, "extra starts", 0, without.extra, 0, 55/2)
}

// TestSwitchHold: section 3, three deaths, a2 14/25 extra.
func TestSwitchHold(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoHold = true }
	with := measure(t, "hold-off on", 1, 3, wan(20), failures(3, 90))
	without := measure(t, "hold-off off", 1, 3, wan(20, off), failures(3, 90))
	worse(t, "extra starts", with.extra, without.extra, 3, 14/2)
}

// TestSwitchSettle: section 4; without settling third peers fill what only looks open.
func TestSwitchSettle(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoSettle = true }
	with := measure(t, "settle on", 1, 3, lan(20), splits(10))
	without := measure(t, "settle off", 1, 3, lan(20, off), splits(10))
	worse(t, "starts after the healing", with.starts, without.starts, 2, 3)
}

// TestSwitchVouch: settling hides what a vouch is for, so it is off on both sides;
// section 4, G 45 and with vouch 10, where 8 are needed.
func TestSwitchVouch(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoSettle, c.NoReuse = true, true }
	too := func(c *placement.Config) { c.NoVouch = true }
	with := measure(t, "vouch on, settle off", 1, 3, lan(20, off), splits(10))
	without := measure(t, "vouch off, settle off", 1, 3, lan(20, off, too), splits(10))
	worse(t, "starts after the healing", with.starts, without.starts, 20, 45/2)
	if without.starts < 1.3*with.starts {
		t.Errorf("starts %.1f with vouch, %.1f without", with.starts, without.starts)
	}
}

// TestSwitchAllReady: section 4, "dips".
func TestSwitchAllReady(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoAllReady = true }
	keep := func(c *placement.Config) { c.NoReuse = true }
	with := measure(t, "all-ready on", 1, 2, lan(20, keep), splits(10))
	without := measure(t, "all-ready off", 1, 2, lan(20, keep, off), splits(10))
	worse(t, "dips below n", float64(with.dips), float64(without.dips), 0, 2)
}

func TestSwitchReuse(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoReuse = true }
	with := measure(t, "re-use on", 1, 2, lan(20), splits(10))
	without := measure(t, "re-use off", 1, 2, lan(20, off), splits(10))
	worse(t, "starts after the healing", with.starts, without.starts, 2, 8)
	worse(t, "starts after the healing, at most 10 without", 0, 10-without.starts, 0, 0)
}

// TestSwitchCold: section 6, 13/52 without the cold rule.
func TestSwitchCold(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoCold = true }
	with := measure(t, "cold rule on", 1, 8, lan(20), restarts(120))
	without := measure(t, "cold rule off", 1, 8, lan(20, off), restarts(120))
	worse(t, "extra starts", with.extra, without.extra, 0, 13.0/2)
}

// TestSwitchGrace: below the cold rule the boot grace is what is left.
func TestSwitchGrace(t *testing.T) {
	t.Parallel()
	cold := func(c *placement.Config) { c.NoCold = true }
	off := func(c *placement.Config) { c.NoGrace = true }
	with := measure(t, "boot grace on, cold off", 1, 4, lan(10, cold), restarts(60))
	without := measure(t, "boot grace off, cold off", 1, 4, lan(10, cold, off), restarts(60))
	worse(t, "extra starts", with.extra, without.extra, 60, 67)
}

func TestSwitchBrake(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoBrake = true }
	with := measure(t, "brake on", 1, 3, lan(20), blackouts(120))
	without := measure(t, "brake off", 1, 3, lan(20, off), blackouts(120))
	worse(t, "extra starts", with.extra, without.extra, 0, 60)
}

// TestSwitchStepIn: section 7, a deaf peer's slots stay empty for as long as it lasts.
func TestSwitchStepIn(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoStepIn = true }
	with := measure(t, "step-in on", 1, 3, lan(5), deafs(30))
	without := measure(t, "step-in off", 1, 3, lan(5, off), deafs(30))
	worse(t, "runs that were not full while it was deaf", float64(with.notFull), float64(without.notFull), 0, float64(without.runs))
}

// TestSwitchPull: section 7, a stale peer steps in for 15-23 of 30 slots.
func TestSwitchPull(t *testing.T) {
	t.Parallel()
	off := func(c *placement.Config) { c.NoPull = true }
	with := measure(t, "pull on", 1, 3, lan(5), stales(150))
	without := measure(t, "pull off", 1, 3, lan(5, off), stales(150))
	worse(t, "extra starts", with.extra, without.extra, 0, 15.0/2)
}
