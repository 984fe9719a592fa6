// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/host"
	"github.com/shoalnet/shoal/lab/topology"
)

// up is a lab of bare hosts that ends with the test.
func up(t *testing.T, cfg Config) *Lab {
	t.Helper()
	cfg.Bare = true
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Whatever is left of a beginning can be found and removed: only a name, and a file that
// a full disk cut short. It keeps nobody from seeing the others.
func TestFindHalfMade(t *testing.T) {
	name := testName(t.Name())
	t.Cleanup(func() {
		if err := Sweep(name); err != nil {
			t.Error(err)
		}
	})
	for what, make := range map[string]func() error{
		"only a name": func() error { return nil },
		"half a file": func() error {
			dir := filepath.Join(root, name)
			return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, stateFile), []byte(`{"name": "`), 0o600))
		},
	} {
		lock, err := lockName(name)
		if err == nil {
			err = errors.Join(make(), lock.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		all, err := List()
		if err != nil || !slices.ContainsFunc(all, func(i Info) bool { return i.Name == name && !i.IsRunning && i.Hosts != nil }) {
			t.Errorf("%s: List = %+v, %v", what, all, err)
		}
		if err := Sweep(name); err != nil {
			t.Errorf("%s: Sweep = %v", what, err)
		}
		gone(t, name, dirOf(name))
	}
}

// A lab whose directory is behind a symbolic link sees its disks come and go.
func TestLinkedDir(t *testing.T) {
	cfg, dir := config(t), t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o700), os.Symlink("real", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = filepath.Join(dir, "link", "lab")
	l := up(t, cfg)
	for range 3 {
		if err := errors.Join(l.Kill(t.Context(), "h1"), l.Boot(t.Context(), "h1")); err != nil {
			t.Fatal(err)
		}
	}
	if loops, err := loopsBelow(cfg.Dir); err != nil || len(loops) != 2 {
		t.Errorf("two disks are held by %v, %v", loops, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, cfg.Name, l.Dir())
}

// A lab ends at once, though a host of it is just being booted and would not be up for a
// minute.
func TestCloseWhileBooting(t *testing.T) {
	l := up(t, config(t))
	if err := l.Kill(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	l.cfg.Binaries.Dockerd = filepath.Join(t.TempDir(), "dockerd")
	if err := os.WriteFile(l.cfg.Binaries.Dockerd, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	booted := make(chan error, 1)
	go func() { booted <- l.Boot(t.Context(), "h1") }()
	if err := drive.Until(t.Context(), time.Minute, "it boots", func() error {
		_, isThere, err := l.byName["h1"].proc(t.Context(), engine)
		if err == nil && !isThere {
			err = errors.New("no engine yet")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	if err := l.Close(t.Context()); err != nil {
		t.Errorf("Close = %v", err)
	}
	if took := time.Since(from); took > upWithin/4 {
		t.Errorf("it took %s to close a lab with a host that boots", took)
	}
	if err := <-booted; !errors.Is(err, ErrClosed) && !errors.Is(err, host.ErrDown) {
		t.Errorf("Boot while it is closed = %v", err)
	}
	gone(t, l.Name(), l.Dir())
}

// A host that ends by itself, as when the machine runs out of memory, is down: links can
// be changed, and it boots again.
func TestEndsByItself(t *testing.T) {
	cfg := config(t)
	cfg.Topology = topology.LAN(2)
	l := up(t, cfg)
	h, err := l.Host("h1")
	if err != nil {
		t.Fatal(err)
	}
	m := l.byName["h1"]
	of, err := m.running()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(h.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-of.Done()
	if h, err := l.Host("h1"); err != nil || h.IsUp {
		t.Errorf("a host that has ended is %+v, %v", h, err)
	}
	if stats, err := l.Stats(t.Context()); err != nil || stats[0].CPU == 0 || stats[0].Host.IsUp {
		t.Errorf("Stats of it = %+v, %v, want what it has used", stats, err)
	}
	if err := l.SetLink("h1", "h2", topology.Change{Loss: "2%", Rate: "20mbit"}, false); err != nil {
		t.Errorf("SetLink = %v", err)
	}
	if err := l.Heal(); err != nil {
		t.Errorf("Heal = %v", err)
	}
	if err := l.await(t.Context(), m, of, engine); !errors.Is(err, host.ErrDown) {
		t.Errorf("waiting for its engine = %v", err)
	}
	if err := l.Boot(t.Context(), "h1"); err != nil {
		t.Errorf("Boot = %v", err)
	}
}

// What would wait for a frozen host is refused at once.
func TestFrozenIsRefused(t *testing.T) {
	l := up(t, config(t))
	if err := l.Freeze(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"stop its engine": l.Engine(t.Context(), "h1", Stop), "start it": l.Engine(t.Context(), "h1", Launch),
		"freeze one process": l.Freeze(t.Context(), "h1/dockerd"), "fill its disk": l.FillDisk(t.Context(), "h1", "state", false),
		"load an image": l.LoadImage(t.Context(), "h1", os.DevNull),
	} {
		if down, is := errors.AsType[*DownError](err); !is || !down.IsFrozen {
			t.Errorf("%s: %v, want that it is frozen", what, err)
		}
	}
	if err := l.Thaw(t.Context(), "h1"); err != nil {
		t.Error(err)
	}
}
