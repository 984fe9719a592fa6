// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement/brake"
)

// never lies before every monotonic time, far enough that differences do not wrap.
const never = time.Duration(-1 << 61)

// Memory is what decisions remember between two views: when things were first
// seen on this peer's own clock. It is a value: [Decide] returns a new one and
// leaves its argument as it was. It is lost with the process, which is right: a
// peer that boots must not trust what it remembers of the others' lives.
type Memory struct {
	bootAt     time.Duration
	begun      bool
	warm       bool          // this is no cold start
	graceUntil time.Duration // end of the boot grace, so far
	returnedAt time.Duration // when somebody came back last
	lastPull   time.Duration // last proof of freshness

	peers    map[shoal.PeerID]peerMemory
	wishes   map[string]wishMemory
	vouched  map[shoal.PeerID]time.Duration // until
	releases map[shoal.Release]bool         // those that vouch, seen already
	asked    map[shoal.PeerID]time.Duration // last request to pull
	open     map[slotKey]openMemory
	claimed  map[slotKey]claimMemory
	started  map[shoal.ReplicaID]bool
	losing   map[shoal.ReplicaID]time.Duration // since
	ready    map[shoal.ReplicaID]time.Duration // at the current revision of a service that changes, since
	brake    brake.Memory
}

type slotKey struct {
	service string
	slot    int
}

type peerMemory struct {
	since      time.Duration // first seen as a member
	up         bool
	heard      bool          // was up at some time since own boot
	engineDown time.Duration // since; never while it is up
}

type wishMemory struct {
	wish  shoal.RevisionID
	at    time.Duration // receipt, as far as decisions can tell
	fresh bool          // came by live push
}

type openMemory struct {
	since time.Duration // open and not held back by a brake
	able  time.Duration // overdue, and this peer could take it, since
}

type claimMemory struct {
	at   time.Duration
	once bool // starts at once: proposed here and young, or this peer's own business
}

// NewMemory returns the memory of a peer that booted at bootAt (own monotonic
// clock).
func NewMemory(bootAt time.Duration) Memory {
	return Memory{bootAt: bootAt, graceUntil: never, returnedAt: never, lastPull: never}
}

// Pulled returns m knowing that a pull from peer ("" for two random others)
// succeeded at own time now: the view given to the next decision contains what
// they knew. The shell calls it for every entry of Plan.Pulls that succeeded, and
// not for one that failed.
func (m Memory) Pulled(peer shoal.PeerID, now time.Duration) Memory {
	m.lastPull = max(m.lastPull, now)
	m.asked = maps.Clone(m.asked)
	delete(m.asked, peer)
	return m
}

// observe returns the memory after a look at the world.
func (m Memory) observe(w *world, now time.Duration, cfg Config) Memory {
	if !m.begun && !cfg.NoGrace {
		m.graceUntil = m.bootAt + cfg.BootGrace
	}
	m.observePeers(w, now, cfg)
	m.observeWishes(w, now)
	if !cfg.NoVouch {
		m.observeReleases(w, now, cfg)
	}
	m.begun = true
	return m
}

func (m *Memory) observePeers(w *world, now time.Duration, cfg Config) {
	m.warm = m.warm || cfg.NoCold || now >= m.bootAt+cfg.Cold
	var next map[shoal.PeerID]peerMemory // made at the first difference
	for i := range w.peers {
		p := &w.peers[i]
		id := p.peer.ID
		old, known := m.peers[id]
		mem := old
		if !known {
			mem = peerMemory{since: now, engineDown: never}
		}
		mem.up = p.up
		if p.up && i != w.self {
			m.observeUp(w, id, old, mem.since, now, cfg)
			mem.heard = true
		}
		mem.engineDown = engineDownSince(p.state, mem.engineDown, now)
		if known && mem == old {
			continue
		}
		if next == nil {
			next = make(map[shoal.PeerID]peerMemory, len(w.peers))
			maps.Copy(next, m.peers)
		}
		next[id] = mem
	}
	if next != nil {
		m.peers = next
	}
}

// observeUp notes what a peer's being up means: warmth, a return, a longer grace.
func (m *Memory) observeUp(w *world, id shoal.PeerID, old peerMemory, since, now time.Duration, cfg Config) {
	m.warm = m.warm || w.v.Life(id).Uptime >= cfg.WarmUptime
	switch {
	case old.up:
	case old.heard:
		m.returnedAt = now
	case now < m.graceUntil:
		m.graceUntil = now + cfg.BootGrace // still booting: others are too
	case m.begun && now-since > cfg.Settle:
		m.returnedAt = now // a member of old; a newcomer is heard right after it is admitted
	}
}

func engineDownSince(st *shoal.PeerState, since, now time.Duration) time.Duration {
	switch {
	case st == nil || !st.Engine.Down:
		return never
	case since == never:
		return now
	}
	return since
}

func (m *Memory) observeWishes(w *world, now time.Duration) {
	var next map[string]wishMemory
	for i := range w.services {
		svc := w.services[i].svc
		name := svc.Spec.Name
		old, known := m.wishes[name]
		if known && old.wish == svc.Wish {
			continue
		}
		if next == nil {
			next = make(map[string]wishMemory, len(w.services))
			for j := range w.services { // forget services that are gone
				if o, ok := m.wishes[w.services[j].spec.Name]; ok {
					next[w.services[j].spec.Name] = o
				}
			}
		}
		next[name] = wishMemory{wish: svc.Wish, at: now, fresh: svc.Fresh}
	}
	if next != nil {
		m.wishes = next
	}
}

// observeReleases takes new releases as word that the winners they name live. What
// was there at boot says nothing about now.
func (m *Memory) observeReleases(w *world, now time.Duration, cfg Config) {
	all := w.v.Releases()
	seen, fresh := 0, false
	for _, r := range all {
		if r.YieldTo == "" {
			continue
		}
		seen++
		if !m.releases[r] {
			fresh = true
		}
	}
	if !fresh && seen == len(m.releases) {
		return
	}
	next := make(map[shoal.Release]bool, seen)
	vouched := maps.Clone(m.vouched)
	if vouched == nil {
		vouched = make(map[shoal.PeerID]time.Duration)
	}
	for _, r := range all {
		if r.YieldTo == "" {
			continue
		}
		next[r] = true
		if m.begun && !m.releases[r] {
			vouched[r.YieldTo] = now + cfg.Vouch
		}
	}
	maps.DeleteFunc(vouched, func(_ shoal.PeerID, until time.Duration) bool { return until <= now })
	m.releases, m.vouched = next, vouched
}

// brakeUntil returns the end of the brake for half of the peers falling silent
// within the window, counted from the first silence; never if there was no such
// thing (DESIGN.md section 5).
func brakeUntil(w *world, cfg Config) time.Duration {
	until := never
	if cfg.NoBrake {
		return until
	}
	var silent []time.Duration
	living := 1 // oneself
	for i := range w.peers {
		if i == w.self || w.peers[i].removed {
			continue
		}
		switch life := w.v.Life(w.peers[i].peer.ID); life.State {
		case shoal.LifeAlive:
			living++
		case shoal.LifeSuspect, shoal.LifeDead:
			silent = append(silent, life.Heard)
		default:
		}
	}
	slices.SortFunc(silent, cmp.Compare[time.Duration])
	for first, last := 0, 0; first < len(silent); first++ {
		for last < len(silent) && silent[last]-silent[first] <= cfg.BrakeWindow {
			last++
		}
		// Those that fell silent later still lived then.
		if n := last - first; 2*n >= n+living+len(silent)-last {
			until = max(until, silent[first]+cfg.Brake)
		}
	}
	return until
}
