// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api/apitest"
)

// The rows of other peers say how they are reached, with the relay by name.
func TestPath(t *testing.T) {
	c := apitest.New("tokyo", "osaka", "kyoto")
	deps := c.Deps()
	deps.Path = func(id shoal.PeerID, name func(shoal.PeerID) string) (string, int, int) {
		if name(id) == "kyoto" {
			return "", 0, 0
		}
		return "relayed by " + name(apitest.PeerID("kyoto")) + ", tcp", 20, 3
	}
	dir, err := os.MkdirTemp("", "shoal") //nolint:usetesting // the path of t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s.sock")
	t.Cleanup(apitest.Start(t, deps, socket))
	l, err := dial(t, socket).Peers(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"tokyo": "", "osaka": "relayed by kyoto, tcp", "kyoto": ""}
	for _, p := range l.Items {
		if p.Path != want[p.Name] || (p.Path != "") != (p.Pings == 20 && p.PingsLost == 3) {
			t.Errorf("%s is reached by %q, %d of %d pings lost; want %q", p.Name, p.Path, p.PingsLost, p.Pings, want[p.Name])
		}
	}
	if len(l.Items) != 3 {
		t.Errorf("%d peers, want 3", len(l.Items))
	}
}
