// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/shoalnet/shoal"
)

func TestFiveHearEachOther(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		for i, m := range w.peers {
			if k, of := m.Heard(); k != 4 || of != 4 {
				t.Errorf("peer %d hears %d of %d, want 4 of 4", i, k, of)
			}
		}
		a, b := w.peers[0], w.peers[4]
		a.Publish(shoal.PeerState{Free: shoal.Resources{CPUMilli: 1500}, Images: []string{"hello:1"}})
		took := w.until(time.Second, "a state is seen", func() bool { return b.View().State(a.key.id) != nil })
		if took > 50*time.Millisecond {
			t.Errorf("a state was seen after %v, want at once", took)
		}
		time.Sleep(40 * time.Second) // RTT, exchange, full beats
		for _, s := range b.Sights(b.deps.Clock.Mono()) {
			if s.State != shoal.LifeAlive || s.Age > 1100*time.Millisecond || s.RTT < 4*time.Millisecond || s.RTT > 50*time.Millisecond || s.Lacks {
				t.Errorf("sight of %s: %+v", s.Peer.Short(), s)
			}
		}
		if a.log.has("peer is dead") || a.log.has("peer is suspect") {
			t.Error("somebody was suspected in peace")
		}
	})
}

// TestDeath measures what DESIGN.md section 14 needs: dead after 5 s of silence and a
// failed ping; after a refused one at once. The last beat is up to 1 s old then.
func TestDeath(t *testing.T) {
	refusing := func(host.Host) Pinger { return refusal{} }
	for name, c := range map[string]struct {
		pinger   func(host.Host) Pinger
		end      func(w *world, m *member)
		min, max time.Duration
	}{
		"power cut":   {nil, func(w *world, m *member) { w.isolate(m, true) }, 4900 * time.Millisecond, 6100 * time.Millisecond},
		"rude kill":   {nil, func(_ *world, m *member) { m.kill() }, 4900 * time.Millisecond, 6100 * time.Millisecond},
		"refused":     {refusing, func(w *world, m *member) { w.isolate(m, true) }, 3900 * time.Millisecond, 5100 * time.Millisecond},
		"frozen 5.0s": {nil, func(w *world, m *member) { w.isolate(m, true); time.Sleep(5 * time.Second); w.isolate(m, false) }, 0, 0},
	} {
		inWorldWith(t, 5, LAN(), c.pinger, func(w *world) {
			victim := w.peers[2]
			others := slices.Delete(slices.Clone(w.peers), 2, 3)
			start := time.Now()
			c.end(w, victim)
			if c.max == 0 { // short enough to be survived
				time.Sleep(20 * time.Second)
				for _, o := range others {
					if o.log.has("peer is dead") || o.life(victim) != shoal.LifeAlive {
						t.Errorf("%s: killed, now %s", name, o.life(victim))
					}
				}
				return
			}
			for _, o := range others {
				w.until(10*time.Second, "dead", func() bool { return o.life(victim) == shoal.LifeDead })
				if took := time.Since(start); took < c.min || took > c.max {
					t.Errorf("%s: seen dead after %v, want %v to %v", name, took, c.min, c.max)
				}
				for _, p := range others {
					if p != o && o.life(p) != shoal.LifeAlive {
						t.Errorf("%s: %s among the living", name, o.life(p))
					}
				}
			}
			t.Logf("%s: the last of 4 saw it %v after the fact", name, time.Since(start))
		})
	}
}

// TestReturn cuts a peer off for a minute and lets it back.
func TestReturn(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, c := w.peers[0], w.peers[2]
		w.isolate(c, true)
		time.Sleep(time.Minute)
		if a.life(c) != shoal.LifeDead || c.life(a) != shoal.LifeDead {
			t.Fatalf("after a minute: %s and %s, want dead", a.life(c), c.life(a))
		}
		if err := a.Confirm(context.Background(), ""); err != nil {
			t.Errorf("Confirm on a side of two = %v", err)
		}
		if err := c.Confirm(context.Background(), ""); err != nil {
			t.Errorf("Confirm of one that hears nobody = %v", err)
		}
		if err := c.Confirm(context.Background(), a.key.id); err != nil {
			t.Errorf("Confirm with a dead one of one that hears nobody = %v", err)
		}
		w.isolate(c, false)
		if err := errors.Join(w.connect(a, c), w.connect(w.peers[1], c)); err != nil { // links does this
			t.Fatal(err)
		}
		took := w.until(time.Second, "heard again", func() bool {
			return a.life(c) == shoal.LifeAlive && c.life(a) == shoal.LifeAlive
		})
		t.Logf("heard again %v after the link", took)
	})
}

// TestPartialPartitionKillsNobody cuts A from B while everybody else sees both.
func TestPartialPartitionKillsNobody(t *testing.T) {
	for _, n := range []int{3, 5} {
		inWorld(t, n, func(w *world) {
			a, b := w.peers[0], w.peers[1]
			w.cut(a, b, true)
			for range 30 {
				time.Sleep(2 * time.Second)
				if err := a.pull(context.Background(), b.key.id); err == nil {
					t.Fatal("the cut does not bite")
				}
				if a.life(b) == shoal.LifeDead || b.life(a) == shoal.LifeDead {
					t.Fatalf("of %d peers, one is dead for another though a third hears both", n)
				}
			}
			a.Publish(shoal.PeerState{Images: []string{"new:1"}})
			w.until(2*time.Second, "news around the cut", func() bool { return b.View().State(a.key.id) != nil })
		})
	}
}

// TestRelayAlone: around a cut the topic relays every beat; nobody even suspects.
func TestRelayAlone(t *testing.T) {
	inWorldWith(t, 3, quiet(), nil, func(w *world) {
		a, b := w.peers[0], w.peers[1]
		w.cut(a, b, true)
		time.Sleep(time.Minute)
		for _, m := range []*member{a, b} {
			if m.log.has("peer is suspect") || m.log.has("peer is dead") {
				t.Error("somebody was suspected though a third relays its beats")
			}
		}
	})
}

// TestWitnessesAlone: nothing comes by topic or exchange and the ping fails; only the
// others asked by the probe know better.
func TestWitnessesAlone(t *testing.T) {
	for _, isKnown := range []bool{true, false} {
		inWorldWith(t, 4, quiet(), nil, func(w *world) {
			a, b, c, d := w.peers[0], w.peers[1], w.peers[2], w.peers[3]
			w.mute()
			w.cut(a, b, true)
			if isKnown {
				for _, o := range []*member{c, d} {
					if err := o.pull(context.Background(), b.key.id); err != nil {
						t.Fatal(err)
					}
				}
			}
			a.mu.Lock() // as if it had been silent, and the probe had just begun
			v := &a.contacts[b.key.id].vital
			v.state, v.probing, v.heard = shoal.LifeSuspect, true, a.deps.Clock.Mono()-8*time.Second
			if !isKnown {
				for _, o := range []*member{c, d} { // they have nothing newer either
					o.mu.Lock()
					v.seq = max(v.seq, o.contacts[b.key.id].vital.seq)
					o.mu.Unlock()
				}
			}
			a.mu.Unlock()
			if err := a.probe(context.Background(), b.key.id); err != nil {
				t.Fatal(err)
			}
			if isDead := a.life(b) == shoal.LifeDead; isDead == isKnown {
				t.Errorf("witnesses know better: %v; judged %s", isKnown, a.life(b))
			}
		})
	}
}

// TestPullOnConnect: a link that comes up brings all news at once, without the topic.
func TestPullOnConnect(t *testing.T) {
	inWorldWith(t, 2, quiet(), nil, func(w *world) {
		a, b := w.peers[0], w.peers[1]
		w.mute()
		w.isolate(b, true)
		time.Sleep(time.Minute)
		w.isolate(b, false)
		if a.life(b) != shoal.LifeDead {
			t.Fatalf("before the link: %s, want dead", a.life(b))
		}
		if err := w.connect(a, b); err != nil {
			t.Fatal(err)
		}
		w.until(200*time.Millisecond, "heard over the new link", func() bool {
			return a.life(b) == shoal.LifeAlive && b.life(a) == shoal.LifeAlive
		})
	})
}

// TestLostChangesAreRepaired loses packets while states change all the time. Beats
// are lost with them; in the end everybody has the newest state of everybody.
func TestLostChangesAreRepaired(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		a := w.peers[0]
		drop := 0
		w.mu.Lock()
		w.filter = func(string, string) bool { drop++; return drop%4 == 0 }
		w.mu.Unlock()
		for i := range 100 {
			s := shoal.PeerState{Free: shoal.Resources{CPUMilli: int64(i)}}
			for j := range 5 {
				s.Replicas = append(s.Replicas, shoal.ReplicaStatus{ID: shoal.ReplicaID{byte(i + j)}, Service: "web", Slot: j, Phase: shoal.PhaseReady})
			}
			a.Publish(s)
			time.Sleep(30 * time.Millisecond)
		}
		w.mu.Lock()
		w.filter = nil
		w.mu.Unlock()
		for i, o := range w.peers[1:] {
			w.until(5*time.Second, "repaired", func() bool {
				s := o.View().State(a.key.id)
				return s != nil && same(s, a.View().State(a.key.id)) == ""
			})
			if o.log.has("peer is dead") {
				t.Errorf("peer %d called somebody dead over lost packets", i+1)
			}
		}
	})
}

// TestWithoutTopic mutes the topic for good: pulls alone carry news and lives.
func TestWithoutTopic(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.mute()
		a, b := w.peers[0], w.peers[1]
		a.Publish(shoal.PeerState{Images: []string{"new:1"}})
		time.Sleep(2 * time.Second)
		if err := b.Confirm(context.Background(), a.key.id); err != nil {
			t.Fatal(err)
		}
		if s := b.View().State(a.key.id); s == nil || len(s.Images) != 1 {
			t.Errorf("after Confirm: state %+v", s)
		}
		for range 60 {
			time.Sleep(time.Second)
			for _, o := range []*member{a, b} {
				if s := w.peers[2].life(o); s != shoal.LifeAlive && s != shoal.LifeSuspect {
					t.Fatalf("%s while it answers pulls", s)
				}
			}
		}
	})
}

func TestLargeStateIsPulled(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b := w.peers[0], w.peers[1]
		var s shoal.PeerState
		for i := range 1000 {
			s.Images = append(s.Images, fmt.Sprintf("registry.example/some/rather/long/path/of/an/image/number/%04d:tag%060d", i, i))
		}
		a.Publish(s)
		w.until(3*time.Second, "a state larger than a beat", func() bool {
			got := b.View().State(a.key.id)
			return got != nil && len(got.Images) == 1000
		})
		s.Images = s.Images[1:]
		a.Publish(s)
		took := w.until(3*time.Second, "a small change of it", func() bool { return len(b.View().State(a.key.id).Images) == 999 })
		if took > 50*time.Millisecond {
			t.Errorf("a small change of a large state took %v: it was pulled, not told", took)
		}
	})
}

func TestBackBy(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b, c := w.peers[0], w.peers[1], w.peers[2]
		c.SayBackBy(context.Background(), 20*time.Second)
		if a.life(c) != shoal.LifeReturning || b.life(c) != shoal.LifeReturning {
			t.Fatalf("right after it said so: %s, %s, want returning", a.life(c), b.life(c))
		}
		c.kill()
		time.Sleep(15 * time.Second)
		if a.life(c) != shoal.LifeReturning {
			t.Errorf("15 s later: %s, want returning", a.life(c))
		}
		time.Sleep(8 * time.Second)
		if a.life(c) != shoal.LifeDead {
			t.Errorf("3 s after it should be back: %s, want dead", a.life(c))
		}
		back := w.start(c.key, 7, shoal.Boot{Counter: 2, Nonce: 99}, w.records)
		if err := errors.Join(w.connect(back, a), w.connect(back, b)); err != nil {
			t.Fatal(err)
		}
		w.until(2*time.Second, "back", func() bool { return a.life(back) == shoal.LifeAlive })
		if uptime := a.View().Life(back.key.id).Uptime; uptime > 5*time.Second {
			t.Errorf("uptime of a new life: %v", uptime)
		}
	})
}

// TestCopiedIdentity starts a second daemon with the key of the first, as a copied
// data directory would: same boot counter, another nonce. They do not see each other.
func TestCopiedIdentity(t *testing.T) {
	for name, counter := range map[string]uint64{"the same boot": 1, "a newer boot": 2} {
		inWorld(t, 4, func(w *world) {
			victim := w.peers[0]
			twin := w.start(victim.key, 9, shoal.Boot{Counter: counter, Nonce: 4711}, w.records)
			w.cut(twin, victim, true)
			w.isolate(w.peers[3], true) // its next links will be the twin's
			for _, m := range w.peers[1:3] {
				w.cut(twin, m, true)
			}
			w.cut(twin, w.peers[3], false)
			time.Sleep(40 * time.Second)
			if err := w.connect(twin, w.peers[3]); err != nil {
				t.Fatal(err)
			}
			w.cut(w.peers[3], w.peers[1], false)
			w.cut(w.peers[3], w.peers[2], false)
			_ = errors.Join(w.connect(w.peers[3], w.peers[1]), w.connect(w.peers[3], w.peers[2]))
			took := w.until(20*time.Second, "the first one finds out", func() bool { return victim.Trouble() != "" })
			t.Logf("%s: found out after %v", name, took)
			if w.peers[1].Trouble() != "" {
				t.Error("trouble at a peer that was not copied")
			}
			if counter == 1 {
				w.until(20*time.Second, "the copy finds out", func() bool { return twin.Trouble() != "" })
				w.until(time.Second, "others say so", func() bool { return w.peers[1].log.has("one identity") || w.peers[2].log.has("one identity") })
			} else if twin.Trouble() != "" {
				t.Error("the newer life stops too")
			}
		})
	}
}

// TestExchangeFindsACopy: in peace, with nothing on the topic to show it, a peer learns
// that its identity is copied from whoever it exchanges with.
func TestExchangeFindsACopy(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want bool
	}{{LAN(), true}, {quiet(), false}} {
		inWorldWith(t, 3, c.cfg, nil, func(w *world) {
			a := w.peers[0]
			rival := beat{peer: a.key.id, sighting: sighting{boot: shoal.Boot{Counter: 1, Nonce: 4711}, seq: 9, interval: time.Second}}
			heard, err := encode(rival, testCluster, a.key)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range w.peers[1:] {
				if v := o.take(heard, 0); v != duplicate {
					t.Fatalf("verdict %d, want duplicate", v)
				}
			}
			time.Sleep(30 * time.Second)
			if found := a.Trouble() != ""; found != c.want {
				t.Errorf("exchange every %v: found the copy %v, want %v", c.cfg.ExchangeEvery, found, c.want)
			}
		})
	}
}

// TestFrozenProcessKillsNobody lets a minute pass at once on one peer's clock, as when
// the process was stopped. Every ping is refused at first, as after a long stop.
func TestFrozenProcessKillsNobody(t *testing.T) {
	inWorldWith(t, 3, LAN(), func(host.Host) Pinger { return refusal{} }, func(w *world) {
		a := w.peers[0]
		a.leap.Store(int64(time.Minute))
		time.Sleep(10 * time.Second)
		if !a.log.has("stood still") {
			t.Error("it did not notice that it stood still")
		}
		if a.log.has("peer is dead") {
			t.Error("it called somebody dead for its own sleep")
		}
		for _, o := range w.peers[1:] {
			if a.life(o) != shoal.LifeAlive {
				t.Errorf("afterwards: %s, want alive", a.life(o))
			}
		}
	})
}

func TestMemberIsForgotten(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b, c := w.peers[0], w.peers[1], w.peers[2]
		c.Publish(shoal.PeerState{Images: []string{"x:1"}})
		w.until(time.Second, "told", func() bool { return a.View().State(c.key.id) != nil })
		w.records.set(1, a.key.id, b.key.id)
		time.Sleep(5 * time.Second)
		if a.View().State(c.key.id) != nil || a.life(c) != shoal.LifeUnknown {
			t.Errorf("a removed member is still there: %s", a.life(c))
		}
		if k, of := a.Heard(); k != 1 || of != 1 {
			t.Errorf("hears %d of %d, want 1 of 1", k, of)
		}
		if err := c.pull(context.Background(), a.key.id); err == nil {
			t.Error("a removed member may still pull")
		}
	})
}

func TestTwenty(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		victim := w.peers[7]
		w.isolate(victim, true)
		start := time.Now()
		var worst time.Duration
		for _, o := range w.peers {
			if o != victim {
				w.until(7*time.Second, "dead", func() bool { return o.life(victim) == shoal.LifeDead })
				worst = time.Since(start)
			}
		}
		t.Logf("20 peers: all saw the death within %v", worst)
	})
}
