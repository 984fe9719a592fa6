// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// Networks are those that services name, or are on by default; where their peers are, and
// what their names stand for, follows from the services.
func TestNetworks(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	on := func(project, name string, replicas int, networks ...shoal.Attachment) shoal.Spec {
		s := spec(name, "hello:1", replicas)
		s.Project, s.Ports, s.Networks = project, nil, networks
		return s
	}
	alone := on("", "alone", 1)
	alone.Setup.NoNetwork = true
	deploy(
		t, c, on("shop", "web", 2), on("shop", "db", 1, shoal.Attachment{Network: "back", Aliases: []string{"web", "sql"}}),
		on("blog", "web2", 1, shoal.Attachment{Network: "back", Aliases: []string{"sql", "db", "web2"}}, shoal.Attachment{Network: "Front"}),
		on("", "tool", 0), alone,
	)
	cluster.Set("db", 0, shoal.PhaseStarting, "")
	all, err := c.Networks(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range all.Items {
		var line []string
		for _, s := range n.Services {
			line = append(line, s.Service)
		}
		var peers []string
		for _, p := range n.Peers {
			peers = append(peers, p.Name)
		}
		got = append(got, n.Name+" of "+strings.Join(n.Projects, ",")+": "+strings.Join(line, ",")+" on "+strings.Join(peers, ","))
	}
	want := []string{
		"Front of blog: web2 on " + holder(t, c, "web2"), "back of blog,shop: db,web2 on " + holder(t, c, "web2"),
		"default of : tool on ", "shop_default of shop: web on osaka,tokyo",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Networks() differs (-want +got):\n%s", diff)
	}
	one, err := c.Networks(t.Context(), "back")
	if err != nil || len(one.Items) != 1 {
		t.Fatalf("Networks(back) = %+v, %v, want one", one.Items, err)
	}
	names := map[string][]string{}
	for _, s := range one.Items[0].Services {
		names[s.Service] = s.Names
	}
	if diff := cmp.Diff(map[string][]string{"db": {"db", "sql", "web"}, "web2": {"web2"}}, names); diff != "" {
		t.Errorf("names of back differ (-want +got):\n%s", diff)
	}
	if s := one.Items[0].Services[0]; s.Ready != 0 || s.Replicas != 1 || s.Project != "shop" || len(s.Peers) != 0 {
		t.Errorf("db = %+v, want 0 of 1 ready", s)
	}
	_, err = c.Networks(t.Context(), "nosuch")
	wantError(t, err, api.CodeNotFound, `no network "nosuch" (known here: Front, back, default, shop_default); this peer last synced 0 s ago`)
	if _, err := c.Networks(t.Context(), "a/b"); err == nil {
		t.Error("Networks(a/b) = nil, want that it is no name")
	}
}

// holder is the peer that holds slot 0 of a service.
func holder(t *testing.T, c *api.Client, service string) string {
	t.Helper()
	rows, err := c.Replicas(t.Context(), service)
	if err != nil || len(rows.Items) == 0 {
		t.Fatalf("Replicas(%s) = %v, %v, want some", service, rows.Items, err)
	}
	return rows.Items[0].PeerName
}
