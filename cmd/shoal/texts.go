// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// strategyText is how slots are placed: "spread over rack, at most 1 a peer".
func (s *specJSON) strategyText() string {
	out := []string{s.Strategy}
	if s.SpreadBy != "" {
		out[0] += " over " + s.SpreadBy
	}
	if s.MaxPerPeer > 0 {
		out = append(out, fmt.Sprintf("at most %d a peer", s.MaxPerPeer))
	}
	if s.Priority != 0 {
		out = append(out, fmt.Sprintf("priority %d", s.Priority))
	}
	if s.Anywhere {
		out = append(out, "volumes anywhere")
	}
	return strings.Join(out, ", ")
}

// stopText is how a replica is stopped, "" if nothing was said of it.
func (s *specJSON) stopText() string {
	if s.StopGrace == 0 {
		return s.StopSignal
	}
	return cmp.Or(s.StopSignal, "SIGTERM") + ", killed after " + seconds(s.StopGrace)
}

// text is the check and its pace, as far as they were said.
func (h *healthJSON) text() string {
	switch {
	case h == nil:
		return ""
	case h.Disable:
		return "none, also if the image has one"
	}
	out := []string{strings.Join(h.Test, " ")}
	if len(h.Test) == 0 {
		out[0] = "the image's"
	}
	for _, x := range []struct {
		word string
		n    float64
	}{{"every ", h.Interval}, {"at most ", h.Timeout}, {"after ", h.StartPeriod}} {
		if x.n > 0 {
			out = append(out, x.word+seconds(x.n))
		}
	}
	if h.Retries > 0 {
		out = append(out, fmt.Sprintf("%d times", h.Retries))
	}
	return strings.Join(out, ", ")
}

func seconds(n float64) string { return time.Duration(n * float64(time.Second)).String() }
