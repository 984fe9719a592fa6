// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// maxRefusals bounds the refusals counted apart; more go under From "".
const maxRefusals = 1024

// Refusal says why blocks, or messages that should hold some, were refused and who sent
// them: who passed on the push, or the other end of the stream. The authors a refused block names are not
// proven, so they are not blamed.
type Refusal struct {
	Reason string // form, cid, tombstone, key, record, signature, chain, height
	From   shoal.PeerID
}

// Stats are counts since Run began, and the present size of the store.
type Stats struct {
	Blocks     int    // in the DAG
	Records    int    // in those blocks
	Heads      int    // tips of the DAG
	Height     uint64 // greatest height
	Refused    map[Refusal]uint64
	Flushes    uint64 // of the datastore, each one disk sync
	Wrote      uint64 // blocks written here
	Pushed     uint64 // blocks that came by push
	Pulled     uint64 // blocks that came by sync
	Syncs      uint64 // sync streams opened and ended well
	SyncEqual  uint64 // of those, found nothing to move
	SyncIn     uint64 // bytes read from sync streams, either side
	SyncOut    uint64 // bytes written to sync streams, either side
	PushesLost uint64 // own blocks not pushed because the queue was full
	Slowed     uint64 // pushes put off because their sender or author sends too much
	// Muted are the peers nothing is taken from for now, and for how much longer.
	Muted  map[shoal.PeerID]time.Duration
	Mended int    // blocks merged again at start
	Aside  string // where the damaged store was moved that was found here
	Saved  int    // records that were read from it, and were missing here
}

// counters are the parts of Stats that grow. Safe for concurrent use.
type counters struct {
	flushes, wrote, pushed, pulled, syncs, syncEqual, syncIn, syncOut, pushesLost, slowed atomic.Uint64

	mu      sync.Mutex
	refused map[Refusal]uint64 // guarded by mu
	lines   *rate.Limiter      // of log lines about new refusals
}

func newCounters() *counters {
	// One line per new pair of reason and sender; a flood of senders is cut.
	return &counters{refused: map[Refusal]uint64{}, lines: rate.NewLimiter(1, 20)}
}

// came counts a merged block of another peer.
func (c *counters) came(pushed bool) {
	if pushed {
		c.pushed.Add(1)
	} else {
		c.pulled.Add(1)
	}
}

// refuse counts a refused block and says so once per reason and sender.
func (c *counters) refuse(log *slog.Logger, from shoal.PeerID, no *refused) {
	c.mu.Lock()
	key := Refusal{no.reason, from}
	if _, known := c.refused[key]; !known && len(c.refused) >= maxRefusals {
		key.From = ""
	}
	c.refused[key]++
	first := c.refused[key] == 1
	c.mu.Unlock()
	if first && c.lines.Allow() {
		log.Warn("block refused", logkey.Peer, string(from), logkey.Reason, no.reason, logkey.Err, no.err)
	}
}

func (c *counters) refusals() map[Refusal]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.refused)
}
