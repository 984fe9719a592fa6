// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

// is compares a service with what an operation should have made of it.
func (p *place) is(t *testing.T, name string, stopped bool, seq uint64, restarts int) {
	t.Helper()
	s, ok := p.store.Desired().Service(name)
	if !ok || s.Stopped != stopped || s.Revision.Seq != seq || s.Spec.Restarts != restarts {
		t.Errorf("%s = %+v, want stopped %v at revision %d with %d restarts", name, s, stopped, seq, restarts)
	}
}

func TestStopStartRestart(t *testing.T) {
	peers := cluster(t, 3)
	p := peers[0]
	p.must(t, deploy(spec("web", 3)))
	p.must(t, scale("web", 5, false))
	if got := p.must(t, operate(shoal.OpStop, "web")); got.Kind != shoal.ChangeUpdate || !got.Stopped || len(got.Slots) != 0 {
		t.Errorf("stop: %+v", got)
	}
	p.is(t, "web", true, 1, 0)
	if got := p.must(t, operate(shoal.OpStop, "web")); got.Kind != shoal.ChangeNone || !got.Stopped {
		t.Errorf("stop again: %+v, want no change", got)
	}
	if got := p.must(t, scale("web", 1, true)); !got.Stopped || len(got.Notes) != 1 {
		t.Errorf("scale of a stopped service: %+v, want it stopped with a note", got)
	}
	exchange(peers)
	got := peers[1].must(t, operate(shoal.OpStart, "web"))
	if got.Kind != shoal.ChangeUpdate || got.Stopped || got.Replicas != 6 || len(got.Slots) != 6 || slices.Contains(got.Slots, "") {
		t.Errorf("start: %+v, want 6 replicas placed", got)
	}
	exchange(peers)
	p.is(t, "web", false, 1, 0)
	if got := p.must(t, operate(shoal.OpStart, "web")); got.Kind != shoal.ChangeNone {
		t.Errorf("start again: %+v, want no change", got)
	}
	if got := p.must(t, operate(shoal.OpRestart, "web")); got.Kind != shoal.ChangeUpdate || got.Revision.Seq != 2 || got.Replicas != 6 {
		t.Errorf("restart: %+v", got)
	}
	p.is(t, "web", false, 2, 1)
	if got := p.must(t, deploy(spec("web", 3))); got.Kind != shoal.ChangeNone {
		t.Errorf("the same file after a restart: %+v, want no change", got)
	}
	p.is(t, "web", false, 2, 1)
}

// TestDeployStarts: what a user deploys runs, changed or not.
func TestDeployStarts(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(spec("web", 2)))
	p.must(t, operate(shoal.OpStop, "web"))
	if got := p.must(t, deploy(spec("web", 2))); got.Kind != shoal.ChangeUpdate || !slices.Contains(got.Details, "start") || got.Stopped {
		t.Errorf("deploy of a stopped service: %+v, want it started", got)
	}
	p.is(t, "web", false, 1, 0)
	p.must(t, operate(shoal.OpStop, "web"))
	changed := spec("web", 2)
	changed.Image = "hello:2"
	p.must(t, deploy(changed))
	p.is(t, "web", false, 2, 0)
	p.must(t, operate(shoal.OpStop, "web"))
	p.must(t, operate(shoal.OpRestart, "web"))
	p.is(t, "web", false, 3, 1)
	p.must(t, operate(shoal.OpStop, "web"))
	p.must(t, remove("web"))
	p.must(t, deploy(changed))
	p.is(t, "web", false, 4, 0)
}

// TestStopAcrossASplit: a deploy that did not see the stop wins over it, on every peer.
func TestStopAcrossASplit(t *testing.T) {
	peers := cluster(t, 2)
	peers[0].must(t, deploy(spec("web", 2)))
	exchange(peers)
	peers[0].must(t, operate(shoal.OpStop, "web"))
	changed := spec("web", 2)
	changed.Image = "hello:2"
	peers[1].must(t, deploy(changed))
	peers[0].is(t, "web", true, 1, 0)
	exchange(peers)
	for _, p := range peers {
		p.is(t, "web", false, 2, 0)
	}
}

func TestKeepScale(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(spec("web", 2)))
	p.must(t, deploy(spec("web", 4)))
	old := spec("web", 2)
	old.Image = "hello:2"
	w := deploy(old)
	w.Deploy.KeepScale = true
	if got := p.must(t, w); p.replicas("web") != 4 || got.Replicas != 4 || len(got.Notes) != 0 {
		t.Errorf("deploy that keeps the scale: %+v and %d replicas, want 4", got, p.replicas("web"))
	}
}

func TestPrune(t *testing.T) {
	p := cluster(t, 1)[0]
	other := spec("elsewhere", 1)
	other.Project = "other"
	p.must(t, deploy(spec("a", 1), spec("b", 1), spec("c", 1)))
	p.must(t, deploy(other))
	w := deploy(spec("a", 1))
	w.Deploy.Prune, w.Deploy.Keep = "shop", []string{"c"}
	plan, err := p.Plan(context.Background(), w)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, ch := range plan.Changes {
		got = append(got, string(ch.Kind)+ch.Service)
	}
	if diff := cmp.Diff([]string{"=a", "-b"}, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	p.must(t, w)
	p.are(t, map[string]int{"a": 1, "b": -1, "c": 1, "elsewhere": 1})
}

// are compares the numbers of replicas; -1: there is no such service.
func (p *place) are(t *testing.T, want map[string]int) {
	t.Helper()
	for name, n := range want {
		if got := p.replicas(name); got != n {
			t.Errorf("%s: %d replicas, want %d", name, got, n)
		}
	}
}

// TestRemoveSeen: what was shown of a prune goes, as it was shown, and nothing else.
func TestRemoveSeen(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(spec("a", 1), spec("b", 1), spec("c", 1)))
	seen := func(names ...string) shoal.Wish {
		w := deploy(spec("a", 1))
		w.Deploy.Remove = map[string]shoal.RevisionID{}
		for _, name := range names {
			s, _ := p.store.Desired().Service(name)
			w.Deploy.Remove[name] = s.Revision
		}
		return w
	}
	stale := seen("b", "c")
	changed := spec("c", 1)
	changed.Image = "hello:2"
	p.must(t, deploy(changed, spec("new", 1)))
	_, err := p.Submit(context.Background(), stale, shoal.UpdateOptions{})
	if want := `accept wish: service "c" changed while you were asked: conflict; look at it again`; !errors.Is(err, shoal.ErrConflict) || err.Error() != want {
		t.Errorf("Submit(stale) = %v, want %s", err, want)
	}
	p.are(t, map[string]int{"a": 1, "b": 1, "c": 1, "new": 1})
	now := seen("b", "c")
	p.must(t, remove("b")) // somebody else did it
	p.must(t, now)
	p.are(t, map[string]int{"a": 1, "b": -1, "c": -1, "new": 1})
	p.must(t, deploy(spec("b", 1))) // and made another, at a higher revision
	if _, err := p.Submit(context.Background(), now, shoal.UpdateOptions{}); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Submit(now) with another b = %v, want a conflict", err)
	}
	both := seen("b")
	both.Deploy.Specs = append(both.Deploy.Specs, spec("b", 1))
	if _, ok := errors.AsType[*shoal.InvalidError](second(p.Submit(context.Background(), both, shoal.UpdateOptions{}))); !ok {
		t.Error("a service is deployed and removed in one wish, want that refused")
	}
}

func second[A, B any](_ A, b B) B { return b }
