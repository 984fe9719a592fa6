// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
	"github.com/shoalnet/shoal/internal/logkey"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// The pace of a task.
const (
	tickEvery = 500 * time.Millisecond // swarm wants it twice a second
	idleTime  = 2 * time.Second        // after which one that is of use to nobody ends
)

// task is one blob that this peer fetches, serves, or both.
type task struct {
	x      *Exchange
	digest blobs.Digest
	wake   chan struct{}

	mu       sync.Mutex // guards what follows
	isClosed bool
	waiters  []*waiter
	peers    map[shoal.PeerID]*neighbour
	changed  chan struct{} // closed when a peer answered or went
	uploads  map[uploadKey]*upload

	// What is known of the blob.
	boundSize int64        // as a caller said, 0: nobody did
	boundList blobs.Digest // the same
	sw        *swarm.Swarm // nil while it goes by no chunk list and does not grow
	size      int64
	list      blobs.Digest // zero while it grows
	hashes    []blobs.Digest
	have      swarm.Bitmap
	reader    *blobs.Reader // keeps the blob, and reads what is sent
	isWhole   bool
	isStale   bool // the store may have more than have says
	isDiscard bool // the partial blob goes, another list counts
	isOpening bool // it is not yet known what the store has

	// Whether it is wanted here.
	isWanted bool
	wantedAt time.Duration // when somebody last did; negative: nobody ever
	usedAt   time.Duration // when it was last of use to anybody

	// How its list is fetched.
	isListing bool
	listing   *listWait
	found     *foundList
	listAt    time.Duration // not before
	offeredAt time.Duration // when the first list was offered; 0: none
	falsified map[blobs.Digest]bool

	// What came while it grew.
	grows     bool          // there is no list: chunks are taken as they are
	isUngrown bool          // it grew and was not the blob: not again
	taken     map[int]taken // who chunks came from; kept until the true list is known
	fedAt     time.Duration // when a chunk last came from a peer; 0: never

	// How sources are looked for.
	isFinding, isStarved bool
	findAt               time.Duration
	findGap              time.Duration
	toldAt               time.Duration // when peers were last told of each other
}

// waiter is one caller.
type waiter struct {
	isWhole bool // it waits for the whole
	done    chan struct{}
	err     error // set before done is closed
}

type uploadKey struct {
	peer shoal.PeerID
	ask  uint64
}

func newTask(x *Exchange, d blobs.Digest) *task {
	return &task{
		x: x, digest: d, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		peers: map[shoal.PeerID]*neighbour{}, uploads: map[uploadKey]*upload{}, falsified: map[blobs.Digest]bool{},
		wantedAt: -1, usedAt: x.deps.Clock.Mono(), isStale: true, isOpening: true,
	}
}

func (t *task) now() time.Duration { return t.x.deps.Clock.Mono() }

// poke has run look at the task soon.
func (t *task) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// note tells who looks for sources that something changed. The caller holds mu.
func (t *task) note() {
	close(t.changed)
	t.changed = make(chan struct{})
	t.poke()
}

// run drives the task until nobody needs it any more, or ctx ends.
func (t *task) run(ctx context.Context) {
	defer t.close()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		t.work(ctx)
		select {
		case <-t.wake:
		case <-tick.C:
			if t.tick() {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// take adds a caller. The caller holds mu.
func (t *task) take(b Blob, w *waiter) error {
	var none blobs.Digest
	switch {
	case b.List != none && t.boundList != none && b.List != t.boundList:
		return fmt.Errorf("%w: it is being fetched by another chunk list", shoal.ErrConflict)
	case b.Size != 0 && t.boundSize != 0 && b.Size != t.boundSize:
		return fmt.Errorf("%w: it is being fetched with %d bytes", shoal.ErrConflict, t.boundSize)
	}
	if b.List != none {
		t.boundList = b.List
	}
	if b.Size != 0 {
		t.boundSize = b.Size
	}
	if t.isWhole || t.sw != nil && !w.isWhole && t.isFit() {
		close(w.done)
	} else {
		t.waiters = append(t.waiters, w)
	}
	if t.sw != nil && !t.isWhole && !t.isFit() {
		t.reset()
		t.isDiscard = true
	}
	t.wantedAt = t.now()
	t.setWanted(!t.isWhole)
	t.findAt = 0
	t.poke()
	return nil
}

// fits reports whether a size and a list may be the blob's, by what callers said and
// what was found out.
func (t *task) fits(size int64, list blobs.Digest) bool {
	return (t.boundSize == 0 || size == t.boundSize) && (t.boundList == blobs.Digest{} || list == t.boundList) && !t.falsified[list]
}

// isFit reports whether what the blob goes by may be the blob's.
func (t *task) isFit() bool {
	return t.suits(foundList{size: t.size, hash: t.list, grows: t.grows})
}

// abandon takes a caller away.
func (t *task) abandon(w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiters = slices.DeleteFunc(t.waiters, func(v *waiter) bool { return v == w })
	t.wantedAt = t.now()
}

// resolve ends the callers that which says.
func (t *task) resolve(err error, which func(*waiter) bool) {
	t.waiters = slices.DeleteFunc(t.waiters, func(w *waiter) bool {
		if which(w) {
			w.err = err
			close(w.done)
			return true
		}
		return false
	})
}

func everyone(*waiter) bool { return true }

// fail ends all callers; what is here stays, and nothing more is fetched until the next.
func (t *task) fail(err error) {
	t.resolve(err, everyone)
	t.wantedAt = -1
	t.setWanted(false)
}

// setWanted begins, or ends, to ask for what is missing.
func (t *task) setWanted(is bool) {
	if t.isWanted == is {
		return
	}
	t.isWanted = is
	kind := swarm.EventPause
	if is {
		kind = swarm.EventResume
		t.findGap = 0
	}
	t.step(swarm.Event{Kind: kind})
	for _, n := range t.neighbours() {
		switch {
		case n.sess == nil:
		case is:
			t.hello(n, true)
		default:
			n.sess.send(&shoalv1.BlobIdle{Blob: t.digest[:]})
			t.partIdle(n)
		}
	}
}

// tick looks at the task twice a second. true: it is over.
func (t *task) tick() bool {
	info, err := t.x.deps.Store.Stat(t.digest)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.step(swarm.Event{Kind: swarm.EventTick})
	switch {
	case t.sw == nil || t.isWhole:
	case errors.Is(err, shoal.ErrNotFound):
		t.listFalse()
	case info.Complete || t.have.Full():
		t.isStale = true
	}
	own := 0
	if t.reader != nil {
		own = 1
	}
	if len(t.waiters) > 0 || err == nil && info.Leases > own && t.wantedAt >= 0 {
		t.wantedAt = now
	}
	t.setWanted(!t.isWhole && t.wantedAt >= 0 && now-t.wantedAt < t.x.cfg.Linger)
	if now-t.toldAt >= tellEvery {
		t.toldAt = now
		for _, n := range t.neighbours() {
			t.tellPeers(n)
		}
	}
	isUsed := t.isWanted || len(t.uploads) > 0
	for _, n := range t.neighbours() {
		t.partIdle(n)
		isUsed = isUsed || n.sess != nil || n.isDialing
	}
	if isUsed {
		t.usedAt = now
	}
	t.isClosed = now-t.usedAt >= idleTime && len(t.waiters) == 0
	return t.isClosed
}

// close ends what the task has begun.
func (t *task) close() {
	t.mu.Lock()
	t.isClosed = true
	t.resolve(ErrStopped, everyone)
	for _, n := range t.neighbours() {
		if n.sess != nil {
			n.sess.send(&shoalv1.BlobBye{Blob: t.digest[:], Reason: shoalv1.BlobByeReason_BLOB_BYE_REASON_LEFT})
			n.sess.part(t.digest)
		}
	}
	t.reset()
	t.mu.Unlock()
	t.x.forget(t)
}

// reset forgets the chunk list and everything that depends on it.
func (t *task) reset() {
	for _, u := range t.uploads {
		close(u.stop)
	}
	clear(t.uploads)
	if t.reader != nil {
		_ = t.reader.Close() // it was only read from
		t.reader = nil
	}
	t.sw, t.hashes, t.size, t.list, t.have = nil, nil, 0, blobs.Digest{}, swarm.Bitmap{}
	t.offeredAt, t.found, t.grows = 0, nil, false
	for _, n := range t.peers {
		n.isJoined = false
	}
}

// event gives the scheduler an event.
func (t *task) event(e swarm.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step(e)
}

// step gives the scheduler an event and does what it wants. The caller holds mu.
func (t *task) step(e swarm.Event) {
	if t.sw == nil {
		return
	}
	e.Now = t.now()
	for _, r := range t.sw.Step(e) {
		t.carryOut(r)
	}
}

// carryOut does what the scheduler wants; it gives it no event meanwhile.
func (t *task) carryOut(r swarm.Request) {
	n := t.peers[r.Peer]
	isPeer := n != nil && n.sess != nil
	switch r.Kind {
	case swarm.RequestAsk:
		if isPeer {
			n.lastAsk = r.Ask
			n.sess.send(&shoalv1.BlobAsk{Blob: t.digest[:], Ask: r.Ask, Chunk: int64(r.Chunk), Not: r.Not.Bytes()})
		}
	case swarm.RequestCancel:
		if isPeer {
			n.sess.send(&shoalv1.BlobCancel{Blob: t.digest[:], Ask: r.Ask})
		}
	case swarm.RequestRefuse:
		if isPeer {
			n.sess.send(&shoalv1.BlobRefuse{Blob: t.digest[:], Ask: r.Ask})
		}
	case swarm.RequestHave:
		for _, n := range t.peers {
			if n.sess != nil && n.isTold {
				n.sess.send(&shoalv1.BlobHave{Blob: t.digest[:], Chunks: []uint32{uint32(r.Chunk)}})
			}
		}
	case swarm.RequestSend:
		if isPeer {
			t.upload(n, r)
		}
	case swarm.RequestStop:
		key := uploadKey{r.Peer, r.Ask}
		if u := t.uploads[key]; u != nil {
			close(u.stop)
			delete(t.uploads, key)
		}
	case swarm.RequestDrop:
		if n != nil {
			n.falseList = t.list
			t.ban(n, r.Why)
		}
	case swarm.RequestStarved:
		t.isStarved = true
		t.poke()
	case swarm.RequestDone:
		t.isStale = true
		t.poke()
	case swarm.RequestStalled:
		t.x.deps.Log.Debug("source of a blob is stuck", logkey.Peer, r.Peer, "blob", t.digest)
	}
}

// upload begins to send a chunk.
func (t *task) upload(n *neighbour, r swarm.Request) {
	u := &upload{
		peer: n.id, sess: n.sess, ask: r.Ask, chunk: r.Chunk, off: int64(r.Chunk) * swarm.ChunkBytes,
		size: chunkLen(t.size, r.Chunk), src: t.reader, stop: make(chan struct{}),
	}
	key := uploadKey{n.id, r.Ask}
	t.uploads[key] = u
	t.x.spawn(func(ctx context.Context) {
		err := t.x.send(ctx, t.digest, u)
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.uploads[key] != u {
			return // it was stopped, and nobody waits for how it ended
		}
		delete(t.uploads, key)
		kind := swarm.EventSent
		if err != nil {
			kind = swarm.EventUnsent
			u.sess.send(&shoalv1.BlobRefuse{Blob: t.digest[:], Ask: u.ask})
		}
		t.step(swarm.Event{Kind: kind, Peer: u.peer, Ask: u.ask})
	})
}

// deliver takes a chunk that came.
func (t *task) deliver(p shoal.PeerID, g begin, chunk []byte) {
	sum := t.sumOf(chunk)
	_, err := t.x.deps.Store.WriteChunk(t.digest, g.chunk, chunk)
	isGone := false
	if errors.Is(err, blobs.ErrMismatch) {
		_, gone := t.x.deps.Store.Stat(t.digest)
		isGone = errors.Is(gone, shoal.ErrNotFound)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.sw == nil: // the list proved false meanwhile
	case err == nil:
		if !t.have.Has(g.chunk) {
			t.have.Set(g.chunk)
			t.fedAt = t.now()
			t.noteTaken(g.chunk, p, sum)
			t.x.books.got(p, t.digest, len(chunk))
			if t.have.Count() == 1 {
				t.x.tellNews(t.digest)
			}
		}
		t.step(swarm.Event{Kind: swarm.EventChunk, Peer: p, Ask: g.ask, Chunk: g.chunk})
	case isGone:
		t.noteTaken(g.chunk, p, sum)
		t.listFalse()
	case errors.Is(err, blobs.ErrMismatch):
		t.x.books.bad(p)
		if t.doubt(p) {
			return
		}
		t.step(swarm.Event{Kind: swarm.EventBad, Peer: p, Chunk: g.chunk})
	default:
		t.step(swarm.Event{Kind: swarm.EventFail, Peer: p, Ask: g.ask})
		t.fail(err)
	}
}

// progress returns how far the fetch is. The caller holds mu.
func (t *task) progress() shoal.ImageProgress {
	p := shoal.ImageProgress{What: "fetch", Total: t.size}
	if t.sw == nil {
		return p
	}
	p.Done = min(t.size, int64(t.have.Count())*swarm.ChunkBytes)
	if last := t.have.Len() - 1; p.Done < t.size && t.have.Has(last) {
		p.Done -= swarm.ChunkBytes - int64(chunkLen(t.size, last))
	}
	if t.isWhole {
		p.What = "done"
		return p
	}
	rate := 0.0
	for _, s := range t.sw.Stats().Peers {
		if s.Rate >= 1 {
			rate += s.Rate
			p.Peers++
		}
	}
	p.Rate = int64(rate)
	return p
}
