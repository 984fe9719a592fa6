// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/shoalnet/shoal/lab/host"
	"github.com/shoalnet/shoal/lab/topology"
	"github.com/shoalnet/shoal/lab/wire"
)

// Host is what is to be known of a host or a router of the lab, at one moment.
type Host struct {
	Name, Zone, Behind string
	Labels             map[string]string
	Addr               netip.Addr
	IsRouter           bool
	IsUp, IsFrozen     bool
	PID                int    // its first process, as this machine counts; 0: it is down
	Dir                string // its logs and its disks: init.log, dockerd.log, shoald.log
	Socket, Engine     string // of its shoald and its engine, as paths of this machine; "": it is down
}

// HostStats is what a host has used.
type HostStats struct {
	Host                  Host
	CPU                   time.Duration    // of all its processes and containers, since the lab began
	Procs                 []host.ProcState // with their memory; none of a host that is frozen or down
	Written               map[string]int64 // bytes written to each disk since it booted; the same
	BytesIn, BytesOut     uint64           // on all its links, since the lab began
	PacketsIn, PacketsOut uint64
}

// LinkState is what a pair has between it, and what passed.
type LinkState struct {
	Link     wire.Link
	Counters wire.Counters
}

// Name is the lab's.
func (l *Lab) Name() string { return l.cfg.Name }

// Dir is where the lab's files are.
func (l *Lab) Dir() string { return l.cfg.Dir }

// Topology is what the lab was made from. It must not be changed.
func (l *Lab) Topology() *topology.Topology { return l.cfg.Topology }

// Hosts tells of every host, in the topology's order, without the routers.
func (l *Lab) Hosts() []Host {
	var all []Host
	for _, m := range l.hosts() {
		all = append(all, m.state(l.cfg.Bare))
	}
	return all
}

// Host tells of one host or router. An [*UnknownHostError] lists those there are.
func (l *Lab) Host(name string) (Host, error) {
	m, err := l.machine(name)
	if err != nil {
		return Host{}, err
	}
	return m.state(l.cfg.Bare), nil
}

func (l *Lab) machine(name string) (*machine, error) {
	if m := l.byName[name]; m != nil {
		return m, nil
	}
	e := &UnknownHostError{Name: name}
	for _, m := range l.machines {
		e.Known = append(e.Known, m.name)
	}
	return nil, e
}

func (l *Lab) hosts() []*machine {
	var all []*machine
	for _, m := range l.machines {
		if !m.isRouter {
			all = append(all, m)
		}
	}
	return all
}

func (m *machine) state(isBare bool) Host {
	s := Host{Name: m.name, Zone: m.zone, IsRouter: m.isRouter, Addr: m.places[0].Addr.Addr(), Dir: m.dir}
	if m.of != nil {
		s.Zone, s.Behind, s.Labels = m.of.Zone, m.of.Behind, m.of.Labels
	}
	h, err := m.running()
	if err != nil {
		return s
	}
	m.mu.Lock()
	s.IsFrozen = m.isFrozen
	m.mu.Unlock()
	s.IsUp, s.PID = true, h.PID()
	if !m.isRouter {
		s.Engine = h.Path(engineSocket)
		if !isBare {
			s.Socket = h.Path(daemonSocket)
		}
	}
	return s
}

// Stats tells what every host and router has used, routers first.
func (l *Lab) Stats(ctx context.Context) ([]HostStats, error) {
	counters := l.sw.Counters()
	var all []HostStats
	for _, m := range l.machines {
		s := HostStats{Host: m.state(l.cfg.Bare)}
		for p, c := range counters {
			switch m.name {
			case p.From:
				s.BytesOut, s.PacketsOut = s.BytesOut+c.Bytes, s.PacketsOut+c.Packets
			case p.To:
				s.BytesIn, s.PacketsIn = s.BytesIn+c.Bytes, s.PacketsIn+c.Packets
			}
		}
		if err := m.measure(ctx, &s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// measure asks a host that runs; one that goes down meanwhile is down.
func (m *machine) measure(ctx context.Context, s *HostStats) error {
	var err error
	if s.CPU, err = m.group.CPU(); err != nil && !errors.Is(err, fs.ErrNotExist) { // that of one that never ran
		return fmt.Errorf("measure %s: %w", m.name, err)
	}
	h, err := m.running()
	if err != nil {
		s.Host.IsUp = false
		return nil //nolint:nilerr // a host that is down is no error of asking
	}
	if s.Host.IsFrozen { // it would not answer
		return nil
	}
	s.Procs, s.Written, err = h.Procs(ctx)
	if errors.Is(err, host.ErrDown) {
		s.Host.IsUp = false
		return nil
	}
	if err != nil {
		return fmt.Errorf("measure %s: %w", m.name, err)
	}
	return nil
}

// Links tells what every pair of cards has between it, and what passed since the lab
// began.
func (l *Lab) Links() map[wire.Pair]LinkState {
	all := map[wire.Pair]LinkState{}
	for p, c := range l.sw.Counters() {
		all[p] = LinkState{Link: l.sw.Link(p), Counters: c}
	}
	return all
}
