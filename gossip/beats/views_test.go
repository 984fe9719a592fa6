// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// changes counts how often views change in d.
func (m *member) viewChanges(d time.Duration) int {
	n := 0
	end := time.After(d)
	for {
		changed := m.Changed()
		select {
		case <-changed:
			n++
		case <-end:
			return n
		}
	}
}

func TestViewsChangeOnlyForAReason(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b, c := w.peers[0], w.peers[1], w.peers[2]
		for _, m := range w.peers {
			m.Publish(shoal.PeerState{Free: shoal.Resources{CPUMilli: 1}})
		}
		time.Sleep(5 * time.Second)
		if n := a.viewChanges(45 * time.Second); n != 0 {
			t.Errorf("%d new views in peace", n)
		}
		if age := a.deps.Clock.Mono() - a.View().Life(b.key.id).Heard; age > 1100*time.Millisecond {
			t.Errorf("in peace the view says that b was heard %v ago, it beats every second", age)
		}
		for _, s := range []struct {
			what string
			do   func()
			is   func(v *shoal.View) bool
		}{
			{
				"another's state", func() { b.Publish(shoal.PeerState{Images: []string{"x:1"}}) },
				func(v *shoal.View) bool { return len(v.State(b.key.id).Images) == 1 },
			},
			{
				"our own state", func() { a.Publish(shoal.PeerState{Images: []string{"y:1"}}) },
				func(v *shoal.View) bool { return len(v.State(a.key.id).Images) == 1 },
			},
			{
				"the records", func() { w.records.set(2, a.key.id, b.key.id, c.key.id) },
				func(v *shoal.View) bool { return v.Desired().Digest[0] == 2 },
			},
			{
				"a life", func() { w.isolate(c, true) },
				func(v *shoal.View) bool { return v.Life(c.key.id).State == shoal.LifeDead },
			},
		} {
			changed := a.Changed()
			s.do()
			select {
			case <-changed:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s changed and no view did", s.what)
			}
			w.until(20*time.Second, s.what+" in the view", func() bool { return s.is(a.View()) })
		}
		time.Sleep(time.Second)
		if n := a.viewChanges(30 * time.Second); n != 0 {
			t.Errorf("%d new views while one is dead", n)
		}
	})
}

// TestReadYourWrites: a view is never older than the records when it is asked for.
func TestReadYourWrites(t *testing.T) {
	tr := alone(t, 2)
	r := tr.deps.Records.(*records)
	for i := range byte(50) {
		r.set(i, newKey(t, 0).id)
		if got := tr.View().Desired().Digest[0]; got != i {
			t.Fatalf("view of records %d after %d were written", got, i)
		}
	}
	tr.Publish(shoal.PeerState{Images: []string{"x:1"}})
	if s := tr.View().State(tr.self); s == nil || len(s.Images) != 1 {
		t.Errorf("own state in the view: %+v", s)
	}
	if v := tr.View(); v != tr.View() {
		t.Error("two views of the same")
	}
}

func TestUsageAloneWaitsForTheNextBeat(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		a, b := w.peers[0], w.peers[1]
		a.Publish(shoal.PeerState{})
		time.Sleep(5 * time.Second)
		seq := func() uint64 { a.mu.Lock(); defer a.mu.Unlock(); return a.speech.seq }
		was := seq()
		for i := range 50 {
			a.Publish(shoal.PeerState{Used: shoal.Resources{CPUMilli: int64(i)}})
			time.Sleep(20 * time.Millisecond)
		}
		if n := seq() - was; n > 4 {
			t.Errorf("%d beats in a second for usage alone", n)
		}
		w.until(2*time.Second, "usage told", func() bool { return b.View().State(a.key.id).Used.CPUMilli == 49 })
		was = seq()
		for i := range 100 {
			a.Publish(shoal.PeerState{Free: shoal.Resources{CPUMilli: int64(i)}})
			time.Sleep(5 * time.Millisecond)
		}
		if n := seq() - was; n < 10 || n > 30 {
			t.Errorf("%d beats in half a second of changes, want one per 20 ms", n)
		}
	})
}

// TestLoadsWaitForTheNextBeat, but a service to which nothing was carried before does not:
// its client may wait for a replica.
func TestLoadsWaitForTheNextBeat(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		a, b := w.peers[0], w.peers[1]
		a.Publish(shoal.PeerState{})
		time.Sleep(5 * time.Second)
		seq := func() uint64 { a.mu.Lock(); defer a.mu.Unlock(); return a.speech.seq }
		was := seq()
		for i := range 50 {
			a.Publish(shoal.PeerState{Loads: []shoal.ReplicaLoad{{Replica: shoal.ReplicaID{1}, CPUMilli: int64(i)}}})
			time.Sleep(20 * time.Millisecond)
		}
		if n := seq() - was; n > 4 {
			t.Errorf("%d beats in a second for loads alone", n)
		}
		w.until(2*time.Second, "loads told", func() bool {
			l := b.View().State(a.key.id).Loads
			return len(l) == 1 && l[0].CPUMilli == 49
		})
		a.Publish(shoal.PeerState{Carried: []shoal.Carried{{Service: "web", Open: 1}}})
		w.until(100*time.Millisecond, "somebody came", func() bool { return len(b.View().State(a.key.id).Carried) == 1 })
	})
}

// TestSizeOfLoads says what the loads of a hundred replicas add to a full beat, and what a
// change of all of them costs.
func TestSizeOfLoads(t *testing.T) {
	k := newKey(t, 0)
	s := shoal.PeerState{}
	for i := range 100 {
		id := shoal.ReplicaID{byte(i), 0x5a, 0x17, 0xc3}
		s.Replicas = append(s.Replicas, shoal.ReplicaStatus{
			ID: id, Service: "web", Slot: i, Revision: shoal.RevisionID{Seq: 3, Author: k.id}, Phase: shoal.PhaseReady, Health: shoal.HealthHealthy,
			Addr: "172.18.0.5", Container: strings.Repeat("c", 64), Image: "sha256:" + strings.Repeat("d", 64), StartedAt: 1_700_000_000,
		})
		s.Loads = append(s.Loads, shoal.ReplicaLoad{Replica: id, CPUMilli: 350, MemBytes: 120 << 20})
	}
	s.Carried = []shoal.Carried{{Service: "web", Open: 400, Rate: 90_000}}
	size := func(c changes) int {
		b, err := encode(beat{peer: k.id, sighting: sighting{boot: shoal.Boot{Counter: 1}, seq: 1}, version: 2, base: 1, changes: c}, testCluster, k)
		if err != nil {
			t.Fatal(err)
		}
		return len(b.raw)
	}
	without := s
	without.Loads, without.Carried = nil, nil
	full, before, change, header := size(whole(&s)), size(whole(&without)), size(diff(&without, &s)), size(changes{})
	t.Logf("100 replicas: a full beat has %d bytes, %d without loads; a change of all loads takes %d, of which %d are the header", full, before, change, header)
	if more := full - before; more > 100*32+32 || change-header > more+32 {
		t.Errorf("loads take %d bytes of a full beat and %d of a change, want at most 32 a replica", more, change-header)
	}
}

// TestDifferingRecordsAreSynced gives one peer other records than the others.
func TestDifferingRecordsAreSynced(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		k, odd := newKey(t, 3), &records{}
		ids := []shoal.PeerID{w.peers[0].key.id, w.peers[1].key.id, w.peers[2].key.id, k.id}
		odd.set(9, ids...)
		w.records.set(2, ids...)
		start := time.Now()
		m := w.start(k, 3, shoal.Boot{Counter: 1, Nonce: 1}, odd)
		w.connectAll()
		time.Sleep(29 * time.Second)
		if m.log.has("records differ") {
			t.Error("alarm before 30 s")
		}
		time.Sleep(15 * time.Second)
		done := w.syncs.of(k.id, start)
		if n := len(done); n < 5 || n > 20 {
			t.Fatalf("%d syncs in 44 s with three peers, want about 12", n)
		}
		if first := done[0].at.Sub(start); first < 3*time.Second || first > 6*time.Second {
			t.Errorf("the first sync came after %v, want 3 s to 6 s", first)
		}
		if !m.log.has("records differ") {
			t.Error("no alarm after 30 s")
		}
		odd.set(2, ids...)
		time.Sleep(3 * time.Second)
		equal := time.Now()
		time.Sleep(30 * time.Second)
		if n := len(w.syncs.of(k.id, equal)); n != 0 {
			t.Errorf("%d more syncs though the records are equal", n)
		}
		for _, s := range m.Sights(m.deps.Clock.Mono()) {
			if s.Differs != 0 {
				t.Errorf("records of %s differ for %v", s.Peer.Short(), s.Differs)
			}
		}
	})
}

func TestConfirmSyncsRecords(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		a, b := w.peers[0], w.peers[1]
		start := time.Now()
		if err := a.Confirm(context.Background(), b.key.id); err != nil {
			t.Fatal(err)
		}
		if done := w.syncs.of(a.key.id, start); len(done) != 1 || done[0].with != b.key.id {
			t.Errorf("Confirm of one synced %v", done)
		}
		start = time.Now()
		if err := a.Confirm(context.Background(), ""); err != nil {
			t.Fatal(err)
		}
		if done := w.syncs.of(a.key.id, start); len(done) < 2 || done[len(done)-1].with == done[len(done)-2].with {
			t.Errorf("Confirm of two synced %v", done)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := a.Confirm(ctx, ""); err == nil {
			t.Error("Confirm with an ended context = nil")
		}
	})
}
