// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

// TestNamesThatClash: a name that another service of the network has is accepted, and
// said by whoever makes it so.
func TestNamesThatClash(t *testing.T) {
	p := cluster(t, 1)[0]
	on := func(name string, aliases ...string) shoal.Spec {
		s := spec(name, 1)
		s.Networks = []shoal.Attachment{{Network: "back", Aliases: aliases}}
		return s
	}
	p.must(t, deploy(on("db", "sql", "db")))
	for _, c := range []struct {
		name string
		spec shoal.Spec
		want []string
	}{
		{"none", on("cache", "redis"), nil},
		{"the alias of another", on("web", "sql"), []string{"on network back the name sql is that of db, though web has it as an alias"}},
		{"the name of another", on("web", "db"), []string{"on network back the name db is that of db, though web has it as an alias"}},
		{"on another network", spec("web", 1), nil},
		{"a name that another has as an alias", on("redis"), []string{"on network back the name redis is that of redis, though cache has it as an alias"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := p.must(t, deploy(c.spec))
			notes := slices.DeleteFunc(slices.Clone(got.Notes), func(n string) bool { return !strings.HasPrefix(n, "on network ") })
			if !slices.Equal(notes, c.want) {
				t.Errorf("Notes = %q, want %q", got.Notes, c.want)
			}
			if again := p.must(t, deploy(c.spec)); len(again.Notes) != 0 || again.Kind != shoal.ChangeNone {
				t.Errorf("again: %+v, want no change and no notes", again)
			}
		})
	}
	plan, err := p.Plan(context.Background(), deploy(on("web")))
	if err != nil || !slices.Equal(plan.Changes[0].Details, []string{"networks changed"}) {
		t.Errorf("Plan = %+v, %v, want that networks changed", plan, err)
	}
}
