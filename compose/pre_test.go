// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func TestPreDeploys(t *testing.T) {
	usual := shoal.PreDeploy{Attempts: 1, Deadline: 10 * time.Minute}
	with := func(change func(*shoal.PreDeploy)) shoal.PreDeploy {
		p := usual
		change(&p)
		return p
	}
	for text, want := range map[string]shoal.PreDeploy{
		"./migrate up":                     with(func(p *shoal.PreDeploy) { p.Command = []string{"./migrate", "up"} }),
		"sh -c 'a && b'":                   with(func(p *shoal.PreDeploy) { p.Command = []string{"sh", "-c", "a && b"} }),
		"[./migrate, '--to', 7]":           with(func(p *shoal.PreDeploy) { p.Command = []string{"./migrate", "--to", "7"} }),
		"{command: [./migrate]}":           with(func(p *shoal.PreDeploy) { p.Command = []string{"./migrate"} }),
		"{command: [a, '$$HOME']}":         with(func(p *shoal.PreDeploy) { p.Command = []string{"a", "$HOME"} }),
		"{image: 'tool:1'}":                with(func(p *shoal.PreDeploy) { p.Image = "tool:1" }),
		"{image: 'tool:1', deadline: '0'}": with(func(p *shoal.PreDeploy) { p.Image, p.Deadline = "tool:1", 0 }),
		"{command: migrate, environment: {A: b, N: 1}, attempts: 3, deadline: 1h}": {
			Command: []string{"migrate"}, Env: map[string]string{"A": "b", "N": "1"}, Attempts: 3, Deadline: time.Hour,
		},
		"{command: migrate, environment: [A=b, HERE, NOT_HERE]}": with(func(p *shoal.PreDeploy) {
			p.Command, p.Env = []string{"migrate"}, map[string]string{"A": "b", "HERE": "there"}
		}),
	} {
		p, err := fromText(t, jobFile("x-shoal: {pre_deploy: "+text+"}"), Options{Env: map[string]string{"HERE": "there"}})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(&want, p.Specs[0].PreDeploy); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		again(t, p.Specs)
	}
}

func TestBadPreDeploys(t *testing.T) {
	for text, want := range map[string]string{
		"[]":                                 "stdin:2: services.load.x-shoal.pre_deploy: is empty, and the image's cannot be taken away",
		"''":                                 "stdin:2: services.load.x-shoal.pre_deploy: is empty, and the image's cannot be taken away",
		"5":                                  "stdin:2: services.load.x-shoal.pre_deploy: must be a line or a list of words, got 5",
		"[{a: b}]":                           "stdin:2: services.load.x-shoal.pre_deploy",
		"\"a 'b\"":                           "stdin:2: services.load.x-shoal.pre_deploy: cannot be split into words",
		"{attempts: 2}":                      "stdin:2: services.load.x-shoal.pre_deploy: names nothing to run: say command, image or both",
		"{command: 5}":                       "services.load.x-shoal.pre_deploy.command: must be a line or a list of words, got 5",
		"{command: m, attempts: 0}":          "services.load.x-shoal.pre_deploy.attempts: must be 1-1000, got 0",
		"{command: m, attempts: some}":       "stdin:2: services.load.x-shoal.pre_deploy.attempts: must be a whole number",
		"{command: m, deadline: 5}":          "stdin:2: services.load.x-shoal.pre_deploy.deadline: 5 has no unit",
		"{command: m, image: 'A B'}":         "services.load.x-shoal.pre_deploy.image: ",
		"{command: m, environment: 5}":       "services.load.x-shoal.pre_deploy.environment: must be a mapping or a list of NAME=VALUE, got 5",
		"{command: m, environment: {1A: b}}": "services.load.x-shoal.pre_deploy.environment: has the name \"1A\"",
		"{command: m, timeout: 5m}":          "stdin:2: services.load.x-shoal.pre_deploy.timeout: is no key that Shoal knows",
		"{command: m, for: 5}":               "stdin:2: services.load.x-shoal.pre_deploy.for: is no key that Shoal knows",
	} {
		if _, err := fromText(t, jobFile("x-shoal: {pre_deploy: "+text+"}"), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Load = %v, want %q in it", text, err, want)
		}
	}
	if _, err := fromText(t, jobFile("deploy: {mode: global-job}, x-shoal: {pre_deploy: m}"), Options{}); err == nil || !strings.Contains(err.Error(), "x-shoal.pre_deploy: is for services that stay") {
		t.Errorf("of a job: %v", err)
	}
}

// TestMaskedPreDeploy: the values of its environment are no less a secret than the service's.
func TestMaskedPreDeploy(t *testing.T) {
	p, err := fromText(t, jobFile("x-shoal: {pre_deploy: {command: m, environment: {PASSWORD: secret}}}"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Render(&out, p.Specs, true); err != nil || strings.Contains(out.String(), "secret") || !strings.Contains(out.String(), "${PASSWORD?") {
		t.Errorf("Render = %v:\n%s", err, out.String())
	}
}
