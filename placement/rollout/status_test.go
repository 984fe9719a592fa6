// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

func TestStatusOf(t *testing.T) {
	two := Rules{Width: 2, Unavailable: 2}
	canary := Rules{Width: 2, Unavailable: 2, Canary: 1}
	for name, c := range map[string]struct {
		rules Rules
		slots string
		state State
		waits string
	}{
		"complete":          {two, "nnn", Complete, ""},
		"begins":            {two, "ooo", Rolling, ""},
		"waits for two":     {two, "wwo", Rolling, "until slots 0, 1 are healthy"},
		"waits for one":     {Rules{Width: 1, Unavailable: 1}, "nwo", Rolling, "until slot 1 is healthy"},
		"waits for many":    {Rules{Width: 6, Unavailable: 6}, "wwwwwwo", Rolling, "slots 0, 1, 2, 3 and 2 more"},
		"the last ones":     {two, "nnr", Watching, "until slot 2 is healthy"},
		"the floor":         {Rules{Width: 2, Unavailable: 1}, "-ooo", Rolling, "not more than 1 slots"},
		"failed":            {two, "fwo", Failing, "1 of 3 slots failed"},
		"paused":            {Rules{Width: 1, Unavailable: 1, Paused: true}, "noo", Paused, "paused"},
		"canary begins":     {canary, "ooo", Rolling, ""},
		"canary under way":  {canary, "woo", Rolling, "until slot 0"},
		"canary":            {canary, "noo", Canary, "until it is promoted"},
		"nobody can":        {two, "nns", Blocked, "slot 2 cannot run it"},
		"paused and over":   {Rules{Width: 1, Unavailable: 1, Paused: true}, "nnn", Complete, ""},
		"braked":            {Rules{Width: 2, Unavailable: 2, Failures: 1, Braked: "it fails"}, "fwo", Rolling, "it fails"},
		"braked and failed": {Rules{Width: 2, Unavailable: 2, Braked: "it fails"}, "fwo", Failing, "1 of 3"},
		"braked at the end": {Rules{Width: 2, Unavailable: 2, Failures: 1, Braked: "it fails"}, "nnf", Watching, "until slot 2"},
		"failed at the end": {two, "nnf", Failing, "1 of 3"},
	} {
		got := c.rules.StatusOf(parse(c.slots))
		if got.State != c.state || !strings.Contains(got.Waits, c.waits) || c.waits == "" && got.Waits != "" {
			t.Errorf("%s: %+v, want %s that waits %q", name, got, c.state, c.waits)
		}
	}
}

func TestRemedy(t *testing.T) {
	good := []shoal.PastRevision{{Revision: shoal.RevisionID{Seq: 2, Author: "A"}}, {Revision: shoal.RevisionID{Seq: 1, Author: "A"}, Good: true}}
	back := shoal.Rollout{OnFailure: shoal.FailureRollback, Deadline: time.Minute}
	failing := Status{State: Failing, Slots: 3, Failed: 1, Cause: "1 of 3 slots failed"}
	rolling := Status{State: Rolling, Slots: 3, Waits: "until slot 1 is healthy"}
	for name, c := range map[string]struct {
		service shoal.Service
		status  Status
		still   time.Duration
		want    shoal.FailureAction
		why     string
	}{
		"goes back":                {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good}, failing, 0, shoal.FailureRollback, "1 of 3 slots failed"},
		"nothing is good":          {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good[:1]}, failing, 0, shoal.FailurePause, "no earlier revision is known to be good"},
		"pauses":                   {shoal.Service{Spec: shoal.Spec{Rollout: shoal.Rollout{OnFailure: shoal.FailurePause}}, Past: good}, failing, 0, shoal.FailurePause, "failed"},
		"goes on":                  {shoal.Service{Past: good}, failing, 0, "", ""},
		"is paused":                {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good, Rollout: shoal.RolloutState{Paused: true}}, failing, 0, "", ""},
		"has settled":              {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good, Rollout: shoal.RolloutState{Settled: true}}, failing, 0, "", ""},
		"the first of all":         {shoal.Service{Spec: shoal.Spec{Rollout: back}}, failing, 0, "", ""},
		"is stopped":               {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good, Stopped: true}, failing, 0, "", ""},
		"the deadline":             {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good}, rolling, time.Minute, shoal.FailureRollback, "no slot became healthy in 1m0s, until slot 1"},
		"before the deadline":      {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good}, rolling, 59 * time.Second, "", ""},
		"a canary has no deadline": {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good}, Status{State: Canary}, time.Hour, "", ""},
		"it is over":               {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good}, Status{State: Complete}, time.Hour, "", ""},
		"a failed return pauses":   {shoal.Service{Spec: shoal.Spec{Rollout: back}, Past: good, Undoes: good[0].Revision}, failing, 0, shoal.FailurePause, "failed"},
	} {
		got, why := Remedy(&c.service, c.status, c.still)
		if got != c.want || !strings.Contains(why, c.why) || c.want == "" && why != "" {
			t.Errorf("%s: %q, %q, want %q, %q", name, got, why, c.want, c.why)
		}
	}
}

// TestCanaryLimit: a canary that may restart so often fails when it does so once more, or
// for good, whatever share of all slots may fail; one failure of another slot counts as
// ever, and what a promoted canary did before does not count later.
func TestCanaryLimit(t *testing.T) {
	limit := Rules{Width: 1, Unavailable: 1, Canary: 2, MaxRestarts: 2}
	lax, promoted, goesOn := limit, limit, limit
	lax.Failures, promoted.Promoted, goesOn.Failures = 3, true, -1
	none := limit
	none.MaxRestarts = 0
	for name, c := range map[string]struct {
		rules    Rules
		slots    string
		failures []int
		state    State
		waits    string
	}{
		"it restarted":                   {limit, "fnoo", []int{1}, Rolling, "until slot 0 is healthy"},
		"as often as it may":             {limit, "fnoo", []int{2}, Rolling, "until slot 0 is healthy"},
		"once more":                      {limit, "fnoo", []int{3}, Failing, "slot 0 of the canary failed 3 times; it may 2 times"},
		"the other one":                  {limit, "nfoo", []int{0, 4}, Failing, "slot 1 of the canary failed 4 times"},
		"for good":                       {limit, "fnoo", []int{ForGood}, Failing, "slot 0 of the canary failed for good"},
		"more of all slots may":          {lax, "fnoo", []int{3}, Failing, "slot 0 of the canary failed 3 times"},
		"promoted, it restarted before":  {promoted, "nnno", []int{2}, Rolling, ""},
		"promoted, and then a slot does": {promoted, "nnfo", []int{2, 0, 1}, Failing, "1 of 4 slots failed, more than the 0"},
		"without a limit of its own":     {none, "fnoo", []int{1}, Failing, "1 of 4 slots failed"},
		"it goes on whatever fails":      {goesOn, "fnoo", []int{9}, Rolling, "until slot 0"},
	} {
		slots := parse(c.slots)
		for i, n := range c.failures {
			slots[i].Failures, slots[i].Failed = n, n > 0
		}
		got := c.rules.StatusOf(slots)
		if got.State != c.state || !strings.Contains(got.Waits, c.waits) {
			t.Errorf("%s: %+v, want %s that waits %q", name, got, c.state, c.waits)
		}
		if action, why := Remedy(&shoal.Service{
			Spec: shoal.Spec{Rollout: shoal.Rollout{OnFailure: shoal.FailurePause}}, Past: []shoal.PastRevision{{}},
		}, got, 0); c.state == Failing && (action != shoal.FailurePause || !strings.Contains(c.waits, why) && !strings.Contains(why, c.waits)) {
			t.Errorf("%s: remedy %q, %q, want a pause for %q", name, action, why, c.waits)
		}
	}
}
