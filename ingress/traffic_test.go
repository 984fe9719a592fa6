// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"io"
	"net"
	"testing"

	"github.com/shoalnet/shoal"
)

// What clients get through a published port and a forwarded one is counted as one service's
// where they come in, and as served where the replica is.
func TestTraffic(t *testing.T) {
	w := newWorld(t, 2)
	port := w.freePort()
	w.deploy("web", port, w.peers[1])
	w.opened(port)
	near, holder := w.peers[0].room, w.peers[1].room
	if _, err := w.ask(w.peers[0], port, "hello"); err != nil {
		t.Fatal(err)
	}
	target := near.Ports()[0].Target
	mine, theirs := net.Pipe()
	forwarded := make(chan error, 1)
	go func() { forwarded <- near.Forward(t.Context(), shoal.Target{Service: "web", Slot: -1}, target, theirs) }()
	if _, err := io.ReadFull(mine, make([]byte, len("web/0\n"))); err != nil {
		t.Fatal(err)
	}
	if got := near.Traffic()["web"]; got.Open != 1 || got.Total != 2 {
		t.Errorf("while one is open: %d open of %d, want 1 of 2", got.Open, got.Total)
	}
	if err := mine.Close(); err != nil {
		t.Fatal(err)
	}
	<-forwarded // its client broke off, which is no matter here
	got := near.Traffic()["web"]
	if got.Open != 0 || got.In != 5 || got.Out != 11+6 || got.Connect.Count() != 2 || got.Connect.Sum <= 0 {
		t.Errorf("traffic = %+v, want both connections and their bytes", got)
	}
	w.until("the holder counts them as served", func() bool {
		s := holder.Served()
		return s.Total == 2 && s.Open == 0 && s.In == 5 && s.Out == 17
	})
	if got := holder.Traffic()["web"]; got.Total != 0 {
		t.Errorf("the holder, whom no client asked, carried %d", got.Total)
	}
	w.change(func() { w.desired.Services, w.desired.Claims = nil, nil })
	w.until("a removed service is not told of", func() bool { return len(near.Traffic()) == 0 })
}
