// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// Whatever is listed, how fresh it is stands below it, in the same words.
func TestEveryListingEndsWithFreshness(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka", "kyoto")
	cluster.Silence("osaka", 41*time.Second)
	dir := t.TempDir()
	socket := dir[:min(len(dir), 80)] + "/s"
	t.Cleanup(apitest.Start(t, cluster.Deps(), socket))
	const want = "view: 2/3 peers, oldest 0.8s; osaka silent 41s\n"
	for _, args := range []string{"run --name web -d hello:1", "ls", "ps", "peer ls", "peer inspect", "inspect web", "explain web", "token ls", "token ls -q", "top peers", "top"} {
		a, _, _ := newApp()
		a.output = ""
		var both bytes.Buffer
		a.out, a.err = &both, &both
		if code := a.run(t.Context(), append([]string{"-H", socket}, strings.Fields(args)...)); code != exitOK {
			t.Fatalf("shoal %s = exit %d: %s", args, code, &both)
		}
		if got := both.String(); !strings.HasSuffix(got, want) || strings.Count(got, "view: ") != 1 {
			t.Errorf("shoal %s = %q, want it to end with %q", args, got, want)
		}
	}
}

// A name that is longer than usual does not run into what is said of it.
func TestFieldsStandInOneColumn(t *testing.T) {
	a, stdout, _ := newApp()
	slot := api.ExplainedSlot{Holders: []api.Replica{{PeerName: "b", State: "ready"}, {PeerName: "c", State: "starting"}}, Waits: []string{"yields to b"}}
	if err := a.describeSlot("web", &slot); err != nil {
		t.Fatal(err)
	}
	const want = `
Slot web/0:
  Held by:      b, ready
  Also held by: c, starting
  Decided:      yields to b
`
	if got := stdout.String(); got != want {
		t.Errorf("describeSlot = %s, want %s", got, want)
	}
}
