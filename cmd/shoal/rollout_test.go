// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// The JSON of a spec says all of its rollouts, and survives being read.
func TestRolloutJSON(t *testing.T) {
	whole := shoal.Rollout{
		Parallelism: 2, StartFirst: true, MaxUnavailable: shoal.Share{N: 1}, MaxSurge: shoal.Share{Percent: 50},
		Delay: 5 * time.Second, MinHealthy: 1500 * time.Millisecond, Monitor: 30 * time.Second, Deadline: time.Minute,
		MaxFailureRatio: 250, OnFailure: shoal.FailurePause,
		Canary: shoal.Canary{Slots: shoal.Share{Percent: 10}, PromoteAfter: time.Hour, Weight: 5},
	}
	for _, c := range []struct {
		name       string
		of         shoal.Rollout
		json, text string
	}{
		{
			"usual", shoal.DefaultRollout(),
			`{"order":"stop-first","max_unavailable":"25%","max_surge":"25%","min_healthy_seconds":10,"deadline_seconds":600,"max_failure_ratio":0,"failure_action":"rollback"}`, "",
		},
		{
			"none",
			shoal.Rollout{},
			`{"order":"stop-first","min_healthy_seconds":0,"deadline_seconds":0,"max_failure_ratio":0,"failure_action":"continue"}`,
			"healthy for 0s, without a deadline, it goes on whatever fails",
		},
		{
			"whole", whole, `{"parallelism":2,"order":"start-first","max_unavailable":"1","max_surge":"50%","delay_seconds":5,"min_healthy_seconds":1.5,"monitor_seconds":30,"deadline_seconds":60,` +
				`"max_failure_ratio":0.25,"failure_action":"pause","canary":{"replicas":"10%","promote_after_seconds":3600,"weight_percent":5}}`,
			"2 at a time, the new one starts first, 1 may be not ready, 50% more, 5s between them, healthy for 1.5s, watched for 30s, failed after 1m0s, 25% may fail, a failure pauses it, " +
				"canary 10% promoted after 1h0m0s with 5% of the traffic",
		},
	} {
		out := rolloutJSONOf(&c.of)
		raw, err := json.Marshal(out)
		if err != nil || string(raw) != c.json {
			t.Errorf("%s: JSON = %s, %v, want %s", c.name, raw, err, c.json)
		}
		var again rolloutJSON
		if err := json.Unmarshal(raw, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(out, again); diff != "" {
			t.Errorf("%s: read again: want (-), got (+):\n%s", c.name, diff)
		}
		if got := out.text(); got != c.text {
			t.Errorf("%s: text = %q, want %q", c.name, got, c.text)
		}
	}
}

func TestRolloutLine(t *testing.T) {
	for _, c := range []struct {
		r    api.Rollout
		want string
	}{
		{api.Rollout{State: "complete", Slots: 1, Current: 1, Healthy: 1}, "web: revision 7 complete, 1 of 1 slot changed, 1 healthy"},
		{api.Rollout{State: "stopped"}, "web: revision 7 stopped"},
		{
			api.Rollout{State: "rolling", Slots: 30, Current: 2, Healthy: 2, Failed: 1, Next: []int{2, 3, 4, 5, 6, 7, 8, 9, 10}},
			"web: revision 7 rolling, 2 of 30 slots changed, 2 healthy, 1 failed; next 2, 3, 4, 5, 6, 7, 8, 9 and 1 more",
		},
		{api.Rollout{State: "paused", Paused: true, Slots: 2}, "web: revision 7 paused, 0 of 2 slots changed, 0 healthy; waits: it is paused; shoal rollout resume web goes on"},
		{api.Rollout{State: "canary", Slots: 4, Current: 1, Healthy: 1, Waits: "w"}, "web: revision 7 canary, 1 of 4 slots changed, 1 healthy; waits: w; shoal rollout promote web"},
		{api.Rollout{State: "canary", Slots: 4, Current: 1, Healthy: 1, Waits: "w", PromoteAfter: 60}, "web: revision 7 canary, 1 of 4 slots changed, 1 healthy; waits: w, after 1m0s by itself"},
	} {
		c.r.Service, c.r.Revision = "web", "7@tokyo"
		if got := rolloutLine(c.r); got != c.want {
			t.Errorf("rolloutLine(%+v) = %q, want %q", c.r, got, c.want)
		}
	}
}

// What ends a wait before all slots are settled.
func TestSnapshotsOfRollouts(t *testing.T) {
	const of = "7@tokyo"
	canary := &api.Rollout{Service: "web", Revision: of, State: stateCanary, Current: 1, Healthy: 1}
	for _, c := range []struct {
		name   string
		r      *api.Rollout
		beside bool // another service is not settled
		over   string
		canary string
	}{
		{name: "not known"},
		{name: "under way", r: &api.Rollout{Service: "web", Revision: of, State: "rolling"}},
		{name: "a user paused it", r: &api.Rollout{Service: "web", Revision: of, State: "paused", Paused: true}},
		{
			name: "a failure paused it", r: &api.Rollout{Service: "web", Revision: of, State: "paused", Paused: true, Why: "2 of 4 slots failed"},
			over: "accepted, but the rollout of web is paused: 2 of 4 slots failed; web/0 failed; see shoal rollout status web",
		},
		{
			name: "taken back", r: &api.Rollout{Service: "web", Revision: "8@osaka", Undoes: of, UndoWhy: "2 of 4 slots failed", Restores: "6@tokyo"},
			over: "accepted, but web was rolled back from revision 7 to revision 6: 2 of 4 slots failed; web/0 failed; see shoal rollout history web",
		},
		{
			name: "a user took it back", r: &api.Rollout{Service: "web", Revision: "8@osaka", Undoes: of},
			over: "accepted, but web was rolled back from revision 7 to an earlier revision: a user went back; web/0 failed; see shoal rollout history web",
		},
		{name: "another was paused before", r: &api.Rollout{Service: "web", Revision: "6@tokyo", State: "paused", Paused: true, Why: "x"}},
		{name: "a canary waits", r: canary, canary: "web"},
		{name: "and something else is under way", r: canary, beside: true},
		{name: "a canary that is promoted by itself", r: &api.Rollout{Service: "web", Revision: of, State: stateCanary, Healthy: 1, PromoteAfter: 60}},
	} {
		all := []api.Progress{{Service: api.Service{Name: "web"}, Exists: true, Rollout: c.r}, {Service: api.Service{Name: "db"}, Exists: true, Settled: !c.beside}}
		s := newSnapshot(all, map[string]string{"web": of, "db": "1@tokyo"})
		over := ""
		if s.over != nil {
			err := s.over.with("web/0 failed")
			if over = err.Error(); exitCode(err) != exitUnhealthy {
				t.Errorf("%s: exit %d, want %d", c.name, exitCode(err), exitUnhealthy)
			}
		}
		if over != c.over || s.canary != c.canary {
			t.Errorf("%s: over %q, canary %q, want %q, %q", c.name, over, s.canary, c.over, c.canary)
		}
	}
}
