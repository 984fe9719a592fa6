// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/drive"
)

// tides are three services that follow their load, each by another metric.
const tides = `
name: tides
services:
  web:
    image: hello:1
    command: [serve]
    ports: ["8080:80"]
    stop_grace_period: 3s
    deploy: {resources: {limits: {memory: 64M}}}
    x-shoal: {autoscale: {min: 1, max: 6, requests: 4, down: {window: 10s}}}
  mill:
    image: hello:1
    command: [serve, -work, 30ms]
    ports: ["8081:80"]
    stop_grace_period: 3s
    deploy: {resources: {reservations: {cpus: "0.1"}, limits: {memory: 64M}}}
    x-shoal: {autoscale: {min: 1, max: 3, cpu: 60%, down: {window: 10s}}}
  lazy:
    image: hello:1
    command: [serve]
    ports: ["8082:80"]
    stop_grace_period: 3s
    deploy: {resources: {limits: {memory: 64M}}}
    x-shoal: {autoscale: {min: 0, max: 3, connections: 20, idle: 10s}}
`

// scaling is the part of "shoal ls -o json" that says how a service is scaled.
type scaling struct {
	Name      string `json:"name"`
	Replicas  int    `json:"replicas"`
	Ready     int    `json:"ready"`
	Autoscale *struct {
		Says string `json:"says"`
		Last string `json:"last"`
	} `json:"autoscale"`
}

// follow waits until a service has come to n replicas by its load, all ready, and returns
// how long that took.
func follow(t *testing.T, l *lab.Lab, host, service string, n int, within time.Duration) time.Duration {
	t.Helper()
	began, last := time.Now(), scaling{}
	err := drive.Until(t.Context(), within, fmt.Sprintf("%s has come to %d replicas", service, n), func() error {
		var all []scaling
		text, err := l.Shoal(t.Context(), host, "ls", "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(text), &all)
		}
		if err != nil {
			return err
		}
		for _, s := range all {
			if s.Name == service {
				last = s
			}
		}
		if last.Replicas != n || last.Ready != n || last.Autoscale == nil {
			return fmt.Errorf("%d of %d ready: %+v", last.Ready, last.Replicas, last.Autoscale)
		}
		return nil
	})
	took := time.Since(began)
	if err != nil {
		t.Errorf("after %s: %v", took.Round(time.Second), err)
		return took
	}
	t.Logf("%s: %d replicas after %.1f s: %s", service, n, took.Seconds(), last.Autoscale.Last)
	return took
}

// Services follow a step of their load up and down again, one by the requests that come to
// two hosts, one by the CPU that its replicas use, and no request fails. One that nobody
// comes to goes to none, and the first client that comes then is answered.
func TestServicesFollowLoad(t *testing.T) {
	const (
		sampled = 15 * time.Second // what is carried, or used, is told at least so often
		started = 10 * time.Second // a replica is decided about and started, on a slow machine
		window  = 10 * time.Second // of down, in the file
	)
	l := lab.Up(t, lab.Hosts(3), lab.Images(hello(t)))
	ctx := t.Context()
	binary, err := pack.Build(ctx, "../examples/hello")
	ok(t, err)
	program := filepath.Join(t.TempDir(), "hello")
	ok(t, os.WriteFile(program, binary, 0o755)) //nolint:gosec // it is run
	began := time.Now()
	must(t)(l.Shoal(ctx, "h1", "deploy", "-f", file(t, tides), "-y"))

	var parts sync.WaitGroup
	parts.Go(func() { // by requests: 18 a second call for 5, 2 for 1
		ends := []func() loaded{startLoadOn(t, l, program, "h1", 8080, 10, 30*time.Second), startLoadOn(t, l, program, "h2", 8080, 8, 30*time.Second)}
		follow(t, l, "h3", "web", 5, sampled+started)
		for _, end := range ends {
			if got := end(); got.Failed > 0 {
				t.Errorf("%d of %d requests failed while there came more replicas", got.Failed, got.Sent)
			}
		}
		end := startLoadOn(t, l, program, "h1", 8080, 2, 36*time.Second)
		follow(t, l, "h3", "web", 1, sampled+window+started+sampled)
		if got := end(); got.Failed > 0 {
			t.Errorf("%d of %d requests failed while replicas went", got.Failed, got.Sent)
		}
	})
	parts.Go(func() { // by CPU: 300 ms a second call for 5 of 60, and 3 there may be
		end := startLoadOn(t, l, program, "h3", 8081, 10, 32*time.Second)
		follow(t, l, "h2", "mill", 3, 2*sampled+started) // the first measurement of a replica is not told
		if got := end(); got.Failed > 0 {
			t.Errorf("%d of %d requests failed while there came more replicas", got.Failed, got.Sent)
		}
		follow(t, l, "h2", "mill", 1, 2*sampled+2*(window+started)) // it may go by two steps
	})
	parts.Go(func() {
		follow(t, l, "h2", "lazy", 0, 10*time.Second+sampled+started)
		for _, h := range []string{"h3", "h1"} { // the second finds it awake
			from := time.Now()
			got := startLoadOn(t, l, program, h, 8082, 10, 200*time.Millisecond)()
			if got.Failed > 0 || got.Sent == 0 {
				t.Errorf("%s: %d of %d requests failed of a service that slept", h, got.Failed, got.Sent)
			}
			t.Logf("lazy: answered at %s after %.1f s", h, time.Since(from).Seconds())
		}
		follow(t, l, "h3", "lazy", 0, 10*time.Second+2*sampled+started) // who woke it is told late, too
	})
	parts.Wait()
	t.Logf("all in %s", time.Since(began).Round(time.Second))
}
