// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package apitest is a cluster in memory for tests of the control socket and of the
// shoal command: all ports an api.Server works through, without peers, records or
// containers.
//
// New makes it, Serve puts a server in front of it. Wishes take effect at once; the
// image's name says how replicas fare: "crash:..." fails, "slow:..." never gets
// ready, "sick:..." is unhealthy, "absent:..." finds no peer, "data:..." has a
// volume, everything else is ready; the slots of jobs are over at once. Images are really read, kept and written, in memory;
// other peers hold what Hold says. It refuses to stand for the real thing: replicas are
// where it puts them, nothing moves between peers, and only Explain asks package
// placement.
package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/tree"
)

// Cluster is the twin. All methods are safe for concurrent use.
type Cluster struct {
	clock shoal.Clock

	mu       sync.Mutex // guards what follows
	member   bool
	self     shoal.PeerID
	peers    []shoal.Peer
	lives    map[shoal.PeerID]shoal.Life
	services []shoal.Service
	invites  []shoal.Invite
	conflict []shoal.Conflict
	lost     map[shoal.PeerID]bool // cannot be asked for logs
	states   map[string]shoal.ReplicaStatus
	files    map[shoal.Target]*tree.Tree
	words    map[target][]shoal.LastWords
	images   images
	seq      uint64
	version  uint64
	trouble  string
	few      int   // confirmations that come
	gate     *gate // for the next wish
	onWish   func()
	desired  *shoal.Desired
	said     map[shoal.PeerID]*shoal.PeerState
	changed  chan struct{}
}

// started is how long ago every replica started.
const started = 5*time.Minute + 2*time.Second

// New returns a cluster whose first peer is the one that is asked; without peers the
// daemon is a member of nothing.
func New(names ...string) *Cluster {
	c := &Cluster{
		clock: clock{shoal.NewSystemClock()}, lives: map[shoal.PeerID]shoal.Life{}, lost: map[shoal.PeerID]bool{},
		states: map[string]shoal.ReplicaStatus{}, files: map[shoal.Target]*tree.Tree{}, words: map[target][]shoal.LastWords{}, changed: make(chan struct{}), few: -1, images: newImages(),
	}
	c.self = PeerID("tokyo")
	if len(names) > 0 {
		c.self = PeerID(names[0])
		c.enter(names...)
	}
	return c
}

// PeerID returns the ID of the peer with this name.
func PeerID(name string) shoal.PeerID {
	return shoal.PeerID("12D3KooW" + strings.Repeat("x", 30) + fmt.Sprintf("%08s", name))
}

func (c *Cluster) enter(names ...string) {
	c.member = true
	for i, name := range names {
		c.peers = append(c.peers, shoal.Peer{
			ID: PeerID(name), Role: shoal.RoleOperator,
			Facts: shoal.PeerFacts{
				Name: name, Labels: map[string]string{"zone": string(rune('a' + i%2)), "disk": "ssd"},
				Capacity: shoal.Resources{CPUMilli: 4000, MemBytes: 8 << 30}, Platforms: []string{"linux/amd64"},
				AllowedPolicy: []string{"mount:/srv"},
				Engine:        "docker 20.10.24", EngineAPI: "1.41", Version: "test", PublishAddr: fmt.Sprintf("127.0.0.%d", 11+i),
			},
		})
		c.lives[PeerID(name)] = shoal.Life{State: shoal.LifeAlive, Heard: 800 * time.Millisecond, RTT: 12 * time.Millisecond}
	}
	slices.SortFunc(c.peers, func(a, b shoal.Peer) int { return strings.Compare(string(a.ID), string(b.ID)) })
	c.rebuild()
}

// clock runs with the machine's, but started long ago.
type clock struct{ shoal.SystemClock }

// Mono implements [shoal.Clock].
func (c clock) Mono() time.Duration { return c.SystemClock.Mono() + time.Hour }

// View implements [shoal.Views].
func (c *Cluster) View() *shoal.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen()
}

// seen joins what is known with how long ago it was heard; c.mu is held.
func (c *Cluster) seen() *shoal.View {
	lives := map[shoal.PeerID]shoal.Life{}
	for id, l := range c.lives {
		l.Heard = c.clock.Mono() - l.Heard // c.lives has ages, so that texts do not change with time
		lives[id] = l
	}
	return shoal.NewView(c.self, c.desired, lives, c.said)
}

// Changed implements [shoal.Views].
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Change runs fn and shows what it did.
func (c *Cluster) Change(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
	c.rebuild()
}

// Silence makes a peer dead, last heard so long ago.
func (c *Cluster) Silence(name string, ago time.Duration) {
	c.Change(func() {
		c.lives[PeerID(name)] = shoal.Life{State: shoal.LifeDead, Heard: ago}
		c.lost[PeerID(name)] = true
	})
}

// Blank makes a peer one whose records have not arrived: it was admitted and is heard.
func (c *Cluster) Blank(name string) {
	c.Change(func() {
		i := slices.IndexFunc(c.peers, func(p shoal.Peer) bool { return p.ID == PeerID(name) })
		c.peers[i].Facts = shoal.PeerFacts{}
	})
}

// Differ makes a peer that is alive hold other records.
func (c *Cluster) Differ(name string) {
	c.Change(func() {
		l := c.lives[PeerID(name)]
		l.Digest = shoal.Digest{1}
		c.lives[PeerID(name)] = l
	})
}

// Wake makes a peer alive again.
func (c *Cluster) Wake(name string) {
	c.Change(func() {
		c.lives[PeerID(name)] = shoal.Life{State: shoal.LifeAlive, Heard: 800 * time.Millisecond}
		delete(c.lost, PeerID(name))
	})
}

// Set overrides what the holder says of a slot.
func (c *Cluster) Set(service string, slot int, phase shoal.Phase, reason string) {
	c.Change(func() {
		c.states[fmt.Sprintf("%s/%d", service, slot)] = shoal.ReplicaStatus{Phase: phase, Reason: reason}
	})
}

// Dispute adds a concurrent wish that lost.
func (c *Cluster) Dispute(x shoal.Conflict) {
	c.Change(func() { c.conflict = append(c.conflict, x) })
}

// Confirm makes at most n other peers confirm.
func (c *Cluster) Confirm(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.few = n
}

// gate holds one wish, or one move of an image.
type gate struct{ arrived, open chan struct{} }

func (g *gate) free() { close(g.open) }

// wait waits until the gate is open.
func (g *gate) wait(ctx context.Context) error {
	close(g.arrived)
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Block makes the next wish wait until the returned function is called; the channel
// is closed when it waits.
func (c *Cluster) Block() (arrived <-chan struct{}, release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := &gate{make(chan struct{}), make(chan struct{})}
	c.gate = g
	return g.arrived, sync.OnceFunc(g.free)
}

// OnWish calls fn once, when the next wish has been accepted.
func (c *Cluster) OnWish(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onWish = fn
}

// Trouble is what is wrong with the asked peer.
func (c *Cluster) Trouble(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble = text
}

// rebuild makes the view anew; c.mu is held.
func (c *Cluster) rebuild() {
	d := &shoal.Desired{Version: c.version, Services: slices.Clone(c.services), Peers: slices.Clone(c.peers), Invites: slices.Clone(c.invites), Conflicts: slices.Clone(c.conflict)}
	c.version++
	slices.SortFunc(d.Services, func(a, b shoal.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	d.Services = shoal.AddPre(d.Services)
	states := map[shoal.PeerID]*shoal.PeerState{}
	for i := range c.peers {
		id := c.peers[i].ID
		free := shoal.Resources{CPUMilli: 3000, MemBytes: 6 << 30}
		states[id] = &shoal.PeerState{Free: free, Images: []string{"hello:1"}}
	}
	for i := range d.Services {
		c.run(d, &d.Services[i], states)
	}
	c.desired, c.said = d, states
	close(c.changed)
	c.changed = make(chan struct{})
}

// run claims every slot that is placed and says how its replica fares. A service whose
// pre_deploy does not end well has none.
func (c *Cluster) run(d *shoal.Desired, s *shoal.Service, states map[shoal.PeerID]*shoal.PeerState) {
	if pre, ok := d.Service(shoal.PreName(s.Spec.Name)); ok && !outcome(&pre.Spec).IsCompleted() {
		return
	}
	for slot, holder := range s.Proposed {
		if holder == "" {
			continue
		}
		id := shoal.ReplicaID{byte(s.Revision.Seq), byte(slot)}
		copy(id[2:], s.Spec.Name)
		d.Claims = append(d.Claims, shoal.Claim{Holder: holder, Service: s.Spec.Name, Slot: slot, Replica: id, Revision: s.Revision, Outcome: outcome(&s.Spec)})
		st := shoal.ReplicaStatus{
			ID: id, Service: s.Spec.Name, Slot: slot, Revision: s.Revision, Phase: shoal.PhaseReady,
			Image: "sha256:" + strings.Repeat("ab", 32), StartedAt: c.clock.Wall().Add(-started).Unix(), Container: "c0ffee",
		}
		fate(&st, s.Spec.Image)
		if outcome(&s.Spec).IsCompleted() {
			st.Phase = shoal.PhaseStopped
		}
		for i, p := range s.Spec.Ports {
			if p.IsIngress() {
				continue
			}
			host := p.Published
			if host == 0 {
				host = uint16(32768 + 10*slot + i)
			}
			st.Ports = append(st.Ports, shoal.PortBinding{Container: p.Container, Protocol: p.Protocol, HostIP: "127.0.0.11", HostPort: host})
		}
		if over, ok := c.states[fmt.Sprintf("%s/%d", s.Spec.Name, slot)]; ok {
			st.Phase, st.Reason = over.Phase, over.Reason
		}
		if st.Phase == shoal.PhaseFailed || st.Health == shoal.HealthUnhealthy {
			c.keep(holder, &st)
		}
		states[holder].Replicas = append(states[holder].Replicas, st)
	}
}

// outcome is what the runs of a job came to: that of a replica which is not ready for good
// is not over.
func outcome(s *shoal.Spec) *shoal.JobOutcome {
	if !s.Mode.IsJob() {
		return nil
	}
	switch name, _, _ := strings.Cut(s.Image, ":"); name {
	case "crash":
		return &shoal.JobOutcome{Attempts: s.Job.Attempts, Failed: true, Code: 1, Why: "exited with code 1"}
	case "slow", "sick":
		return nil
	}
	return &shoal.JobOutcome{Attempts: 1, Completed: true}
}

func fate(st *shoal.ReplicaStatus, image string) {
	switch name, _, _ := strings.Cut(image, ":"); name {
	case "crash":
		st.Phase, st.ExitCode, st.Restarts, st.Reason = shoal.PhaseFailed, 1, 3, "exit 1"
	case "slow":
		st.Phase = shoal.PhaseStarting
	case "sick":
		st.Phase, st.Health, st.Reason = shoal.PhaseRunning, shoal.HealthUnhealthy, "health check: no answer"
	}
}
