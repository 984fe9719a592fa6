// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"sync"
	"time"

	"github.com/shoalnet/shoal"
)

// How much is taken of one peer. What is more is not lost: a push that is not taken is
// fetched later, by a sync, which is read no faster than this.
var (
	// What a peer passes on, of whomever. One block costs some 0.2 ms to verify, so a
	// burst keeps others waiting for less than a second.
	pushFlow     = flow{rate: 2000, burst: 4000}       // messages
	pushByteFlow = flow{rate: 2 << 20, burst: 8 << 20} // bytes
	// What a peer writes itself. People and their peers write a few records a second.
	writeFlow     = flow{rate: 500, burst: 5000}         // records
	writeByteFlow = flow{rate: 1 << 20, burst: 16 << 20} // bytes
	// Syncs that a peer may open; an honest one opens one for a gap, each GapDelay.
	askFlow = flow{rate: 50, burst: 200}
	// Syncs that we open with a peer on our own account, whatever it does to make us.
	pullFlow = flow{rate: 10, burst: 10}
	// Refused blocks before their sender is muted: a fault of memory or wire passes.
	faultFlow = flow{rate: 0.1, burst: 16}
)

const (
	// An author that holds more than this is slowed by heavyFactor.
	heavyRecords = 100_000
	heavyBytes   = 128 << 20
	heavyFactor  = 10
	// weighEvery is how often what the fold keeps of an author is counted.
	weighEvery = 30 * time.Second
	// A peer is muted for muteFirst, each time twice as long up to muteMost; when it
	// behaved for muteForget times the last, it begins anew.
	muteFirst  = 10 * time.Second
	muteMost   = 10 * time.Minute
	muteForget = 10
	// paceWait is how long a sync waits at most, for each batch, for a peer that writes
	// too fast.
	paceWait = time.Second
	// maxConduct bounds the peers whose conduct is known; who was not heard of for
	// longest is forgotten first.
	maxConduct = 4096
)

// conduct is what this peer thinks of how others behave: who sends blocks that it
// should have refused, who sends or writes too much. It changes the pace at which
// blocks are looked at and never the verdict on one, so that peers may disagree about
// it. Safe for concurrent use.
type conduct struct {
	mu    sync.Mutex
	peers map[shoal.PeerID]*behaviour // guarded by mu
}

type behaviour struct {
	seen time.Duration // when it was last looked at

	faults bucket
	until  time.Duration // muted up to then
	last   time.Duration // how long the last mute was; 0: never, or forgotten

	pushes, pushBytes   bucket
	writes, writesBytes bucket
	asks, pulls         bucket
	heavy               bool
}

func newConduct() *conduct { return &conduct{peers: map[shoal.PeerID]*behaviour{}} }

// of returns a peer's behaviour; mu must be held.
func (c *conduct) of(now time.Duration, p shoal.PeerID) *behaviour {
	b := c.peers[p]
	if b == nil {
		if len(c.peers) >= maxConduct {
			c.forgetOne(now)
		}
		b = &behaviour{}
		c.peers[p] = b
	}
	b.seen = now
	return b
}

// forgetOne makes room; mu must be held. Who is muted stays as long as others can go.
func (c *conduct) forgetOne(now time.Duration) {
	var oldest shoal.PeerID
	var least *behaviour
	for p, b := range c.peers {
		switch {
		case least == nil, least.until > now && b.until <= now:
		case (least.until > now) != (b.until > now) || b.seen >= least.seen:
			continue
		}
		oldest, least = p, b
	}
	delete(c.peers, oldest)
}

// fault counts a block that p should have refused itself, and returns for how long it
// is muted from now on, 0 if it is not, or was before.
func (c *conduct) fault(now time.Duration, p shoal.PeerID) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.of(now, p)
	if now < b.until || b.faults.take(now, faultFlow, 1) {
		return 0
	}
	if now-b.until > muteForget*b.last {
		b.last = 0
	}
	b.last = max(muteFirst, min(2*b.last, muteMost))
	b.until, b.faults = now+b.last, bucket{}
	return b.last
}

// isMuted reports whether nothing is taken from p now.
func (c *conduct) isMuted(now time.Duration, p shoal.PeerID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.peers[p]
	return b != nil && now < b.until
}

// muted returns who is muted, and for how much longer.
func (c *conduct) muted(now time.Duration) map[shoal.PeerID]time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[shoal.PeerID]time.Duration{}
	for p, b := range c.peers {
		if now < b.until {
			out[p] = b.until - now
		}
	}
	return out
}

// mayPush counts a message of n bytes that p passed on, and reports whether it may be
// looked at.
func (c *conduct) mayPush(now time.Duration, p shoal.PeerID, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.of(now, p)
	return b.pushes.room(now, pushFlow, 1) && b.pushBytes.take(now, pushByteFlow, float64(n)) && b.pushes.take(now, pushFlow, 1)
}

// mayAsk counts a sync that p opened, and reports whether it may be answered.
func (c *conduct) mayAsk(now time.Duration, p shoal.PeerID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of(now, p).asks.take(now, askFlow, 1)
}

// pulled counts a sync that we open with p, and returns how long to wait before.
func (c *conduct) pulled(now time.Duration, p shoal.PeerID) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(paceWait, c.of(now, p).pulls.owe(now, pullFlow, 1))
}

// written is what blocks of one author hold.
type written struct{ records, bytes int }

// heavy reports whether it is more than one author's share.
func (w written) heavy() bool { return w.records > heavyRecords || w.bytes > heavyBytes }

// flows returns how fast b may write.
func (b *behaviour) flows() (records, bytes flow) {
	if b.heavy {
		return writeFlow.slower(), writeByteFlow.slower()
	}
	return writeFlow, writeByteFlow
}

// mayWrite counts what p wrote and sends itself, and reports whether it may come in
// now.
func (c *conduct) mayWrite(now time.Duration, p shoal.PeerID, w written) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.of(now, p)
	records, bytes := b.flows()
	return b.writes.room(now, records, float64(w.records)) && b.writesBytes.take(now, bytes, float64(w.bytes)) &&
		b.writes.take(now, records, float64(w.records))
}

// wrote counts what p wrote and we asked for, and returns how long to wait before more
// is asked for.
func (c *conduct) wrote(now time.Duration, p shoal.PeerID, w written) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.of(now, p)
	records, bytes := b.flows()
	return min(paceWait, max(b.writes.owe(now, records, float64(w.records)), b.writesBytes.owe(now, bytes, float64(w.bytes))))
}

// weigh says whether an author holds more than its share.
func (c *conduct) weigh(now time.Duration, p shoal.PeerID, heavy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of(now, p).heavy = heavy
}

// ownOf returns what those of the blocks hold that were made by p, as far as can be
// told: blocks are not signed, so whoever sends records of several authors, or of one
// that is not p, may only pass them on.
func ownOf(p shoal.PeerID, list []*block) written {
	var w written
	for _, b := range list {
		if b.records[0].Author != p {
			continue
		}
		w.records += len(b.records)
		w.bytes += len(b.data)
	}
	return w
}
