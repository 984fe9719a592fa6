// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal/lab/host"
	"github.com/shoalnet/shoal/lab/topology"
	"github.com/shoalnet/shoal/lab/wire"
)

// Action is what is done to a process of a host.
type Action string

// What can be done to an engine or a daemon.
const (
	Stop   Action = "stop"  // in order, and by force after 20 s; an engine stops its containers
	Crash  Action = "crash" // at once (SIGKILL); containers stay
	Hang   Action = "hang"  // it stays, but does nothing (SIGSTOP)
	Launch Action = "start" // after any of these; returns when it answers
)

// SetLink changes what is between two hosts or routers of one segment, on top of what is
// there now, from now on: from a to b, and back unless it is one way.
func (l *Lab) SetLink(a, b string, c topology.Change, oneWay bool) error {
	pair, err := l.cfg.Topology.Between(a, b)
	if err != nil {
		return &topology.AskError{Err: err}
	}
	l.linking.Lock()
	defer l.linking.Unlock()
	pairs := []wire.Pair{pair}
	if !oneWay {
		pairs = append(pairs, wire.Pair{Segment: pair.Segment, From: b, To: a})
	}
	links := make([]wire.Link, len(pairs))
	for i, p := range pairs {
		if links[i], err = c.Apply(l.sw.Link(p)); err != nil {
			return &topology.AskError{Err: fmt.Errorf("link %s to %s: %w", a, b, err)}
		}
	}
	for i, p := range pairs {
		if err := l.sw.SetLink(p, links[i]); err != nil {
			return err
		}
	}
	return nil
}

// Split cuts the links between sides, "a b | c d": all of them, or those from the first
// side to the others only. Hosts that are not named keep theirs. Splits add up.
func (l *Lab) Split(sides string, oneWay bool) error {
	parsed, err := l.cfg.Topology.ParseSplit(sides)
	if err != nil {
		return &topology.AskError{Err: err}
	}
	l.linking.Lock()
	defer l.linking.Unlock()
	for _, p := range l.cfg.Topology.Split(parsed, oneWay) {
		link := l.sw.Link(p)
		link.Cut = true
		if err := l.sw.SetLink(p, link); err != nil {
			return err
		}
	}
	return nil
}

// Heal makes all links what the topology says.
func (l *Lab) Heal() error {
	l.linking.Lock()
	defer l.linking.Unlock()
	for p, link := range l.cfg.Topology.Links() {
		if l.sw.Link(p) == link {
			continue
		}
		if err := l.sw.SetLink(p, link); err != nil {
			return err
		}
	}
	return nil
}

// Kill is a power cut: the host ends at once, containers and all. Its disks keep what was
// synced. One that is down already is a [*DownError].
func (l *Lab) Kill(ctx context.Context, name string) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.giveBack()
	if _, err := m.running(); err != nil {
		return err
	}
	return l.end(m)
}

// Boot boots a host that was killed, with the disks it had, and returns when its engine
// and its daemon answer.
func (l *Lab) Boot(ctx context.Context, name string) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	return l.boot(ctx, m)
}

// Freeze stops a host where it stands, with all its processes and containers, or one
// process of it: "h1", "h1/shoald", "h1/dockerd", "h1/containerd".
func (l *Lab) Freeze(ctx context.Context, target string) error { return l.freeze(ctx, target, true) }

// Thaw lets what was frozen go on.
func (l *Lab) Thaw(ctx context.Context, target string) error { return l.freeze(ctx, target, false) }

func (l *Lab) freeze(ctx context.Context, target string, isFrozen bool) error {
	name, process, isProcess := strings.Cut(target, "/")
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	if isProcess {
		return m.hold(ctx, process, isFrozen)
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.giveBack()
	h, err := m.running()
	if err != nil {
		return err
	}
	if err := h.Freeze(isFrozen); err != nil {
		return fmt.Errorf("freeze %s: %w", name, err)
	}
	m.mu.Lock()
	m.isFrozen = isFrozen
	m.mu.Unlock()
	return nil
}

// Engine does something to the Docker engine of a host.
func (l *Lab) Engine(ctx context.Context, name string, what Action) error {
	return l.act(ctx, name, engine, what)
}

// Daemon does something to the shoald of a host.
func (l *Lab) Daemon(ctx context.Context, name string, what Action) error {
	return l.act(ctx, name, daemon, what)
}

func (l *Lab) act(ctx context.Context, name, process string, what Action) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.giveBack()
	if m.isRouter || process == daemon && l.cfg.Bare {
		return fmt.Errorf("%s has no %s", name, process)
	}
	switch what {
	case Stop:
		return l.stop(ctx, m, process)
	case Crash:
		return l.kill(ctx, m, process)
	case Hang:
		return m.hold(ctx, process, true)
	case Launch:
		return l.launch(ctx, m, process)
	}
	return &topology.AskError{Err: fmt.Errorf("%q is nothing that can be done to %s; there is %s, %s, %s and %s", what, process, Stop, Crash, Hang, Launch)}
}

// launch starts a process, or lets one go on that hangs.
func (l *Lab) launch(ctx context.Context, m *machine, process string) error {
	p, isThere, err := m.proc(ctx, process)
	switch {
	case err != nil:
		return err
	case !isThere:
		return l.start(ctx, m, process)
	case !p.IsFrozen:
		return fmt.Errorf("%s of %s runs", process, m.name)
	}
	if err := m.hold(ctx, process, false); err != nil {
		return err
	}
	h, err := m.running()
	if err != nil {
		return err
	}
	return l.await(ctx, m, h, process)
}

// FillDisk takes all free room of a disk of a host, "state" or "engine", or gives back
// what was taken.
func (l *Lab) FillDisk(ctx context.Context, name, disk string, isFree bool) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(m.spec.Disks, func(d host.Disk) bool { return d.Name == disk }) {
		return &topology.AskError{Err: fmt.Errorf("%s has no disk %q; hosts have state and engine", name, disk)}
	}
	h, err := m.answering()
	if err != nil {
		return err
	}
	if err := h.Fill(ctx, disk, isFree); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Clock sets the civil clock of a host's shoald off by so much; it notices within 0.1 s,
// and keeps it across boots. Containers and the engine have the machine's clock.
func (l *Lab) Clock(name string, offset time.Duration) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	if m.isRouter || l.cfg.Bare {
		return fmt.Errorf("%s has no %s, whose clock could be set", name, daemon)
	}
	file := filepath.Join(m.dir, clockFile)
	err = os.WriteFile(file+".part", []byte(offset.String()+"\n"), 0o600)
	if err == nil {
		err = os.Rename(file+".part", file) // it is read at any moment
	}
	if err != nil {
		return fmt.Errorf("set the clock of %s: %w", name, err)
	}
	return nil
}
