// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/shoalnet/shoal/api"
)

func TestTroubleOfAPeer(t *testing.T) {
	const ill = "3 services fail on it"
	for _, c := range []struct {
		peer        api.Peer
		state, text string
	}{
		{api.Peer{State: "alive"}, "alive", ""},
		{api.Peer{State: "alive", Trouble: ill}, "alive,in trouble", "takes no new slots: " + ill},
		{api.Peer{State: "alive", Trouble: ill, Draining: true}, "alive,draining", "takes no new slots: " + ill},
		{api.Peer{State: "alive", EngineTrouble: "no answer for 12s"}, "alive", "no answer for 12s"},
		{api.Peer{State: "alive", EngineTrouble: "no answer for 12s", Trouble: ill}, "alive,in trouble", "no answer for 12s; takes no new slots: " + ill},
	} {
		if state, text := peerStateText(c.peer), troubleText(c.peer); state != c.state || text != c.text {
			t.Errorf("%+v: %q, %q, want %q, %q", c.peer, state, text, c.state, c.text)
		}
	}
}
