// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

const clusterID = shoal.PeerID("cluster")

// sea is a cluster in memory: records and states reach the other peers after a
// delay, and a peer that is silent is suspect after 3 s and dead after 5 s.
type sea struct {
	t     *testing.T
	clock shoal.SystemClock
	delay time.Duration
	ids   []shoal.PeerID

	mu    sync.Mutex // guards all below
	peers map[shoal.PeerID]*tank
	wg    sync.WaitGroup
}

// tank is one peer: its engine, its store and what it hears of the others. It
// implements the ports that the actors need.
type tank struct {
	sea    *sea
	id     shoal.PeerID
	engine *runtime.Twin
	logs   *lockedBuffer

	// guarded by sea.mu
	up        bool
	silent    time.Duration // since
	services  map[string]shoal.Service
	gone      map[string]bool
	draining  map[shoal.PeerID]bool
	claims    map[shoal.PeerID]map[string]shoal.ClaimBody
	states    map[shoal.PeerID]*shoal.PeerState
	published int
	updates   int
	version   uint64
	desired   *shoal.Desired
	storeErr  error
	confirms  int
	changed   chan struct{}
	lives     map[shoal.PeerID]shoal.LifeState

	cfg    Config
	deps   Deps
	real   shoal.Store // nil: the tank's own
	system *System
	cancel context.CancelFunc
	done   chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lockedRand is a seeded source that several goroutines may read.
type lockedRand struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func (l *lockedRand) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// inSea runs fn on n peers inside a bubble of virtual time; all peers that still
// run are stopped at its end, and no goroutine may be left.
func inSea(t *testing.T, n int, fn func(s *sea)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &sea{t: t, clock: shoal.NewSystemClock(), delay: 5 * time.Millisecond, peers: make(map[shoal.PeerID]*tank)}
		for i := range n {
			s.ids = append(s.ids, shoal.PeerID(fmt.Sprintf("peer%02d", i+1)))
		}
		for _, id := range s.ids {
			s.peers[id] = s.newTank(id)
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.wg.Go(func() { s.watchLives(ctx) })
		defer func() {
			for _, id := range s.ids {
				if p := s.peers[id]; p.cancel != nil {
					p.stop()
				}
			}
			cancel()
			s.wg.Wait()
		}()
		fn(s)
	})
}

func (s *sea) newTank(id shoal.PeerID) *tank {
	engine := runtime.NewTwin(runtime.TwinConfig{Cluster: clusterID, Peer: id, Images: []string{"hello:1", "hello:2"}}, s.clock)
	engine.SetLatency(runtime.Latency{Create: 100 * time.Millisecond, Start: 150 * time.Millisecond, Remove: 50 * time.Millisecond, Call: 2 * time.Millisecond})
	p := &tank{
		sea: s, id: id, engine: engine, logs: &lockedBuffer{},
		services: map[string]shoal.Service{}, gone: map[string]bool{},
		claims:  map[shoal.PeerID]map[string]shoal.ClaimBody{},
		states:  map[shoal.PeerID]*shoal.PeerState{},
		lives:   map[shoal.PeerID]shoal.LifeState{},
		changed: make(chan struct{}),
	}
	p.refold()
	var seed [32]byte
	copy(seed[:], id)
	p.cfg = Sim()
	p.deps = Deps{
		Self: id, Cluster: clusterID, Views: p, Store: fakeStore{p}, Beacon: p,
		Engine: engine, Machine: engine, Console: engine, Puller: engine, Clock: s.clock,
		Rand: &lockedRand{r: rand.NewChaCha8(seed)},
		Log:  slog.New(slog.NewTextHandler(p.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	return p
}

func (s *sea) first() *tank { return s.peers[s.ids[0]] }

// start runs the peer's actors.
func (p *tank) start() {
	p.sea.t.Helper()
	sys, err := New(p.cfg, p.deps)
	if err != nil {
		p.sea.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.system, p.cancel, p.done = sys, cancel, make(chan error, 1)
	p.sea.setUp(p, true)
	done := p.done
	go func() { done <- sys.Run(ctx) }()
}

// stop ends the daemon; containers are left as they are.
func (p *tank) stop() {
	p.sea.t.Helper()
	p.cancel()
	if err := <-p.done; err != nil {
		p.sea.t.Errorf("Run of %s = %v, want nil", p.id, err)
	}
	p.cancel = nil
	p.sea.setUp(p, false)
}

func (s *sea) setUp(p *tank, up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.up, p.silent = up, s.clock.Mono()
	if up {
		p.published = 0
	}
}

func (s *sea) startAll() {
	for _, id := range s.ids {
		s.peers[id].start()
	}
	synctest.Wait()
}

// wait lets d of virtual time pass.
func (s *sea) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until waits for a condition and returns how long it took.
func (s *sea) until(limit time.Duration, what string, cond func() bool) time.Duration {
	s.t.Helper()
	begin := s.clock.Mono()
	for !cond() {
		if s.clock.Mono()-begin > limit {
			s.t.Fatalf("not %s after %s; log of %s:\n%s", what, limit, s.first().id, tail(s.first().logs.String()))
		}
		s.wait(10 * time.Millisecond)
	}
	return s.clock.Mono() - begin
}

func tail(s string) string { return s[max(0, len(s)-6000):] }

// wish changes a service on all peers, as a record that one of them accepted.
func (s *sea) wish(spec shoal.Spec, seq uint64, n int, proposed ...shoal.PeerID) {
	rev := shoal.RevisionID{Seq: seq, Author: "operator"}
	if spec.Image == "" {
		spec.Image = "hello:1"
	}
	svc := shoal.Service{Spec: spec, Revision: rev, Replicas: n, Proposed: proposed, Wish: shoal.RevisionID{Seq: seq*1000 + uint64(n), Author: "operator"}, Fresh: true, Heads: []shoal.RevisionID{rev}, Record: []byte(rev.String())}
	s.all(func(p *tank) { p.services[spec.Name] = svc; delete(p.gone, spec.Name) })
}

func (s *sea) remove(name string) {
	s.all(func(p *tank) { delete(p.services, name); p.gone[name] = true })
}

// drain marks peers, and nobody else, as draining.
func (s *sea) drain(ids ...shoal.PeerID) {
	s.all(func(p *tank) {
		p.draining = map[shoal.PeerID]bool{}
		for _, id := range ids {
			p.draining[id] = true
		}
	})
}

// all changes the records of every peer now.
func (s *sea) all(fn func(*tank)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.ids {
		fn(s.peers[id])
		s.peers[id].refold()
	}
}

// refold rebuilds the desired state. Callers hold sea.mu.
func (p *tank) refold() {
	p.version++
	d := &shoal.Desired{Version: p.version}
	for _, svc := range p.services {
		d.Services = append(d.Services, svc)
	}
	slices.SortFunc(d.Services, func(a, b shoal.Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	for _, id := range p.sea.ids {
		drains := p.draining[id]
		d.Peers = append(d.Peers, shoal.Peer{ID: id, Role: shoal.RoleOperator, Cordoned: drains, Draining: drains, Facts: shoal.PeerFacts{
			Name: string(id), Capacity: shoal.Resources{CPUMilli: 8000, MemBytes: 16 << 30}, Platforms: []string{"linux/amd64"}, PublishAddr: "127.0.0.1",
			AllowedPolicy: []string{"mount:/srv"}, // what an engine makes of it is the engine's
		}})
	}
	for holder, bodies := range p.claims {
		for name, b := range bodies {
			for _, h := range b.Holds {
				d.Claims = append(d.Claims, shoal.Claim{Holder: holder, Service: name, Slot: h.Slot, Replica: h.Replica, Revision: h.Revision, Since: h.Since, Outcome: h.Outcome})
			}
			for _, r := range b.Released {
				r.Holder, r.Service = holder, name
				d.Releases = append(d.Releases, r)
			}
			for _, slot := range b.Data {
				d.Homes = append(d.Homes, shoal.Home{Peer: holder, Service: name, Slot: slot})
			}
		}
	}
	slices.SortFunc(d.Claims, func(a, b shoal.Claim) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Holder, b.Holder))
	})
	slices.SortFunc(d.Releases, func(a, b shoal.Release) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Holder, b.Holder))
	})
	slices.SortFunc(d.Homes, func(a, b shoal.Home) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Peer, b.Peer))
	})
	for name := range p.gone {
		d.Gone = append(d.Gone, shoal.GoneBody{Service: name})
	}
	p.desired = d
	p.notify()
}

// notify tells of a change. Callers hold sea.mu.
func (p *tank) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// later runs fn on every other peer after the delay.
func (p *tank) later(fn func(*tank)) {
	p.sea.wg.Go(func() {
		time.Sleep(p.sea.delay)
		p.sea.mu.Lock()
		defer p.sea.mu.Unlock()
		for _, id := range p.sea.ids {
			if id != p.id {
				fn(p.sea.peers[id])
			}
		}
	})
}

// fakeStore gives a tank's Update, Desired and Changed the names of the port.
type fakeStore struct{ *tank }

var errDisk = fmt.Errorf("write records: %w", shoal.ErrNoSpace)

// Update implements shoal.Store: 3 ms of disk, then folded.
func (f fakeStore) Update(ctx context.Context, fn func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error), _ shoal.UpdateOptions) (shoal.Ack, error) {
	p := f.tank
	if !sleep(ctx, 3*time.Millisecond) {
		return shoal.Ack{}, ctx.Err()
	}
	p.sea.mu.Lock()
	defer p.sea.mu.Unlock()
	if p.storeErr != nil {
		return shoal.Ack{}, p.storeErr
	}
	hlc := shoal.HLC{WallMilli: p.sea.clock.Wall().UnixMilli(), Counter: uint32(p.version)}
	bodies, err := fn(p.desired, shoal.Stamp{Author: p.id, HLC: hlc})
	if err != nil || len(bodies) == 0 {
		return shoal.Ack{}, err
	}
	p.updates++
	var claims []shoal.ClaimBody
	for _, b := range bodies {
		c, ok := b.(*shoal.ClaimBody)
		if !ok || c.Peer != p.id {
			return shoal.Ack{}, errors.New("not a claim of this peer")
		}
		one := *c
		one.Holds = slices.Clone(c.Holds)
		for i := range one.Holds {
			if one.Holds[i].Since.IsZero() {
				one.Holds[i].Since = hlc
			}
		}
		claims = append(claims, one)
	}
	take := func(q *tank) {
		if q.claims[p.id] == nil {
			q.claims[p.id] = map[string]shoal.ClaimBody{}
		}
		for _, c := range claims {
			q.claims[p.id][c.Service] = c
		}
		q.refold()
	}
	take(p)
	p.later(take)
	return shoal.Ack{HLC: hlc, Wrote: true}, nil
}

// Desired implements shoal.Store.
func (p *tank) Desired() *shoal.Desired {
	if p.real != nil {
		return p.real.Desired()
	}
	p.sea.mu.Lock()
	defer p.sea.mu.Unlock()
	return p.desired
}

// Changed implements shoal.Store and shoal.Views.
func (p *tank) Changed() <-chan struct{} {
	p.sea.mu.Lock()
	defer p.sea.mu.Unlock()
	return p.changed
}

// View implements shoal.Views.
func (p *tank) View() *shoal.View {
	p.sea.mu.Lock()
	defer p.sea.mu.Unlock()
	now := p.sea.clock.Mono()
	lives := make(map[shoal.PeerID]shoal.Life)
	states := make(map[shoal.PeerID]*shoal.PeerState)
	for _, id := range p.sea.ids {
		q := p.sea.peers[id]
		lives[id] = shoal.Life{State: p.sea.lifeOf(q), Heard: now, Uptime: time.Hour}
		if st := p.states[id]; st != nil {
			states[id] = st
		}
	}
	d := p.desired
	if p.real != nil {
		d = p.real.Desired()
	}
	return shoal.NewView(p.id, d, lives, states)
}

// lifeOf judges a peer. Callers hold sea.mu.
func (s *sea) lifeOf(q *tank) shoal.LifeState {
	gone := s.clock.Mono() - q.silent
	switch {
	case q.up:
		return shoal.LifeAlive
	case gone < 3*time.Second:
		return shoal.LifeAlive
	case gone < 5*time.Second:
		return shoal.LifeSuspect
	}
	return shoal.LifeDead
}

// watchLives tells peers when another's life changed.
func (s *sea) watchLives(ctx context.Context) {
	for sleep(ctx, 100*time.Millisecond) {
		s.mu.Lock()
		for _, id := range s.ids {
			life := s.lifeOf(s.peers[id])
			for _, other := range s.ids {
				if q := s.peers[other]; q.lives[id] != life {
					q.lives[id] = life
					q.notify()
				}
			}
		}
		s.mu.Unlock()
	}
}

// Publish implements shoal.Beacon.
func (p *tank) Publish(st shoal.PeerState) {
	p.sea.mu.Lock()
	p.published++
	p.states[p.id] = &st
	p.notify()
	p.sea.mu.Unlock()
	p.later(func(q *tank) {
		q.states[p.id] = &st
		q.notify()
	})
}

// Confirm implements shoal.Beacon.
func (p *tank) Confirm(ctx context.Context, peer shoal.PeerID) error {
	if !sleep(ctx, 2*p.sea.delay) {
		return ctx.Err()
	}
	p.sea.mu.Lock()
	defer p.sea.mu.Unlock()
	p.confirms++
	if peer != "" && !p.sea.peers[peer].up {
		return errors.New("not reached")
	}
	return nil
}

// state returns what the peer published last.
func (p *tank) state() shoal.PeerState {
	p.sea.mu.Lock()
	defer p.sea.mu.Unlock()
	if st := p.states[p.id]; st != nil {
		return *st
	}
	return shoal.PeerState{}
}

func (p *tank) counts() (updates, published int) {
	p.sea.mu.Lock()
	defer p.sea.mu.Unlock()
	return p.updates, p.published
}

// ready returns how many replicas of a service the peer says are ready.
func (p *tank) ready(service string) int {
	n := 0
	for _, r := range p.state().Replicas {
		if (service == "" || r.Service == service) && r.Phase == shoal.PhaseReady {
			n++
		}
	}
	return n
}

// replica returns the published status of a slot.
func (p *tank) replica(service string, slot int) shoal.ReplicaStatus {
	p.sea.t.Helper()
	for _, r := range p.state().Replicas {
		if r.Service == service && r.Slot == slot {
			return r
		}
	}
	p.sea.t.Fatalf("%s tells of no replica in %s/%d", p.id, service, slot)
	return shoal.ReplicaStatus{}
}

// told reports whether the peer told its state since it was started.
func (p *tank) told() bool {
	_, published := p.counts()
	return published > 0
}

// containers returns how many containers an engine holds in any state.
func (p *tank) containers() int {
	cs, err := p.engine.List(context.Background())
	if err != nil {
		p.sea.t.Fatal(err)
	}
	return len(cs)
}

// Short names for the signatures of fakes.
type (
	ctxType  = context.Context
	updateFn = func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error)
)
