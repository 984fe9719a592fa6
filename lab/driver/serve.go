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
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/topology"
)

const (
	maxAsk   = 1 << 20 // bytes of a request
	headTime = 5 * time.Second
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

// Drive is the driver's process: it reads an Order from in, says on out how far it is,
// and runs the lab until ctx ends or somebody asks for its end. Who cannot be told any
// more before the lab is up does not want it any more.
func Drive(ctx context.Context, in io.Reader, out io.WriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &teller{lines: json.NewEncoder(out), gone: cancel}
	l, err := begin(ctx, in, func(line string) { t.say(word{Say: line}) })
	if err != nil {
		t.say(word{Error: errorOf(err)})
		return err
	}
	server, listener, err := listen(ctx, l, cancel)
	if err != nil {
		err = errors.Join(err, l.Close(context.WithoutCancel(ctx)))
		t.say(word{Error: errorOf(err)})
		return err
	}
	t.say(word{Up: true})
	_ = out.Close() // nobody reads it any more
	if f, err := os.OpenFile(LogFile(l.Name()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		_ = debug.SetCrashOutput(f, debug.CrashOptions{}) // without it a crash is only not explained
		_ = f.Close()
	}
	return run(ctx, l, server, listener)
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

func begin(ctx context.Context, in io.Reader, progress func(string)) (*lab.Lab, error) {
	var o Order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return nil, fmt.Errorf("read the order: %w", err)
	}
	t, err := topology.Parse("the topology", o.Topology)
	if err != nil {
		return nil, err
	}
	return lab.Start(ctx, lab.Config{
		Name: o.Name, Dir: o.Dir, Topology: t, Bare: o.Bare, Flags: o.Flags, Images: o.Images, Seed: o.Seed,
		Binaries: lab.Binaries{Init: o.Init}, Progress: progress, Log: slog.New(slog.NewTextHandler(lateLog{LogFile(o.Name)}, nil)),
	})
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

// listen opens the driver's socket.
func listen(ctx context.Context, l *lab.Lab, over func()) (*http.Server, net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socketOf(l.Name()))
	if err != nil {
		return nil, nil, fmt.Errorf("open the driver's socket: %w", err)
	}
	if err := os.Chmod(socketOf(l.Name()), 0o600); err != nil {
		return nil, nil, errors.Join(err, listener.Close())
	}
	s := &server{lab: l, over: over}
	return &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: headTime}, listener, nil
}

func socketOf(name string) string { return beside(name, "socket") }

// LogFile is what the driver of a lab says.
func LogFile(name string) string { return beside(name, "driver.log") }

func beside(name, file string) string {
	return filepath.Join((&lab.Info{Name: name}).RunDir(), file)
}

// run serves until ctx ends, and ends the lab.
func run(ctx context.Context, l *lab.Lab, server *http.Server, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), headTime) // for the answer to "down"
	defer cancel()
	return errors.Join(err, l.Close(context.WithoutCancel(ctx)), server.Shutdown(late))
}

type server struct {
	lab  *lab.Lab
	over func()
}

// serve answers POST /VERB with an Ask as JSON.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	var a Ask
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsk)).Decode(&a); err != nil {
		answer(w, nil, fmt.Errorf("read what is asked: %w", err))
		return
	}
	v := Verb(path.Base(r.URL.Path))
	if v == down {
		err := s.lab.Close(context.WithoutCancel(r.Context()))
		answer(w, nil, err)
		s.over()
		return
	}
	do, isKnown := verbs[v]
	if !isKnown {
		answer(w, nil, fmt.Errorf("the driver does not know %q; is it of another version?", v))
		return
	}
	out, err := do(r.Context(), s.lab, &a)
	answer(w, out, err)
}

// reply is an answer.
type reply struct {
	Error  *Error          `json:"error,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
}

func answer(w http.ResponseWriter, out any, err error) {
	var r reply
	if err == nil {
		r.Answer, err = json.Marshal(out)
	}
	if err != nil {
		r = reply{Error: errorOf(err)}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(r) // who asked may be gone
}
