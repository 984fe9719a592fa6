// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/drive"
)

// works is a job of six runs of 8 s, two at a time, what begins when it is done, and a job
// that fails.
const works = `
name: works
services:
  load:
    image: hello:1
    command: [serve, -life, 8s]
    deploy: {mode: replicated-job, replicas: 6, resources: {limits: {memory: 64M}}}
    x-shoal: {job: {parallelism: 2}}
  web:
    image: hello:1
    command: [serve]
    depends_on: {load: {condition: service_completed_successfully}}
    deploy: {resources: {limits: {memory: 64M}}}
`

// worked is the part of "shoal ls -o json" that says how far a job is.
type worked struct {
	Name string `json:"name"`
	Job  *struct {
		Completed int `json:"completed"`
		Running   int `json:"running"`
	} `json:"job"`
}

// containersOf counts the containers of a service on the hosts that are up, by how they
// ended: "" are those that run.
func containersOf(t *testing.T, l *lab.Lab, service string, hosts ...string) (running, endedWell int) {
	t.Helper()
	for _, h := range hosts {
		text, err := l.Docker(t.Context(), h, "ps", "-a", "--filter", "label=net.shoal.service="+service, "--format", "{{.Status}}")
		ok(t, err)
		for line := range strings.Lines(text) {
			switch {
			case strings.HasPrefix(line, "Up"):
				running++
			case strings.HasPrefix(line, "Exited (0)"):
				endedWell++
			}
		}
	}
	return running, endedWell
}

// A job runs on real engines, so many at once; a host that loses its power takes with it
// only what it ran, what is done stays done, and what depends on the job begins then. A
// job that fails says so, with what it last said.
func TestJobsRunToTheirEnd(t *testing.T) {
	l := lab.Up(t, lab.Hosts(3), lab.Images(hello(t)))
	ctx := t.Context()
	must(t)(l.Shoal(ctx, "h1", "deploy", "-f", file(t, works), "-y", "--wait=false"))
	var now worked
	follow := func(host, what string, within time.Duration, is func() bool) {
		t.Helper()
		began := time.Now()
		ok(t, drive.Until(ctx, within, what, func() error {
			var all []worked
			text, err := l.Shoal(ctx, host, "ls", "-o", "json")
			if err == nil {
				err = json.Unmarshal([]byte(text), &all)
			}
			if err != nil {
				return err
			}
			for _, s := range all {
				if s.Name == "load" && s.Job != nil {
					now = s
				}
			}
			if !is() {
				return fmt.Errorf("%+v", now.Job)
			}
			return nil
		}))
		t.Logf("%s after %.1f s", what, time.Since(began).Seconds())
	}
	follow("h2", "two are completed", 60*time.Second, func() bool { return now.Job != nil && now.Job.Completed >= 2 && now.Job.Running > 0 })
	if running, _ := containersOf(t, l, "load", "h1", "h2", "h3"); running > 2 {
		t.Errorf("%d slots run at once", running)
	}
	_, lost := containersOf(t, l, "load", "h1")
	ok(t, l.Kill(ctx, "h1"))
	follow("h3", "all are completed", 2*time.Minute, func() bool { return now.Job.Completed == 6 })
	if running, well := containersOf(t, l, "load", "h2", "h3"); running != 0 || well+lost < 6 || well+lost > 8 {
		t.Errorf("%d containers of load run, and %d ended well beside %d on the lost host; want all 6, and at most 2 twice", running, well, lost)
	}
	ok(t, drive.Until(ctx, 30*time.Second, "web is ready", func() error {
		text, err := l.Shoal(ctx, "h2", "ps", "web")
		if err != nil || !strings.Contains(text, "ready") {
			return fmt.Errorf("%s: %w", text, err)
		}
		return nil
	}))
	text, err := l.Shoal(ctx, "h2", "run", "--job", "--name", "bad", "--attempts", "2", "hello:1", "quit", "-code", "3")
	if err == nil || !strings.Contains(err.Error()+text, "exited with code 3 (2 attempts)") {
		t.Errorf("a job that fails: %v\n%s", err, text)
	}
	must(t)(l.Shoal(ctx, "h3", "run", "--job", "--name", "said", "hello:1", "shout", "-length", "7"))
	if text := must(t)(l.Shoal(ctx, "h2", "logs", "said")); !strings.Contains(text, "aaaaaaa") {
		t.Errorf("logs of what is done: %q", text)
	}
	must(t)(l.Shoal(ctx, "h3", "rm", "-y", "load", "web", "bad", "said"))
	ok(t, drive.Until(ctx, 30*time.Second, "every container is gone", func() error {
		for _, s := range []string{"load", "web", "bad", "said"} {
			if running, well := containersOf(t, l, s, "h2", "h3"); running+well > 0 {
				return fmt.Errorf("%d of %s are there", running+well, s)
			}
		}
		return nil
	}))
}
