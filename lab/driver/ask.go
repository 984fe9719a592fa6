// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/topology"
	"github.com/shoalnet/shoal/lab/wire"
)

// Verb is what a driver can be asked.
type Verb string

// The verbs, and which fields of an [Ask] they read.
const (
	Hosts     Verb = "hosts"      // answers []Host
	Links     Verb = "links"      // answers []Link
	Stats     Verb = "stats"      // answers []Stat
	Command   Verb = "command"    // Reach, Host, Args; answers lab.Command
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
	Reach       lab.Reach       `json:",omitempty"`
	Args        []string        `json:",omitempty"`
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
		Host: s.Host.Name, State: hostOf(&s.Host).State, CPUSeconds: s.CPU.Seconds(), RSS: map[string]int64{}, Written: s.Written,
		BytesIn: s.BytesIn, BytesOut: s.BytesOut, PacketsIn: s.PacketsIn, PacketsOut: s.PacketsOut,
	}
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
}

func linksOf(all map[wire.Pair]lab.LinkState) []Link {
	var out []Link
	for p, s := range all {
		out = append(out, Link{
			Segment: p.Segment, From: p.From, To: p.To, Delay: s.Link.Delay.String(), Jitter: s.Link.Jitter.String(), Loss: s.Link.Loss,
			Rate: s.Link.Rate, Cut: s.Link.Cut, Packets: s.Counters.Packets, Bytes: s.Counters.Bytes, Lost: s.Counters.Lost,
			WhileCut: s.Counters.Cut, Overflowed: s.Counters.Overflowed,
		})
	}
	slices.SortFunc(out, func(a, b Link) int {
		return slices.Compare([]string{a.Segment, a.From, a.To}, []string{b.Segment, b.From, b.To})
	})
	return out
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
	KindDown    = "down"    // the host is down
	KindRefused = "refused" // what was asked for cannot be
)

// errorOf puts a lab's error into an answer.
func errorOf(err error) *Error {
	out := &Error{Text: strings.ReplaceAll(err.Error(), "\n", "; ")}
	var unknown *lab.UnknownHostError
	var isDown *lab.DownError
	var refused *lab.CheckError
	switch {
	case errors.As(err, &unknown):
		out.Kind = KindUnknown
	case errors.As(err, &isDown):
		out.Kind = KindDown
	case errors.As(err, &refused):
		out.Kind = KindRefused
	}
	return out
}

// do does what a verb says.
func do(ctx context.Context, l *lab.Lab, v Verb, a *Ask) (any, error) {
	switch v {
	case Hosts:
		return hostsOf(l)
	case Links:
		return linksOf(l.Links()), nil
	case Stats:
		all, err := l.Stats(ctx)
		var out []Stat
		for i := range all {
			out = append(out, statOf(&all[i]))
		}
		return out, err
	case Command:
		return l.Command(a.Reach, a.Host, a.Args)
	}
	return nil, change(ctx, l, v, a)
}

func hostsOf(l *lab.Lab) ([]Host, error) {
	var out []Host
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

func change(ctx context.Context, l *lab.Lab, v Verb, a *Ask) error {
	switch v {
	case SetLink:
		return l.SetLink(a.Host, a.Other, a.Change, a.OneWay)
	case Split:
		return l.Split(a.Sides, a.OneWay)
	case Heal:
		return l.Heal()
	case Kill:
		return l.Kill(ctx, a.Host)
	case Boot:
		return l.Boot(ctx, a.Host)
	case Freeze:
		return l.Freeze(ctx, a.Host)
	case Thaw:
		return l.Thaw(ctx, a.Host)
	case Engine:
		return l.Engine(ctx, a.Host, a.Action)
	case Daemon:
		return l.Daemon(ctx, a.Host, a.Action)
	case FillDisk:
		return l.FillDisk(ctx, a.Host, a.Disk, a.Free)
	case Clock:
		offset, err := parseOffset(a.Offset)
		if err != nil {
			return err
		}
		return l.Clock(a.Host, offset)
	case LoadImage:
		return l.LoadImage(ctx, a.Host, a.File)
	}
	return fmt.Errorf("a driver does not know %q", v)
}
