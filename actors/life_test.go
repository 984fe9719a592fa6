// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/runtime"
)

// F1: containers survive the daemon, and are adopted with zero restarts within 3 s.
func TestRestartAdopts(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 5)
		s.wait(time.Minute)
		before := p.engine.Counts(shoal.ReplicaID{})
		updates, _ := p.counts()
		containers := map[shoal.ReplicaID]string{}
		for _, r := range p.state().Replicas {
			containers[r.ID] = r.Container
		}
		p.stop()
		if p.engineRunning() != 5 {
			t.Fatalf("%d containers run after the daemon stopped, want 5", p.engineRunning())
		}
		s.wait(20 * time.Second)
		p.start()
		took := s.until(3*time.Second, "adopted", func() bool { return p.told() && p.ready("web") == 5 })
		t.Logf("adopted after %s", took)
		s.wait(5 * time.Minute)
		if after, u := p.engine.Counts(shoal.ReplicaID{}), s.updates(); after != before || u != updates {
			t.Errorf("counts = %+v after %+v, %d updates; want nothing touched, nothing written", after, before, u-updates)
		}
		for _, r := range p.state().Replicas {
			if r.Restarts != 0 || containers[r.ID] != r.Container {
				t.Errorf("replica %+v, want container %s with zero restarts", r, containers[r.ID])
			}
		}
	})
}

func (p *tank) engineRunning() int {
	n, _ := p.engine.Running("")
	return n
}

// TestFirstStateTellsOfAdopted: the first state a restarted daemon tells already
// holds what it adopted: others never see its replicas missing.
func TestFirstStateTellsOfAdopted(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 3)
		p.stop()
		p.deps.Decide = func(v *shoal.View, m placement.Memory, self shoal.PeerID, now time.Duration, c placement.Config) (placement.Plan, placement.Memory) {
			time.Sleep(100 * time.Millisecond) // a large cluster
			return placement.Decide(v, m, self, now, c)
		}
		beacon := &firstBeacon{tank: p}
		p.deps.Beacon = beacon
		p.start()
		s.wait(10 * time.Second)
		if beacon.first == nil || len(beacon.first.Replicas) != 3 || len(beacon.first.Images) == 0 {
			t.Errorf("first state = %+v, want 3 replicas and the images", beacon.first)
		}
	})
}

type firstBeacon struct {
	*tank
	first *shoal.PeerState
}

func (b *firstBeacon) Publish(st shoal.PeerState) {
	if b.first == nil {
		b.first = &st
	}
	b.tank.Publish(st)
}

// TestDiedWhileAway: power loss. What was claimed is started again, where it was.
func TestDiedWhileAway(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 3)
		p.stop()
		p.engine.KillAll()
		s.wait(time.Minute)
		p.start()
		s.until(5*time.Second, "started again", func() bool { return p.told() && p.ready("web") == 3 })
		if c := p.engine.Counts(shoal.ReplicaID{}); c.Creates != 3 || c.Starts != 6 {
			t.Errorf("counts = %+v, want the same containers started once more", c)
		}
	})
}

// TestOrphans: containers without a claim go once the state is known and the grace
// is over; containers of a service nobody has a word about are left alone (F24),
// and so are those that are not ours.
func TestOrphans(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		s.wish(shoal.Spec{Name: "web"}, 1, 1, p.id)
		s.wish(shoal.Spec{Name: "gone"}, 1, 0)
		s.remove("gone")
		foreign := p.engine.AddForeign("postgres")
		for i, name := range []string{"web", "gone", "unknown"} {
			id, err := p.engine.Create(s.t.Context(), shoal.ContainerSpec{
				Cluster: clusterID, Peer: p.id, Replica: shoal.ReplicaID{byte(i + 1)},
				Revision: shoal.RevisionID{Seq: 1, Author: "operator"}, Spec: &shoal.Spec{Name: name, Image: "hello:1"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.engine.Start(s.t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		ready := make(chan struct{})
		p.deps.Ready = ready
		p.start()
		s.wait(time.Minute)
		if p.engineRunning() != 3 || p.told() {
			t.Fatalf("%d containers, told %v before the store is ready; want 3, false", p.engineRunning(), p.told())
		}
		close(ready)
		s.wait(8 * time.Second)
		if p.engineRunning() != 4 {
			t.Fatalf("%d containers within the grace, want the 3 and web/0", p.engineRunning())
		}
		s.until(20*time.Second, "taken down", func() bool { return p.containers() == 2 })
		s.wait(time.Hour)
		for _, id := range []byte{1, 2} {
			if c := p.engine.Counts(shoal.ReplicaID{id}); c.Stops != 1 || c.Removes != 1 {
				t.Errorf("orphan %d: %+v, want it stopped, then removed", id, c)
			}
		}
		if c := p.engine.Counts(shoal.ReplicaID{3}); c.Stops != 0 || p.ready("web") != 1 || !p.engine.ForeignRuns(foreign) {
			t.Errorf("unknown: %+v, web %d ready", c, p.ready("web"))
		}
		if !strings.Contains(p.logs.String(), "nobody has a word about") {
			t.Error("the log does not tell of the container that was left alone")
		}
	})
}

// TestOrphanOfServiceThatComesBack: records that come in pieces after a lost store
// may name a service before this peer's claims on it; the grace of its containers
// runs from the word about the service, not from the start of the daemon.
func TestOrphanOfServiceThatComesBack(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		id, err := p.engine.Create(s.t.Context(), shoal.ContainerSpec{
			Cluster: clusterID, Peer: p.id, Replica: shoal.ReplicaID{1},
			Revision: shoal.RevisionID{Seq: 1, Author: "operator"}, Spec: &shoal.Spec{Name: "web", Image: "hello:1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.engine.Start(s.t.Context(), id); err != nil {
			t.Fatal(err)
		}
		p.start()
		s.wait(time.Minute)
		s.wish(shoal.Spec{Name: "web"}, 1, 0)
		s.wait(8 * time.Second)
		if c := p.engine.Counts(shoal.ReplicaID{1}); c.Stops != 0 {
			t.Errorf("%+v within the grace, want it left alone", c)
		}
		s.until(20*time.Second, "taken down", func() bool { return p.containers() == 0 })
	})
}

// kinds returns what happened to the containers of a service since a time.
func kinds(p *tank, since time.Duration) []string {
	var out []string
	for _, e := range p.engine.History() {
		if e.At >= since {
			out = append(out, e.Kind)
		}
	}
	return out
}

// TestNewRevisionStopsFirst: one slot never has two containers, and the slot keeps
// the time it has been held since.
func TestNewRevisionStopsFirst(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.engine.SetProgram("hello:1", runtime.Program{StopTakes: 2 * time.Second})
		oneWeb(s, 1)
		old, since := p.replica("web", 0), p.Desired().Claims[0].Since
		begin := s.clock.Mono()
		s.wish(shoal.Spec{Name: "web", Image: "hello:2"}, 2, 1)
		s.until(5*time.Second, "changed", func() bool { return p.ready("web") == 1 && p.replica("web", 0).Revision.Seq == 2 })
		if got, want := kinds(p, begin), []string{"stop", "exit", "remove", "create", "start"}; !slices.Equal(got, want) {
			t.Errorf("happened %v, want %v", got, want)
		}
		now := p.replica("web", 0)
		if now.ID == old.ID || now.Restarts != 0 || p.containers() != 1 {
			t.Errorf("replica = %+v, want a new one", now)
		}
		if c := p.Desired().Claims; len(c) != 1 || c[0].Since != since {
			t.Errorf("claims = %+v, want one held since %v", c, since)
		}
	})
}

// TestDrainsBeforeItStops: a replica with a port of every peer says that it stops a moment
// before it is told to, so that what was just carried to it is still taken; so does one
// that was reached by name lately. Another stops at once.
func TestDrainsBeforeItStops(t *testing.T) {
	host := shoal.Port{Container: 80, Published: 8080, Protocol: "tcp", Host: true}
	for _, c := range []struct {
		port    shoal.Port
		carried bool
		want    time.Duration
	}{
		{shoal.Port{Container: 80, Published: 8080, Protocol: "tcp"}, false, drainTime},
		{host, false, 0},
		{host, true, drainTime},
	} {
		inSea(t, 1, func(s *sea) {
			p := s.first()
			var id shoal.ReplicaID
			p.deps.Carried = func(of shoal.ReplicaID) bool { return c.carried && of == id }
			oneWeb(s, 1, func(sp *shoal.Spec) { sp.Ports = []shoal.Port{c.port} })
			id = p.replica("web", 0).ID
			s.remove("web")
			s.until(time.Second, "it says so", func() bool { return p.replica("web", 0).Phase == shoal.PhaseStopping })
			from := s.clock.Mono()
			if got := kinds(p, from); c.want > 0 && len(got) > 0 {
				t.Errorf("with %+v happened %v before it drained", c.port, got)
			}
			s.until(5*time.Second, "it is gone", func() bool { return p.containers() == 0 })
			if took := s.clock.Mono() - from; took < c.want || took > c.want+200*time.Millisecond {
				t.Errorf("with %+v it took %s, want %s", c.port, took, c.want)
			}
		})
	}
}

// TestStartFirst: the old replica goes when the new one is ready; with a fixed port
// of the host in the way it goes first all the same.
func TestStartFirst(t *testing.T) {
	for _, c := range []struct {
		port uint16
		want []string
	}{
		{0, []string{"create", "start", "stop", "exit", "remove"}},
		{8080, []string{"stop", "exit", "remove", "create", "start"}},
	} {
		inSea(t, 1, func(s *sea) {
			spec := func(sp *shoal.Spec) {
				sp.Name, sp.Rollout.StartFirst = "web", true
				sp.Ports = []shoal.Port{{Container: 80, Published: c.port, Protocol: "tcp", Host: c.port != 0}}
			}
			p := s.first()
			p.engine.SetProgram("hello:1", runtime.Program{StopTakes: 2 * time.Second})
			oneWeb(s, 1, spec)
			begin := s.clock.Mono()
			next := shoal.Spec{Image: "hello:2"}
			spec(&next)
			s.wish(next, 2, 1)
			s.until(5*time.Second, "changed", func() bool {
				return len(p.state().Replicas) == 1 && p.replica("web", 0).Revision.Seq == 2 && p.ready("web") == 1
			})
			if got := kinds(p, begin); !slices.Equal(got, c.want) {
				t.Errorf("port %d: happened %v, want %v", c.port, got, c.want)
			}
		})
	}
}

// TestHealthCheckLeadsToReady, and an unhealthy container is stopped and started.
func TestHealthCheckLeadsToReady(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.engine.SetProgram("hello:1", runtime.Program{HealthCheck: true, HealthyAfter: 4 * time.Second})
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 1, p.id)
		s.wait(2 * time.Second)
		if r := p.replica("web", 0); r.Phase != shoal.PhaseRunning || r.Reason != "waits for its health check" {
			t.Errorf("before the check passed: %+v", r)
		}
		took := s.until(4*time.Second, "ready", func() bool { return p.ready("web") == 1 })
		t.Logf("ready %s after that", took)
		id := p.replica("web", 0).ID
		p.engine.SetHealthy(id, false)
		s.until(time.Second, "stopped", func() bool { return p.ready("web") == 0 })
		s.until(8*time.Second, "ready again", func() bool { return p.ready("web") == 1 })
		if r := p.replica("web", 0); r.Restarts != 1 || r.ID != id {
			t.Errorf("after unhealthy: %+v, want restarted once", r)
		}
	})
}

// TestOldRevisionIsKept: a replica whose revision is no longer current is adopted
// and restarted with the spec of its label.
func TestOldRevisionIsKept(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		old := shoal.Spec{Name: "web", Image: "hello:1", Limits: shoal.Resources{MemBytes: 1 << 30}}
		p.deps.SpecOf = func(record []byte) (*shoal.Spec, error) {
			if string(record) != "1@operator" {
				return nil, errors.New("another record")
			}
			return &old, nil
		}
		p.cfg.Placement.NoStepIn = true
		oneWeb(s, 1, func(sp *shoal.Spec) { *sp = old })
		id := p.replica("web", 0).ID
		p.stop()
		p.deps.Decide = keepers(p.deps.Self)
		s.wish(shoal.Spec{Name: "web", Image: "hello:2"}, 2, 1)
		p.start()
		s.until(3*time.Second, "adopted", func() bool { return p.told() && p.ready("web") == 1 })
		p.engine.RemoveByHand(id)
		s.until(5*time.Second, "made again", func() bool { return p.ready("web") == 1 && p.replica("web", 0).Restarts == 1 })
		image, err := p.engine.Find(s.t.Context(), "hello:1")
		if err != nil {
			t.Fatal(err)
		}
		cs, err := p.engine.List(s.t.Context())
		if err != nil || len(cs) != 1 || cs[0].Revision.Seq != 1 || cs[0].Image != image.ID {
			t.Errorf("containers = %+v, %v; want one of the old revision", cs, err)
		}
	})
}

// TestOldPreDeployIsKept: the label of what runs before a service's first wave holds the
// service's record; it is adopted as the job that it is, and ends as one.
func TestOldPreDeployIsKept(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		web := shoal.Spec{
			Name: "web", Image: "hello:2", Restart: shoal.Restart{Condition: shoal.RestartAny},
			PreDeploy: &shoal.PreDeploy{Image: "hello:1", Attempts: 1},
		}
		p.deps.SpecOf = func([]byte) (*shoal.Spec, error) { return &web, nil }
		p.engine.SetImages("hello:1", "hello:2")
		p.engine.SetProgram("hello:1", runtime.Program{Exits: true, ExitAfter: 20 * time.Second})
		p.start()
		s.wait(time.Second)
		s.wish(web.Pre(), 1, 1, p.id)
		s.until(3*time.Second, "runs", func() bool { return p.ready("web-pre-deploy") == 1 })
		id := p.replica("web-pre-deploy", 0).ID
		p.stop()
		p.deps.Decide = keepers(p.deps.Self)
		other := web.Pre()
		other.Image = "hello:2"
		s.wish(other, 2, 1)
		p.start()
		s.wait(time.Minute)
		if starts := p.engine.Counts(id).Starts; starts != 1 {
			t.Errorf("it was started %d times, want once: it is a job", starts)
		}
		if r := p.replica("web-pre-deploy", 0); r.ID != id || r.Phase != shoal.PhaseStopped {
			t.Errorf("replica %+v, want %s, which has ended", r, id)
		}
	})
}

// TestLeave: releases all, stops and removes all containers of ours, and only those.
func TestLeave(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 3)
		foreign := p.engine.AddForeign("postgres")
		id, err := p.engine.Create(s.t.Context(), shoal.ContainerSpec{
			Cluster: clusterID, Peer: p.id, Replica: shoal.ReplicaID{1}, Revision: shoal.RevisionID{Seq: 1, Author: "x"}, Spec: &shoal.Spec{Name: "stray", Image: "hello:1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.engine.Start(s.t.Context(), id); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
		defer cancel()
		if err := p.system.Leave(ctx); err != nil {
			t.Fatalf("Leave = %v", err)
		}
		if p.containers() != 0 || len(p.Desired().Claims) != 0 || !p.engine.ForeignRuns(foreign) {
			t.Errorf("%d containers, claims %v after leaving", p.containers(), p.Desired().Claims)
		}
		if c := p.engine.Counts(shoal.ReplicaID{}); c.Stops != 4 || c.Removes != 4 {
			t.Errorf("counts = %+v, want 4 stopped, then removed", c)
		}
		s.wish(shoal.Spec{Name: "web"}, 1, 4)
		s.wait(time.Minute)
		if p.containers() != 0 {
			t.Error("claimed again after leaving")
		}
		p.stop()
		if err := p.system.Leave(s.t.Context()); !errors.Is(err, shoal.ErrNotMember) {
			t.Errorf("Leave of a stopped system = %v", err)
		}
	})
}

// TestLeaveEndsWithItsContext while the engine is down.
func TestLeaveEndsWithItsContext(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 1)
		p.engine.SetHang(true)
		ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
		defer cancel()
		if err := p.system.Leave(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Leave = %v, want the deadline", err)
		}
		p.engine.SetHang(false)
		s.until(10*time.Second, "gone all the same", func() bool { return p.containers() == 0 })
	})
}

// TestRunStopsAtOnce whatever is under way.
func TestRunStopsAtOnce(t *testing.T) {
	for name, prepare := range map[string]func(p *tank){
		"creating": func(p *tank) { p.engine.SetLatency(runtime.Latency{Create: 4 * time.Second}) },
		"hanging":  func(p *tank) { p.engine.SetHang(true) },
		"starting": func(p *tank) { p.engine.SetLatency(runtime.Latency{Start: 4 * time.Second}) },
	} {
		inSea(t, 1, func(s *sea) {
			p := oneWeb(s, 2)
			prepare(p)
			s.wish(shoal.Spec{Name: "api"}, 1, 8, p.id, p.id, p.id, p.id, p.id, p.id, p.id, p.id)
			s.wait(500 * time.Millisecond)
			begin := s.clock.Mono()
			p.stop()
			if took := s.clock.Mono() - begin; took > 10*time.Millisecond {
				t.Errorf("%s: stopped after %s", name, took)
			}
		})
	}
}

// TestRunStopsWithBusyActor: while a parent waits for its last child, those that
// have ended are not replaced, or it would wait for ever.
func TestRunStopsWithBusyActor(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.deps.Record = func(e shoal.Event) {
			if e.Kind == "replica" && e.Slot == 0 && e.Text == "ready" {
				time.Sleep(2 * time.Second)
			}
		}
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 4, p.id, p.id, p.id, p.id)
		s.until(time.Second, "the others ready", func() bool { return p.ready("web") == 3 })
		begin := s.clock.Mono()
		p.stop()
		if took := s.clock.Mono() - begin; took > 2*time.Second {
			t.Errorf("stopped after %s, want when the busy actor is done", took)
		}
	})
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	if _, err := New(Config{}, Deps{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
	_, err := New(Sim(), Deps{Self: "p"})
	var invalid *shoal.InvalidError
	if !errors.As(err, &invalid) || invalid.Field != "actors.Deps.Views" {
		t.Errorf("New without dependencies = %v", err)
	}
	for _, c := range []Config{LAN(), WAN(), Sim()} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		if c.ListEvery+c.ListTimeout >= 10*time.Second {
			t.Errorf("a hanging engine is marked after up to %s, want below 10 s (FAILURES F4)", c.ListEvery+c.ListTimeout)
		}
		c.PingLost = 0
		if err := c.Validate(); fmt.Sprint(err) != "actors.ping_lost must be longer than 0, got 0s" {
			t.Errorf("Validate = %v", err)
		}
	}
}
