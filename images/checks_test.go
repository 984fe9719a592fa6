// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/exchange"
)

// TestChecks: what moved is told on both sides, and who lied is named.
func TestChecks(t *testing.T) {
	w := newWorld(t, 2, nil)
	a, b := w.members[0], w.members[1]
	digest := a.push("app:v1", newImage(t, 1, 2<<20))
	if _, err := b.room.Ensure(t.Context(), "app:v1@"+digest, nil); err != nil {
		t.Fatal(err)
	}
	for m, want := range map[*member]string{a: "0.0 MiB from 0, 2.", b: "2."} {
		checks := m.room.Checks()
		if len(checks) != 2 || checks[0].State != shoal.CheckOK || !strings.HasPrefix(checks[0].Detail, "2.") ||
			checks[1].State != shoal.CheckOK || !strings.HasPrefix(checks[1].Detail, want) {
			t.Errorf("Checks = %+v, want 2 MiB taken, and %s...", checks, want)
		}
	}
	c := a.room.peersCheck(exchange.Stats{
		Peers:   []exchange.PeerStats{{Peer: b.id, Got: 1 << 20, Bad: 2, Lied: 1}},
		Refused: map[string]uint64{"list": 1, "form": 3},
	})
	if c.State != shoal.CheckWarn || c.Remedy == "" || !strings.Contains(c.Detail, "messages not taken: 3 form, 1 list; sent what is not the image: ") {
		t.Errorf("check of a liar = %+v", c)
	}
}
