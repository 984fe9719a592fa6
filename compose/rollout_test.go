// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// usually returns the usual rollout, changed.
func usually(edit func(*shoal.Rollout)) shoal.Rollout {
	r := shoal.DefaultRollout()
	edit(&r)
	return r
}

// asCompose is what update_config starts from.
func asCompose(edit func(*shoal.Rollout)) shoal.Rollout {
	return usually(func(r *shoal.Rollout) {
		r.MaxUnavailable, r.MaxSurge, r.OnFailure = shoal.Share{}, shoal.Share{}, shoal.FailurePause
		edit(r)
	})
}

func TestLoadRollouts(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want shoal.Rollout
		back *shoal.Rollout
	}{
		"nothing said": {"", shoal.DefaultRollout(), nil},
		"Compose's words": {
			"deploy: {update_config: {parallelism: 2, delay: 5s, order: start-first, monitor: 30s, max_failure_ratio: 0.3, failure_action: continue}}",
			asCompose(func(r *shoal.Rollout) {
				r.Parallelism, r.Delay, r.StartFirst, r.Monitor, r.MaxFailureRatio, r.OnFailure = 2, 5*time.Second, true, 30*time.Second, 300, shoal.FailureContinue
			}), nil,
		},
		"Compose's action": {"deploy: {update_config: {parallelism: 1}}", asCompose(func(r *shoal.Rollout) { r.Parallelism = 1 }), nil},
		"a part of the shape": {
			"x-shoal: {rollout: {max_unavailable: 1, min_healthy: 0s}}",
			usually(func(r *shoal.Rollout) { r.MaxUnavailable, r.MinHealthy = shoal.Share{N: 1}, 0 }), nil,
		},
		"a surge starts first": {
			"x-shoal: {rollout: {max_surge: 50%}}",
			usually(func(r *shoal.Rollout) { r.MaxSurge, r.StartFirst = shoal.Share{Percent: 50}, true }), nil,
		},
		"a surge, stopping first": {
			"x-shoal: {rollout: {max_surge: 50%, order: stop-first}}",
			usually(func(r *shoal.Rollout) { r.MaxSurge = shoal.Share{Percent: 50} }), nil,
		},
		"never fewer": {
			"x-shoal: {rollout: {max_unavailable: 0, max_surge: 1, deadline: 0s}}",
			usually(func(r *shoal.Rollout) {
				r.MaxUnavailable, r.MaxSurge, r.StartFirst, r.Deadline = shoal.Share{}, shoal.Share{N: 1}, true, 0
			}), nil,
		},
		"both": {
			"{scale: 2, deploy: {update_config: {parallelism: 3, failure_action: rollback}}, x-shoal: {rollout: {max_unavailable: 2, deadline: 1m}}}",
			asCompose(func(r *shoal.Rollout) {
				r.Parallelism, r.OnFailure, r.MaxUnavailable, r.Deadline = 3, shoal.FailureRollback, shoal.Share{N: 2}, time.Minute
			}), nil,
		},
		"going back": {
			"{deploy: {rollback_config: {parallelism: 4, failure_action: continue}}, x-shoal: {rollout: {min_healthy: 1s}}}",
			usually(func(r *shoal.Rollout) { r.MinHealthy = time.Second }),
			new(asCompose(func(r *shoal.Rollout) {
				r.Parallelism, r.MinHealthy, r.OnFailure = 4, time.Second, shoal.FailureContinue
			})),
		},
		"a canary": {"x-shoal: {canary: 1}", usually(func(r *shoal.Rollout) { r.Canary.Slots = shoal.Share{N: 1} }), nil},
		"a part":   {"x-shoal: {canary: 10%}", usually(func(r *shoal.Rollout) { r.Canary.Slots = shoal.Share{Percent: 10} }), nil},
		"terms": {"{scale: 2, x-shoal: {canary: {replicas: 2, promote_after: 10m, weight: 5%, max_restarts: 3}}}", usually(func(r *shoal.Rollout) {
			r.Canary = shoal.Canary{Slots: shoal.Share{N: 2}, PromoteAfter: 10 * time.Minute, Weight: 5, MaxRestarts: 3}
		}), nil},
		"everywhere, with a canary": {"{deploy: {mode: global}, x-shoal: {canary: 3}}", usually(func(r *shoal.Rollout) { r.Canary.Slots = shoal.Share{N: 3} }), nil},
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
			if diff := cmp.Diff(c.want, p.Specs[0].Rollout); diff != "" {
				t.Errorf("Rollout: want (-), got (+):\n%s", diff)
			}
			if diff := cmp.Diff(c.back, p.Specs[0].Rollback); diff != "" {
				t.Errorf("Rollback: want (-), got (+):\n%s", diff)
			}
			again(t, p.Specs)
		})
	}
}

func yamlOf(t *testing.T, v any) string {
	t.Helper()
	raw, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// again loads what is rendered.
func again(t *testing.T, specs []shoal.Spec) {
	t.Helper()
	var file bytes.Buffer
	if err := Render(&file, specs, false); err != nil {
		t.Fatal(err)
	}
	p, err := Load(t.Context(), Options{Files: []string{"-"}, Stdin: bytes.NewReader(file.Bytes()), Project: "shop", Strict: true})
	if err != nil {
		t.Fatalf("Load of what was rendered: %v\n%s", err, file.Bytes())
	}
	if diff := cmp.Diff(specs, p.Specs); diff != "" {
		t.Errorf("Load(Render(specs)): want (-), got (+):\n%s\n%s", diff, file.Bytes())
	}
}

// TestShareOfUsersNumber: a file that leaves the number of replicas to users may have a share
// of more than the one that it starts with.
func TestShareOfUsersNumber(t *testing.T) {
	p, err := fromText(t, "services: {web: {image: hello, x-shoal: {rollout: {max_unavailable: 3}, canary: 2}}}", Options{})
	if err != nil || p.Specs[0].Rollout.MaxUnavailable.N != 3 || p.Specs[0].Rollout.Canary.Slots.N != 2 {
		t.Errorf("Load = %+v, %v", p, err)
	}
}

func TestLoadRefusesRollouts(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"parallelism 0": {"    deploy:\n      update_config:\n        parallelism: 0", "stdin:6: services.web.deploy.update_config.parallelism: must be 1-10000, got 0; all at once is the number of replicas"},
		"going back by 0": {
			"    deploy:\n      rollback_config:\n        parallelism: 0",
			"stdin:6: services.web.deploy.rollback_config.parallelism: must be 1-10000, got 0; all at once is the number of replicas",
		},
		"ratio":       {"    deploy:\n      update_config: {max_failure_ratio: 1.5}", "stdin:5: services.web.deploy.update_config.max_failure_ratio: must be 0-1, got 1.5"},
		"action":      {"    deploy:\n      update_config: {failure_action: retry}", `stdin:5: services.web.deploy.update_config.failure_action: must be pause or continue or rollback, got "retry"`},
		"back twice":  {"    deploy:\n      rollback_config: {failure_action: rollback}", `stdin:5: services.web.deploy.rollback_config.failure_action: must be pause or continue, got "rollback"`},
		"no unit":     {"    deploy:\n      update_config: {delay: '5'}", `stdin:5: services.web.deploy.update_config.delay: 5 has no unit (try "5s")`},
		"negative":    {"    deploy:\n      update_config: {monitor: -5s}", "stdin:5: services.web.deploy.update_config.monitor: must be 0-720h0m0s, got -5s"},
		"no floor":    {"    x-shoal:\n      rollout: {max_unavailable: 0}", "stdin:5: services.web.x-shoal.rollout.max_unavailable: is 0, and with stop-first an old replica stops before the new one starts; say at least 1, or max_surge: 1"},
		"no ceiling":  {"    x-shoal:\n      rollout: {max_surge: 0, order: start-first}", "stdin:5: services.web.x-shoal.rollout.max_surge: is 0, and with start-first a new replica starts beside the old one; say at least 1, or order: stop-first"},
		"all and ten": {"    x-shoal:\n      rollout: {max_unavailable: 110%}", "stdin:5: services.web.x-shoal.rollout.max_unavailable: must be 0%-100%, got 110%"},
		"no share":    {"    x-shoal:\n      rollout: {max_surge: some}", "stdin:5: services.web.x-shoal.rollout.max_surge: must be a number of replicas like 2 or a part of them like 25%, got some"},
		"too many":    {"    x-shoal:\n      rollout: {max_surge: 10001}", "stdin:5: services.web.x-shoal.rollout.max_surge: must be 0–10000, got 10001"},
		"too early": {
			"    x-shoal:\n      rollout:\n        min_healthy: 1m\n        deadline: 30s",
			"stdin:7: services.web.x-shoal.rollout.deadline: 30s is not longer than the 1m0s that pass between two waves anyway",
		},
		"too late": {
			"    x-shoal:\n      rollout:\n        min_healthy: 1h",
			"stdin:6: services.web.x-shoal.rollout.min_healthy: 10m0s is not longer than the 1h0m0s that pass between two waves anyway",
		},
		"time":                    {"    x-shoal:\n      rollout: {min_healthy: 10}", `stdin:5: services.web.x-shoal.rollout.min_healthy: 10 has no unit (try "10s")`},
		"days":                    {"    x-shoal:\n      rollout: {deadline: 1d}", `stdin:5: services.web.x-shoal.rollout.deadline: must be a time like 30s or 1m30s, got "1d"`},
		"two orders":              {"    deploy: {update_config: {order: stop-first}}\n    x-shoal:\n      rollout: {order: start-first}", "stdin:6: services.web.x-shoal.rollout.order: says something else than deploy.update_config.order; keep one of them"},
		"no mapping":              {"    x-shoal:\n      rollout: 25%", "stdin:5: services.web.x-shoal.rollout: must be a mapping, got 25%"},
		"unknown":                 {"    x-shoal:\n      rollout: {wave: 2}", "stdin:5: services.web.x-shoal.rollout.wave: is no key that Shoal knows; is it misspelt, or does it belong elsewhere?"},
		"term":                    {"    x-shoal:\n      canary: {replicas: 2, slots: 2}", "stdin:5: services.web.x-shoal.canary.slots: is no key that Shoal knows; is it misspelt, or does it belong elsewhere?"},
		"no canary":               {"    x-shoal:\n      canary: 0", "stdin:5: services.web.x-shoal.canary: must be at least 1, got 0; without a canary leave it out"},
		"only terms":              {"    x-shoal:\n      canary: {weight: 5%}", "stdin:5: services.web.x-shoal.canary: says no replicas; how many try a revision first, like 1 or 10%?"},
		"many of few, with terms": {"    x-shoal:\n      canary:\n        weight: 5%\n        replicas: 5", "stdin:7: services.web.x-shoal.canary.replicas: is 5, more than the 4 replicas there are"},
		"many of few":             {"    x-shoal:\n      canary: 5", "stdin:5: services.web.x-shoal.canary: is 5, more than the 4 replicas there are"},
		"few left":                {"    x-shoal:\n      rollout: {max_unavailable: 5}", "stdin:5: services.web.x-shoal.rollout.max_unavailable: is 5, more than the 4 replicas there are"},
		"weight":                  {"    x-shoal:\n      canary: {replicas: 1, weight: 101%}", "stdin:5: services.web.x-shoal.canary.weight: must be a part of the traffic like 5%, got 101%"},
		"of a variable":           {"    x-shoal:\n      rollout: {max_surge: '${MANY}'}", "stdin:5: services.web.x-shoal.rollout.max_surge: must be a number of replicas like 2 or a part of them like 25%, got many"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fromText(t, "services:\n  web:\n    scale: 4\n"+c.text+"\n    image: hello", Options{Env: map[string]string{"MANY": "many"}})
			if err == nil || err.Error() != c.want {
				t.Errorf("Load: %v\nwant %s", err, c.want)
			}
		})
	}
}

// Whatever a file can say of rollouts survives being rendered.
func TestRolloutsSurviveRendering(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		share := rapid.SampledFrom([]any{nil, 0, 1, 3, "10%", "25%", "100%"})
		span := rapid.SampledFrom([]any{nil, "0s", "1s", "10s", "90s"})
		some := func(label string, m map[string]any, key string, g *rapid.Generator[any]) {
			if v := g.Draw(r, label+"."+key); v != nil {
				m[key] = v
			}
		}
		config := func(name string, actions ...any) map[string]any {
			m := map[string]any{}
			some(name, m, "parallelism", rapid.SampledFrom([]any{nil, 1, 4}))
			some(name, m, "delay", span)
			some(name, m, "monitor", span)
			some(name, m, "max_failure_ratio", rapid.SampledFrom([]any{nil, 0, 0.3, 1}))
			some(name, m, "order", rapid.SampledFrom([]any{nil, startFirst, stopFirst}))
			some(name, m, "failure_action", rapid.SampledFrom(append(actions, nil)))
			return m
		}
		deploy, x := map[string]any{"replicas": 4}, map[string]any{}
		if rapid.Bool().Draw(r, "update_config") {
			deploy["update_config"] = config("update", "pause", "continue", "rollback")
		}
		if rapid.Bool().Draw(r, "rollback_config") {
			deploy["rollback_config"] = config("rollback", "pause", "continue")
		}
		if rapid.Bool().Draw(r, "shape") {
			shape := map[string]any{}
			some("shape", shape, "max_unavailable", share)
			some("shape", shape, "max_surge", share)
			some("shape", shape, "min_healthy", span)
			some("shape", shape, "deadline", rapid.SampledFrom([]any{nil, "0s", "10m", "1h"}))
			some("shape", shape, "order", rapid.SampledFrom([]any{nil, startFirst, stopFirst}))
			x["rollout"] = shape
		}
		some("x", x, "canary", rapid.SampledFrom([]any{nil, 1, "10%", map[string]any{"replicas": 2, "weight": "5%", "promote_after": "1m"}}))
		text := yamlOf(t, map[string]any{"services": map[string]any{"web": map[string]any{"image": "hello", "deploy": deploy, "x-shoal": x}}})
		p, err := fromText(t, text, Options{})
		if err != nil { // sentences of TestLoadRefusesRollouts
			r.Skip(err)
		}
		again(t, p.Specs)
	})
}
