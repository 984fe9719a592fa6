// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// TestRoomOfAPeer: what a peer has is what its records say, what is free of it what its
// beats say; either may be there before the other, or be older.
func TestRoomOfAPeer(t *testing.T) {
	size := func(cpu, mem int64) shoal.Resources { return shoal.Resources{CPUMilli: cpu, MemBytes: mem} }
	four, none := size(4000, 8<<30), shoal.Resources{}
	for _, c := range []struct {
		name                       string
		capacity, reserved         shoal.Resources
		free                       *shoal.Resources // nil: not heard
		wantKnown                  bool
		wantAllocatable, wantSpare shoal.Resources
	}{
		{"both", four, size(500, 1<<30), new(size(2000, 1<<30)), true, size(3500, 7<<30), size(2000, 1<<30)},
		{"not heard", four, none, nil, true, four, four},
		{"heard before its records", none, none, new(size(2000, 1<<30)), false, none, none},
		{"its engine never answered", none, size(500, 1<<30), new(size(-500, -(1 << 30))), false, none, none},
		{"nothing at all", none, none, nil, false, none, none},
		{"beat older than what it keeps for itself", four, size(500, 1<<30), &four, true, size(3500, 7<<30), size(3500, 7<<30)},
		{"keeps more than there is", four, size(5000, 9<<30), new(size(-1000, -(1 << 30))), true, none, none},
		{"overdrawn", four, none, new(size(-1000, 1<<30)), true, four, size(-1000, 1<<30)},
	} {
		d := &shoal.Desired{Peers: []shoal.Peer{{ID: "osaka", Facts: shoal.PeerFacts{Capacity: c.capacity, Reserved: c.reserved}}}}
		states := map[shoal.PeerID]*shoal.PeerState{}
		if c.free != nil {
			states["osaka"] = &shoal.PeerState{Free: *c.free}
		}
		p := newPane(shoal.NewView("tokyo", d, nil, states), 0)
		row := p.peer(&d.Peers[0])
		for _, part := range []*shoalv1.Resources{row.Capacity, row.Allocatable, row.Free} {
			if (part != nil) != c.wantKnown {
				t.Errorf("%s: row = %+v, want the room known: %t", c.name, row, c.wantKnown)
			}
		}
		got := peerOf(row)
		if got.Room == nil != !c.wantKnown {
			t.Errorf("%s: room = %+v, want it known: %t", c.name, got.Room, c.wantKnown)
		}
		if want := (Room{c.wantAllocatable.CPUMilli, c.wantSpare.CPUMilli, c.wantAllocatable.MemBytes, c.wantSpare.MemBytes}); got.Room != nil && *got.Room != want {
			t.Errorf("%s: room = %+v, want %+v", c.name, *got.Room, want)
		}
		raw, err := json.Marshal(got)
		if err != nil || strings.Contains(string(raw), "_free") != c.wantKnown || strings.Contains(string(raw), `"mem_bytes"`) != c.wantKnown {
			t.Errorf("%s: JSON = %s, %v, want the room in it: %t", c.name, raw, err, c.wantKnown)
		}
	}
}

// TestTroubleOfAPeer: what a peer says of itself reaches who asks.
func TestTroubleOfAPeer(t *testing.T) {
	d := &shoal.Desired{Peers: []shoal.Peer{{ID: "osaka"}}}
	states := map[shoal.PeerID]*shoal.PeerState{"osaka": {Trouble: "3 services fail on it"}}
	p := newPane(shoal.NewView("tokyo", d, nil, states), 0)
	if got := peerOf(p.peer(&d.Peers[0])); got.Trouble != "3 services fail on it" || got.EngineTrouble != "" {
		t.Errorf("peer %+v, want its trouble", got)
	}
}
