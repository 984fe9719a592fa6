// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/host"
)

// Names of the processes of a host, as Freeze takes them.
const (
	engine = "dockerd"
	daemon = "shoald"
)

// Where things are, as a host sees it.
const (
	stateDir     = "/var/lib/shoal"
	engineDir    = "/var/lib/docker"
	engineSocket = "/run/docker.sock"
	daemonSocket = "/run/shoal.sock"
	enginePID    = "/run/docker.pid"
)

// Files in the lab's directory, or in a host's there.
const (
	engineConfig = "dockerd.json"
	policyFile   = "policy.yaml"
	daemonConfig = "shoald.yaml"
	clockFile    = "clock"
)

const (
	// upWithin is how long a process may take to answer. It takes an engine 0.5 s on an
	// idle machine; many on few processors wait for each other.
	upWithin = time.Minute
	// stopWithin is how long one may take to end before it is killed: an engine gives its
	// containers 10 s (docker stop), all at once.
	stopWithin = 20 * time.Second
	// farDelay is from where on the daemons are told that they are far apart, one way.
	farDelay = 25 * time.Millisecond
)

// path is where the programs of a host look for others.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (l *Lab) env() []string {
	return []string{"PATH=" + filepath.Dir(l.cfg.Binaries.Dockerd) + ":" + path, "HOME=/root"}
}

// startAll starts a host's processes and waits until they answer.
func (l *Lab) startAll(ctx context.Context, m *machine) error {
	if err := l.start(ctx, m, engine); err != nil {
		return err
	}
	if !m.hasImages { // else they are on its disk
		for _, file := range l.cfg.Images {
			if err := l.LoadImage(ctx, m.name, file); err != nil {
				return err
			}
		}
		m.hasImages = true
	}
	if l.cfg.Bare {
		return nil
	}
	return l.start(ctx, m, daemon)
}

// start starts a process of a host and waits until it answers.
func (l *Lab) start(ctx context.Context, m *machine, name string) error {
	h, err := m.running()
	if err != nil {
		return err
	}
	p := host.Proc{Name: name, Env: l.env(), Log: m.log(name)}
	if name == engine {
		p.Args = l.engineArgs(m)
		// One that was killed has left it, and its number may be another process's by now.
		if err := os.Remove(h.Path(enginePID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &BootError{Host: m.name, What: name, Err: err}
		}
	} else {
		p.Args = l.daemonArgs(m)
	}
	m.noteStart(name)
	if err := h.Start(ctx, p); err != nil {
		return &BootError{Host: m.name, What: name, Err: err}
	}
	return l.await(ctx, m, h, name)
}

// await waits until a process answers, or has ended.
func (l *Lab) await(ctx context.Context, m *machine, h *host.Host, name string) error {
	wait, giveUp := context.WithCancel(ctx)
	defer giveUp()
	ask := func(ctx context.Context) error { return pack.Ping(ctx, "unix://"+h.Path(engineSocket)) }
	if name == daemon {
		ask = func(ctx context.Context) error { return dial(ctx, h.Path(daemonSocket)) }
	}
	var ended error
	err := drive.Until(wait, upWithin, "it answers", func() error {
		if ended = l.cannotAnswer(m, h, name); ended != nil {
			giveUp()
			return ended
		}
		once, cancel := context.WithTimeout(wait, 5*time.Second)
		defer cancel()
		return ask(once)
	})
	if ended != nil {
		err = ended
	}
	if err != nil {
		return &BootError{Host: m.name, What: name, Last: lastLine(m.log(name)), Err: err}
	}
	return nil
}

// cannotAnswer says why a process will never answer, or nil.
func (l *Lab) cannotAnswer(m *machine, h *host.Host, name string) error {
	if how := m.howEnded(name); how != "" {
		return errors.New("it ended: " + how)
	}
	select {
	case <-l.over:
		return ErrClosed
	case <-h.Done():
		return host.ErrDown
	default:
		return nil
	}
}

func dial(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return c.Close()
}

func (l *Lab) engineArgs(m *machine) []string {
	return []string{
		l.cfg.Binaries.Dockerd, "--config-file", filepath.Join(l.cfg.Dir, engineConfig),
		"--data-root", engineDir, "--exec-root", "/run/docker", "--pidfile", enginePID, "--host", "unix://" + engineSocket,
		"--cgroup-parent", m.group.Containers(), "--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2",
	}
}

func (l *Lab) daemonArgs(m *machine) []string {
	args := []string{l.cfg.Binaries.Shoald, "--config", filepath.Join(m.dir, daemonConfig), "--testbed-clock", filepath.Join(m.dir, clockFile)}
	return append(args, l.cfg.Flags...)
}

// writeDaemonConfig writes what shoald is told, once: who edits it finds it so after the
// next boot.
func (l *Lab) writeDaemonConfig(m *machine) error {
	labels := map[string]string{}
	maps.Copy(labels, m.of.Labels)
	if m.of.Zone != "" {
		labels["zone"] = m.of.Zone
	}
	text, err := yaml.Marshal(struct {
		Name    string            `yaml:"name"`
		Data    string            `yaml:"data"`
		Socket  string            `yaml:"socket"`
		Listen  []string          `yaml:"listen"`
		Labels  map[string]string `yaml:"labels,omitempty"`
		Profile string            `yaml:"profile"`
		Docker  string            `yaml:"docker"`
		Policy  string            `yaml:"policy"`
	}{
		Name: m.name, Data: stateDir, Socket: daemonSocket, Listen: []string{m.places[0].Addr.Addr().String()},
		Labels: labels, Profile: l.profile(), Docker: "unix://" + engineSocket, Policy: filepath.Join(l.cfg.Dir, policyFile),
	})
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", m.name, err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, daemonConfig), text, 0o600); err != nil {
		return fmt.Errorf("configuration of %s: %w", m.name, err)
	}
	return nil
}

// profile is what the daemons are told of their distance: the same to all.
func (l *Lab) profile() string {
	for _, link := range l.cfg.Topology.Links() {
		if link.Delay >= farDelay {
			return "wan"
		}
	}
	return "lan"
}

// stop ends a process in order, or by force if it takes too long.
func (l *Lab) stop(ctx context.Context, m *machine, name string) error {
	if err := m.signal(ctx, name, syscall.SIGTERM); err != nil {
		return err
	}
	if err := m.signal(ctx, name, syscall.SIGCONT); err != nil && !errors.Is(err, host.ErrNoProcess) {
		return err
	}
	if l.awaitEnd(ctx, m, name) == nil {
		return nil
	}
	return l.kill(ctx, m, name)
}

// kill ends a process at once.
func (l *Lab) kill(ctx context.Context, m *machine, name string) error {
	if err := m.signal(ctx, name, syscall.SIGKILL); err != nil {
		return err
	}
	return l.awaitEnd(ctx, m, name)
}

func (l *Lab) awaitEnd(ctx context.Context, m *machine, name string) error {
	return drive.Until(ctx, stopWithin, name+" of "+m.name+" ends", func() error {
		if _, isThere, err := m.proc(ctx, name); err != nil || !isThere {
			return err
		}
		return errors.New("it runs")
	})
}
