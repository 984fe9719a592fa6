// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
)

// board is where the actors put what this peer tells about itself. It outlives
// single actors: a replica whose actor is being replaced keeps its status. Its
// methods are safe for concurrent use and never block.
type board struct {
	cfg   *Config
	deps  *Deps
	lines *throttle

	mu       sync.Mutex // guards all below
	entries  map[shoal.ReplicaID]*posted
	minted   map[shoal.ReplicaID]bool // handed out, their actors not made yet
	ops      map[shoal.ReplicaID]int  // operations under way
	refusals map[refusalKey]*refusal
	images   map[string]bool // by imageKey
	listed   []string        // as the engine spells them, sorted
	alloc    shoal.Resources
	used     shoal.Resources
	trouble  string              // why no new slots are taken
	loads    []shoal.ReplicaLoad // of replicas of autoscaled services
	answered time.Duration       // the engine's last answer
	down     bool
	why      string
	asked    bool              // the engine was asked for its containers once
	looked   bool              // the engine was asked for its images once
	expected []shoal.ReplicaID // claimed at the start: to be adopted before anything is told
	decided  bool              // expected is known
	openAt   time.Duration     // the first state waits for them no longer
	open     bool              // the first state may be told
	dirty    chan struct{}     // holds one
	changed  chan struct{}     // closed and replaced when an entry changes, for logs
}

// posted is one replica's status.
type posted struct {
	status shoal.ReplicaStatus
	size   shoal.Resources
	owner  *cell
	known  bool // its actor has seen what the engine holds for it
}

func newBoard(cfg *Config, deps *Deps) *board {
	b := &board{cfg: cfg, deps: deps, lines: newThrottle(deps.Log, deps.Clock), dirty: make(chan struct{}, 1)}
	b.clear()
	return b
}

// reset forgets an earlier run.
func (b *board) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
}

func (b *board) clear() {
	b.entries = make(map[shoal.ReplicaID]*posted)
	b.minted = make(map[shoal.ReplicaID]bool)
	b.ops = make(map[shoal.ReplicaID]int)
	b.refusals = make(map[refusalKey]*refusal)
	b.images, b.listed, b.trouble, b.loads = nil, nil, "", nil
	b.down, b.why, b.asked, b.looked = false, "", false, false
	b.expected, b.decided, b.openAt, b.open = nil, false, 0, false
	b.answered = b.deps.Clock.Mono()
	b.changed = make(chan struct{})
}

// log writes one line of something a human would ask for later.
func (b *board) log(msg string, attrs ...any) { b.lines.info(msg, attrs...) }

// touch makes the publisher look. Callers hold b.mu.
func (b *board) touch() { signal(b.dirty) }

// know takes from the view what the machine has for containers.
func (b *board) know(v *shoal.View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := v.Peer(b.deps.Self); ok && p.Facts.Allocatable() != b.alloc && p.Facts.Capacity != (shoal.Resources{}) {
		b.alloc = p.Facts.Allocatable()
		b.touch()
	}
}

// expect names what this peer held when it started.
func (b *board) expect(claims []shoal.Claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.decided {
		return
	}
	b.decided = true
	for _, c := range claims {
		b.expected = append(b.expected, c.Replica)
	}
	b.touch()
}

// opens reports whether the first state may be told: others must not see a
// restarted peer without the replicas that it is about to adopt. Callers hold b.mu.
func (b *board) opens(now time.Duration) bool {
	if b.open || !b.asked || !b.looked {
		return b.open
	}
	adopted := b.decided
	for _, id := range b.expected {
		e := b.entries[id]
		adopted = adopted && e != nil && e.known
	}
	b.open = adopted || b.down || now >= b.openAt
	return b.open
}

// fresh notes that a replica was minted by this process and has no container.
func (b *board) fresh(id shoal.ReplicaID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.minted[id] = true
}

// takeFresh reports whether a replica is fresh, once.
func (b *board) takeFresh(id shoal.ReplicaID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh := b.minted[id]
	delete(b.minted, id)
	return fresh
}

// begin, end and busy count a replica's operations under way, across incarnations
// of its actor.
func (b *board) begin(id shoal.ReplicaID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ops[id]++
}

func (b *board) end(id shoal.ReplicaID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ops[id]--; b.ops[id] <= 0 {
		delete(b.ops, id)
	}
}

func (b *board) busy(id shoal.ReplicaID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ops[id] > 0
}

// restarts returns the count an earlier incarnation came to.
func (b *board) restarts(id shoal.ReplicaID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[id]; e != nil {
		return e.status.Restarts
	}
	return 0
}

// has reports whether a living actor looks after a replica.
func (b *board) has(id shoal.ReplicaID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	return e != nil && !e.owner.over()
}

// set posts a status; that of an incarnation given up is ignored.
func (b *board) set(owner *cell, st shoal.ReplicaStatus, size shoal.Resources, seen bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if owner.gone.Load() {
		return
	}
	e := b.entries[st.ID]
	if e == nil {
		e = &posted{}
		b.entries[st.ID] = e
	} else if e.owner == owner && e.size == size && e.known == seen && sameStatus(&e.status, &st) {
		return
	}
	e.status, e.size, e.owner, e.known = st, size, owner, seen
	b.stirred()
}

// remove forgets a replica whose life is over.
func (b *board) remove(id shoal.ReplicaID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries[id] != nil {
		delete(b.entries, id)
		b.stirred()
	}
}

// prune forgets replicas that nobody looks after and nobody claims.
func (b *board) prune(claimed map[shoal.ReplicaID]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, e := range b.entries {
		if !claimed[id] && e.owner.over() {
			delete(b.entries, id)
			b.stirred()
		}
	}
}

// stirred tells the publisher and whoever follows logs. Callers hold b.mu.
func (b *board) stirred() {
	close(b.changed)
	b.changed = make(chan struct{})
	b.touch()
}

// of returns the statuses of a service's replicas, sorted, and a channel that is
// closed at the next change.
func (b *board) of(service string) ([]shoal.ReplicaStatus, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []shoal.ReplicaStatus
	for _, e := range b.entries {
		if e.status.Service == service {
			out = append(out, e.status)
		}
	}
	sortStatuses(out)
	return out, b.changed
}

// running returns the statuses of replicas whose container runs.
func (b *board) running() []shoal.ReplicaStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []shoal.ReplicaStatus
	for _, e := range b.entries {
		if runs := e.status.Phase == shoal.PhaseRunning || e.status.Phase == shoal.PhaseReady; runs && e.status.Container != "" {
			out = append(out, e.status)
		}
	}
	sortStatuses(out)
	return out
}

// sortStatuses sorts by service, slot and replica.
func sortStatuses(s []shoal.ReplicaStatus) {
	slices.SortFunc(s, func(a, c shoal.ReplicaStatus) int {
		return cmp.Or(strings.Compare(a.Service, c.Service), cmp.Compare(a.Slot, c.Slot), slices.Compare(a.ID[:], c.ID[:]))
	})
}

func sameStatus(a, c *shoal.ReplicaStatus) bool {
	x, y := *a, *c
	x.Ports, y.Ports = nil, nil
	return slices.Equal(a.Ports, c.Ports) && statusKey(x) == statusKey(y)
}

// statusKey is a status without its slices, comparable.
type plainStatus struct {
	id                             shoal.ReplicaID
	service, health, addr, reason  string
	container, image               string
	slot, restarts, exit, failures int
	revision                       shoal.RevisionID
	phase                          shoal.Phase
	started                        int64
}

func statusKey(s shoal.ReplicaStatus) plainStatus {
	return plainStatus{
		id: s.ID, service: s.Service, health: s.Health, addr: s.Addr, reason: s.Reason,
		container: s.Container, image: s.Image, slot: s.Slot, restarts: s.Restarts, exit: s.ExitCode, failures: s.Failures,
		revision: s.Revision, phase: s.Phase, started: s.StartedAt,
	}
}

// throttle keeps lines of one kind to a burst a second, and says how many it left
// out (FAILURES F30).
type throttle struct {
	log   *slog.Logger
	clock shoal.Clock
	mu    sync.Mutex // guards kinds
	kinds map[string]*burst
}

type burst struct {
	since time.Duration
	n     int
}

// burstLines is how many lines of one kind are written in a second.
const burstLines = 20

func newThrottle(log *slog.Logger, clock shoal.Clock) *throttle {
	return &throttle{log: log, clock: clock, kinds: make(map[string]*burst)}
}

func (t *throttle) info(msg string, attrs ...any) {
	t.mu.Lock()
	now := t.clock.Mono()
	k := t.kinds[msg]
	if k == nil {
		k = &burst{since: now}
		t.kinds[msg] = k
	}
	left := 0
	if now-k.since >= time.Second {
		left = max(0, k.n-burstLines)
		k.since, k.n = now, 0
	}
	k.n++
	quiet := k.n > burstLines
	t.mu.Unlock()
	if left > 0 {
		t.log.Info(msg+": lines left out", "count", left)
	}
	if !quiet {
		t.log.Info(msg, attrs...)
	}
}
