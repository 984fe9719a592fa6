// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// clockPeriod is how often the file of a testbed's clock is looked at.
const clockPeriod = 100 * time.Millisecond

// testbedClock is the machine's clock with its civil time off by what a file says, so
// that a testbed can set one daemon's clock wrong and no other's. Its Mono is right:
// steps of a real machine's clock leave that alone, too.
type testbedClock struct {
	shoal.SystemClock
	file string
	log  *slog.Logger

	mu     sync.Mutex // guards the rest
	read   time.Duration
	text   []byte
	offset time.Duration
}

func newTestbedClock(file string, log *slog.Logger) *testbedClock {
	return &testbedClock{SystemClock: shoal.NewSystemClock(), file: file, log: log, read: -clockPeriod}
}

// Wall implements [shoal.Clock].
func (c *testbedClock) Wall() time.Time { return c.SystemClock.Wall().Add(c.off()) }

// off returns what the file says, like "-1h30m". An absent or empty file says 0; one
// that says nothing sensible leaves the clock as it was, and that is logged once.
func (c *testbedClock) off() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.Mono()
	if now-c.read < clockPeriod {
		return c.offset
	}
	c.read = now
	text, err := os.ReadFile(c.file)
	if err != nil && !os.IsNotExist(err) {
		return c.offset
	}
	if text = bytes.TrimSpace(text); bytes.Equal(text, c.text) {
		return c.offset
	}
	c.text = text
	offset := time.Duration(0)
	if len(text) > 0 {
		if offset, err = time.ParseDuration(string(text)); err != nil {
			c.log.Warn("the testbed's clock keeps its offset", "file", c.file, logkey.Err, err)
			return c.offset
		}
	}
	c.log.Info("the testbed set the clock", "offset", offset)
	c.offset = offset
	return offset
}
