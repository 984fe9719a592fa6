// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// hear takes one message of a session. It does not wait for the network.
func (x *Exchange) hear(s *session, m *shoalv1.BlobMessage) {
	switch w := m.GetWhat().(type) {
	case *shoalv1.BlobMessage_Greeting:
	case *shoalv1.BlobMessage_Question:
		x.hearQuestion(s, w.Question)
	case *shoalv1.BlobMessage_Answer:
		x.hearAnswer(s, w.Answer)
	case *shoalv1.BlobMessage_Hello:
		x.hearHello(s, w.Hello)
	case *shoalv1.BlobMessage_Bye:
		x.about(w.Bye.GetBlob(), func(t *task) { t.hearBye(s, w.Bye.GetReason()) })
	case *shoalv1.BlobMessage_Idle:
		x.about(w.Idle.GetBlob(), func(t *task) { t.hearIdle(s) })
	case *shoalv1.BlobMessage_Have:
		x.about(w.Have.GetBlob(), func(t *task) { t.hearHave(s, w.Have.GetChunks()) })
	case *shoalv1.BlobMessage_Ask:
		if !x.about(w.Ask.GetBlob(), func(t *task) { t.hearAsk(s, w.Ask) }) {
			s.send(&shoalv1.BlobRefuse{Blob: w.Ask.GetBlob(), Ask: w.Ask.GetAsk()})
		}
	case *shoalv1.BlobMessage_Head:
		x.about(w.Head.GetBlob(), func(t *task) { t.hearHead(s, w.Head) })
	case *shoalv1.BlobMessage_Cancel:
		x.about(w.Cancel.GetBlob(), func(t *task) { t.hearEvent(s, swarm.EventCancel, w.Cancel.GetAsk()) })
	case *shoalv1.BlobMessage_Refuse:
		x.about(w.Refuse.GetBlob(), func(t *task) { t.hearEvent(s, swarm.EventFail, w.Refuse.GetAsk()) })
	case *shoalv1.BlobMessage_Peers:
		x.about(w.Peers.GetBlob(), func(t *task) { t.hearPeers(w.Peers.GetPeers()) })
	case *shoalv1.BlobMessage_ListRequest:
		if !x.about(w.ListRequest.GetBlob(), func(t *task) { t.hearListRequest(s, w.ListRequest) }) {
			s.send(&shoalv1.BlobList{Blob: w.ListRequest.GetBlob(), List: w.ListRequest.GetList(), From: w.ListRequest.GetFrom()})
		}
	case *shoalv1.BlobMessage_List:
		x.about(w.List.GetBlob(), func(t *task) { t.hearList(s, w.List) })
	default:
		x.books.refuse("unknown")
	}
}

// about calls fn with the task of a blob; false, and counted: there is none.
func (x *Exchange) about(raw []byte, fn func(*task)) bool {
	d, ok := digestFrom(raw)
	if !ok {
		x.books.refuse("form")
		return false
	}
	err := x.with(d, false, func(t *task) error {
		fn(t)
		return nil
	})
	if err != nil {
		x.books.refuse("absent")
	}
	return err == nil
}

// hearHello takes a hello: for a blob that is neither in the store nor moving the answer
// is bye, at once.
func (x *Exchange) hearHello(s *session, h *shoalv1.BlobHello) {
	d, ok := digestFrom(h.GetBlob())
	if !ok {
		x.books.refuse("form")
		return
	}
	_, err := x.deps.Store.Stat(d)
	isHere := err == nil
	reason := shoalv1.BlobByeReason_BLOB_BYE_REASON_ABSENT
	err = x.with(d, isHere, func(t *task) error {
		if isHere && t.sw == nil { // it came by another way than from peers
			t.isStale, t.isOpening = true, true
			t.poke()
		}
		t.hearHello(s, h)
		return nil
	})
	if err == nil {
		return
	}
	if isHere {
		reason = shoalv1.BlobByeReason_BLOB_BYE_REASON_CROWDED
		x.books.refuse("limit")
	} else if h.GetWant() {
		s.watch(d)
	}
	s.send(&shoalv1.BlobBye{Blob: d[:], Reason: reason})
}

// hearBye takes the end of what a hello began, or its answer.
func (t *task) hearBye(s *session, reason shoalv1.BlobByeReason) {
	n := t.peers[s.peer]
	if n == nil || n.sess != s {
		return
	}
	t.unjoin(n)
	now := t.now()
	switch reason {
	case shoalv1.BlobByeReason_BLOB_BYE_REASON_CROWDED:
		n.isCrowded = true
		n.retryAt = now + crowdedPause
	default:
		n.retryAt = now + absentPause
	}
	t.forgetIf(n)
	t.note()
}

func (t *task) hearIdle(s *session) {
	if n := t.of(s); n != nil {
		n.isWanting = false
		t.partIdle(n)
	}
}

// of returns what is known of the peer of a session if it is connected by that.
func (t *task) of(s *session) *neighbour {
	if n := t.peers[s.peer]; n != nil && n.sess == s {
		return n
	}
	return nil
}

func (t *task) hearHave(s *session, chunks []uint32) {
	n := t.of(s)
	if n == nil || n.offer.size == 0 {
		t.x.books.refuse("absent")
		return
	}
	if n.isDoubtful() {
		return
	}
	for _, c := range chunks {
		if int64(c) >= int64(n.offer.chunks.Len()) {
			t.x.books.refuse("range")
			continue
		}
		n.offer.chunks.Set(int(c))
		if n.isJoined {
			t.step(swarm.Event{Kind: swarm.EventHas, Peer: n.id, Chunk: int(c)})
		}
	}
	t.partIdle(n)
}

func (t *task) hearAsk(s *session, a *shoalv1.BlobAsk) {
	n := t.of(s)
	why := ""
	not := swarm.Bitmap{}
	switch chunk := a.GetChunk(); {
	case n == nil || !n.isJoined:
		why = "absent"
	case chunk < swarm.Any || chunk >= int64(t.have.Len()):
		why = "range"
	case len(a.GetNot()) > 0:
		var err error
		if not, err = swarm.ParseBitmap(t.have.Len(), a.GetNot()); err != nil {
			why = "range"
		}
	}
	if why != "" {
		t.x.books.refuse(why)
		s.send(&shoalv1.BlobRefuse{Blob: t.digest[:], Ask: a.GetAsk()})
		return
	}
	t.step(swarm.Event{Kind: swarm.EventAsk, Peer: n.id, Ask: a.GetAsk(), Chunk: int(a.GetChunk()), Not: not})
}

func (t *task) hearHead(s *session, h *shoalv1.BlobHead) {
	switch n := t.of(s); {
	case n == nil || !n.isJoined:
		t.x.books.refuse("absent")
	case h.GetChunk() < 0 || h.GetChunk() >= int64(t.have.Len()):
		t.x.books.refuse("range")
	default:
		t.step(swarm.Event{Kind: swarm.EventHead, Peer: n.id, Ask: h.GetAsk(), Chunk: int(h.GetChunk())})
	}
}

func (t *task) hearEvent(s *session, kind swarm.EventKind, ask uint64) {
	if n := t.of(s); n != nil && n.isJoined {
		t.step(swarm.Event{Kind: kind, Peer: n.id, Ask: ask})
	}
}

func (t *task) hearListRequest(s *session, q *shoalv1.BlobListRequest) {
	list, ok := digestFrom(q.GetList())
	part := &shoalv1.BlobList{Blob: t.digest[:], List: q.GetList(), From: q.GetFrom()}
	switch n := int64(len(t.hashes)); {
	case !ok || t.sw == nil || list != t.list:
		t.x.books.refuse("list")
	case q.GetFrom() < 0 || q.GetCount() < 1 || q.GetCount() > maxListPart || q.GetFrom() > n-q.GetCount():
		t.x.books.refuse("range")
	default:
		for _, h := range t.hashes[q.GetFrom() : q.GetFrom()+q.GetCount()] {
			part.Hashes = append(part.Hashes, h[:]...)
		}
	}
	s.send(part)
}

// hearList hands a part of a chunk list to who waits for it.
func (t *task) hearList(s *session, l *shoalv1.BlobList) {
	w := t.listing
	list, ok := digestFrom(l.GetList())
	if w == nil || w.peer != s.peer || !ok || w.list != list || w.from != l.GetFrom() {
		t.x.books.refuse("unasked")
		return
	}
	hashes := []blobs.Digest{}
	for raw := l.GetHashes(); len(raw) >= 32; raw = raw[32:] {
		hashes = append(hashes, blobs.Digest(raw[:32]))
	}
	t.listing = nil
	w.came <- hashes // has room for one, and is sent to once
}
