// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/compose"
)

// TestDependsOn: both forms are read, also of services that are not deployed, and written
// again as they were.
func TestDependsOn(t *testing.T) {
	const text = `
name: shop
services:
  web:
    image: web:1
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_started, required: false}
      seed: {condition: service_completed_successfully}
  api:
    image: api:1
    depends_on: [db]
  db: {image: db:1}
  cache: {image: cache:1, profiles: [fast]}
  seed: {image: seed:1, restart: "no"}
`
	want := []shoal.Dependency{
		{Service: "cache", Condition: shoal.ConditionStarted, Optional: true},
		{Service: "db", Condition: shoal.ConditionHealthy},
		{Service: "seed", Condition: shoal.ConditionCompleted},
	}
	for _, only := range [][]string{nil, {"web"}} {
		p, err := compose.Load(t.Context(), compose.Options{Files: []string{"-"}, Stdin: strings.NewReader(text), Services: only})
		if err != nil {
			t.Fatalf("Load(%v): %v", only, err)
		}
		web := p.Specs[len(p.Specs)-1]
		if diff := cmp.Diff(want, web.DependsOn); web.Name != "web" || diff != "" {
			t.Errorf("Load(%v): %s (-want +got):\n%s", only, web.Name, diff)
		}
		if only != nil {
			continue
		}
		if got := p.Specs[0].DependsOn; len(got) != 1 || got[0] != (shoal.Dependency{Service: "db", Condition: shoal.ConditionStarted}) {
			t.Errorf("api depends on %+v", got)
		}
		var out bytes.Buffer
		if err := compose.Render(&out, p.Specs, false); err != nil {
			t.Fatal(err)
		}
		again, err := compose.Load(t.Context(), compose.Options{Files: []string{"-"}, Stdin: &out})
		if err != nil {
			t.Fatalf("Load of what was rendered: %v", err)
		}
		if diff := cmp.Diff(p.Specs, again.Specs); diff != "" {
			t.Errorf("rendered and read again (-want +got):\n%s", diff)
		}
	}
}

func TestDependsOnRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a circle": {
			"services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: {c: {condition: service_healthy}}}\n  c: {image: x, depends_on: [a]}\n",
			"stdin:2: services.a.depends_on.b: goes in a circle: a -> b -> c -> a; each would wait for the other",
		},
		"itself":            {"services:\n  a:\n    image: x\n    depends_on:\n      - a\n", "stdin:5: services.a.depends_on.a: is the service itself"},
		"restart":           {"services:\n  a:\n    image: x\n    depends_on:\n      b:\n        condition: service_started\n        restart: true\n  b: {image: x}\n", "stdin:5: services.a.depends_on.b: restart: true is not supported"},
		"unknown condition": {"services:\n  a:\n    image: x\n    depends_on:\n      b:\n        condition: ready\n  b: {image: x}\n", `stdin:6: services.a.depends_on.b.condition: must be service_started or service_healthy or service_completed_successfully, got "ready"`},
		"unknown key":       {"services:\n  a:\n    image: x\n    depends_on:\n      b:\n        condition: service_started\n        after: 5s\n  b: {image: x}\n", "stdin:7: services.a.depends_on.b.after: is no key that Shoal knows"},
	} {
		_, err := compose.Load(t.Context(), compose.Options{Files: []string{"-"}, Stdin: strings.NewReader(c.text)})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: Load = %v, want only %s", name, err, c.want)
		}
	}
}
