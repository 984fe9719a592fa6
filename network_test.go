// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestAttachments(t *testing.T) {
	front, back := []Attachment{{Network: "shop_front"}}, []Attachment{{Network: "shop_front"}, {Network: "shop_back"}}
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"of no project":    {Spec{}, "default"},
		"of a project":     {Spec{Project: "shop"}, "shop_default"},
		"named":            {Spec{Project: "shop", Networks: back}, "shop_front shop_back"},
		"the machine's":    {Spec{Setup: Setup{HostNetwork: true}}, ""},
		"none whatever is": {Spec{Networks: front, Setup: Setup{NoNetwork: true}}, ""},
	} {
		var got []string
		for _, a := range c.spec.Attachments() {
			got = append(got, a.Network)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %q", name, got, c.want)
		}
	}
	web, db, other := Spec{Networks: back}, Spec{Networks: front}, Spec{Project: "shop"}
	if !web.SharesNetwork(&db) || !db.SharesNetwork(&web) || db.SharesNetwork(&other) {
		t.Error("services share a network exactly if both are on it")
	}
}

func TestNetworkNames(t *testing.T) {
	service := func(name string, networks ...Attachment) Service {
		return Service{Spec: Spec{Name: name, Project: "shop", Networks: networks}}
	}
	got := NetworkNames("back", []Service{
		service("web", Attachment{Network: "back", Aliases: []string{"web", "sql", "www"}}),
		service("db", Attachment{Network: "front", Aliases: []string{"www"}}, Attachment{Network: "back", Aliases: []string{"sql", "web"}}),
		service("other"),
	})
	want := map[string][]string{"web": {"web", "db"}, "db": {"db"}, "sql": {"db", "web"}, "www": {"web"}}
	if !maps.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("NetworkNames(back) = %v, want %v", got, want)
	}
	if got := NetworkNames("shop_default", []Service{service("other")}); len(got) != 1 || len(got["other"]) != 1 {
		t.Errorf("NetworkNames(shop_default) = %v, want other", got)
	}
}

func TestCheckNetworks(t *testing.T) {
	on := func(names ...string) []Attachment {
		var out []Attachment
		for _, n := range names {
			out = append(out, Attachment{Network: n})
		}
		return out
	}
	for name, c := range map[string]struct {
		networks []Attachment
		setup    Setup
		field    string
	}{
		"two":               {networks: on("shop_front", "db.back")},
		"no name":           {networks: on("a", ""), field: "networks[1]"},
		"no such name":      {networks: on("a/b"), field: "networks[0]"},
		"twice":             {networks: on("a", "a"), field: "networks[1]"},
		"too many":          {networks: on(slices.Repeat([]string{"a"}, 17)...), field: "networks"},
		"alias":             {networks: []Attachment{{Network: "a", Aliases: []string{"db", "Not-A-Label"}}}, field: "networks[0].aliases[1]"},
		"the machine's":     {networks: on("a"), setup: Setup{HostNetwork: true}, field: "networks"},
		"without a network": {networks: on("a"), setup: Setup{NoNetwork: true}, field: "networks"},
	} {
		err := (&Spec{Networks: c.networks, Setup: c.setup}).checkNetworks()
		got, is := errors.AsType[*InvalidError](err)
		if (c.field != "") != is || is && got.Field != c.field {
			t.Errorf("%s: %v, want field %q", name, err, c.field)
		}
	}
}
