// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// deal proposes slots to peers in turn.
func (s *sea) deal(n int) []shoal.PeerID {
	out := make([]shoal.PeerID, n)
	for i := range out {
		out[i] = s.ids[i%len(s.ids)]
	}
	return out
}

// exact reports whether exactly n replicas of a service run, all ready, in the
// slots 0..n-1, and the claims of all living peers say the same.
func (s *sea) exact(service string, n int) bool {
	slots, ready := map[int]int{}, 0
	running := 0
	for _, id := range s.ids {
		p := s.peers[id]
		if p.cancel == nil {
			continue
		}
		r, _ := p.engine.Running(service)
		running += r
		ready += p.ready(service)
		for _, c := range p.Desired().Claims {
			if c.Service == service && c.Holder == id {
				slots[c.Slot]++
			}
		}
	}
	if running != n || ready != n || len(slots) != n {
		return false
	}
	for slot, holders := range slots {
		if slot >= n || holders != 1 {
			return false
		}
	}
	return true
}

// starts returns how many containers were started, over all peers.
func (s *sea) starts() int {
	n := 0
	for _, id := range s.ids {
		n += s.peers[id].engine.Counts(shoal.ReplicaID{}).Starts
	}
	return n
}

// F2, F23: several peers with the real placement. A deploy starts exactly what it
// needs; a peer that dies with its containers is refilled; when it is back,
// everything is exact again and no survivor was restarted; then nothing happens.
func TestKilledPeerIsRefilled(t *testing.T) {
	for _, n := range []int{3, 5} {
		inSea(t, n, func(s *sea) {
			s.startAll()
			s.wait(3 * time.Minute) // longer than placement's cold rule
			s.wish(shoal.Spec{Name: "web"}, 1, 2*n, s.deal(2*n)...)
			s.wish(shoal.Spec{Name: "api"}, 1, n, s.deal(n)...)
			s.until(3*time.Second, "deployed", func() bool { return s.exact("web", 2*n) && s.exact("api", n) })
			if got := s.starts(); got != 3*n {
				t.Errorf("%d peers: %d starts for %d replicas", n, got, 3*n)
			}
			s.wait(time.Minute)

			victim := s.peers[s.ids[1]]
			victim.stop()
			victim.engine.KillAll()
			took := s.until(30*time.Second, "refilled", func() bool { return s.exact("web", 2*n) && s.exact("api", n) })
			t.Logf("%d peers: refilled %s after the kill", n, took)
			if got := s.starts(); got != 3*n+3 {
				t.Errorf("%d peers: %d starts after 3 replicas were lost, want %d", n, got, 3*n+3)
			}
			s.wait(time.Minute)

			victim.start()
			took = s.until(60*time.Second, "exact again", func() bool { return victim.told() && s.exact("web", 2*n) && s.exact("api", n) })
			t.Logf("%d peers: exact %s after the return", n, took)
			s.wait(2 * time.Minute)
			for _, id := range s.ids {
				p := s.peers[id]
				if p == victim {
					continue
				}
				for _, r := range p.state().Replicas {
					if r.Restarts != 0 || p.engine.Counts(r.ID).Starts != 1 {
						t.Errorf("survivor %s %s/%d was restarted: %+v", id, r.Service, r.Slot, r)
					}
				}
			}
			starts, updates := s.starts(), s.updates()
			s.wait(time.Hour)
			if s.starts() != starts || s.updates() != updates || !s.exact("web", 2*n) || !s.exact("api", n) {
				t.Errorf("%d peers: %d starts and %d updates in an hour without a wish", n, s.starts()-starts, s.updates()-updates)
			}
		})
	}
}

func (s *sea) updates() int {
	n := 0
	for _, id := range s.ids {
		u, _ := s.peers[id].counts()
		n += u
	}
	return n
}

// TestScaleAcrossPeers: up and down on three peers, touching only what it must.
func TestScaleAcrossPeers(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		s.startAll()
		s.wait(3 * time.Minute)
		for i, n := range []int{3, 10, 5, 12, 0, 4} {
			before := s.starts()
			prev := []int{0, 3, 10, 5, 12, 0}[i]
			s.wish(shoal.Spec{Name: "web"}, 1, n, s.deal(n)...)
			took := s.until(5*time.Second, fmt.Sprintf("%d running", n), func() bool { return s.exact("web", n) })
			if got := s.starts() - before; got != max(0, n-prev) {
				t.Errorf("%d to %d: %d starts, want %d", prev, n, got, max(0, n-prev))
			}
			t.Logf("%d to %d in %s", prev, n, took)
			s.wait(10 * time.Second)
		}
	})
}

// F4: the slots of a peer whose engine is gone move after the grace; when it is
// back its surplus goes.
func TestEngineDownMovesSlots(t *testing.T) {
	for _, hang := range []bool{false, true} {
		inSea(t, 3, func(s *sea) {
			s.startAll()
			s.wait(3 * time.Minute)
			s.wish(shoal.Spec{Name: "web"}, 1, 6, s.deal(6)...)
			s.until(3*time.Second, "deployed", func() bool { return s.exact("web", 6) })
			s.wait(time.Minute)
			sick := s.peers[s.ids[2]]
			set := func(gone bool) {
				if hang {
					sick.engine.SetHang(gone)
				} else {
					sick.engine.SetDown(gone)
				}
			}
			set(true)
			elsewhere := func() bool { return s.peers[s.ids[0]].ready("web")+s.peers[s.ids[1]].ready("web") == 6 }
			took := s.until(60*time.Second, "taken over", elsewhere)
			t.Logf("hang %v: taken over after %s", hang, took)
			if took < 10*time.Second {
				t.Errorf("taken over after %s, want a grace", took)
			}
			s.wait(time.Minute)
			set(false)
			took = s.until(60*time.Second, "exact again", func() bool { return s.exact("web", 6) })
			t.Logf("hang %v: exact %s after the recovery", hang, took)
			starts := s.starts()
			s.wait(10 * time.Minute)
			if !s.exact("web", 6) || s.starts() != starts {
				t.Errorf("hang %v: not exact, or %d more starts", hang, s.starts()-starts)
			}
		})
	}
}

// TestMissingImageMovesTheSlot to a peer that has it.
func TestMissingImageMovesTheSlot(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		for _, id := range s.ids[1:] {
			s.peers[id].engine.SetImages("hello:1", "rare:1")
		}
		s.startAll()
		s.wait(3 * time.Minute)
		s.wish(shoal.Spec{Name: "web", Image: "rare:1"}, 1, 3, s.deal(3)...)
		s.until(10*time.Second, "running elsewhere", func() bool { return s.exact("web", 3) })
		if n := s.peers[s.ids[0]].containers(); n != 0 {
			t.Errorf("%d containers where the image is not", n)
		}
	})
}

// TestPolicyMovesTheSlot: what a peer's own gate refuses, although its published rules
// seemed to allow it, runs where it is allowed, and the reason names the rule.
func TestPolicyMovesTheSlot(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		for _, id := range s.ids[1:] {
			s.peers[id].engine.SetRules("mount:/srv")
		}
		s.startAll()
		s.wait(3 * time.Minute)
		bind := shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountBind, Source: "/srv/media", Target: "/media"}}}
		s.wish(shoal.Spec{Name: "web", Setup: bind, VolumesAnywhere: true}, 1, 3, s.deal(3)...)
		strict := s.peers[s.ids[0]]
		s.until(10*time.Second, "refused", func() bool { return len(strict.state().Refusals) == 1 })
		if got, want := strict.state().Refusals[0].Reason, (&shoal.PolicyError{Demand: "mount:/srv/media"}).Error(); got != want {
			t.Errorf("refusal = %q, want %q", got, want)
		}
		s.until(10*time.Second, "running elsewhere", func() bool { return s.exact("web", 3) })
		if n := strict.containers(); n != 0 {
			t.Errorf("%d containers where the owner forbids them", n)
		}
	})
}

// TestRollout: every slot changes, one wave at a time, never fewer than n-1 ready
// for 4 replicas (a quarter at once).
func TestRollout(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		s.startAll()
		s.wait(3 * time.Minute)
		s.wish(shoal.Spec{Name: "web"}, 1, 4, s.deal(4)...)
		s.until(3*time.Second, "deployed", func() bool { return s.exact("web", 4) })
		s.wait(10 * time.Second)
		s.wish(shoal.Spec{Name: "web", Image: "hello:2"}, 2, 4)
		least := 4
		took := s.until(60*time.Second, "rolled out", func() bool {
			ready, current := 0, 0
			for _, id := range s.ids {
				for _, r := range s.peers[id].state().Replicas {
					if r.Phase == shoal.PhaseReady {
						ready++
						if r.Revision.Seq == 2 {
							current++
						}
					}
				}
			}
			least = min(least, ready)
			return current == 4 && s.exact("web", 4)
		})
		t.Logf("rolled out in %s, at least %d ready", took, least)
		if least < 3 {
			t.Errorf("only %d ready at some time, want 3", least)
		}
		if got := s.starts(); got != 8 {
			t.Errorf("%d starts, want 8", got)
		}
	})
}

// F37: a drained peer stops a replica only when another is ready in its place, also
// while a second peer dies under the drain; undrained it takes nothing back by itself.
func TestDrain(t *testing.T) {
	inSea(t, 4, func(s *sea) {
		s.startAll()
		s.wait(3 * time.Minute)
		s.wish(shoal.Spec{Name: "web"}, 1, 8, s.deal(8)...)
		s.until(3*time.Second, "deployed", func() bool { return s.exact("web", 8) })
		s.wait(10 * time.Second)
		drained, victim := s.peers[s.ids[1]], s.peers[s.ids[2]]
		least, lost := 8, 0
		handedOver := func() bool {
			ready := 0
			for _, id := range s.ids {
				if p := s.peers[id]; p.cancel != nil {
					ready += p.ready("web")
				}
			}
			least = min(least, ready+lost)
			return drained.containers() == 0 && s.exact("web", 8)
		}
		s.drain(drained.id)
		took := s.until(20*time.Second, "drained", handedOver)
		t.Logf("drained in %s, at least %d ready", took, least)
		if least < 8 || s.starts() != 10 {
			t.Errorf("at least %d of 8 ready with %d starts, want 8 and 10", least, s.starts())
		}
		s.drain()
		s.wait(time.Minute)
		if n := drained.containers(); n != 0 || !s.exact("web", 8) {
			t.Errorf("%d replicas moved back by themselves", n)
		}

		full := s.peers[s.ids[3]]
		s.drain(full.id)
		s.wait(5 * time.Millisecond) // under way
		lost = victim.ready("web")
		victim.stop()
		victim.engine.KillAll()
		drained = full
		took = s.until(60*time.Second, "drained beside a death", handedOver)
		t.Logf("drained beside a death in %s, at least %d ready but for the lost", took, least)
		if least < 8 {
			t.Errorf("at least %d of 8 ready but for %d that died, want 8", least, lost)
		}
	})
}

// TestManyActors: FACTS section 4 wants hundreds of actors in virtual time to be
// cheap.
func TestManyActors(t *testing.T) {
	begin := time.Now()
	inSea(t, 5, func(s *sea) {
		s.startAll()
		s.wait(3 * time.Minute)
		s.wish(shoal.Spec{Name: "web"}, 1, 100, s.deal(100)...)
		s.until(10*time.Second, "100 running", func() bool { return s.exact("web", 100) })
		s.wait(10 * time.Minute)
		if !s.exact("web", 100) || s.starts() != 100 {
			t.Errorf("%d starts for 100 replicas", s.starts())
		}
	})
	t.Logf("100 replicas on 5 peers, 13 simulated minutes: %s", time.Since(begin).Round(time.Millisecond))
}

// TestDataStays: the slots of a service with a volume return to the peers that ran
// them: after they were stopped and started, after the service was removed and
// deployed again, and after a rollout; and while their peer is away nobody has them.
func TestDataStays(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		s.startAll()
		s.wait(3 * time.Minute)
		spec := shoal.Spec{Name: "db", Setup: shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}}}
		s.wish(spec, 1, 3, s.deal(3)...)
		s.until(3*time.Second, "deployed", func() bool { return s.exact("db", 3) })
		s.wait(10 * time.Second)
		home := s.holders("db")
		back := func(what string) {
			t.Helper()
			s.until(10*time.Second, what, func() bool { return s.exact("db", 3) })
			if now := s.holders("db"); !maps.Equal(now, home) {
				t.Errorf("%s: held by %v, the data is on %v", what, now, home)
			}
			s.wait(10 * time.Second)
		}
		others := []shoal.PeerID{s.ids[2], s.ids[0], s.ids[1]} // proposed against the data
		s.wish(spec, 1, 0)
		s.until(5*time.Second, "stopped", func() bool { return s.exact("db", 0) })
		s.wish(spec, 1, 3, others...)
		back("started again")

		s.remove("db")
		s.until(5*time.Second, "removed", func() bool { return s.exact("db", 0) })
		s.wish(spec, 2, 3, others...)
		back("deployed again")

		victim := s.peers[s.ids[1]]
		victim.stop()
		victim.engine.KillAll()
		s.wait(2 * time.Minute)
		for _, id := range s.ids {
			if n, _ := s.peers[id].engine.Running("db"); id != victim.id && n != 1 {
				t.Errorf("%s runs %d while the third peer is away, want its own", id, n)
			}
		}
		said, decides := s.first().system.Reasons("db")
		want := "waits for its data on " + string(victim.id) + ", which is not heard"
		if !decides || !slices.ContainsFunc(said, func(r placement.Reason) bool { return r.Text == want }) {
			t.Errorf("Reasons = %+v, %v, want %q", said, decides, want)
		}
		if _, decides := victim.system.Reasons("db"); decides {
			t.Error("a stopped system still says what it decides")
		}
		victim.start()
		back("back")
	})
}

// holders returns who claims each slot of a service, as the first peer knows.
func (s *sea) holders(service string) map[int]shoal.PeerID {
	out := map[int]shoal.PeerID{}
	for _, c := range s.first().Desired().Claims {
		if c.Service == service {
			out[c.Slot] = c.Holder
		}
	}
	return out
}
