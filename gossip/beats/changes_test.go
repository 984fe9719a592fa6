// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// drawState draws a small state, so that neighbours overlap.
func drawState(t *rapid.T) *shoal.PeerState {
	var s shoal.PeerState
	s.Free.CPUMilli = int64(rapid.IntRange(0, 2).Draw(t, "cpu"))
	for i := range rapid.IntRange(0, 6).Draw(t, "replicas") {
		r := shoal.ReplicaStatus{
			ID: shoal.ReplicaID{byte(rapid.IntRange(0, 9).Draw(t, "id"))}, Service: "web", Slot: i,
			Phase: shoal.Phase(rapid.IntRange(int(shoal.PhasePending), int(shoal.PhaseReady)).Draw(t, "phase")),
		}
		if rapid.Bool().Draw(t, "port") {
			r.Ports = []shoal.PortBinding{{Container: 80, Protocol: "tcp", HostIP: "127.0.0.11", HostPort: uint16(i)}}
		}
		s.Replicas = append(s.Replicas, r)
	}
	for range rapid.IntRange(0, 4).Draw(t, "images") {
		s.Images = append(s.Images, fmt.Sprintf("img:%d", rapid.IntRange(0, 9).Draw(t, "image")))
	}
	for range rapid.IntRange(0, 5).Draw(t, "blobs") {
		s.Blobs = append(s.Blobs, shoal.BlobKey(rapid.IntRange(0, 9).Draw(t, "blob")))
	}
	if rapid.Bool().Draw(t, "may ask") {
		s.Upstreams = []shoal.Upstream{{Registry: "docker.io", Waits: rapid.SampledFrom([]string{"", "429"}).Draw(t, "waits")}}
	}
	if rapid.Bool().Draw(t, "refuses") {
		s.Refusals = []shoal.Refusal{{Service: "web", Reason: "disk full"}}
	}
	for range rapid.IntRange(0, 3).Draw(t, "loads") {
		s.Loads = append(s.Loads, shoal.ReplicaLoad{Replica: shoal.ReplicaID{byte(rapid.IntRange(0, 9).Draw(t, "of"))}, CPUMilli: int64(rapid.IntRange(0, 2).Draw(t, "used"))})
	}
	if rapid.Bool().Draw(t, "carries") {
		s.Carried = []shoal.Carried{{Service: "web", Open: rapid.IntRange(0, 2).Draw(t, "open"), Rate: 1}}
	}
	s.Engine.Down = rapid.Bool().Draw(t, "down")
	s.Trouble = rapid.SampledFrom([]string{"", "3 services fail on it"}).Draw(t, "trouble")
	tidy(&s)
	return &s
}

func same(a, b *shoal.PeerState) string { return cmp.Diff(a, b, cmpopts.EquateEmpty()) }

func TestDiffApply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawState(t), drawState(t)
		keep := *a
		if d := same(b, diff(a, b).apply(a, false)); d != "" {
			t.Fatalf("a + (b - a) is not b: %s", d)
		}
		if d := same(b, whole(b).apply(a, true)); d != "" {
			t.Fatalf("a full beat is not b: %s", d)
		}
		if d := same(&keep, a); d != "" {
			t.Fatalf("apply wrote to its argument: %s", d)
		}
		if c := diff(a, a); c.sections != 0 {
			t.Fatalf("a differs from itself in sections %b", c.sections)
		}
	})
}

func TestTidyBounds(t *testing.T) {
	var s shoal.PeerState
	for i := range maxImages + 50 {
		s.Images = append(s.Images, fmt.Sprintf("img:%d", i%(maxImages+20)))
	}
	old := slices.Clone(s.Images)
	given := s.Images
	tidy(&s)
	if len(s.Images) != maxImages || !slices.IsSorted(s.Images) {
		t.Errorf("tidy left %d images, sorted %v", len(s.Images), slices.IsSorted(s.Images))
	}
	if !slices.Equal(given, old) {
		t.Error("tidy wrote to the slice it was given")
	}
}

// speaker makes the packets that one life of a peer would send.
type speaker struct {
	boot    shoal.Boot
	seq     uint64
	version uint64
	states  []*shoal.PeerState // by version
}

func (s *speaker) next(t *rapid.T) *beat {
	s.seq++
	b := &beat{sighting: sighting{boot: s.boot, seq: s.seq}, version: s.version}
	switch k := rapid.IntRange(0, 3).Draw(t, "kind"); {
	case k == 0 && s.version > 0: // a mere sign of life
		return b
	case k == 1 && s.version > 0: // everything, nothing new
		b.full, b.changes = true, whole(s.states[s.version])
		return b
	}
	state := drawState(t)
	s.version++
	b.version = s.version
	b.changes = whole(state)
	b.full = s.version == 1
	if !b.full {
		b.base, b.changes = s.version-1, diff(s.states[s.version-1], state)
	}
	s.states = append(s.states, state)
	return b
}

// TestLedgerNeverWrong loses, doubles and reorders packets: the state a ledger has is
// always the very one of its version, what it relays brings a newcomer to the same,
// and after all packets in any order nothing is missing.
func TestLedgerNeverWrong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := speaker{boot: shoal.Boot{Counter: 1}, states: []*shoal.PeerState{{}}}
		var sent []heardBeat
		for range rapid.IntRange(1, 30).Draw(t, "beats") {
			sent = append(sent, heardBeat{beat: s.next(t)})
		}
		var l ledger
		hear := func(b heardBeat) {
			if l.last.beat == nil || b.seq > l.last.seq {
				l.last = b
			}
			l, _ = l.add(b)
			if l.version == 0 {
				return
			}
			if d := same(s.states[l.version], l.state); d != "" {
				t.Fatalf("state of version %d is wrong: %s", l.version, d)
			}
			var other ledger
			for _, r := range l.since(0) {
				other, _ = other.add(r)
			}
			if other.version < l.version { // it may know the last one too, which came early here
				t.Fatalf("a newcomer gets to version %d, less than %d", other.version, l.version)
			}
		}
		order := rapid.Permutation(sent).Draw(t, "order")
		for _, b := range order[:rapid.IntRange(0, len(order)).Draw(t, "kept")] {
			hear(b)
		}
		from := l.version
		for _, b := range sent { // in order now: whatever was lost, this repairs
			hear(b)
		}
		if l.version != s.version || l.gap() || len(l.early) != 0 {
			t.Fatalf("from version %d to %d of %d, %d early", from, l.version, s.version, len(l.early))
		}
	})
}

// TestLedgerSince checks that one who has a version gets only what is missing.
func TestLedgerSince(t *testing.T) {
	state := func(n int64) *shoal.PeerState { return &shoal.PeerState{Free: shoal.Resources{CPUMilli: n}} }
	l := ledger{}
	for v := uint64(1); v <= 4; v++ {
		b := &beat{sighting: sighting{seq: v}, version: v, base: v - 1, full: v == 1, changes: diff(&shoal.PeerState{}, state(int64(v)))}
		l, _ = l.add(heardBeat{beat: b})
		l.last = heardBeat{beat: b}
	}
	l.last = heardBeat{beat: &beat{sighting: sighting{seq: 9}, version: 4}}
	for have, want := range map[uint64][]uint64{0: {1, 2, 3, 4, 9}, 2: {3, 4, 9}, 4: {9}, 7: {9}} {
		var got []uint64
		for _, b := range l.since(have) {
			got = append(got, b.seq)
		}
		if !slices.Equal(got, want) {
			t.Errorf("since(%d) = %v, want %v", have, got, want)
		}
	}
}

func TestRebornKeepsStateUntilTold(t *testing.T) {
	full := func(version uint64, cpu int64) heardBeat {
		return heardBeat{beat: &beat{version: version, full: true, changes: whole(&shoal.PeerState{Free: shoal.Resources{CPUMilli: cpu}})}}
	}
	l, _ := ledger{}.add(full(50, 1))
	l = l.reborn()
	if l.state.Free.CPUMilli != 1 || l.gap() || len(l.since(0)) != 0 {
		t.Fatalf("reborn: state %+v, gap %v, relays %d", l.state, l.gap(), len(l.since(0)))
	}
	l, changed := l.add(full(1, 2))
	if !changed || l.state.Free.CPUMilli != 2 || l.version != 1 {
		t.Fatalf("first word of the new life: changed %v, version %d, state %+v", changed, l.version, l.state)
	}
}
