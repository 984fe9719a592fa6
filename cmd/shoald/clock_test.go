// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A file moves the civil time and never the monotonic one; nonsense in it changes nothing.
func TestTestbedClock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	synctest.Test(t, func(t *testing.T) {
		c := newTestbedClock(file, slog.New(slog.DiscardHandler))
		for _, step := range []struct {
			text string
			want time.Duration
		}{{"", 0}, {"1h\n", time.Hour}, {"-8760h", -8760 * time.Hour}, {"tomorrow", -8760 * time.Hour}, {"", 0}} {
			if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(clockPeriod)
			mono := c.Mono()
			if got := time.Until(c.Wall()); got != step.want {
				t.Errorf("%q: the clock is off by %s, want %s", step.text, got, step.want)
			}
			if got := c.Mono() - mono; got != 0 {
				t.Errorf("%q: the monotonic clock moved by %s", step.text, got)
			}
		}
	})
}
