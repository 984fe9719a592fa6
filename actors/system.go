// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/placement/brake"
)

// DecideFunc is placement.Decide.
type DecideFunc func(v *shoal.View, m placement.Memory, self shoal.PeerID, now time.Duration, cfg placement.Config) (placement.Plan, placement.Memory)

// Deps is what the room needs of others. All but those that say what nil means are
// required.
type Deps struct {
	Self    shoal.PeerID
	Cluster shoal.PeerID
	Views   shoal.Views
	Store   shoal.Store
	Beacon  shoal.Beacon
	Engine  shoal.Engine
	Machine shoal.Machine
	Console shoal.Console
	Puller  shoal.Puller
	Clock   shoal.Clock
	Rand    io.Reader // of replica identities; safe for concurrent use
	Log     *slog.Logger

	// Decide makes the plan; nil: placement.Decide.
	Decide DecideFunc
	// Ready is closed once the store holds what this peer knew when it last ran:
	// before that nothing is decided and no container touched. nil: at once.
	Ready <-chan struct{}
	// Trouble says why this peer must not claim (a copied identity); "" if nothing.
	// It must not block. nil: never.
	Trouble func() string
	// Record takes one line of the cluster's story. It must not block. nil: nobody.
	Record func(shoal.Event)
	// Shelf keeps what replicas had said when they failed. nil: it goes with the process.
	Shelf Shelf
	// Attacher makes the networks of a replica ready before its container is created.
	// nil: containers are on the engine's own.
	Attacher shoal.Attacher
	// Carried reports whether connections are carried to a replica of this peer, or were a
	// moment ago. It must not block. nil: none ever is.
	Carried func(shoal.ReplicaID) bool
	// SpecOf reads the spec from the signed envelope in a container's label, for
	// replicas of a revision that is no longer current. nil: it is not known.
	SpecOf func(record []byte) (*shoal.Spec, error)
}

// System is this peer's actors. Its methods are safe for concurrent use.
type System struct {
	cfg   Config
	deps  Deps
	board *board
	words *words

	said   atomic.Pointer[[]placement.Reason] // of the last decision; nil: none in this run
	brakes atomic.Pointer[brake.Verdicts]     // the same

	mu  sync.Mutex // guards run
	run *run       // nil while Run does not run
}

// New returns a system that does nothing yet. *shoal.InvalidError: the
// configuration makes no sense, or a dependency is missing.
func New(cfg Config, deps Deps) (*System, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		name string
		ok   bool
	}{
		{"Self", deps.Self != ""},
		{"Views", deps.Views != nil},
		{"Store", deps.Store != nil},
		{"Beacon", deps.Beacon != nil},
		{"Engine", deps.Engine != nil},
		{"Machine", deps.Machine != nil},
		{"Console", deps.Console != nil},
		{"Puller", deps.Puller != nil},
		{"Clock", deps.Clock != nil},
		{"Rand", deps.Rand != nil},
		{"Log", deps.Log != nil},
	} {
		if !d.ok {
			return nil, &shoal.InvalidError{Field: "actors.Deps." + d.name, Why: "is missing"}
		}
	}
	if deps.Decide == nil {
		deps.Decide = placement.Decide
	}
	if deps.Trouble == nil {
		deps.Trouble = func() string { return "" }
	}
	if deps.Record == nil {
		deps.Record = func(shoal.Event) {}
	}
	return &System{cfg: cfg, deps: deps, board: newBoard(&cfg, &deps), words: newWords(deps.Shelf, deps.Log)}, nil
}

// errRunning: a System runs once at a time.
var errRunning = errors.New("actors run already")

// Run carries out this peer's part of the plan until ctx ends, then returns nil
// after everything it started has ended. Containers are left as they are. An error
// means that it could not begin, or that an actor did not end in time.
func (s *System) Run(ctx context.Context) error {
	r := newRun(s)
	s.mu.Lock()
	if s.run != nil {
		s.mu.Unlock()
		return errRunning
	}
	s.run = r
	s.mu.Unlock()
	s.said.Store(nil)
	s.brakes.Store(nil)
	defer func() {
		s.said.Store(nil)
		s.brakes.Store(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.run = nil
	}()
	return r.main(ctx)
}

// Reasons returns what this peer's last decision said about a service, in the order
// of its slots (-1: about the whole service). False: it has not decided since Run.
func (s *System) Reasons(service string) ([]placement.Reason, bool) {
	said := s.said.Load()
	if said == nil {
		return nil, false
	}
	var out []placement.Reason
	for _, r := range *said {
		if r.Service == service || r.Service == "" {
			out = append(out, r)
		}
	}
	return out, true
}

// Leave releases everything this peer holds, and stops and removes all its
// containers, orphans included. It returns nil when the engine lists none of them
// any more; nothing is claimed again until the next Run. It needs Run to run.
func (s *System) Leave(ctx context.Context) error {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	if r == nil {
		return fmt.Errorf("leave: actors do not run: %w", shoal.ErrNotMember)
	}
	r.leaving.Store(true)
	r.poke()
	r.lookNow()
	select {
	case <-r.left:
		return nil
	case <-r.over:
		return fmt.Errorf("leave: daemon stopped before all containers were gone")
	case <-ctx.Done():
		return fmt.Errorf("leave: %w", ctx.Err())
	}
}
