// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/host"
)

// proc is a process of a host; the zero one: it is not there.
func proc(t *testing.T, l *lab.Lab, on, name string) host.ProcState {
	t.Helper()
	stats, err := l.Stats(t.Context())
	ok(t, err)
	for _, s := range stats {
		for _, p := range s.Procs {
			if s.Host.Name == on && p.Name == name {
				return p
			}
		}
	}
	return host.ProcState{}
}

// What is frozen stays where it is until it is let go on; a frozen host holds up nobody,
// and its power can be cut.
func TestFreeze(t *testing.T) {
	l := lab.Up(t, lab.Hosts(2))
	for _, name := range []string{"shoald", "dockerd", "containerd"} {
		ok(t, l.Freeze(t.Context(), "h2/"+name))
		if p := proc(t, l, "h2", name); !p.IsFrozen {
			t.Errorf("frozen %s is %+v", name, p)
		}
		ok(t, l.Thaw(t.Context(), "h2/"+name))
		if p := proc(t, l, "h2", name); p.IsFrozen || p.PID == 0 {
			t.Errorf("thawed %s is %+v", name, p)
		}
	}
	if err := l.Freeze(t.Context(), "h2/nobody"); !errors.Is(err, host.ErrNoProcess) {
		t.Errorf("freezing a process that is not there: %v", err)
	}
	ok(t, l.Freeze(t.Context(), "h2"))
	ok(t, client(t, l, "h1").Heard(t.Context(), 1, time.Minute))
	if h, err := l.Host("h2"); err != nil || !h.IsUp || !h.IsFrozen {
		t.Errorf("a frozen host is %+v, %v", h, err)
	}
	if p := proc(t, l, "h2", "shoald"); p.PID != 0 {
		t.Errorf("a frozen host tells of %+v", p)
	}
	ok(t, l.Thaw(t.Context(), "h2"))
	ok(t, client(t, l, "h1").Heard(t.Context(), 2, time.Minute))
	ok(t, l.Freeze(t.Context(), "h2"))
	ok(t, l.Kill(t.Context(), "h2"))
	ok(t, l.Boot(t.Context(), "h2"))
	ok(t, client(t, l, "h1").Heard(t.Context(), 2, time.Minute))
}

// A power cut ends paused containers, too: they are frozen apart from their host.
func TestKillPaused(t *testing.T) {
	l := lab.Up(t, lab.Bare(), lab.Hosts(1), lab.Images(hello(t)))
	must(t)(l.Docker(t.Context(), "h1", "run", "-d", "--pull", "never", "--network", "none", "--name", "paused", image, "work"))
	must(t)(l.Docker(t.Context(), "h1", "pause", "paused"))
	ok(t, l.Freeze(t.Context(), "h1"))
	ok(t, l.Kill(t.Context(), "h1"))
	ok(t, l.Boot(t.Context(), "h1"))
	if got := must(t)(l.Docker(t.Context(), "h1", "ps", "-a", "--format", "{{.Names}} {{.State}}")); got != "paused exited" {
		t.Errorf("after the power cut its container is %q", got)
	}
}

// An engine or a daemon can be stopped, crashed and hung, and started after each.
func TestEngineAndDaemon(t *testing.T) {
	l := lab.Up(t, lab.Hosts(1))
	for _, c := range []struct {
		process string
		act     func(lab.Action) error
	}{
		{"dockerd", func(a lab.Action) error { return l.Engine(t.Context(), "h1", a) }},
		{"shoald", func(a lab.Action) error { return l.Daemon(t.Context(), "h1", a) }},
	} {
		for _, what := range []lab.Action{lab.Stop, lab.Crash, lab.Hang} {
			ok(t, c.act(what))
			if p := proc(t, l, "h1", c.process); (p.PID != 0) != (what == lab.Hang) || p.IsFrozen != (what == lab.Hang) {
				t.Errorf("after %s %s is %+v", what, c.process, p)
			}
			ok(t, c.act(lab.Launch))
			if p := proc(t, l, "h1", c.process); p.PID == 0 || p.IsFrozen {
				t.Errorf("started after %s %s is %+v", what, c.process, p)
			}
			if err := c.act(lab.Launch); err == nil {
				t.Errorf("%s was started twice", c.process)
			}
		}
		if err := c.act("burn"); err == nil || !strings.Contains(err.Error(), "crash") {
			t.Errorf("an action that there is not: %v", err)
		}
	}
	must(t)(l.Docker(t.Context(), "h1", "ps"))
	must(t)(l.Shoal(t.Context(), "h1", "ps"))
}

// A hung process that is stopped ends, too.
func TestStopHung(t *testing.T) {
	l := lab.Up(t, lab.Hosts(1))
	ok(t, l.Daemon(t.Context(), "h1", lab.Hang))
	ok(t, l.Daemon(t.Context(), "h1", lab.Stop))
	if p := proc(t, l, "h1", "shoald"); p.PID != 0 {
		t.Errorf("a stopped shoald is %+v", p)
	}
}

// A full disk refuses a byte and takes it again when there is room; a clock is set for
// one daemon only.
func TestDiskAndClock(t *testing.T) {
	l := lab.Up(t, lab.Hosts(2))
	h, err := l.Host("h1")
	ok(t, err)
	for _, c := range []struct{ disk, dir string }{{"state", "/var/lib/shoal"}, {"engine", "/var/lib/docker"}} {
		ok(t, l.FillDisk(t.Context(), "h1", c.disk, false))
		if err := l.Exec(t.Context(), "h1", []string{"dd", "if=/dev/zero", "of=" + c.dir + "/more", "bs=1M", "count=1"}, lab.Streams{}); err == nil {
			t.Errorf("the full disk %s took more", c.disk)
		}
		ok(t, l.FillDisk(t.Context(), "h1", c.disk, true))
		within(t, l, "h1", "dd", "if=/dev/zero", "of="+c.dir+"/more", "bs=1M", "count=1")
	}
	if err := l.FillDisk(t.Context(), "h1", "other", false); err == nil {
		t.Error("a disk that is not there was filled")
	}
	ok(t, l.Clock("h1", -90*time.Minute))
	const said = "the testbed set the clock"
	ok(t, drive.Until(t.Context(), 10*time.Second, "the daemon sees its clock", func() error {
		text, err := os.ReadFile(filepath.Join(h.Dir, "shoald.log"))
		if err == nil && !strings.Contains(string(text), said) {
			err = errors.New("it does not say so")
		}
		return err
	}))
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(h.Dir), "h2", "shoald.log")); err != nil || strings.Contains(string(text), said) {
		t.Errorf("the other's clock was set, too: %v", err)
	}
}
