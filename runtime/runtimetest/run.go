// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// nobody is a well-formed container ID that no engine has.
var nobody = strings.Repeat("0", 63) + "f"

// Run runs the contract on engines that factory makes, one for each case.
func Run(t *testing.T, factory func(t testing.TB) *Fixture) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *Fixture)
	}{
		{"create is idempotent", createTwice},
		{"create refuses", createRefuses},
		{"the owner's policy", policy},
		{"volumes", volumes},
		{"networks", networks},
		{"networks of services", serviceNetworks},
		{"networks refuse", networksRefuse},
		{"networks of containers", attached},
		{"list tells what was created", listTells},
		{"life", life},
		{"absent", absent},
		{"foreign containers are not touched", foreign},
		{"events", events},
		{"events of images", imageEvents},
		{"health", health},
		{"crash", crash},
		{"memory", memory},
		{"ports", ports},
		{"logs", logs},
		{"follow", follow},
		{"exec", execs},
		{"copy", copies},
		{"usage", usage},
		{"exec asks the owner", execPolicy},
		{"exec ends", execEnds},
		{"images", images},
		{"images by name", imageNames},
		{"images as archives", imageArchives},
		{"images pulled", imagePulls},
		{"images not pulled", imagePullsFail},
		{"machine", machine},
		{"ended context", ended},
		{"hang", hang},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := factory(t)
			t.Cleanup(func() { f.clean(t) })
			c.test(t, f)
		})
	}
}

func createTwice(t *testing.T, f *Fixture) {
	cs := f.Container(&f.Steady)
	var group sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		group.Go(func() {
			id, err := f.Engine.Create(t.Context(), cs)
			if err != nil {
				t.Errorf("Create %d = %v", i, err)
			}
			ids[i] = id
		})
	}
	group.Wait()
	if again := f.create(t, cs); slices.ContainsFunc(ids, func(id string) bool { return id != again }) {
		t.Errorf("Create of one replica = %q and %q, want one ID", ids, again)
	}
	if other := f.create(t, f.Container(&f.Steady)); other == ids[0] {
		t.Errorf("Create of another replica = %s, the first one's ID", other)
	}
	all, err := f.Engine.List(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("List = %d containers, %v; want 2", len(all), err)
	}
	if !slices.IsSortedFunc(all, func(a, b shoal.Container) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("List is not sorted by ID")
	}
}

func createRefuses(t *testing.T, f *Fixture) {
	missing := f.Steady
	missing.Image = "shoal-nobody-has-this:9"
	_, err := f.Engine.Create(t.Context(), f.Container(&missing))
	if !errors.Is(err, shoal.ErrNotFound) || !strings.Contains(err.Error(), "image shoal-nobody-has-this:9 is not there (shoal image push it where docker has it)") {
		t.Errorf("Create of a missing image = %v", err)
	}
	labelled := f.Steady
	labelled.Labels = map[string]string{"net.shoal.peer": "somebody"}
	var invalid *shoal.InvalidError
	if _, err := f.Engine.Create(t.Context(), f.Container(&labelled)); !errors.As(err, &invalid) || invalid.Field != "labels" {
		t.Errorf("Create with our labels set by the user = %v, want *InvalidError", err)
	}
	stranger := f.Container(&f.Steady)
	stranger.Peer = "12D3KooWStranger"
	if _, err := f.Engine.Create(t.Context(), stranger); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Create for another peer = %v, want ErrRefused", err)
	}
	if all, err := f.Engine.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("List = %d containers, %v; want none", len(all), err)
	}
}

func listTells(t *testing.T, f *Fixture) {
	cs := f.Container(&f.Steady)
	id := f.create(t, cs)
	c := f.must(t, id)
	if c.Cluster != f.Cluster || c.Peer != f.Peer || c.Replica != cs.Replica || c.Revision != cs.Revision || c.Service != cs.Spec.Name {
		t.Errorf("container = %+v, want the identity of %+v", c, cs)
	}
	if !bytes.Equal(c.Record, cs.Record) {
		t.Errorf("record = %q, want %q", c.Record, cs.Record)
	}
	if want := "shoal-" + cs.Spec.Name + "-" + cs.Replica.Short(); c.Name != want {
		t.Errorf("name = %q, want %q", c.Name, want)
	}
	if c.State != shoal.ContainerCreated || !c.Started.IsZero() || !strings.HasPrefix(c.Image, "sha256:") {
		t.Errorf("container = %+v, want it created, not started, image resolved", c)
	}
}

func life(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Steady))
	c := f.must(t, id)
	if c.State != shoal.ContainerRunning || c.Addr == "" || c.Started.IsZero() {
		t.Fatalf("started container = %+v, want it running, with address and start time", c)
	}
	if err := f.Engine.Start(t.Context(), id); err != nil {
		t.Errorf("Start of a running container = %v", err)
	}
	if again := f.must(t, id); !again.Started.Equal(c.Started) {
		t.Errorf("second Start restarted it: %s, then %s", c.Started, again.Started)
	}
	// A process that is told to stop before it listens to signals is killed, or dies of it.
	f.await(t, id, "healthy", func(c shoal.Container) bool { return c.Health == shoal.HealthHealthy })
	for range 2 {
		if err := f.Engine.Stop(t.Context(), id, "", 5*time.Second); err != nil {
			t.Errorf("Stop = %v", err)
		}
	}
	if c := f.must(t, id); c.State != shoal.ContainerExited || c.ExitCode != 0 || c.OOM || c.Addr != "" || len(c.Ports) != 0 {
		t.Errorf("stopped container = %+v, want it exited with code 0, no address", c)
	}
	if err := f.Engine.Start(t.Context(), id); err != nil {
		t.Errorf("Start of a stopped container = %v", err)
	}
	if again := f.must(t, id); again.State != shoal.ContainerRunning || !again.Started.After(c.Started) {
		t.Errorf("container started again = %+v, want it running since later than %s", again, c.Started)
	}
	for range 2 {
		if err := f.Engine.Remove(t.Context(), id); err != nil {
			t.Errorf("Remove = %v", err)
		}
	}
	if c, ok := f.find(t, id); ok {
		t.Errorf("removed container is listed: %+v", c)
	}
	if err := f.Engine.Start(t.Context(), id); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Start of a removed container = %v, want ErrNotFound", err)
	}
	if err := f.Engine.Stop(t.Context(), id, "", time.Second); err != nil {
		t.Errorf("Stop of a removed container = %v", err)
	}
}

func absent(t *testing.T, f *Fixture) {
	for _, id := range []string{nobody, "", "nobody", "../../images/json"} {
		if err := f.Engine.Start(t.Context(), id); !errors.Is(err, shoal.ErrNotFound) {
			t.Errorf("Start(%q) = %v, want ErrNotFound", id, err)
		}
		if err := f.Engine.Stop(t.Context(), id, "", time.Second); err != nil {
			t.Errorf("Stop(%q) = %v", id, err)
		}
		if err := f.Engine.Remove(t.Context(), id); err != nil {
			t.Errorf("Remove(%q) = %v", id, err)
		}
		err := f.Engine.Logs(t.Context(), id, shoal.LogOptions{Tail: -1}, func(shoal.LogLine) error { return nil })
		if !errors.Is(err, shoal.ErrNotFound) {
			t.Errorf("Logs(%q) = %v, want ErrNotFound", id, err)
		}
		if _, _, err := f.exec(t.Context(), id, "", shoal.ExecOptions{Command: f.Print}); !errors.Is(err, shoal.ErrNotFound) {
			t.Errorf("Exec(%q) = %v, want ErrNotFound", id, err)
		}
	}
}

func foreign(t *testing.T, f *Fixture) {
	id, runs := f.Foreign(t)
	if c, ok := f.find(t, id); ok {
		t.Errorf("foreign container is listed: %+v", c)
	}
	_, _, execErr := f.exec(t.Context(), id, "", shoal.ExecOptions{Command: f.Print})
	for what, err := range map[string]error{
		"CopyTo": f.Engine.CopyTo(t.Context(), id, "/", io.NopCloser(archive(t, "a"))),
		"CopyFrom": f.Engine.CopyFrom(t.Context(), id, "/", func(shoal.PathStat) error {
			t.Error("CopyFrom of a foreign container tells what is there")
			return nil
		}, io.Discard),
		"Exec":   execErr,
		"Start":  f.Engine.Start(t.Context(), id),
		"Stop":   f.Engine.Stop(t.Context(), id, "", 0),
		"Remove": f.Engine.Remove(t.Context(), id),
		"Logs":   f.Engine.Logs(t.Context(), id, shoal.LogOptions{Tail: -1}, func(shoal.LogLine) error { return nil }),
	} {
		if !errors.Is(err, shoal.ErrRefused) {
			t.Errorf("%s of a foreign container = %v, want ErrRefused", what, err)
		}
	}
	if !runs() {
		t.Error("the foreign container runs no more")
	}
}

func ended(t *testing.T, f *Fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Engine.List(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("List with an ended context = %v, want context.Canceled", err)
	}
	if _, err := f.Engine.Create(ctx, f.Container(&f.Steady)); !errors.Is(err, context.Canceled) {
		t.Errorf("Create with an ended context = %v, want context.Canceled", err)
	}
}

// hang wants every call of a silent engine to end in time, and the engine usable
// as soon as it answers again.
func hang(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Steady))
	f.must(t, id)
	saved := newContent(t).archive(t, "shoal-contract:9")
	f.Hang(true)
	ctx := t.Context()
	calls := map[string]func() error{
		"Create":        func() error { _, err := f.Engine.Create(ctx, f.Container(&f.Steady)); return err },
		"Start":         func() error { return f.Engine.Start(ctx, id) },
		"Stop":          func() error { return f.Engine.Stop(ctx, id, "", 0) },
		"Remove":        func() error { return f.Engine.Remove(ctx, id) },
		"List":          func() error { _, err := f.Engine.List(ctx); return err },
		"Events":        func() error { return f.Engine.Events(ctx, func(shoal.EngineEvent) {}) },
		"EnsureNetwork": func() error { _, err := f.Engine.EnsureNetwork(ctx, "a", nil); return err },
		"ListNetworks":  func() error { _, err := f.Engine.ListNetworks(ctx); return err },
		"RemoveNetwork": func() error { return f.Engine.RemoveNetwork(ctx, nobody) },
		"Info":          func() error { _, err := f.Engine.Info(ctx); return err },
		"Usage":         func() error { _, err := f.Engine.Usage(ctx); return err },
		"Ensure":        func() error { _, err := f.Puller.Ensure(ctx, f.Steady.Image, nil); return err },
		"Images":        func() error { _, err := f.Puller.Images(ctx); return err },
		"Find":          func() error { _, err := f.Engine.Find(ctx, f.Steady.Image); return err },
		"Tag":           func() error { return f.Engine.Tag(ctx, f.Steady.Image, f.Steady.Image) },
		"Load":          func() error { return f.Engine.Load(ctx, bytes.NewReader(saved)) },
		"Save":          func() error { return f.Engine.Save(ctx, f.Steady.Image, io.Discard) },
		"Pull": func() error {
			login := shoal.RegistryLogin{Address: "127.0.0.1:1"}
			return f.Engine.Pull(ctx, login.Address+"/app:1", login, nil)
		},
		"Exec": func() error {
			_, _, err := f.exec(ctx, id, "", shoal.ExecOptions{Command: f.Print})
			return err
		},
		"CopyTo": func() error { return f.Engine.CopyTo(ctx, id, "/", io.NopCloser(archive(t, "a"))) },
		"CopyFrom": func() error {
			return f.Engine.CopyFrom(ctx, id, "/", func(shoal.PathStat) error { return nil }, io.Discard)
		},
		"Logs": func() error {
			return f.Engine.Logs(ctx, id, shoal.LogOptions{Tail: -1}, func(shoal.LogLine) error { return nil })
		},
	}
	var group sync.WaitGroup
	for what, call := range calls {
		group.Go(func() {
			from := time.Now()
			err := call()
			if !errors.Is(err, shoal.ErrEngineDown) {
				t.Errorf("%s of a hanging engine = %v, want ErrEngineDown", what, err)
			}
			if took := time.Since(from); took > f.Deadline {
				t.Errorf("%s of a hanging engine took %s, want %s at most", what, took, f.Deadline)
			}
		})
	}
	group.Wait()
	f.Hang(false)
	f.await(t, id, "a known container", func(shoal.Container) bool { return true })
}
