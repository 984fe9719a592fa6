// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

// loaded is a spec that is autoscaled between 2 and 10.
func loaded(replicas int) shoal.Spec {
	s := spec("web", replicas)
	s.Reservations = shoal.Resources{CPUMilli: 10, MemBytes: 16 << 20}
	a := shoal.DefaultAutoscale()
	a.Min, a.Max, a.CPU = 2, 10, 60
	s.Autoscale = &a
	return s
}

// byLoad is what an autoscaler asks for on top of what p sees, or of another base.
func (p *place) byLoad(n int, base ...shoal.RevisionID) shoal.Wish {
	s, _ := p.store.Desired().Service("web")
	w := scale("web", n, false)
	w.Scale.Targets[0].Why, w.Scale.Targets[0].Base = "cpu 83% of 60%", s.Scale.Base
	if len(base) > 0 {
		w.Scale.Targets[0].Base = base[0]
	}
	return w
}

func (p *place) scaled(t *testing.T, n int, manual bool, why string) {
	t.Helper()
	s, _ := p.store.Desired().Service("web")
	if s.Replicas != n || s.Scale.Manual != manual || s.Scale.Why != why {
		t.Errorf("web has %d, %+v; want %d, manual %t, why %q", s.Replicas, s.Scale, n, manual, why)
	}
}

// TestAutoscaledDeploy: a file does not fight with the load, new bounds count at once, and
// nothing of it makes a new container.
func TestAutoscaledDeploy(t *testing.T) {
	p := cluster(t, 3)[0]
	got := p.must(t, deploy(loaded(1)))
	if got.Replicas != 2 || len(got.Slots) != 2 || !strings.HasPrefix(strings.Join(got.Notes, ""), "starts with 2 (the file says 1; autoscale has 2-10 at cpu 60%)") {
		t.Errorf("deploy of 1 within 2-10: %+v", got)
	}
	p.scaled(t, 2, false, "")
	p.must(t, p.byLoad(5))
	p.scaled(t, 5, false, "cpu 83% of 60%")
	for _, file := range []int{1, 3} {
		if got := p.must(t, deploy(loaded(file))); got.Kind != shoal.ChangeNone || !slices.Contains(got.Notes, "scale stays 5: the load decides (autoscale has 2-10 at cpu 60%)") {
			t.Errorf("the file again with %d: %+v", file, got)
		}
		p.scaled(t, 5, false, "cpu 83% of 60%")
	}
	w := deploy(loaded(3))
	w.Deploy.ResetScale = true
	p.must(t, w)
	p.scaled(t, 3, false, "")

	before, _ := p.store.Desired().Service("web")
	tight := loaded(3)
	tight.Autoscale.Min, tight.Autoscale.Max = 4, 8
	w = deploy(tight)
	w.Deploy.KeepScale = true
	if got := p.must(t, w); !slices.Equal(got.Details, []string{"autoscale 2-10 at cpu 60% -> 4-8 at cpu 60%", "replicas 3 -> 4"}) || len(got.Notes) != 0 {
		t.Errorf("other bounds: %+v", got)
	}
	p.scaled(t, 4, false, "")
	now, _ := p.store.Desired().Service("web")
	if now.Revision == before.Revision || !now.Runs(before.Revision) {
		t.Errorf("other bounds make revision %s of %s, want another that keeps the containers", now.Revision, before.Revision)
	}
	off := loaded(3)
	off.Autoscale = nil
	w = deploy(off)
	w.Deploy.KeepScale = true
	if got := p.must(t, w); !slices.Equal(got.Details, []string{"autoscale 4-8 at cpu 60% -> off"}) || got.Replicas != 4 {
		t.Errorf("off: %+v", got)
	}
}

// TestManualScaleOfAutoscaled: within the bounds it is written as a user's, also where there
// are as many already; outside of them it is refused.
func TestManualScaleOfAutoscaled(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(loaded(3)))
	if got := p.must(t, scale("web", 3, false)); got.Kind != shoal.ChangeUpdate || !slices.Contains(got.Notes, "the load decides again after 10m0s (autoscale has 2-10 at cpu 60%)") {
		t.Errorf("scale to as many as there are: %+v", got)
	}
	p.scaled(t, 3, true, "")
	if got := p.must(t, scale("web", 3, false)); got.Kind != shoal.ChangeNone {
		t.Errorf("once more: %+v", got)
	}
	for _, w := range []shoal.Wish{scale("web", 11, false), scale("web", 1, false), scale("web", 8, true), scale("web", 0, false)} {
		_, err := p.Submit(context.Background(), w, shoal.UpdateOptions{})
		if advice, ok := errors.AsType[*shoal.AdviceError](err); !ok || !errors.Is(err, shoal.ErrRefused) || !strings.Contains(err.Error(), "between 2 and 10") || !strings.Contains(advice.Advice, "shoal autoscale web") {
			t.Errorf("%+v: %v", w.Scale.Targets, err)
		}
	}
	p.must(t, p.byLoad(4))
	p.scaled(t, 4, false, "cpu 83% of 60%")
	p.must(t, scale("web", 1, true))
	p.scaled(t, 5, true, "")
}

// TestScaleByLoadIsFenced: what the load called for counts on top of what it was decided
// for; two that decide the same at once write the same.
func TestScaleByLoadIsFenced(t *testing.T) {
	peers := cluster(t, 2)
	a, b := peers[0], peers[1]
	a.must(t, deploy(loaded(3)))
	exchange(peers)
	s, _ := a.store.Desired().Service("web")
	a.must(t, scale("web", 4, false))
	if _, err := a.Submit(context.Background(), a.byLoad(7, s.Scale.Base), shoal.UpdateOptions{}); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("on top of what a user changed: %v, want ErrConflict", err)
	}
	exchange(peers)
	a.must(t, a.byLoad(7))
	b.must(t, b.byLoad(7))
	exchange(peers)
	for _, p := range peers {
		p.scaled(t, 7, false, "cpu 83% of 60%")
	}
	if got := a.must(t, a.byLoad(7)); got.Replicas != 7 {
		t.Errorf("again: %+v", got)
	}
	plain := spec("other", 1)
	a.must(t, deploy(plain))
	w := a.byLoad(2)
	w.Scale.Targets[0].Service = "other"
	if _, err := a.Submit(context.Background(), w, shoal.UpdateOptions{}); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("of a service that is not autoscaled: %v, want ErrConflict", err)
	}
}
