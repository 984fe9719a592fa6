// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/shoalnet/shoal/api"
)

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
