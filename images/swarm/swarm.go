// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Config are the limits of one peer for one blob.
type Config struct {
	Seed     uint64        // orders what is equal; different on every peer
	Uploads  int           // chunks being sent at a time, slow ones not counted
	Asks     int           // asks outstanding in all, but for one a peer that nobody waits for
	Window   int           // asks outstanding at one peer, but for that one
	Patience time.Duration // after which an upload is slow, an ask overdue
	Stall    time.Duration // without progress, after which a source is changed
}

// Defaults returns what suits links from 10 Mbit/s to 10 Gbit/s.
func Defaults(seed uint64) Config {
	return Config{Seed: seed, Uploads: 2, Asks: 96, Window: 32, Patience: 2 * time.Second, Stall: 10 * time.Second}
}

// Validate returns a *shoal.InvalidError for a limit that lets nothing move.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"uploads", c.Uploads > 0},
		{"asks", c.Asks > 0},
		{"window", c.Window > 0},
		{"patience", c.Patience > 0},
		{"stall", c.Stall > 0},
	} {
		if !f.ok {
			return &shoal.InvalidError{Field: f.name, Why: "must be above 0"}
		}
	}
	return nil
}

// maxChunks bounds what a chunk list may claim: a blob of 1 TiB.
const maxChunks = 1 << 20

// Swarm is one blob as one peer sees it. It is changed by [Swarm.Step] only, and is not
// for concurrent use.
type Swarm struct {
	cfg     Config
	n       int
	now     time.Duration
	started bool
	out     []Request

	have    Bitmap
	missing int
	peers   map[shoal.PeerID]*peer
	order   []*peer // sorted by ID
	banned  map[shoal.PeerID]bool
	full    int   // connected peers that have every chunk
	held    tally // connected peers, not full, that have the chunk

	// What we ask.
	paused   bool // nothing
	nextAsk  uint64
	asks     []*ask // ordered by number
	limit    int    // of asks at a time, as learned
	doubts   int    // of those, that nobody waits for
	bound    tally  // asks for the chunk that are trusted to bring it
	freed    bool   // something that was left out of asks for Any may be wanted in them
	turn     int    // where the next round over the peers begins
	progress time.Duration
	starved  time.Duration // when that was last said

	// What we send.
	spread  tally // connected peers, not full, that have the chunk or were sent it by us
	serving uint64
	sending int
	queued  int

	lied, wasted, gained int
}

// New returns a swarm for a blob of n chunks of which those in have are on disk and
// verified. *shoal.InvalidError: a limit of cfg or n is out of range.
func New(cfg Config, n int, have Bitmap) (*Swarm, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if n < 1 || n > maxChunks {
		return nil, &shoal.InvalidError{Field: "chunks", Why: "must be 1-1048576"}
	}
	s := &Swarm{
		cfg: cfg, n: n, have: have.fit(n), peers: map[shoal.PeerID]*peer{}, banned: map[shoal.PeerID]bool{},
		held: newTally(n), bound: newTally(n), spread: newTally(n),
	}
	s.limit = min(firstAsks, cfg.Asks)
	s.missing = n - s.have.Count()
	return s, nil
}

// Step takes an event and returns what is to be done, in this order. The slice is valid
// until the next call. An event that does not fit is ignored; it never fails.
func (s *Swarm) Step(e Event) []Request {
	s.now = max(s.now, e.Now)
	s.out = s.out[:0]
	if !s.started {
		s.started, s.progress, s.starved = true, s.now, s.now
	}
	p := s.peers[e.Peer]
	switch e.Kind {
	case EventTick:
		s.tick()
	case EventJoin:
		s.join(e)
	case EventPause:
		s.pause()
	case EventResume:
		s.paused, s.progress, s.starved = false, s.now, s.now
	case EventChunk:
		s.gotChunk(p, e)
	case EventBad:
		s.drop(p, "sent a chunk that is not what the list says")
	default:
		if p == nil {
			return nil
		}
		s.stepPeer(p, e)
	}
	if e.Kind != EventHas && e.Kind != EventMore {
		s.fetch()
		s.serve()
	}
	return s.out
}

// stepPeer takes the events that need a connected peer.
func (s *Swarm) stepPeer(p *peer, e Event) {
	switch e.Kind {
	case EventLeave:
		s.remove(p)
	case EventHas:
		s.peerHas(p, e.Chunk)
	case EventHead:
		s.head(p, e)
	case EventMore:
		s.advance(p)
	case EventFail:
		s.failed(p, e.Ask)
	case EventAsk:
		s.asked(p, e)
	case EventCancel:
		s.cancelled(p, e.Ask)
	case EventSent, EventUnsent:
		s.endSend(p, e.Ask, e.Kind == EventSent)
	default: // no such event
	}
}

func (s *Swarm) request(r Request) { s.out = append(s.out, r) }

// Have returns the chunks that are here.
func (s *Swarm) Have() Bitmap { return s.have.Clone() }

// Stats are counts since New.
type Stats struct {
	Chunks, Have int
	Gained       int // chunks that came from peers
	Wasted       int // chunks that came though they were here
	Lied         int // peers dropped
	Asks         int // outstanding now
	Sending      int // now
	Queued       int // asks of others that wait now
	Peers        []PeerStats
}

// PeerStats is what moved between us and one connected peer.
type PeerStats struct {
	Peer    shoal.PeerID
	Got     int     // chunks that came from it
	Sent    int     // chunks handed to the network for it
	Rate    float64 // bytes a second from it, lately
	Window  int     // asks it may be given
	Stalled bool
	Full    bool
}

// Stats returns the counts; Peers is sorted by ID.
func (s *Swarm) Stats() Stats {
	st := Stats{
		Chunks: s.n, Have: s.n - s.missing, Gained: s.gained, Wasted: s.wasted, Lied: s.lied,
		Asks: len(s.asks), Sending: s.sending, Queued: s.queued,
	}
	for _, p := range s.order {
		st.Peers = append(st.Peers, PeerStats{
			Peer: p.id, Got: p.got, Sent: p.sent, Rate: p.rate, Window: p.window, Stalled: p.stalled, Full: p.full,
		})
	}
	return st
}

// find returns where p is, or belongs, in the order of IDs.
func (s *Swarm) find(id shoal.PeerID) (int, bool) {
	return slices.BinarySearchFunc(s.order, id, func(p *peer, id shoal.PeerID) int { return cmp.Compare(p.id, id) })
}
