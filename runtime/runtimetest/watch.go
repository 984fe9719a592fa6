// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// stream is one call of Events.
type stream struct {
	seen     chan shoal.EngineEvent
	ended    chan error
	cancel   context.CancelFunc
	patience *time.Timer
}

// watch calls Events and returns when they come: the stream opens some time after the
// call, so the engine is poked until it tells.
func (f *Fixture) watch(t testing.TB) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &stream{seen: make(chan shoal.EngineEvent, 1000), ended: make(chan error, 1), cancel: cancel, patience: time.NewTimer(f.Patience)}
	t.Cleanup(func() { s.patience.Stop() })
	go func() { s.ended <- f.Engine.Events(ctx, func(e shoal.EngineEvent) { s.seen <- e }) }()
	first := f.Container(&f.Steady)
	poke := time.NewTicker(100 * time.Millisecond)
	defer poke.Stop()
	for {
		id := f.create(t, first)
		if err := f.Engine.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		select {
		case <-s.seen:
			return s
		case <-poke.C:
		case err := <-s.ended:
			t.Fatalf("Events = %v before any event", err)
		case <-s.patience.C:
			t.Fatalf("no event within %s", f.Patience)
		}
	}
}

// end wants the stream to end with its context.
func (s *stream) end(t testing.TB) {
	t.Helper()
	s.cancel()
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Events = %v after its context ended, want context.Canceled", err)
	}
}

func events(t *testing.T, f *Fixture) {
	s := f.watch(t)
	foreign, _ := f.Foreign(t)
	cs := f.Container(&f.Steady)
	id := f.start(t, cs)
	f.await(t, id, "healthy", func(c shoal.Container) bool { return c.Health == shoal.HealthHealthy })
	if err := f.Engine.Stop(t.Context(), id, "", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := f.Engine.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	want := []string{"start", "health_status: healthy", "die", "destroy"}
	for len(want) > 0 {
		select {
		case e := <-s.seen:
			if e.Replica == cs.Replica && e.Container != id || e.Container == foreign || (e.Container == "") == (e.Image == "") {
				t.Errorf("event %+v, want one of container %s or of an image", e, id)
			}
			if e.Replica == cs.Replica && e.Action == want[0] {
				want = want[1:]
			}
		case <-s.patience.C:
			t.Fatalf("still waiting for events %q", want)
		}
	}
	s.end(t)
}

// imageEvents: an image that comes is told of no earlier than it is there, one that
// goes is told of too.
func imageEvents(t *testing.T, f *Fixture) {
	s := f.watch(t)
	has := func(ref string) bool {
		t.Helper()
		all, err := f.Puller.Images(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(all, shoal.NormalizeRef(ref))
	}
	ref, remove := f.Load(t)
	for _, there := range []bool{true, false} {
		for told := false; !told || has(ref) != there; {
			select {
			case e := <-s.seen:
				told = e.Image != "" && e.Container == "" && e.Replica.IsZero() && e.Action != ""
			case <-s.patience.C:
				t.Fatalf("nobody told of image %s; there: %t", ref, there)
			}
		}
		if there {
			remove()
		}
	}
	s.end(t)
}

func health(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Steady))
	sick := f.start(t, f.Container(&f.Sick))
	f.await(t, id, "healthy", func(c shoal.Container) bool { return c.Health == shoal.HealthHealthy })
	f.await(t, sick, "unhealthy", func(c shoal.Container) bool { return c.Health == shoal.HealthUnhealthy })
	if said, err := f.Engine.Check(t.Context(), sick); err != nil || said == "" {
		t.Errorf("Check of the sick = %q, %v; want what its check said", said, err)
	}
	if _, err := f.Engine.Check(t.Context(), strings.Repeat("0", 64)); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Check of an absent container = %v, want ErrNotFound", err)
	}
	foreign, _ := f.Foreign(t)
	if _, err := f.Engine.Check(t.Context(), foreign); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Check of a foreign container = %v, want ErrRefused", err)
	}
	unchecked := f.Steady
	unchecked.Health = &shoal.Health{Disable: true}
	if c := f.must(t, f.start(t, f.Container(&unchecked))); c.Health != shoal.HealthNone {
		t.Errorf("health without a check = %q, want none", c.Health)
	}
}

func crash(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Crash))
	exited := func(c shoal.Container) bool { return c.State == shoal.ContainerExited }
	c := f.await(t, id, "exited", exited)
	if c.ExitCode != 3 || c.OOM {
		t.Errorf("crashed container = code %d, OOM %t; want 3, false", c.ExitCode, c.OOM)
	}
	if err := f.Engine.Start(t.Context(), id); err != nil {
		t.Fatalf("Start after a crash = %v", err)
	}
	again := f.await(t, id, "exited again", func(n shoal.Container) bool { return exited(n) && n.Started.After(c.Started) })
	if again.ExitCode != 3 {
		t.Errorf("second exit code = %d, want 3", again.ExitCode)
	}
}

func memory(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Greedy))
	c := f.await(t, id, "exited", func(c shoal.Container) bool { return c.State == shoal.ContainerExited })
	if !c.OOM || c.ExitCode != 137 {
		t.Errorf("container beyond its memory = code %d, OOM %t; want 137, true", c.ExitCode, c.OOM)
	}
}

func ports(t *testing.T, f *Fixture) {
	var all []shoal.PortBinding
	for range 2 {
		id := f.start(t, f.Container(&f.Steady))
		c := f.must(t, id)
		if len(c.Ports) != 1 || c.Ports[0].Container != 80 || c.Ports[0].Protocol != "tcp" || c.Ports[0].HostIP != f.Publish || c.Ports[0].HostPort == 0 {
			t.Fatalf("ports = %+v, want one for 80/tcp on %s", c.Ports, f.Publish)
		}
		all = append(all, c.Ports...)
	}
	if all[0] == all[1] {
		t.Errorf("two replicas have the same port: %+v", all)
	}
	// A port of the user's choice can be had once per address.
	fixed := f.Steady
	fixed.Ports = []shoal.Port{{Container: 80, Published: all[0].HostPort, Protocol: "tcp", Host: true}}
	id := f.create(t, f.Container(&fixed))
	if err := f.Engine.Start(t.Context(), id); err == nil {
		t.Errorf("Start on port %d, which is taken, = nil", all[0].HostPort)
	}
	if c := f.must(t, id); c.State == shoal.ContainerRunning {
		t.Errorf("container without its port is %s", c.State)
	}
}

// read collects lines.
func (f *Fixture) read(t testing.TB, id string, opts shoal.LogOptions) []shoal.LogLine {
	t.Helper()
	var out []shoal.LogLine
	err := f.Engine.Logs(t.Context(), id, opts, func(l shoal.LogLine) error {
		out = append(out, l)
		return nil
	})
	if err != nil {
		t.Fatalf("Logs = %v", err)
	}
	return out
}

func logs(t *testing.T, f *Fixture) {
	cs := f.Container(&f.Chatty)
	id := f.start(t, cs)
	var all []shoal.LogLine
	f.await(t, id, "three lines", func(shoal.Container) bool {
		all = f.read(t, id, shoal.LogOptions{Tail: -1})
		return len(all) >= 3
	})
	for i, l := range all {
		if l.Peer != f.Peer || l.Service != cs.Spec.Name || l.Replica != cs.Replica || l.Time.IsZero() || l.Text == "" || strings.ContainsAny(l.Text, "\r\n") {
			t.Errorf("line %d = %+v", i, l)
		}
		if i > 0 && l.Time.Before(all[i-1].Time) {
			t.Errorf("line %d is older than the one before", i)
		}
	}
	if err := f.Engine.Stop(t.Context(), id, "", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	all = f.read(t, id, shoal.LogOptions{Tail: -1}) // they outlive the process
	if last := f.read(t, id, shoal.LogOptions{Tail: 2}); !slices.Equal(last, all[len(all)-2:]) {
		t.Errorf("last two lines = %+v, want %+v", last, all[len(all)-2:])
	}
	if none := f.read(t, id, shoal.LogOptions{Tail: 0}); len(none) != 0 {
		t.Errorf("last no lines = %+v", none)
	}
	if old := f.read(t, id, shoal.LogOptions{Tail: -1, Since: all[len(all)-1].Time.Add(time.Minute)}); len(old) != 0 {
		t.Errorf("lines of the future = %+v", old)
	}
	if old := f.read(t, id, shoal.LogOptions{Tail: -1, Until: all[0].Time.Add(-time.Minute)}); len(old) != 0 {
		t.Errorf("lines before the first = %+v", old)
	}
	enough := fmt.Errorf("enough")
	if err := f.Engine.Logs(t.Context(), id, shoal.LogOptions{Tail: -1}, func(shoal.LogLine) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Logs = %v, want the reader's own error", err)
	}
}

func follow(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Chatty))
	var mu sync.Mutex // guards n
	n := 0
	three := make(chan struct{})
	followed := func(ctx context.Context, fn func(shoal.LogLine) error) chan error {
		done := make(chan error, 1)
		go func() { done <- f.Engine.Logs(ctx, id, shoal.LogOptions{Follow: true, Tail: -1}, fn) }()
		return done
	}
	toTheEnd := followed(t.Context(), func(shoal.LogLine) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 3 {
			close(three)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	forAWhile := followed(ctx, func(shoal.LogLine) error { return nil })
	patience := time.NewTimer(f.Patience)
	defer patience.Stop()
	select {
	case <-three:
	case err := <-toTheEnd:
		t.Fatalf("Logs = %v before the third line", err)
	case <-patience.C:
		t.Fatal("no third line")
	}
	cancel()
	if err := <-forAWhile; !errors.Is(err, context.Canceled) {
		t.Errorf("followed logs = %v after their context ended, want context.Canceled", err)
	}
	if err := f.Engine.Stop(t.Context(), id, "", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-toTheEnd:
		if err != nil {
			t.Errorf("followed logs = %v at the container's end, want nil", err)
		}
	case <-patience.C:
		t.Error("following did not end with the container")
	}
}

func machine(t *testing.T, f *Fixture) {
	info, err := f.Engine.Info(t.Context())
	if err != nil || info.Engine == "" || info.API == "" || !strings.HasPrefix(info.Platform, "linux/") || info.Capacity.CPUMilli <= 0 || info.Capacity.MemBytes <= 0 {
		t.Errorf("Info = %+v, %v", info, err)
	}
	if used, err := f.Engine.Usage(t.Context()); err != nil || used != (shoal.Resources{}) {
		t.Errorf("Usage of no containers = %+v, %v", used, err)
	}
	f.start(t, f.Container(&f.Steady))
	if used, err := f.Engine.Usage(t.Context()); err != nil || used.MemBytes <= 0 {
		t.Errorf("Usage = %+v, %v; want memory used", used, err)
	}
}
