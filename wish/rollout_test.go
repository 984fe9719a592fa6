// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

func steer(change shoal.RolloutChange, fn ...func(*shoal.RolloutWish)) shoal.Wish {
	w := &shoal.RolloutWish{Service: "web", Change: change}
	for _, f := range fn {
		f(w)
	}
	return shoal.Wish{Rollout: w}
}

func imaged(image string, fn ...func(*shoal.Spec)) shoal.Spec {
	s := spec("web", 2)
	s.Image = image
	for _, f := range fn {
		f(&s)
	}
	return s
}

// TestBack: what was settled is what a rollback goes to; it is a new revision that says
// what it undoes, and remembers what it undid.
func TestBack(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(imaged("hello:1")))
	p.must(t, steer(shoal.RolloutSettle))
	p.must(t, deploy(imaged("hello:2")))
	p.must(t, deploy(imaged("hello:3")))
	failed, _ := p.store.Desired().Service("web")
	c := p.must(t, steer(shoal.RolloutBack, func(w *shoal.RolloutWish) { w.Why = "2 of 2 slots failed" }))
	if c.Kind != shoal.ChangeUpdate || c.Details[0] != "back to revision 1" || len(c.Notes) != 0 {
		t.Errorf("change %+v, want back to revision 1", c)
	}
	s, _ := p.store.Desired().Service("web")
	if s.Spec.Image != "hello:1" || s.Revision.Seq != 4 || s.Undoes != failed.Revision || s.Why != "2 of 2 slots failed" {
		t.Errorf("service %+v, want revision 4 with hello:1 that undoes 3", s)
	}
	var past []string
	for _, r := range s.Past {
		past = append(past, fmt.Sprintf("%d %s %v", r.Revision.Seq, r.Spec.Image, r.Good))
	}
	if got := strings.Join(past, ", "); got != "3 hello:3 false, 2 hello:2 false, 1 hello:1 true" {
		t.Errorf("past %s", got)
	}
	c = p.must(t, steer(shoal.RolloutBack, func(w *shoal.RolloutWish) { w.To = "2" }))
	if s, _ = p.store.Desired().Service("web"); s.Spec.Image != "hello:2" || len(c.Notes) != 1 {
		t.Errorf("service %+v, change %+v, want hello:2 and a note that it was never good", s, c)
	}
}

// TestPastIsBounded: a revision remembers five, fewer if specs are large, and none beside
// one that fills the record alone.
func TestPastIsBounded(t *testing.T) {
	p := cluster(t, 1)[0]
	remembers := func(size, want int) {
		t.Helper()
		for i := range 7 {
			p.must(t, deploy(imaged("hello:1", func(s *shoal.Spec) {
				s.Env = map[string]string{"N": fmt.Sprint(size, i), "X": strings.Repeat("x", size/2), "Y": strings.Repeat("y", size/2)}
			})))
		}
		if s, _ := p.store.Desired().Service("web"); len(s.Past) != want {
			t.Errorf("specs of %d bytes: %d are remembered, want %d", size, len(s.Past), want)
		}
	}
	remembers(10, shoal.MaxPast)
	remembers(12_000, 3)
	remembers(60_000, 0)
}

func TestSteer(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(imaged("hello:1", func(s *shoal.Spec) { s.Rollout.Canary.Slots.N = 1 })))
	is := func(what string, want shoal.RolloutState) {
		t.Helper()
		if s, _ := p.store.Desired().Service("web"); s.Rollout != want {
			t.Errorf("%s: %+v, want %+v", what, s.Rollout, want)
		}
	}
	p.must(t, steer(shoal.RolloutPause, func(w *shoal.RolloutWish) { w.Why = "it fails" }))
	is("paused", shoal.RolloutState{Seq: 1, Paused: true, Why: "it fails"})
	if c := p.must(t, steer(shoal.RolloutPause)); c.Kind != shoal.ChangeNone {
		t.Errorf("pausing what is paused: %+v", c)
	}
	p.must(t, steer(shoal.RolloutPromote))
	is("promoted", shoal.RolloutState{Seq: 2, Paused: true, Why: "it fails", Promoted: true})
	p.must(t, steer(shoal.RolloutResume))
	is("resumed", shoal.RolloutState{Seq: 3, Promoted: true})
	p.must(t, deploy(imaged("hello:2")))
	is("a new revision", shoal.RolloutState{})
}

func TestSteerRefuses(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(imaged("hello:1")))
	first, _ := p.store.Desired().Service("web")
	for name, c := range map[string]struct {
		wish shoal.Wish
		is   error
		says string
	}{
		"no such service":  {steer(shoal.RolloutPause, func(w *shoal.RolloutWish) { w.Service = "nosuch" }), shoal.ErrNotFound, "nosuch"},
		"no canary":        {steer(shoal.RolloutPromote), shoal.ErrConflict, "has no canary"},
		"nothing before":   {steer(shoal.RolloutBack), shoal.ErrNotFound, "no earlier revision"},
		"another revision": {steer(shoal.RolloutBack, func(w *shoal.RolloutWish) { w.Of.Seq, w.Of.Author = 9, "X" }), shoal.ErrConflict, "is at revision"},
		"not a change":     {steer("upwards"), nil, "must be pause, resume, promote or rollback"},
	} {
		_, err := p.Submit(t.Context(), c.wish, shoal.UpdateOptions{})
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v that says %q", name, err, c.is, c.says)
		}
	}
	p.must(t, deploy(imaged("hello:2")))
	_, err := p.Submit(t.Context(), steer(shoal.RolloutBack, func(w *shoal.RolloutWish) { w.To = "7" }), shoal.UpdateOptions{})
	if !errors.Is(err, shoal.ErrNotFound) || !strings.Contains(err.Error(), "revision 7") {
		t.Errorf("back to what is gone: %v", err)
	}
	if s, _ := p.store.Desired().Service("web"); s.Revision.Seq != first.Revision.Seq+1 {
		t.Errorf("refused wishes changed the service: %+v", s)
	}
}

// TestSharesOfTooFew: more than all replicas cannot be what was meant; what counts is the
// most that there are or may be. A refused wish writes nothing, of its other services neither.
func TestSharesOfTooFew(t *testing.T) {
	unavailable := func(n int) func(*shoal.Spec) {
		return func(s *shoal.Spec) { s.Rollout.MaxUnavailable = shoal.Share{N: n} }
	}
	canary := func(n int) func(*shoal.Spec) {
		return func(s *shoal.Spec) { s.Rollout.Canary.Slots = shoal.Share{N: n} }
	}
	loaded := func(s *shoal.Spec) { s.Autoscale = &shoal.Autoscale{Min: 1, Max: 6, Requests: 10} }
	for name, c := range map[string]struct {
		scaled int // from 2 before; 0: it is new
		edit   []func(*shoal.Spec)
		says   string
	}{
		"all":                     {0, []func(*shoal.Spec){unavailable(2), canary(2)}, ""},
		"one more":                {0, []func(*shoal.Spec){unavailable(3)}, "service web: update_config.max_unavailable is 3, more than the 2 replicas there are"},
		"a larger canary":         {0, []func(*shoal.Spec){canary(3)}, "service web: update_config.canary is 3, more than the 2 replicas there are"},
		"scaled by a user":        {5, []func(*shoal.Spec){unavailable(5)}, ""},
		"and more than that":      {5, []func(*shoal.Spec){unavailable(6)}, "service web: update_config.max_unavailable is 6, more than the 5 replicas there are"},
		"fewer than the file has": {1, []func(*shoal.Spec){canary(2)}, ""},
		"as many as there may be": {0, []func(*shoal.Spec){unavailable(6), loaded}, ""},
		"more than there may be":  {0, []func(*shoal.Spec){canary(7), loaded}, "service web: update_config.canary is 7, more than the 6 replicas there are"},
		"everywhere":              {0, []func(*shoal.Spec){canary(3), func(s *shoal.Spec) { s.Mode = shoal.ModeGlobal }}, ""},
		"none":                    {0, []func(*shoal.Spec){canary(3), func(s *shoal.Spec) { s.Replicas = 0 }}, ""},
	} {
		p := cluster(t, 1)[0]
		if c.scaled > 0 {
			p.must(t, deploy(imaged("hello:1")))
			p.must(t, scale("web", c.scaled, false))
		}
		before := p.store.Desired().Digest
		_, err := p.Submit(t.Context(), deploy(spec("db", 1), imaged("hello:2", c.edit...)), shoal.UpdateOptions{})
		after := p.store.Desired()
		_, hasDB := after.Service("db")
		if c.says == "" {
			if err != nil || !hasDB {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var invalid *shoal.InvalidError
		if err == nil || !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.says) || after.Digest != before || hasDB {
			t.Errorf("%s: %v, want %q and nothing written", name, err, c.says)
		}
	}
}

// TestQuickSuccessor: a revision that runs in all slots is good, though nobody has said yet
// that it settled; one that failed in one of them is not.
func TestQuickSuccessor(t *testing.T) {
	for failures, want := range map[int]bool{0: true, 1: false} {
		p := cluster(t, 1)[0]
		p.must(t, deploy(imaged("hello:1")))
		s, _ := p.store.Desired().Service("web")
		var holds []shoal.Holding
		state := &shoal.PeerState{}
		for i := range 2 {
			id := shoal.ReplicaID{byte(i + 1)}
			holds = append(holds, shoal.Holding{Slot: i, Replica: id, Revision: s.Revision})
			state.Replicas = append(state.Replicas, shoal.ReplicaStatus{
				ID: id, Service: "web", Slot: i, Revision: s.Revision, Phase: shoal.PhaseReady, Failures: failures * i,
			})
		}
		write(t, p.store, &shoal.ClaimBody{Peer: p.self, Service: "web", Holds: holds})
		p.states = map[shoal.PeerID]*shoal.PeerState{p.self: state}
		p.must(t, deploy(imaged("hello:2")))
		if s, _ = p.store.Desired().Service("web"); s.Past[0].Good != want {
			t.Errorf("after %d failures: good is %v, want %v", failures, s.Past[0].Good, want)
		}
	}
}
