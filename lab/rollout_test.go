// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/drive"
)

// fleet is a service of twelve replicas, three of which may be not ready, under the
// project "fleet"; beside it one that nothing should touch.
const fleet = `
name: fleet
services:
  web:
    image: hello:1
    command: [%s]
    ports: ["8080:80"]
    healthcheck: {test: ["CMD", "/hello", %s], interval: 3s, timeout: 3s, retries: 2}
    stop_grace_period: 3s
    deploy:
      replicas: 12
      resources: {limits: {memory: 64M}}
    x-shoal:
      rollout: {max_unavailable: 25%%, min_healthy: %s, deadline: 20s}
  other:
    image: hello:1
    deploy: {replicas: 3, resources: {limits: {memory: 64M}}}
`

// versions of web.
var (
	goodOne  = fmt.Sprintf(fleet, `"serve", "-version", "1"`, `"check"`, "2s")
	goodTwo  = fmt.Sprintf(fleet, `"serve", "-version", "2"`, `"check"`, "2s")
	crashing = fmt.Sprintf(fleet, `"serve", "-listen", "nowhere:none"`, `"check"`, "2s")
	sick     = fmt.Sprintf(fleet, `"serve", "-version", "3"`, `"dance"`, "2s")
	latent   = fmt.Sprintf(fleet, `"serve", "-version", "4", "-life", "30s", "-code", "1"`, `"check"`, "12s")
)

// file writes a Compose file.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "compose.yaml")
	ok(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// leastReady asks again and again how many replicas of web are ready, until the end of a
// test's part, and returns the least.
func leastReady(t *testing.T, c drive.Client) func() int {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	least := make(chan int)
	go func() {
		n := 12
		for ctx.Err() == nil {
			rows, err := c.Rows(ctx, "web")
			if err == nil {
				ready := map[int]bool{}
				for _, r := range rows {
					if r.State == "ready" {
						ready[r.Slot] = true
					}
				}
				n = min(n, len(ready))
			}
			select {
			case <-time.After(50 * time.Millisecond): // how often it is looked at
			case <-ctx.Done():
			}
		}
		least <- n
	}()
	return func() int { stop(); return <-least }
}

// history is what "shoal rollout history" says.
func history(t *testing.T, l *lab.Lab, host string) string {
	t.Helper()
	return must(t)(l.Shoal(t.Context(), host, "rollout", "history", "web"))
}

// An update of twelve replicas under load fails no request and keeps nine ready. Revisions
// that crash, that are never healthy, and that die after they were take one wave, and the
// last good one comes back within a minute, whoever is asked; another service is left alone.
// An update goes on when the host that took it loses power.
func TestRollouts(t *testing.T) {
	l := lab.Up(t, lab.Hosts(3), lab.Images(hello(t)))
	ctx := t.Context()
	binary, err := pack.Build(ctx, "../examples/hello")
	ok(t, err)
	program := filepath.Join(t.TempDir(), "hello")
	ok(t, os.WriteFile(program, binary, 0o755)) //nolint:gosec // it is run
	must(t)(l.Shoal(ctx, "h1", "deploy", "-f", file(t, goodOne), "-y"))
	before, err := client(t, l, "h1").Exact(ctx, "other", 3, time.Minute)
	ok(t, err)
	must(t)(l.Shoal(ctx, "h1", "rollout", "status", "web", "--watch", "--timeout", "60s"))

	end, least := startLoad(t, l, program, "h2", 200, 25*time.Second), leastReady(t, client(t, l, "h3"))
	must(t)(l.Shoal(ctx, "h1", "deploy", "-f", file(t, goodTwo), "-y", "--timeout", "2m"))
	if n, got := least(), end(); got.Failed > 0 || n < 9 {
		t.Errorf("%d of %d requests failed during an update, %d of 12 replicas were ready at least, want 0 and 9", got.Failed, got.Sent, n)
	}
	must(t)(l.Shoal(ctx, "h3", "rollout", "status", "web", "--watch", "--timeout", "60s"))

	for _, c := range []struct {
		name, text string
		within     time.Duration // from the wish to the last good revision
		last       string        // that the container itself wrote, or its health check; "": nothing need have failed
	}{
		{"one that crashes", crashing, time.Minute, `  hello: .*lookup tcp/none: unknown port`},
		{"one that is never healthy", sick, 90 * time.Second, `Health check of web/[0-9]+ at h[123]: .*dance`}, // its deadline is 20 s
		{"one that dies after 30 s", latent, 90 * time.Second, ""},                                             // its deadline may be first
	} {
		own := regexp.MustCompile(c.last)
		least := leastReady(t, client(t, l, "h3"))
		began := time.Now()
		out, err := l.Shoal(ctx, "h2", "deploy", "-f", file(t, c.text), "-y", "--timeout", "2m")
		if err == nil {
			t.Errorf("%s: deploy says all is well: %s", c.name, out)
		}
		if said := out + fmt.Sprint(err); c.last != "" && (!own.MatchString(said) || !strings.Contains(said, "by the operator at h2: web/")) {
			t.Errorf("%s: deploy does not say what the container said last: %s", c.name, said)
		}
		status, err := l.Shoal(ctx, "h1", "rollout", "status", "web", "--watch", "--timeout", "2m")
		if err == nil || strings.Contains(status, "not complete") {
			t.Errorf("%s: status says all is well, or is not over: %s", c.name, status)
		}
		took := time.Since(began)
		if n := least(); n < 9-3*strings.Count(c.name, "dies") || took > c.within {
			t.Errorf("%s: %d replicas were ready at least, the last good revision was back after %s, want 9 and %s", c.name, n, took, c.within)
		}
		past := history(t, l, "h3") // another peer than the holder of each failure tells it
		if !own.MatchString(past) {
			t.Errorf("%s: history does not say what the container said last", c.name)
		}
		t.Logf("%s: back after %s\n%s", c.name, took.Round(time.Second), past)
	}
	after, err := client(t, l, "h1").Exact(ctx, "other", 3, time.Minute)
	ok(t, err)
	for i := range after {
		if after[i].Container != before[i].Container {
			t.Errorf("other/%d was replaced", after[i].Slot)
		}
	}

	must(t)(l.Shoal(ctx, "h1", "deploy", "-f", file(t, goodOne), "-y", "--detach"))
	time.Sleep(3 * time.Second) // into the second wave
	ok(t, l.Kill(ctx, "h1"))
	must(t)(l.Shoal(ctx, "h2", "rollout", "status", "web", "--watch", "--timeout", "2m"))
	_, err = client(t, l, "h3").Exact(ctx, "web", 12, time.Minute, "h1")
	ok(t, err)
}
