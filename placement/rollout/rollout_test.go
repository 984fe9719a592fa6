// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement/brake"
)

// parse reads one letter per slot: o old and ready, u old and not ready, b old and
// broken, s old and stuck, p of the revision between and ready; n new and healthy, r new
// and ready for a moment, w new and not ready, f new and failed; - open, x open and nobody
// can run it.
func parse(s string) []Slot {
	out := make([]Slot, len(s))
	for i, c := range s {
		x := Slot{
			Held: c != '-' && c != 'x', Current: c == 'n' || c == 'r' || c == 'w' || c == 'f',
			Ready: c == 'o' || c == 'p' || c == 'n' || c == 'r', Healthy: c == 'o' || c == 'p' || c == 'n',
			Broken: c == 'b', Stuck: c == 's' || c == 'x', Failed: c == 'f',
		}
		switch {
		case x.Current:
			x.Revision.Seq = 3
		case c == 'p':
			x.Revision.Seq = 2
		case x.Held:
			x.Revision.Seq = 1
		}
		out[i] = x
	}
	return out
}

func marks(turns []bool) string {
	out := ""
	for _, turn := range turns {
		out += map[bool]string{true: "x", false: "."}[turn]
	}
	return out
}

func TestTurns(t *testing.T) {
	one := Rules{Width: 1, Unavailable: 1, Failures: -1}
	two := Rules{Width: 2, Unavailable: 2, Failures: -1}
	first := Rules{Width: 1, Unavailable: 1, Failures: -1, StartFirst: true}
	strict := Rules{Width: 2, Unavailable: 2}
	for name, c := range map[string]struct {
		rules Rules
		slots string
		want  string
	}{
		"the first":                        {one, "oooo", "x..."},
		"one is under way":                 {one, "wooo", "...."},
		"ready, not for long enough":       {one, "rooo", "...."},
		"the next":                         {one, "nooo", ".x.."},
		"two at a time":                    {two, "nnoo", "..xx"},
		"one of two is under way":          {two, "nwoo", "..x."},
		"none is left":                     {one, "nnnn", "...."},
		"no slots":                         {one, "", ""},
		"broken ones at once":              {two, "boob", "x..x"},
		"broken ones count as not ready":   {one, "noob", "...x"},
		"one that is not ready goes first": {one, "ouoo", ".x.."},
		"an open one counts":               {one, "-ooo", "...."},
		"an open one, and two may be":      {two, "-ooo", ".x.."},
		"one that nobody can fill":         {one, "xooo", ".x.."},
		"one that nobody can run":          {one, "sooo", ".x.."},
		"the oldest first":                 {one, "ppop", "..x."},
		"all at the one between":           {one, "pppp", "x..."},
		"start first":                      {first, "oooo", "x..."},
		"start first stops nothing":        {first, "-ooo", ".x.."},
		"start first, one under way":       {first, "wooo", "...."},
		"paused":                           {Rules{Width: 1, Unavailable: 1, Failures: -1, Paused: true}, "obuo", "...."},
		"braked":                           {Rules{Width: 1, Unavailable: 1, Braked: "it fails"}, "obuo", "...."},
		"one failed, none may":             {strict, "fooo", "...."},
		"one failed, one may":              {Rules{Width: 2, Unavailable: 2, Failures: 1}, "fooo", ".x.."},
		"one failed, go on":                {two, "fooo", ".x.."},
		"canary":                           {Rules{Width: 2, Unavailable: 2, Failures: -1, Canary: 1}, "oooo", "x..."},
		"canary is there":                  {Rules{Width: 2, Unavailable: 2, Failures: -1, Canary: 1}, "nooo", "...."},
		"canary beside a refilled slot":    {Rules{Width: 2, Unavailable: 2, Failures: -1, Canary: 1}, "noon", "...."},
		"canary is promoted":               {Rules{Width: 2, Unavailable: 2, Failures: -1, Canary: 1, Promoted: true}, "nooo", ".xx."},
	} {
		if got := marks(c.rules.Turns(parse(c.slots))); got != c.want {
			t.Errorf("%s: turns of %q = %q, want %q", name, c.slots, got, c.want)
		}
	}
}

func TestRulesOf(t *testing.T) {
	share := func(n int) shoal.Share { return shoal.Share{N: n} }
	quarter := shoal.Share{Percent: 25}
	for name, c := range map[string]struct {
		shape shoal.Rollout
		n     int
		want  Rules
	}{
		"nothing said, 1":   {shoal.Rollout{}, 1, Rules{Width: 1, Unavailable: 1, Failures: -1}},
		"nothing said, 8":   {shoal.Rollout{}, 8, Rules{Width: 2, Unavailable: 2, Failures: -1}},
		"parallelism":       {shoal.Rollout{Parallelism: 3}, 4, Rules{Width: 3, Unavailable: 3, Failures: -1}},
		"unavailable":       {shoal.Rollout{MaxUnavailable: share(2)}, 4, Rules{Width: 2, Unavailable: 2, Failures: -1}},
		"the smaller":       {shoal.Rollout{Parallelism: 3, MaxUnavailable: share(2)}, 9, Rules{Width: 2, Unavailable: 2, Failures: -1}},
		"start first":       {shoal.Rollout{StartFirst: true, MaxSurge: quarter}, 12, Rules{Width: 3, Unavailable: 3, StartFirst: true, Failures: -1}},
		"start first, both": {shoal.Rollout{StartFirst: true, Parallelism: 5, MaxSurge: share(2)}, 12, Rules{Width: 2, Unavailable: 3, StartFirst: true, Failures: -1}},
		"start first, many": {shoal.Rollout{StartFirst: true, Parallelism: 5}, 12, Rules{Width: 5, Unavailable: 5, StartFirst: true, Failures: -1}},
		"none may fail":     {shoal.Rollout{OnFailure: shoal.FailurePause}, 4, Rules{Width: 1, Unavailable: 1}},
		"a fifth may fail":  {shoal.Rollout{OnFailure: shoal.FailureRollback, MaxFailureRatio: 200}, 10, Rules{Width: 2, Unavailable: 2, Failures: 2}},
		"canary":            {shoal.Rollout{Canary: shoal.Canary{Slots: share(3)}}, 2, Rules{Width: 1, Unavailable: 1, Failures: -1, Canary: 2}},
	} {
		s := &shoal.Service{Spec: shoal.Spec{Rollout: c.shape}}
		if got := RulesOf(s, c.n, false); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	s := &shoal.Service{Spec: shoal.Spec{Rollout: shoal.Rollout{Canary: shoal.Canary{Slots: share(1)}}}}
	if RulesOf(s, 4, true).Promoted {
		t.Error("a canary that a user promotes was promoted by time")
	}
	s.Spec.Rollout.Canary.PromoteAfter = time.Minute
	if !RulesOf(s, 4, true).Promoted {
		t.Error("a canary that has passed its time was not promoted")
	}
	s.Undoes = shoal.RevisionID{Seq: 7, Author: "A"}
	if got := RulesOf(s, 4, false); got.Canary != 0 {
		t.Errorf("going back has a canary: %+v", got)
	}
}

func TestHold(t *testing.T) {
	rev := shoal.RevisionID{Seq: 2, Author: "A"}
	s := &shoal.Service{Spec: shoal.Spec{Name: "web"}, Revision: rev}
	v := brake.Verdict{Cause: brake.Application, Service: "web", Revision: rev, Failing: 2, Of: 2}
	old, other := v, v
	old.Revision.Seq, other.Service = 1, "api"
	for name, c := range map[string]struct {
		verdicts brake.Verdicts
		failures int
		want     string
	}{
		"it fails":                {brake.Verdicts{v}, 0, v.String()},
		"some may fail":           {brake.Verdicts{v}, 3, v.String()},
		"any may fail":            {brake.Verdicts{v}, -1, ""},
		"that before fails":       {brake.Verdicts{old}, 0, ""},
		"another fails":           {brake.Verdicts{other}, 0, ""},
		"the cluster is at fault": {brake.Verdicts{{Cause: brake.Cluster}}, 0, ""},
	} {
		r := Rules{Failures: c.failures}
		if r.Hold(c.verdicts, s); r.Braked != c.want {
			t.Errorf("%s: %q, want %q", name, r.Braked, c.want)
		}
	}
}
