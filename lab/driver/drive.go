// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/topology"
)

// Order is the lab that a driver is to run.
type Order struct {
	Name     string
	Dir      string // "": the default
	Topology []byte // as lab/topology reads it
	Bare     bool
	Flags    []string
	Images   []string
	Seed     uint64
	Init     []string // the command that calls host.Init
}

// word is a line of what a driver says until the lab is up.
type word struct {
	Say   string `json:"say,omitempty"`
	Error *Error `json:"error,omitempty"`
	Up    bool   `json:"up,omitempty"`
}

// errTakenDown ends a lab whose end was asked for.
var errTakenDown = errors.New("the lab was taken down before it was up")

// Drive is the driver's process: it reads an Order from in, says on out how far it is,
// and runs the lab until ctx ends or somebody asks for its end. Who cannot be told any
// more before the lab is up does not want it any more.
func Drive(ctx context.Context, in io.Reader, out io.WriteCloser) error {
	whole := context.WithoutCancel(ctx) // what the end of the lab takes it is given
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &teller{lines: json.NewEncoder(out), gone: func() { cancel(nil) }}
	var o Order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		err = fmt.Errorf("read the order: %w", err)
		t.say(word{Error: errorOf(err)})
		return err
	}
	s := newServer(o.Name, func() { cancel(errTakenDown) })
	l, err := begin(ctx, &o, s, t)
	if err != nil {
		t.say(word{Error: errorOf(err)})
		if isGone(o.Name) { // who asked for the end has it
			return errors.Join(err, s.end(whole, nil))
		}
		return s.end(whole, err)
	}
	s.lab.Store(l)
	t.say(word{Up: true})
	_ = out.Close() // nobody reads it any more
	if f, err := os.OpenFile(LogFile(l.Name()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		_ = debug.SetCrashOutput(f, debug.CrashOptions{}) // without it a crash is only not explained
		_ = f.Close()
	}
	<-ctx.Done()
	return s.end(whole, l.Close(whole))
}

// begin makes the lab. One whose end was asked for meanwhile is none.
func begin(ctx context.Context, o *Order, s *server, t *teller) (*lab.Lab, error) {
	topo, err := topology.Parse("the topology", o.Topology)
	if err != nil {
		return nil, err
	}
	l, err := lab.Start(ctx, lab.Config{
		Name: o.Name, Dir: o.Dir, Topology: topo, Bare: o.Bare, Flags: o.Flags, Images: o.Images, Seed: o.Seed,
		Binaries: lab.Binaries{Init: o.Init}, Claimed: s.open,
		Progress: func(line string) { t.say(word{Say: line}) }, Log: slog.New(slog.NewTextHandler(lateLog{LogFile(o.Name)}, nil)),
	})
	if err == nil && ctx.Err() != nil {
		err = errors.Join(ctx.Err(), l.Close(context.WithoutCancel(ctx)))
	}
	if err != nil && errors.Is(context.Cause(ctx), errTakenDown) && isGone(o.Name) {
		err = errTakenDown
	}
	return l, err
}

// teller tells who waits for the lab how far it is, until it is up.
type teller struct {
	gone func() // nobody waits any more

	mu    sync.Mutex // guards the rest: hosts boot side by side
	lines *json.Encoder
	isUp  bool
}

func (t *teller) say(w word) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isUp && t.lines.Encode(w) != nil {
		t.gone()
	}
	t.isUp = t.isUp || w.Up
}

// lateLog appends to a file whose directory is made later; what comes before is lost.
type lateLog struct{ path string }

// Write implements io.Writer.
func (l lateLog) Write(line []byte) (int, error) {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(line)
	return len(line), errors.Join(err, f.Close())
}
