// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

// after returns a service that waits for another one.
func after(name, other string, c shoal.Condition, fn ...func(*shoal.Spec)) shoal.Spec {
	s := spec(name, 1)
	s.DependsOn = []shoal.Dependency{{Service: other, Condition: c}}
	for _, f := range fn {
		f(&s)
	}
	return s
}

// TestOrderRefusals: what would wait for ever is refused whole, by deploys one after the
// other as well.
func TestOrderRefusals(t *testing.T) {
	p := cluster(t, 1)[0]
	stays := spec("stays", 1)
	stays.Restart.Condition = shoal.RestartAny
	p.must(t, deploy(stays, spec("c", 1)))
	p.must(t, deploy(after("b", "c", shoal.ConditionStarted)))
	p.must(t, deploy(after("a", "b", shoal.ConditionHealthy)))
	optional := after("x", "nosuch", shoal.ConditionStarted, func(s *shoal.Spec) { s.DependsOn[0].Optional = true })
	p.must(t, deploy(optional))
	for name, c := range map[string]struct {
		wish shoal.Wish
		kind error
		want string
	}{
		"nobody":        {deploy(spec("good", 1), after("web", "nosuch", shoal.ConditionStarted)), shoal.ErrRefused, `service "web": depends_on.nosuch: there is no such service: refused; deploy it first, or in the same file, or say required: false`},
		"never ends":    {deploy(after("web", "stays", shoal.ConditionCompleted)), shoal.ErrRefused, `service "web": depends_on.stays: stays never completes: it is started again whenever it ends: refused; give it restart: on-failure`},
		"a circle":      {deploy(after("c", "a", shoal.ConditionStarted)), shoal.ErrRefused, `service "c": depends_on goes in a circle: a -> b -> c -> a: refused; each would wait for the other`},
		"itself":        {deploy(after("web", "web", shoal.ConditionStarted)), nil, "depends_on.web is the service itself"},
		"how":           {deploy(after("web", "c", "ready")), nil, `depends_on.c.condition must be service_started or service_healthy or service_completed_successfully, got "ready"`},
		"ill-formed":    {deploy(after("web", "C", shoal.ConditionStarted)), nil, "depends_on[0] must match"},
		"all in a file": {deploy(after("e", "f", shoal.ConditionStarted), after("f", "e", shoal.ConditionStarted)), shoal.ErrRefused, "depends_on goes in a circle: e -> f -> e"},
	} {
		t.Run(name, func(t *testing.T) {
			before := p.store.Desired().Digest
			_, err := p.Submit(context.Background(), c.wish, shoal.UpdateOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("Submit: %v, want %q (%v)", err, c.want, c.kind)
			}
			if p.store.Desired().Digest != before {
				t.Error("a refused wish changed the state")
			}
		})
	}
}

// TestOrderChanges: that a service waits for another one makes a new revision, and no new
// container.
func TestOrderChanges(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(spec("db", 1), spec("web", 1)))
	c := p.must(t, deploy(after("web", "db", shoal.ConditionHealthy)))
	if c.Kind != shoal.ChangeUpdate || len(c.Details) != 1 || c.Details[0] != "depends on changed" {
		t.Errorf("change %+v, want an update of what it depends on", c)
	}
	if s, _ := p.store.Desired().Service("web"); !s.Runs(s.Past[0].Revision) {
		t.Error("the container is another one")
	}
}
