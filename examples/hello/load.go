// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a load.
const (
	maxFailures = 100              // that are told one by one
	askTime     = 10 * time.Second // for one answer
)

// report is what came of a load.
type report struct {
	Sent     int       `json:"sent"`
	Failed   int       `json:"failed"`
	Replicas []string  `json:"replicas"` // that answered
	Failures []failure `json:"failures,omitempty"`
	Slowest  float64   `json:"slowest_seconds"`
}

type failure struct {
	At  float64 `json:"at_seconds"` // since the load began, when it was sent
	Why string  `json:"why"`
}

// load asks a URL at a steady rate, each time by a connection of its own, until ctx ends or
// the time is over, and writes what came of it as JSON.
func load(ctx context.Context, url string, rate float64, period time.Duration, w io.Writer) error {
	if url == "" || rate <= 0 || rate > 10_000 || period <= 0 {
		return fmt.Errorf("load wants a -to, a -rate of at most 10000 a second and a -for")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: askTime}
	var mu sync.Mutex // guards the report and seen
	var out report
	seen := map[string]bool{}
	began := time.Now()
	ask := func() {
		at := time.Now()
		replica, err := answer(context.WithoutCancel(ctx), client, url) // what was sent counts
		mu.Lock()
		defer mu.Unlock()
		out.Sent++
		out.Slowest = max(out.Slowest, time.Since(at).Seconds())
		if err == nil {
			seen[replica] = true
			return
		}
		out.Failed++
		if len(out.Failures) < maxFailures {
			out.Failures = append(out.Failures, failure{at.Sub(began).Seconds(), err.Error()})
		}
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	over := time.NewTimer(period)
	defer over.Stop()
	var open sync.WaitGroup
	for isOver := false; !isOver; {
		select {
		case <-tick.C:
			open.Go(ask)
		case <-over.C:
			isOver = true
		case <-ctx.Done():
			isOver = true
		}
	}
	open.Wait()
	out.Replicas = slices.Sorted(maps.Keys(seen))
	return json.NewEncoder(w).Encode(out)
}

// answer returns which replica answered.
func answer(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(body)) {
		if id, ok := strings.CutPrefix(line, "replica "); ok && resp.StatusCode == http.StatusOK {
			return strings.TrimSpace(id), nil
		}
	}
	return "", fmt.Errorf("%s: %.100q", resp.Status, body)
}
