// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package des

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// Setup describes a run.
type Setup struct {
	Seed   uint64
	Peers  int
	Zones  int // peers are dealt to this many in turn; 0: 3
	Net    Net
	Config placement.Config
	Room   int           // replicas that fit a peer; 0: 1000
	Redial time.Duration // how long it may take two peers to find each other again; 0: 1 s
}

// Sim is one run.
type Sim struct {
	now    time.Duration
	seq    uint64
	agenda agenda
	rng    *rand.Rand
	net    Net
	cfg    placement.Config
	base   []time.Duration // one-way distance by pair
	peers  []*peer
	linked []bool // by a*P+b: what a sends reaches b
	keys   map[string]int
	minted uint64
	redial time.Duration
	quick  time.Duration // another threshold for a death, if above 0

	wanted map[string]int // what the sum of all wishes wants
	ready  map[string]int
	tally  Tally
	trace  func(format string, args ...any) // nil: silent
}

// Tally counts what happened since the last reset.
type Tally struct {
	Starts   int           // containers started
	Unheld   int           // claims given up before they started
	Dips     int           // times a service had fewer ready replicas than wanted, having had enough
	Over     int           // times a peer ran more than fits
	Records  int           // blocks written
	Decides  int           // decisions taken
	Excess   time.Duration // replica-seconds beyond the number wanted
	FullAt   time.Duration // when every wanted slot was ready, for good so far
	isFull   bool
	lastSeen time.Duration
}

// Result is what a scenario found.
type Result struct {
	Tally
	Needed int           // starts that were necessary
	Extra  int           // Starts - Needed
	Took   time.Duration // until every wanted slot was ready
	Exact  error         // nil: at the end every slot runs exactly once
	Max    int           // most loaded peer's units
	Mean   float64
}

const (
	roomUnit   = 1 << 30 // bytes
	steadyTime = 10 * time.Hour
)

// New returns a cluster that has been up for long, with nothing deployed.
func New(set Setup) *Sim {
	if set.Zones == 0 {
		set.Zones = 3
	}
	if set.Redial == 0 {
		set.Redial = time.Second
	}
	if set.Room == 0 {
		set.Room = 1000
	}
	s := &Sim{
		now: steadyTime, redial: set.Redial, rng: newRand(set.Seed), net: set.Net, cfg: set.Config,
		linked: make([]bool, set.Peers*set.Peers), base: make([]time.Duration, set.Peers*set.Peers),
		keys: make(map[string]int), wanted: make(map[string]int), ready: make(map[string]int),
	}
	members := make([]shoal.Peer, set.Peers)
	for i := range members {
		members[i] = shoal.Peer{
			ID: shoal.PeerID(fmt.Sprintf("peer-%04d", i)), Role: shoal.RoleOperator,
			Facts: shoal.PeerFacts{
				Name:     fmt.Sprintf("p%d", i),
				Labels:   map[string]string{"zone": fmt.Sprintf("z%d", i%set.Zones)},
				Capacity: shoal.Resources{CPUMilli: int64(set.Room) * 1000, MemBytes: int64(set.Room) * roomUnit},
			},
		}
	}
	for i := range members {
		s.peers = append(s.peers, newPeer(s, i, members))
	}
	for i := range s.linked {
		s.linked[i] = true
		s.base[i] = s.between(20*time.Millisecond, 150*time.Millisecond)
	}
	for _, p := range s.peers {
		for _, o := range s.peers {
			if o != p {
				p.lives[o.id] = shoal.Life{State: shoal.LifeAlive, Heard: s.now, Uptime: steadyTime}
			}
		}
		p.wake(0)
	}
	s.run(s.now + 20*time.Second) // memories settle
	return s
}

// reset starts counting anew.
func (s *Sim) reset() {
	s.tally = Tally{lastSeen: s.now, FullAt: -1}
	s.checkFull()
}

// reaches reports whether a message from a gets to b now.
func (s *Sim) reaches(a, b int) bool {
	return s.peers[a].up && s.peers[b].up && s.linked[a*len(s.peers)+b]
}

// mint returns a replica identity.
func (s *Sim) mint() shoal.ReplicaID {
	s.minted++
	var id shoal.ReplicaID
	for i := range 8 {
		id[i] = byte(s.minted >> (56 - 8*i))
	}
	return id
}

// keyOf numbers the keys of records.
func (s *Sim) keyOf(key string) int {
	k, ok := s.keys[key]
	if !ok {
		k = len(s.keys)
		s.keys[key] = k
	}
	return k
}

// count notes a change of a service's ready replicas.
func (s *Sim) count(service string, by int) {
	before := s.ready[service]
	for name, n := range s.ready {
		if over := n - s.wanted[name]; over > 0 {
			s.tally.Excess += time.Duration(over) * (s.now - s.tally.lastSeen)
		}
	}
	s.tally.lastSeen = s.now
	s.ready[service] += by
	if before >= s.wanted[service] && s.ready[service] < s.wanted[service] {
		s.tally.Dips++
	}
	s.checkFull()
}

// checkFull notes when every wanted slot came to be ready.
func (s *Sim) checkFull() {
	full := true
	for name, n := range s.wanted {
		if s.ready[name] < n {
			full = false // cheap test first
		}
	}
	if full {
		full = s.missing() == 0
	}
	if full && !s.tally.isFull {
		s.tally.FullAt = s.now
	}
	s.tally.isFull = full
}

// missing counts wanted slots without a ready replica.
func (s *Sim) missing() int {
	miss := 0
	have := s.bySlot(func(c *container) bool { return c.ready })
	for name, n := range s.wanted {
		for slot := range n {
			if have[slotKey{name, slot}] == 0 {
				miss++
			}
		}
	}
	return miss
}

type slotKey struct {
	service string
	slot    int
}

func (s *Sim) bySlot(ok func(*container) bool) map[slotKey]int {
	have := make(map[slotKey]int)
	for _, p := range s.peers {
		for _, c := range p.containers {
			if p.up && ok(c) {
				have[slotKey{c.service, c.slot}]++
			}
		}
	}
	return have
}

// exact returns an error unless every wanted slot runs exactly once and nothing else.
func (s *Sim) exact() error {
	have := s.bySlot(func(*container) bool { return true })
	total := 0
	for name, n := range s.wanted {
		for slot := range n {
			if got := have[slotKey{name, slot}]; got != 1 {
				return fmt.Errorf("slot %s/%d runs %d times", name, slot, got)
			}
			total++
		}
	}
	for _, got := range have {
		total -= got
	}
	if total != 0 {
		return fmt.Errorf("%d containers beyond the wanted", -total)
	}
	return nil
}

// result closes the books.
func (s *Sim) result(needed int, from time.Duration) Result {
	r := Result{Tally: s.tally, Needed: needed, Extra: s.tally.Starts - needed, Exact: s.exact(), Took: -1}
	if s.tally.isFull {
		r.Took = s.tally.FullAt - from
	}
	alive, sum := 0, 0
	for _, p := range s.peers {
		if p.up {
			alive++
			sum += int(p.used())
			r.Max = max(r.Max, int(p.used()))
		}
	}
	r.Mean = float64(sum) / float64(max(1, alive))
	return r
}
