// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal/api"
)

// A terminal gets a tree that is redrawn; a pipe gets a line for each change.
func TestProgressDrawing(t *testing.T) {
	at := func(ready int, state string) snapshot {
		return newSnapshot([]api.Progress{{
			Service: api.Service{Name: "web", Ready: ready, Replicas: 1}, Exists: true, Settled: ready == 1,
			Replicas: []api.Replica{{Service: "web", PeerName: "osaka", State: state, Current: true}},
		}}, nil)
	}
	const (
		starting = "\x1b[33mweb 0/1 ready, 1 starting\x1b[0m\n\x1b[33m└ web/0  osaka  starting\x1b[0m\n"
		ready    = "\x1b[32mweb 1/1 ready\x1b[0m\n\x1b[32m└ web/0  osaka  ready\x1b[0m\n"
		up       = "\x1b[2A\x1b[J"
	)
	for terminal, want := range map[bool]string{
		false: "web 0/1 ready, 1 starting\nweb 1/1 ready\n",
		true:  starting + up + starting + up + ready,
	} {
		a, _, stderr := newApp()
		a.terminal, a.width = terminal, 80
		p := &progress{app: a}
		for _, s := range []snapshot{at(0, "starting"), at(0, "starting"), at(1, "ready")} {
			p.draw(s)
		}
		if got := stderr.String(); got != want {
			t.Errorf("draw(terminal %v) = %q, want %q", terminal, got, want)
		}
	}
}

// What does not fit into the terminal is counted, and what is ready gives way first.
func TestTreeFitsTheTerminal(t *testing.T) {
	p := api.Progress{Service: api.Service{Name: "web", Ready: 8, Replicas: 10}, Exists: true, Trouble: "web/9 failed", TroubleSlot: 9}
	for slot := range 10 {
		r := api.Replica{Service: "web", Slot: slot, PeerName: "osaka", State: "ready", Current: true}
		switch slot {
		case 8:
			r.State, r.PeerName = "unplaced", ""
		case 9:
			r.State, r.Reason = "failed", "exit 1"
		}
		p.Replicas = append(p.Replicas, r)
	}
	a, _, _ := newApp()
	a.height = 6
	var got []string
	for _, br := range a.tree(newSnapshot([]api.Progress{p}, nil)) {
		got = append(got, br.text)
	}
	want := []string{
		"web 8/10 ready, 1 failed, 1 unplaced",
		"├ web/9  osaka  failed: exit 1",
		"├ web/8  -      unplaced",
		"├ web/0  osaka  ready",
		"└ and 7 more",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tree: want (-), got (+):\n%s", diff)
	}
	for height := range 40 { // never more than the terminal has, but for the services themselves
		a.height = height
		if n := len(a.tree(newSnapshot([]api.Progress{p}, nil))); height > 1 && n > max(1, height-1) {
			t.Errorf("tree in %d rows has %d", height, n)
		}
	}
}

func TestFitCutsToTheTerminal(t *testing.T) {
	for width, want := range map[int]string{0: "żółw 0/1", 8: "żółw 0/", 80: "żółw 0/1"} {
		if got := (&app{width: width}).fit("żółw 0/1"); got != want {
			t.Errorf("fit(width %d) = %q, want %q", width, got, want)
		}
	}
}

// TestKeptRevisionsAreStuck: what keeps an older revision for a reason is not on its
// way, and the reason is told; what waits for its turn is.
func TestKeptRevisionsAreStuck(t *testing.T) {
	const why = "keeps revision 1: image web:2 is not there"
	row := func(reason string) api.Replica {
		return api.Replica{Service: "web", State: "ready", PeerName: "osaka", Image: "sha256:0123456789abcdef", Reason: reason}
	}
	p := api.Progress{Exists: true, Service: api.Service{Name: "web", Ready: 2, Replicas: 2}, Replicas: []api.Replica{row(why), row(why)}}
	s := newSnapshot([]api.Progress{p}, nil)
	if got, want := open(s), "web 2/2 ready, 2 of an older revision ("+why+")"; !s.stuck || got != want {
		t.Errorf("stuck %v, open = %q, want stuck, %q", s.stuck, got, want)
	}
	p.Replicas[1].Reason = ""
	if newSnapshot([]api.Progress{p}, nil).stuck {
		t.Error("stuck, though the second replica waits for its turn only")
	}
	if got := plainApp().imageText(p.Replicas[0]); got != "0123456789ab" {
		t.Errorf("imageText = %q, want the short digest", got)
	}
}
