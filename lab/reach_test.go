// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab"
)

// loaded is what "hello load" tells.
type loaded struct {
	Sent     int
	Failed   int
	Replicas []string
	Failures []struct {
		At  float64 `json:"at_seconds"`
		Why string
	}
}

// startLoad asks port 8080 of a host from that host, at a steady rate.
func startLoad(t *testing.T, l *lab.Lab, binary, host string, rate int, period time.Duration) func() loaded {
	t.Helper()
	return startLoadOn(t, l, binary, host, 8080, rate, period)
}

// startLoadOn is startLoad on another port.
func startLoadOn(t *testing.T, l *lab.Lab, binary, host string, port, rate int, period time.Duration) func() loaded {
	t.Helper()
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		var out, bad bytes.Buffer
		argv := []string{binary, "load", "-to", fmt.Sprintf("http://127.0.0.1:%d/", port), "-rate", fmt.Sprint(rate), "-for", period.String()}
		err := l.Exec(context.WithoutCancel(t.Context()), host, argv, lab.Streams{Out: &out, Err: &bad})
		if err != nil {
			err = fmt.Errorf("%w: %s", err, bad.String())
		}
		done <- result{out.Bytes(), err}
	}()
	return func() loaded {
		t.Helper()
		r := <-done
		ok(t, r.err)
		var got loaded
		ok(t, json.Unmarshal(r.out, &got))
		t.Logf("load at %s:%d: %d sent, %d failed, %d replicas, %v", host, port, got.Sent, got.Failed, len(got.Replicas), got.Failures[:min(len(got.Failures), 5)])
		return got
	}
}

// detected is when a silent peer is known to be gone: 5 intervals of a second and a ping
// (DESIGN.md section 5), with room for a slow machine.
const detected = 8 * time.Second

// A published port answers on every host, whichever hold the replicas. A restart of the
// whole service under load fails no request, and a host that loses power none that was
// sent after it was missed.
func TestReach(t *testing.T) {
	l := lab.Up(t, lab.Hosts(3), lab.Images(hello(t)))
	ctx := t.Context()
	binary, err := pack.Build(ctx, "../examples/hello")
	ok(t, err)
	program := filepath.Join(t.TempDir(), "hello")
	ok(t, os.WriteFile(program, binary, 0o755)) //nolint:gosec // it is run
	must(t)(l.Shoal(ctx, "h1", "run", "--name", "web", "--replicas", "3", "--update-min-healthy", "0s", "-p", "8080:80", image))
	_, err = client(t, l, "h1").Exact(ctx, "web", 3, time.Minute)
	ok(t, err)
	for _, h := range []string{"h1", "h2", "h3"} {
		if got := startLoad(t, l, program, h, 50, 2*time.Second)(); got.Failed > 0 || len(got.Replicas) != 3 {
			t.Errorf("%s: %d of %d requests failed, %d of 3 replicas answered", h, got.Failed, got.Sent, len(got.Replicas))
		}
	}

	end := startLoad(t, l, program, "h1", 200, 14*time.Second)
	must(t)(l.Shoal(ctx, "h2", "restart", "web"))
	if got := end(); got.Failed > 0 || got.Sent < 1500 {
		t.Errorf("%d of %d requests failed during a restart of all replicas", got.Failed, got.Sent)
	}

	end = startLoad(t, l, program, "h1", 200, 18*time.Second)
	began := time.Now()
	ok(t, l.Kill(ctx, "h3"))
	killed := time.Since(began)
	got := end()
	for _, f := range got.Failures {
		if f.At > (killed + detected).Seconds() {
			t.Errorf("a request sent %.1f s after the load began, %.1f s after the power cut, failed: %s", f.At, f.At-killed.Seconds(), f.Why)
		}
	}
	if got.Sent < 1500 || got.Failed > got.Sent/10 {
		t.Errorf("%d of %d requests failed", got.Failed, got.Sent)
	}
}
