// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
	"github.com/shoalnet/shoal/internal/logkey"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// How peers of one blob are dealt with.
const (
	maxCandidates = 500              // that are remembered
	crowdedPause  = 5 * time.Second  // before a peer that had no place is asked again
	absentPause   = 30 * time.Second // before one that had nothing is; it tells when it has
	dialPause     = time.Second      // before one that could not be reached is; doubles
	dialPauseLast = 30 * time.Second
	tellEvery     = 2 * time.Second // peers are told of those that came since
)

// neighbour is another peer as it is known for one blob.
type neighbour struct {
	id         shoal.PeerID
	sess       *session // nil: it is not spoken to about the blob
	isDialing  bool
	isHolder   bool // somebody said that it has something
	isAnswered bool // on this session
	isTold     bool // on this session: what we have
	isJoined   bool // the scheduler knows it
	isWanting  bool
	isCrowded  bool         // it had no place for us
	isBanned   bool         // it lied about the blob
	falseList  blobs.Digest // it was dropped when that list counted
	isDoubted  bool         // while it grew it passed on what a list says is false
	offer      offer
	lastAsk    uint64
	retryAt    time.Duration
	fails      int
	known      map[shoal.PeerID]bool // of whom it was told
}

// neighbours returns those of now, so that they may be removed meanwhile.
func (t *task) neighbours() []*neighbour {
	out := make([]*neighbour, 0, len(t.peers))
	for _, n := range t.peers {
		out = append(out, n)
	}
	return out
}

// connected counts the peers that are spoken to, or about to be.
func (t *task) connected() int {
	c := 0
	for _, n := range t.peers {
		if n.sess != nil || n.isDialing {
			c++
		}
	}
	return c
}

// candidate remembers a peer that may have the blob, or want it. The caller holds mu.
func (t *task) candidate(id shoal.PeerID, isHolder bool) *neighbour {
	n := t.peers[id]
	if n == nil {
		if id == t.x.deps.Self || len(t.peers) >= maxCandidates || !t.x.deps.IsMember(id) {
			return nil
		}
		n = &neighbour{id: id}
		t.peers[id] = n
	}
	if isHolder {
		n.isHolder = true
		if n.sess == nil && n.fails == 0 {
			n.retryAt = 0
		}
	}
	return n
}

// greet speaks to candidates while there is room for more neighbours: first who is said to
// have something, then in an order of this peer's own.
func (t *task) greet() {
	now := t.now()
	room := t.x.cfg.Neighbours - t.connected()
	if room <= 0 || !t.isWanted {
		return
	}
	var free []*neighbour
	for _, n := range t.peers {
		if n.sess == nil && !n.isDialing && !n.isBanned && now >= n.retryAt {
			free = append(free, n)
		}
	}
	slices.SortFunc(free, func(a, b *neighbour) int {
		if a.isHolder != b.isHolder {
			if a.isHolder {
				return -1
			}
			return 1
		}
		return cmp.Compare(t.rank(a.id), t.rank(b.id))
	})
	for _, n := range trimmed(free, room) {
		n.isDialing = true
		t.x.spawn(func(ctx context.Context) { t.dial(ctx, n) })
	}
}

// rank orders peers differently on every peer and for every blob.
func (t *task) rank(id shoal.PeerID) uint64 {
	d := blobs.DigestOf(append([]byte(id), t.digest[:8]...))
	return seedFrom(d) ^ t.x.seed
}

// seedFrom makes a number of a digest.
func seedFrom(d blobs.Digest) uint64 { return binary.BigEndian.Uint64(d[:]) }

func (t *task) dial(ctx context.Context, n *neighbour) {
	s, err := t.x.session(ctx, n.id)
	t.mu.Lock()
	defer t.mu.Unlock()
	n.isDialing = false
	defer t.note()
	n.isCrowded = false
	switch {
	case t.isClosed || n.sess != nil || n.isBanned:
	case err != nil || isClosed(s.done) || !s.join(t.digest):
		t.later(n)
	default:
		n.sess, n.isAnswered, n.isTold = s, false, false
		t.hello(n, false)
	}
}

// later puts off the next try to reach a peer.
func (t *task) later(n *neighbour) {
	n.retryAt = t.now() + min(dialPause<<min(n.fails, 8), dialPauseLast)
	n.fails++
}

// hello tells a peer what is known and here of the blob.
func (t *task) hello(n *neighbour, isAnswer bool) {
	h := &shoalv1.BlobHello{Blob: t.digest[:], Want: t.isWanted, Answer: isAnswer}
	if t.sw != nil {
		if t.grows {
			h.Grows = t.size
		} else {
			h.Size, h.List = t.size, t.list[:]
		}
		if h.Full = t.have.Full(); !h.Full {
			h.Chunks = t.have.Bytes()
		}
		n.isTold = true
	}
	n.sess.send(h)
}

// hearHello takes what a peer says of itself. The caller holds mu.
func (t *task) hearHello(s *session, h *shoalv1.BlobHello) {
	n := t.peers[s.peer]
	bye := func(r shoalv1.BlobByeReason) { s.send(&shoalv1.BlobBye{Blob: t.digest[:], Reason: r}) }
	switch {
	case n != nil && n.isBanned:
		bye(shoalv1.BlobByeReason_BLOB_BYE_REASON_LEFT)
		return
	case (n == nil || n.sess == nil) && t.connected() >= 2*t.x.cfg.Neighbours, !s.join(t.digest):
		t.x.books.refuse("limit")
		s.send(t.peersFor(&neighbour{id: s.peer}))
		bye(shoalv1.BlobByeReason_BLOB_BYE_REASON_CROWDED)
		return
	case n == nil:
		n = &neighbour{id: s.peer}
		t.peers[s.peer] = n
	}
	o, why := offerFrom(h, t.x.cfg.MaxBlob)
	if why == "" && o.size != 0 && t.boundSize != 0 && o.size != t.boundSize {
		why = "size"
	}
	if n.sess != s {
		t.unjoin(n)
		n.sess, n.isTold = s, false
		s.join(t.digest) // unjoin may have parted from it
	}
	if why != "" {
		t.x.books.refuse(why)
		t.leave(n)
		t.ban(n, "says a wrong "+why)
		return
	}
	n.isAnswered, n.isCrowded, n.fails, n.isWanting = true, false, 0, h.GetWant()
	if n.offer = o; n.isDoubtful() {
		n.offer.chunks = swarm.NewBitmap(o.chunks.Len())
	}
	if !t.isOpening && (!h.GetAnswer() || t.sw != nil && !n.isTold) {
		t.hello(n, true) // before the asks that follow from joining it
	}
	t.join(n)
	t.tellPeers(n)
	t.note()
}

// join tells the scheduler of a peer that goes by the same chunk list, or of one of the same
// size if either side goes by none.
func (t *task) join(n *neighbour) {
	switch {
	case t.sw == nil || n.sess == nil:
	case n.offer.size == 0:
		t.leave(n) // it offered something before
	case n.offer.size != t.size || !n.offer.grows && n.offer.list != t.list && (!t.grows || !t.fits(t.size, n.offer.list)):
		t.x.books.refuse("list")
		t.leave(n)
	case n.isJoined:
		for c := range n.offer.chunks.Len() {
			if n.offer.chunks.Has(c) {
				t.step(swarm.Event{Kind: swarm.EventHas, Peer: n.id, Chunk: c})
			}
		}
	default:
		n.isJoined = true
		t.step(swarm.Event{Kind: swarm.EventJoin, Peer: n.id, Chunks: n.offer.chunks.Clone()})
	}
}

// leave tells the scheduler that a peer is connected no more.
func (t *task) leave(n *neighbour) {
	if n.isJoined {
		n.isJoined = false
		t.step(swarm.Event{Kind: swarm.EventLeave, Peer: n.id})
	}
}

// unjoin ends to speak with a peer about the blob.
func (t *task) unjoin(n *neighbour) {
	t.leave(n)
	if n.sess != nil {
		n.sess.part(t.digest)
	}
	n.sess, n.isAnswered, n.isTold, n.isWanting, n.known = nil, false, false, false, nil
	n.offer = offer{}
}

// forgetIf forgets a peer that is of no more use: it is not spoken to, and nothing is
// wanted of it.
func (t *task) forgetIf(n *neighbour) {
	if n.sess == nil && !n.isDialing && !t.isWanted && !n.isBanned {
		delete(t.peers, n.id)
	}
}

// partIdle ends to speak with a peer when neither side wants anything.
func (t *task) partIdle(n *neighbour) {
	if t.isWanted || n.isWanting {
		return
	}
	t.unjoin(n)
	t.forgetIf(n)
}

// ban drops a liar for this blob, which the scheduler does not know any more.
func (t *task) ban(n *neighbour, why string) {
	t.x.deps.Log.Info("peer dropped for a blob", logkey.Peer, n.id, "blob", t.digest, logkey.Reason, why)
	t.x.books.lied(n.id)
	if n.sess != nil {
		n.sess.send(&shoalv1.BlobBye{Blob: t.digest[:], Reason: shoalv1.BlobByeReason_BLOB_BYE_REASON_LEFT})
		n.sess.part(t.digest)
	}
	n.isBanned, n.isJoined, n.sess = true, false, nil
	n.offer = offer{}
	t.note()
}

// lost takes the end of a session; another may have replaced it.
func (t *task) lost(s *session, isReplaced bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.of(s)
	if n == nil || t.isClosed {
		return
	}
	t.unjoin(n)
	if !isReplaced && (n.fails > 0 || s.hasHeard()) {
		t.later(n)
	} else if !isReplaced {
		n.fails++ // it may have crossed with one of the peer's: once more, at once
	}
	t.forgetIf(n)
	t.note()
}

// hearPeers takes the names of others. The caller holds mu.
func (t *task) hearPeers(ids []string) {
	if t.x.cfg.NoExchange || !t.isWanted {
		return
	}
	if len(ids) > maxPeersTold {
		t.x.books.refuse("limit")
	}
	for _, id := range trimmed(ids, maxPeersTold) {
		t.candidate(shoal.PeerID(id), false)
	}
	t.poke()
}

// hearNews takes that a peer which had nothing has something now.
func (t *task) hearNews(id shoal.PeerID) {
	if !t.isWanted {
		return
	}
	t.answers(id)
	t.poke()
}

// answers makes a candidate of a peer that says just now that it has something.
func (t *task) answers(id shoal.PeerID) {
	if n := t.candidate(id, true); n != nil && !n.isCrowded {
		n.retryAt, n.fails = 0, 0
	}
}

// tellPeers tells a peer that wants more of the others that it was not told of.
func (t *task) tellPeers(n *neighbour) {
	if t.x.cfg.NoExchange || n.sess == nil || !n.isWanting {
		return
	}
	if m := t.peersFor(n); len(m.Peers) > 0 {
		n.sess.send(m)
	}
}

// peersFor chooses whom to tell n of, and remembers that.
func (t *task) peersFor(n *neighbour) *shoalv1.BlobPeers {
	m := &shoalv1.BlobPeers{Blob: t.digest[:]}
	if t.x.cfg.NoExchange {
		return m
	}
	var ids []shoal.PeerID
	for id, o := range t.peers {
		if o != n && id != n.id && o.sess != nil && o.isAnswered && !n.known[id] {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b shoal.PeerID) int { return cmp.Compare(t.rank(a), t.rank(b)) })
	if n.known == nil {
		n.known = map[shoal.PeerID]bool{}
	}
	for _, id := range trimmed(ids, maxPeersTold) {
		n.known[id] = true
		m.Peers = append(m.Peers, string(id))
	}
	return m
}
