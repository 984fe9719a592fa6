// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

const (
	cluster = shoal.PeerID("12D3KooWCluster")
	peer    = shoal.PeerID("12D3KooWPeerA")
)

// replica returns the n-th replica ID.
func replica(n byte) shoal.ReplicaID { return shoal.ReplicaID{n} }

// spec returns what Create needs for the n-th replica of a service "web".
func spec(n byte, edit func(*shoal.Spec)) shoal.ContainerSpec {
	s := &shoal.Spec{Name: "web", Image: "hello:1"}
	if edit != nil {
		edit(s)
	}
	return shoal.ContainerSpec{
		Cluster: cluster, Peer: peer, Replica: replica(n), Slot: int(n),
		Revision: shoal.RevisionID{Seq: 1, Author: peer}, Spec: s, Record: []byte("signed"),
		Publish: "127.0.0.21",
	}
}

func newTwin() *runtime.Twin {
	return runtime.NewTwin(runtime.TwinConfig{Cluster: cluster, Peer: peer, Images: []string{"hello:1"}}, shoal.NewSystemClock())
}

// run creates and starts the n-th replica.
func run(t testing.TB, e shoal.Engine, cs shoal.ContainerSpec) string {
	t.Helper()
	id, err := e.Create(t.Context(), cs)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

// only returns the one container of an engine.
func only(t testing.TB, e shoal.Engine) shoal.Container {
	t.Helper()
	all, err := e.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("List = %d containers, want 1", len(all))
	}
	return all[0]
}

func TestTwinTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twin := newTwin()
		twin.SetLatency(runtime.Latency{Create: 200 * time.Millisecond, Start: 300 * time.Millisecond})
		from := time.Now()
		run(t, twin, spec(1, nil))
		if took := time.Since(from); took != 500*time.Millisecond {
			t.Errorf("create and start took %s, want 500ms", took)
		}
	})
}

func TestTwinHealthTurns(t *testing.T) {
	for _, tt := range []struct {
		program runtime.Program
		want    string
	}{
		{runtime.Program{HealthyAfter: time.Second}, shoal.HealthHealthy},
		{runtime.Program{HealthyAfter: time.Second, NeverHealthy: true}, shoal.HealthUnhealthy},
	} {
		synctest.Test(t, func(t *testing.T) {
			twin := newTwin()
			twin.SetProgram("hello:1", tt.program)
			run(t, twin, spec(1, func(s *shoal.Spec) { s.Health = &shoal.Health{Test: []string{"CMD", "true"}} }))
			if got := only(t, twin).Health; got != shoal.HealthStarting {
				t.Errorf("health at start = %q, want starting", got)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if got := only(t, twin).Health; got != tt.want {
				t.Errorf("health after 1s = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTwinCrashesAndOldTimersDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twin := newTwin()
		twin.SetProgram("hello:1", runtime.Program{Exits: true, ExitAfter: time.Minute, ExitCode: 3, OOM: true})
		id := run(t, twin, spec(1, nil))
		time.Sleep(40 * time.Second)
		if err := twin.Stop(t.Context(), id, "", time.Second); err != nil {
			t.Fatal(err)
		}
		if err := twin.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second) // the first life's timer fires in here
		synctest.Wait()
		if c := only(t, twin); c.State != shoal.ContainerRunning {
			t.Fatalf("state = %s, want running: the first life's timer ended the second", c.State)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if c := only(t, twin); c.State != shoal.ContainerExited || c.ExitCode != 3 || !c.OOM {
			t.Errorf("container = %s, code %d, oom %t; want exited, 3, true", c.State, c.ExitCode, c.OOM)
		}
		if got := twin.Counts(replica(1)); got != (runtime.TwinCounts{Creates: 1, Starts: 2, Stops: 1, Exits: 2}) {
			t.Errorf("Counts = %+v", got)
		}
	})
}

func TestTwinStopWaitsForTheGraceAtMost(t *testing.T) {
	for _, tt := range []struct {
		program runtime.Program
		grace   time.Duration
		took    time.Duration
		code    int
	}{
		{runtime.Program{StopTakes: 2 * time.Second}, 10 * time.Second, 2 * time.Second, 0},
		{runtime.Program{IgnoreStop: true}, 10 * time.Second, 10 * time.Second, 137},
		{runtime.Program{StopTakes: 20 * time.Second}, 3 * time.Second, 3 * time.Second, 137},
	} {
		synctest.Test(t, func(t *testing.T) {
			twin := newTwin()
			twin.SetProgram("hello:1", tt.program)
			id := run(t, twin, spec(1, nil))
			from := time.Now()
			if err := twin.Stop(t.Context(), id, "", tt.grace); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(from); took != tt.took {
				t.Errorf("Stop took %s, want %s", took, tt.took)
			}
			if c := only(t, twin); c.State != shoal.ContainerExited || c.ExitCode != tt.code {
				t.Errorf("container = %s, code %d; want exited, %d", c.State, c.ExitCode, tt.code)
			}
		})
	}
}

func TestTwinHangsAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twin := newTwin()
		twin.SetHang(true)
		from := time.Now()
		if _, err := twin.List(t.Context()); !errors.Is(err, shoal.ErrEngineDown) {
			t.Errorf("List of a hanging engine = %v, want ErrEngineDown", err)
		}
		if took := time.Since(from); took != 5*time.Second {
			t.Errorf("List gave up after %s, want 5s", took)
		}
		time.AfterFunc(time.Second, func() { twin.SetHang(false) })
		if _, err := twin.List(t.Context()); err != nil {
			t.Errorf("List of an engine that wakes = %v", err)
		}
	})
}

func TestTwinPowerCutTellsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twin := newTwin()
		foreign := twin.AddForeign("postgres")
		var actions []string
		done := make(chan error, 1)
		go func() {
			done <- twin.Events(t.Context(), func(e shoal.EngineEvent) { actions = append(actions, e.Action) })
		}()
		synctest.Wait()
		run(t, twin, spec(1, nil))
		synctest.Wait()
		twin.KillAll()
		if err := <-done; !errors.Is(err, shoal.ErrEngineDown) {
			t.Errorf("Events = %v, want ErrEngineDown", err)
		}
		if slices.Contains(actions, "die") {
			t.Errorf("events = %v: a power cut is silent", actions)
		}
		if c := only(t, twin); c.State != shoal.ContainerExited || c.ExitCode != 137 {
			t.Errorf("container = %s, code %d; want exited, 137", c.State, c.ExitCode)
		}
		if twin.ForeignRuns(foreign) {
			t.Error("a foreign container survived the power cut")
		}
	})
}

func TestTwinFollowEndsWithTheContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twin := newTwin()
		twin.SetProgram("hello:1", runtime.Program{Lines: []string{"one", "two"}})
		id := run(t, twin, spec(1, nil))
		var got []string
		done := make(chan error, 1)
		go func() {
			done <- twin.Logs(context.WithoutCancel(t.Context()), id, shoal.LogOptions{Follow: true, Tail: 1}, func(l shoal.LogLine) error {
				got = append(got, l.Text)
				return nil
			})
		}()
		synctest.Wait()
		twin.Print(replica(1), "three")
		synctest.Wait()
		twin.Exit(replica(1), 0, false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if want := []string{"two", "three"}; !slices.Equal(got, want) {
			t.Errorf("lines = %q, want %q", got, want)
		}
	})
}

func TestTwinFailsCreatesAsTold(t *testing.T) {
	twin := newTwin()
	boom := errors.New("boom")
	twin.FailCreates(boom)
	if _, err := twin.Create(t.Context(), spec(1, nil)); !errors.Is(err, boom) {
		t.Errorf("first create = %v, want boom", err)
	}
	if _, err := twin.Create(t.Context(), spec(1, nil)); err != nil {
		t.Errorf("second create = %v", err)
	}
	twin.SetDown(true)
	if _, err := twin.Create(t.Context(), spec(2, nil)); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("create on a dead engine = %v, want ErrEngineDown", err)
	}
	if running, _ := twin.Running(""); running != 0 || len(twin.History()) != 1 {
		t.Errorf("running = %d, history = %v; want 0 and one create", running, twin.History())
	}
}
