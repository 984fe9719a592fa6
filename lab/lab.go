// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/lab/host"
	"github.com/shoalnet/shoal/lab/topology"
	"github.com/shoalnet/shoal/lab/wire"
)

// atOnce bounds how many hosts boot at a time: more on few processors only makes each of
// them late, and joins take turns at the peer that admits them anyway.
const atOnce = 8

// Lab is a running lab. It is safe for concurrent use; what changes one host waits for
// what changes it already.
type Lab struct {
	cfg      Config
	claim    *claim
	sw       *wire.Switch
	machines []*machine // routers first
	byName   map[string]*machine

	linking sync.Mutex // held while links are read and changed

	over     chan struct{} // closed when Close begins
	close    sync.Once
	closeErr error // of Close, after it
}

// ErrClosed says that the lab is no more.
var ErrClosed = errors.New("the lab is closed")

// Start makes a lab and returns when all its hosts are up and, unless it is bare, know
// each other as one cluster. What cannot be is refused with a [*CheckError] before
// anything is made, a host that does not come up is a [*BootError], and an error leaves
// nothing behind. What an earlier lab of the name left is removed.
func Start(ctx context.Context, cfg Config) (_ *Lab, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	claim, err := claimName(cfg.Name, cfg.Dir, cfg.Progress)
	if err != nil {
		return nil, err
	}
	l := &Lab{cfg: cfg, claim: claim, sw: wire.New(wire.Config{Seed: cfg.Seed, Log: cfg.Log}), byName: map[string]*machine{}, over: make(chan struct{})}
	defer func() {
		if err == nil {
			return
		}
		if closeErr := l.Close(context.WithoutCancel(ctx)); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	if err := cfg.Claimed(); err != nil {
		return nil, err
	}
	if err := l.lay(); err != nil {
		return nil, err
	}
	if err := l.bootAll(ctx); err != nil {
		return nil, err
	}
	if cfg.Bare {
		return l, nil
	}
	return l, l.form(ctx)
}

// lay writes the lab's files and sets its links, before anything runs.
func (l *Lab) lay() error {
	for _, r := range l.cfg.Topology.Routers {
		if err := l.addRouter(r); err != nil {
			return err
		}
	}
	for i := range l.cfg.Topology.Hosts {
		if err := l.addHost(&l.cfg.Topology.Hosts[i]); err != nil {
			return err
		}
	}
	l.introduce()
	info := Info{
		Name: l.cfg.Name, Dir: l.cfg.Dir, Driver: os.Getpid(), Since: time.Now(), Bare: l.cfg.Bare,
		Topology: string(l.cfg.Topology.YAML()),
	}
	for _, m := range l.machines {
		info.Hosts = append(info.Hosts, m.name)
	}
	if err := info.write(); err != nil {
		return err
	}
	// An engine of its own must not read the machine's configuration, nor a shoald its policy.
	for name, text := range map[string]string{engineConfig: "{}\n", policyFile: "allow: {}\n"} {
		if err := os.WriteFile(filepath.Join(l.cfg.Dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("lab %s: %w", l.cfg.Name, err)
		}
	}
	return l.Heal()
}

// add makes the directory of a machine, which outlives its boots.
func (l *Lab) add(m *machine) error {
	m.group = host.Group{Lab: l.cfg.Name, Host: m.name}
	m.dir = filepath.Join(l.cfg.Dir, m.name)
	m.spec.Name, m.spec.Names = m.name, l.names()
	m.turn = make(chan struct{}, 1)
	l.machines = append(l.machines, m)
	l.byName[m.name] = m
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("lab %s: %w", l.cfg.Name, err)
	}
	return nil
}

func (l *Lab) addRouter(r topology.Router) error {
	out, okOut := l.cfg.Topology.Place(r.Name)
	lan, okLAN := l.cfg.Topology.LANPlace(r.Name)
	if !okOut || !okLAN {
		return fmt.Errorf("lab %s: router %s has no place on the network", l.cfg.Name, r.Name)
	}
	return l.add(&machine{
		name: r.Name, isRouter: true, zone: r.Zone, places: []topology.Place{out, lan},
		spec: host.Spec{NICs: []host.NIC{nic("eth0", out), nic("eth1", lan)}, Gateway: out.Gateway, IsRouter: true},
	})
}

func (l *Lab) addHost(h *topology.Host) error {
	place, ok := l.cfg.Topology.Place(h.Name)
	if !ok {
		return fmt.Errorf("lab %s: host %s has no place on the network", l.cfg.Name, h.Name)
	}
	m := &machine{
		name: h.Name, of: h, places: []topology.Place{place},
		spec: host.Spec{NICs: []host.NIC{nic("eth0", place)}, Gateway: place.Gateway},
	}
	if err := l.add(m); err != nil {
		return err
	}
	m.spec.Disks = []host.Disk{
		{Name: "state", Image: filepath.Join(m.dir, "state.img"), Dir: stateDir, Bytes: l.cfg.Topology.Disk.State},
		{Name: "engine", Image: filepath.Join(m.dir, "engine.img"), Dir: engineDir, Bytes: l.cfg.Topology.Disk.Engine},
	}
	if l.cfg.Bare {
		return nil
	}
	return l.writeDaemonConfig(m)
}

func nic(name string, p topology.Place) host.NIC {
	return host.NIC{Name: name, MAC: p.MAC.String(), Addr: p.Addr}
}

// names is what /etc/hosts says on every host.
func (l *Lab) names() string {
	var text strings.Builder
	text.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, r := range l.cfg.Topology.Routers {
		if p, ok := l.cfg.Topology.Place(r.Name); ok {
			fmt.Fprintln(&text, p.Addr.Addr(), r.Name)
		}
	}
	for i := range l.cfg.Topology.Hosts {
		h := &l.cfg.Topology.Hosts[i]
		if p, ok := l.cfg.Topology.Place(h.Name); ok {
			fmt.Fprintln(&text, p.Addr.Addr(), h.Name)
		}
	}
	return text.String()
}

// maxAsked is how many neighbours all hosts may find by asking (ARP): the kernel keeps at
// most 1,024 of that kind for all network namespaces together (gc_thresh3, arp(7)), and
// with 33 hosts the table is full and nobody new is reached. It keeps others besides.
const maxAsked = 900

// introduce tells the machines of each other's cards where they would be too many to ask.
func (l *Lab) introduce() {
	if n := len(l.machines); n*(n-1) <= maxAsked {
		return
	}
	for _, m := range l.machines {
		for i, own := range m.places {
			for _, other := range l.machines {
				for _, p := range other.places {
					if other != m && p.Segment == own.Segment {
						m.spec.Neighbours = append(m.spec.Neighbours, nic(m.spec.NICs[i].Name, p))
					}
				}
			}
		}
	}
}

// bootAll boots every machine, routers first.
func (l *Lab) bootAll(ctx context.Context) error {
	var names []string
	for _, m := range l.machines {
		names = append(names, m.name)
	}
	l.cfg.Progress("booting " + strings.Join(names, ", "))
	for _, isRouter := range []bool{true, false} {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(atOnce)
		for _, m := range l.machines {
			if m.isRouter == isRouter {
				group.Go(func() error { return l.boot(ctx, m) })
			}
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends every host at once, whatever is being done to it, and removes all of the lab:
// processes, control groups, disks, logs. An error names what is left. Nothing of the lab
// works afterwards; a second call returns what the first did.
func (l *Lab) Close(ctx context.Context) error {
	l.close.Do(func() {
		close(l.over)
		group := errgroup.Group{}
		for _, m := range l.machines {
			group.Go(func() error { return l.cutPower(ctx, m) })
		}
		err := errors.Join(group.Wait(), l.sw.Close())
		l.closeErr = errors.Join(err, l.claim.end(sweep(l.cfg.Name)))
	})
	return l.closeErr
}
