// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/topology"
)

// Verb is what a driver can be asked.
type Verb string

// The verbs, and which fields of an [Ask] they read.
const (
	Hosts     Verb = "hosts"      // answers []Host
	Links     Verb = "links"      // answers []Link
	Stats     Verb = "stats"      // answers []Stat
	Exec      Verb = "exec"       // Host, Args; answers Command
	Shoal     Verb = "shoal"      // the same
	Docker    Verb = "docker"     // the same
	SetLink   Verb = "link"       // Host, Other, Change, OneWay
	Split     Verb = "split"      // Sides, OneWay
	Heal      Verb = "heal"       //
	Kill      Verb = "kill"       // Host
	Boot      Verb = "boot"       // Host
	Freeze    Verb = "freeze"     // Host, which may be HOST/PROCESS
	Thaw      Verb = "thaw"       // the same
	Engine    Verb = "engine"     // Host, Action
	Daemon    Verb = "daemon"     // Host, Action
	FillDisk  Verb = "fill-disk"  // Host, Disk, Free
	Clock     Verb = "clock"      // Host, Offset
	LoadImage Verb = "load-image" // Host, File
	down      Verb = "down"       // by Client.Down
)

// Ask is what a verb is told.
type Ask struct {
	Host, Other string          `json:",omitempty"`
	Sides       string          `json:",omitempty"`
	Change      topology.Change `json:",omitzero"`
	OneWay      bool            `json:",omitempty"`
	Action      lab.Action      `json:",omitempty"`
	Disk        string          `json:",omitempty"`
	Free        bool            `json:",omitempty"`
	Offset      string          `json:",omitempty"` // a duration
	File        string          `json:",omitempty"` // absolute
	Args        []string        `json:",omitempty"`
}

// Command is a program of this machine: Args[0] is its absolute path, or a name on the PATH.
type Command struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"` // all of it but for TERM; none: the caller's own
}

// Host is a host or router as "shoal-lab ps -o json" prints it.
type Host struct {
	Name   string            `json:"name"`
	Zone   string            `json:"zone,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Behind string            `json:"behind,omitempty"`
	Addr   string            `json:"addr"`
	Router bool              `json:"router,omitempty"`
	State  string            `json:"state"` // up, frozen, down
	PID    int               `json:"pid,omitempty"`
	Dir    string            `json:"dir"`
	Socket string            `json:"socket,omitempty"`
	Engine string            `json:"engine,omitempty"`
}

func hostOf(h *lab.Host) Host {
	out := Host{
		Name: h.Name, Zone: h.Zone, Labels: h.Labels, Behind: h.Behind, Addr: h.Addr.String(), Router: h.IsRouter, State: "down",
		PID: h.PID, Dir: h.Dir, Socket: h.Socket, Engine: h.Engine,
	}
	switch {
	case h.IsFrozen:
		out.State = "frozen"
	case h.IsUp:
		out.State = "up"
	}
	return out
}

// Stat is what a host has used, as "shoal-lab stats -o json" prints it.
type Stat struct {
	Host       string           `json:"host"`
	State      string           `json:"state"`
	CPUSeconds float64          `json:"cpu_seconds"`
	RSS        map[string]int64 `json:"rss_bytes"`     // by process, and "total"
	Written    map[string]int64 `json:"written_bytes"` // by disk, since it booted
	BytesIn    uint64           `json:"bytes_in"`
	BytesOut   uint64           `json:"bytes_out"`
	PacketsIn  uint64           `json:"packets_in"`
	PacketsOut uint64           `json:"packets_out"`
}

// Total is the key of Stat.RSS for all processes, those of containers too.
const Total = "total"

func statOf(s *lab.HostStats) Stat {
	out := Stat{
		Host: s.Host.Name, State: hostOf(&s.Host).State, CPUSeconds: s.CPU.Seconds(), RSS: map[string]int64{}, Written: map[string]int64{},
		BytesIn: s.BytesIn, BytesOut: s.BytesOut, PacketsIn: s.PacketsIn, PacketsOut: s.PacketsOut,
	}
	maps.Copy(out.Written, s.Written)
	for _, p := range s.Procs {
		out.RSS[p.Name] += p.RSSBytes
		out.RSS[Total] += p.RSSBytes
	}
	return out
}

// Link is what is between two cards, one way, and what became of what passed, as
// "shoal-lab link -o json" prints it.
type Link struct {
	Segment    string  `json:"segment"`
	From       string  `json:"from"`
	To         string  `json:"to"`
	Delay      string  `json:"delay"`
	Jitter     string  `json:"jitter"`
	Loss       float64 `json:"loss"` // share
	Rate       int64   `json:"rate"` // bits a second; 0: no bound
	Cut        bool    `json:"cut"`
	Packets    uint64  `json:"packets"`
	Bytes      uint64  `json:"bytes"`
	Lost       uint64  `json:"lost"`
	WhileCut   uint64  `json:"lost_while_cut"`
	Overflowed uint64  `json:"overflowed"`
	LateMean   string  `json:"late_mean"` // than the link says, of those that passed
	LateMax    string  `json:"late_max"`
}

func linksOf(l *lab.Lab) ([]Link, error) { //nolint:unparam // as all verbs
	out := []Link{}
	for p, s := range l.Links() {
		out = append(out, Link{
			Segment: p.Segment, From: p.From, To: p.To, Delay: s.Link.Delay.String(), Jitter: s.Link.Jitter.String(), Loss: s.Link.Loss,
			Rate: s.Link.Rate, Cut: s.Link.Cut, Packets: s.Counters.Packets, Bytes: s.Counters.Bytes, Lost: s.Counters.Lost,
			WhileCut: s.Counters.Cut, Overflowed: s.Counters.Overflowed,
			LateMean: (s.Counters.LateSum / time.Duration(max(s.Counters.Packets, 1))).String(), LateMax: s.Counters.LateMax.String(),
		})
	}
	slices.SortFunc(out, func(a, b Link) int {
		return slices.Compare([]string{a.Segment, a.From, a.To}, []string{b.Segment, b.From, b.To})
	})
	return out, nil
}

// Error is an answer that is an error. Kind tells the errors that callers decide on.
type Error struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Kinds of errors.
const (
	KindUnknown = "unknown" // no such host
	KindDown    = "down"    // the host is down, or frozen
	KindUsage   = "usage"   // what was asked makes no sense
	KindRefused = "refused" // what was asked for cannot be

	KindStarting = "starting" // the lab is coming up
)

// errorOf puts a lab's error into an answer.
func errorOf(err error) *Error {
	out := &Error{Text: strings.ReplaceAll(err.Error(), "\n", "; ")}
	var own *Error
	var unknown *lab.UnknownHostError
	var isDown *lab.DownError
	var noSense *topology.AskError
	var refused *lab.CheckError
	switch {
	case errors.As(err, &own):
		out.Kind = own.Kind
	case errors.As(err, &noSense):
		out.Kind = KindUsage
	case errors.As(err, &unknown):
		out.Kind = KindUnknown
	case errors.As(err, &isDown):
		out.Kind = KindDown
	case errors.As(err, &refused):
		if out.Kind = KindRefused; refused.Check == lab.CheckName {
			out.Kind = KindUsage
		}
	}
	return out
}

// verbs says what each verb but down does.
var verbs = map[Verb]func(ctx context.Context, l *lab.Lab, a *Ask) (any, error){
	Hosts: func(_ context.Context, l *lab.Lab, _ *Ask) (any, error) { return hostsOf(l) },
	Stats: func(ctx context.Context, l *lab.Lab, _ *Ask) (any, error) { return statsOf(ctx, l) },
	Links: func(_ context.Context, l *lab.Lab, _ *Ask) (any, error) { return linksOf(l) },
	Exec: func(_ context.Context, l *lab.Lab, a *Ask) (any, error) {
		args, env, err := l.ExecCommand(a.Host, a.Args)
		return Command{Args: args, Env: env}, err
	},
	Shoal: func(_ context.Context, l *lab.Lab, a *Ask) (any, error) {
		args, err := l.ShoalCommand(a.Host, a.Args)
		return Command{Args: args}, err
	},
	Docker: func(_ context.Context, l *lab.Lab, a *Ask) (any, error) {
		args, err := l.DockerCommand(a.Host, a.Args)
		return Command{Args: args}, err
	},

	SetLink: done(func(_ context.Context, l *lab.Lab, a *Ask) error {
		return l.SetLink(a.Host, a.Other, a.Change, a.OneWay)
	}),
	Split: done(func(_ context.Context, l *lab.Lab, a *Ask) error { return l.Split(a.Sides, a.OneWay) }),
	Heal:  done(func(_ context.Context, l *lab.Lab, _ *Ask) error { return l.Heal() }),

	Kill:   done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.Kill(ctx, a.Host) }),
	Boot:   done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.Boot(ctx, a.Host) }),
	Freeze: done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.Freeze(ctx, a.Host) }),
	Thaw:   done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.Thaw(ctx, a.Host) }),
	Engine: done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.Engine(ctx, a.Host, a.Action) }),
	Daemon: done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.Daemon(ctx, a.Host, a.Action) }),

	FillDisk:  done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.FillDisk(ctx, a.Host, a.Disk, a.Free) }),
	LoadImage: done(func(ctx context.Context, l *lab.Lab, a *Ask) error { return l.LoadImage(ctx, a.Host, a.File) }),
	Clock: done(func(_ context.Context, l *lab.Lab, a *Ask) error {
		offset, err := time.ParseDuration(a.Offset)
		if err != nil {
			return &Error{Kind: KindUsage, Text: fmt.Sprintf("an offset is like +90s or -2m, got %q", a.Offset)}
		}
		return l.Clock(a.Host, offset)
	}),
}

// done is a verb that answers nothing.
func done(do func(ctx context.Context, l *lab.Lab, a *Ask) error) func(context.Context, *lab.Lab, *Ask) (any, error) {
	return func(ctx context.Context, l *lab.Lab, a *Ask) (any, error) { return nil, do(ctx, l, a) }
}

func statsOf(ctx context.Context, l *lab.Lab) ([]Stat, error) {
	all, err := l.Stats(ctx)
	out := []Stat{}
	for i := range all {
		out = append(out, statOf(&all[i]))
	}
	return out, err
}

func hostsOf(l *lab.Lab) ([]Host, error) {
	out := []Host{}
	for _, r := range l.Topology().Routers {
		h, err := l.Host(r.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, hostOf(&h))
	}
	hosts := l.Hosts()
	for i := range hosts {
		out = append(out, hostOf(&hosts[i]))
	}
	return out, nil
}
