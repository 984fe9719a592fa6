// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

func TestLoadAutoscale(t *testing.T) {
	scaled := func(edit func(*shoal.Autoscale)) *shoal.Autoscale {
		a := shoal.DefaultAutoscale()
		a.Max = 10
		edit(&a)
		return &a
	}
	for name, c := range map[string]struct {
		text string
		want *shoal.Autoscale
	}{
		"nothing said": {"", nil},
		"as little as may be": {
			"{cpus: 1, x-shoal: {autoscale: {max: 10, cpu: 60%}}}",
			scaled(func(a *shoal.Autoscale) { a.CPU = 60 }),
		},
		"everything": {
			"{cpus: 1, mem_limit: 1g, x-shoal: {autoscale: {min: 0, max: 10, cpu: 60, memory: '80%', connections: 100, requests: 50, tolerance: 5%, " +
				"up: {window: 30s, step: 50%}, down: {window: 0s, step: 2}, idle: 10m, manual: 1h}}}",
			scaled(func(a *shoal.Autoscale) {
				a.Min, a.CPU, a.Memory, a.Connections, a.Requests, a.Tolerance = 0, 60, 80, 100, 50, 5
				a.UpWindow, a.UpStep, a.DownWindow, a.DownStep = 30*time.Second, shoal.Share{Percent: 50}, 0, shoal.Share{N: 2}
				a.Idle, a.Manual = 10*time.Minute, time.Hour
			}),
		},
		"no tolerance, no hold": {
			"{x-shoal: {autoscale: {min: 2, max: 10, requests: 5, tolerance: 0, manual: 0s, up: {}}}}",
			scaled(func(a *shoal.Autoscale) { a.Min, a.Requests, a.Tolerance, a.Manual = 2, 5, 0, 0 }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			web := map[string]any{}
			if err := yaml.Unmarshal([]byte(c.text), &web); err != nil {
				t.Fatal(err)
			}
			web["image"] = "hello"
			p, err := fromText(t, yamlOf(t, map[string]any{"services": map[string]any{"web": web}}), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, p.Specs[0].Autoscale); diff != "" {
				t.Errorf("Autoscale: want (-), got (+):\n%s", diff)
			}
			again(t, p.Specs)
		})
	}
}

func TestLoadRefusesAutoscale(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"crossed":        {"    x-shoal:\n      autoscale:\n        min: 5\n        max: 3\n        requests: 5", "stdin:6: services.web.x-shoal.autoscale.min: 5 is more than max, which is 3"},
		"no max":         {"    x-shoal:\n      autoscale: {requests: 5}", "stdin:5: services.web.x-shoal.autoscale: says no max; how many replicas may there be at most?"},
		"too many":       {"    x-shoal:\n      autoscale: {max: 10001, requests: 5}", "stdin:5: services.web.x-shoal.autoscale.max: must be 1-10000, got 10001"},
		"no target":      {"    x-shoal:\n      autoscale: {max: 3}", "stdin:5: services.web.x-shoal.autoscale: names no target; name cpu, memory, connections or requests"},
		"cpu of nothing": {"    x-shoal:\n      autoscale: {max: 3, cpu: 60%}", "stdin:5: services.web.x-shoal.autoscale.cpu: is a share of what a replica has, and nothing says what that is; give deploy.resources.reservations.cpus or limits.cpus"},
		"never passed":   {"    cpus: 1\n    x-shoal:\n      autoscale: {max: 3, cpu: 100%}", "stdin:6: services.web.x-shoal.autoscale.cpu: 100% with 10% of tolerance is never passed: a replica cannot use more than its limit; lower it, or the reservation"},
		"to zero by cpu": {"    cpus: 1\n    x-shoal:\n      autoscale: {min: 0, max: 3, cpu: 50%}", "stdin:6: services.web.x-shoal.autoscale.min: 0 needs connections or requests as a target: only a connection can call for the first replica"},
		"global":         {"    deploy: {mode: global}\n    x-shoal:\n      autoscale: {max: 3, requests: 5}", "stdin:6: services.web.x-shoal.autoscale: is for replicated services; mode global has as many replicas as there are places or runs for it"},
		"no share":       {"    x-shoal:\n      autoscale: {max: 3, cpu: half}", "stdin:5: services.web.x-shoal.autoscale.cpu: must be a share like 60%, got half"},
		"no number":      {"    x-shoal:\n      autoscale: {max: many, requests: 5}", "stdin:5: services.web.x-shoal.autoscale.max: must be a whole number, got many"},
		"negative":       {"    x-shoal:\n      autoscale: {min: -1, max: 3, requests: 5}", "stdin:5: services.web.x-shoal.autoscale.min: must be a whole number, got -1"},
		"no unit":        {"    x-shoal:\n      autoscale: {max: 3, requests: 5, idle: 10}", `stdin:5: services.web.x-shoal.autoscale.idle: 10 has no unit (try "10s")`},
		"window":         {"    x-shoal:\n      autoscale:\n        max: 3\n        requests: 5\n        down:\n          window: 2h", "stdin:9: services.web.x-shoal.autoscale.down.window: must be 0-1h0m0s, got 2h0m0s"},
		"step":           {"    x-shoal:\n      autoscale: {max: 3, requests: 5, up: {step: 110%}}", "stdin:5: services.web.x-shoal.autoscale.up.step: must be 0%-100%, got 110%"},
		"no mapping":     {"    x-shoal:\n      autoscale: 3", "stdin:5: services.web.x-shoal.autoscale: must be a mapping, got 3"},
		"unknown":        {"    x-shoal:\n      autoscale: {max: 3, requests: 5, latency: 5}", "stdin:5: services.web.x-shoal.autoscale.latency: is no key that Shoal knows; is it misspelt, or does it belong elsewhere?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fromText(t, "services:\n  web:\n    scale: 4\n"+c.text+"\n    image: hello", Options{})
			if err == nil || err.Error() != c.want {
				t.Errorf("Load: %v\nwant %s", err, c.want)
			}
		})
	}
}
