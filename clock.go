// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import "time"

// Clock is where time comes from. Wall is for display, HLC and invites only;
// Mono never steps and is what every threshold is measured with. Both are safe
// for concurrent use.
type Clock interface {
	// Wall returns the machine's civil time.
	Wall() time.Time
	// Mono returns the time since this process's clock was made.
	Mono() time.Duration
}

// SystemClock is the machine's own clock. Inside a testing/synctest bubble it
// follows the bubble's virtual time.
type SystemClock struct{ start time.Time }

// NewSystemClock returns a clock whose Mono starts at zero now.
func NewSystemClock() SystemClock { return SystemClock{start: time.Now()} }

// Wall implements [Clock].
func (SystemClock) Wall() time.Time { return time.Now() }

// Mono implements [Clock].
func (c SystemClock) Mono() time.Duration { return time.Since(c.start) }
