// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of a probe.
const (
	probesAtOnce = 64                    // peers that are asked at a time
	askTries     = 4                     // sessions on which one question is asked
	askPause     = 50 * time.Millisecond // half of what the second waits; doubles
)

// Held is what a peer says that it has of a blob.
type Held struct {
	Digest   blobs.Digest
	Size     int64 // bytes of the whole
	Have     int64 // bytes of it that the peer has
	Complete bool
}

// answer is what came of a question.
type answer []Held

// Probe asks all members which of some blobs they have. Who has something is in the map,
// its blobs in the order of digests; who did not answer within Config.ProbeTimeout, or not
// to all questions, is silent, sorted.
func (x *Exchange) Probe(ctx context.Context, digests []blobs.Digest) (held map[shoal.PeerID][]Held, silent []shoal.PeerID) {
	return x.probe(ctx, x.others(x.deps.Members()), digests, false)
}

// others returns the members among ids that are not this peer, each once, sorted.
func (x *Exchange) others(ids []shoal.PeerID) []shoal.PeerID {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(p shoal.PeerID) bool { return p == x.deps.Self || !x.deps.IsMember(p) })
}

func (x *Exchange) probe(ctx context.Context, peers []shoal.PeerID, digests []blobs.Digest, isWatching bool) (map[shoal.PeerID][]Held, []shoal.PeerID) {
	ctx, cancel := context.WithTimeout(ctx, x.cfg.ProbeTimeout)
	defer cancel()
	select {
	case <-x.running:
	case <-ctx.Done():
		return nil, peers
	}
	var mu sync.Mutex // guards what follows
	held, silent := map[shoal.PeerID][]Held{}, []shoal.PeerID{}
	g := errgroup.Group{}
	g.SetLimit(probesAtOnce)
	for _, p := range peers {
		g.Go(func() error {
			has, err := x.ask(ctx, p, digests, isWatching)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, p)
			}
			if len(has) > 0 {
				held[p] = has
			}
			return nil
		})
	}
	_ = g.Wait() // they return none
	slices.Sort(silent)
	return held, silent
}

// ask asks one peer for as many blobs as there are, a question after the other.
func (x *Exchange) ask(ctx context.Context, p shoal.PeerID, digests []blobs.Digest, isWatching bool) ([]Held, error) {
	var out []Held
	for part := range slices.Chunk(digests, maxQuestion) {
		has, err := x.askPart(ctx, p, part, isWatching)
		if err != nil {
			return out, err
		}
		out = append(out, has...)
	}
	slices.SortFunc(out, func(a, b Held) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return out, nil
}

// askPart asks one question, and asks it anew when the session ends under it: that of two
// which both sides opened at once is no silence of the peer.
func (x *Exchange) askPart(ctx context.Context, p shoal.PeerID, digests []blobs.Digest, isWatching bool) (answer, error) {
	for try := 1; ; try++ {
		s, err := x.session(ctx, p)
		if err != nil {
			return nil, err
		}
		has, err := s.question(ctx, digests, isWatching)
		if !errors.Is(err, errSessionEnded) || try == askTries {
			return has, err
		}
		select {
		case <-time.After(askPause << try): // the peer's own stream may be on its way
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

var errSessionEnded = errors.New("the peer went")

// question asks the peer of a session and waits for its answer.
func (s *session) question(ctx context.Context, digests []blobs.Digest, isWatching bool) (answer, error) {
	q := &shoalv1.BlobQuestion{Watch: isWatching}
	for _, d := range digests {
		q.Blobs = append(q.Blobs, d[:])
	}
	came := make(chan answer, 1)
	s.mu.Lock()
	s.asked++
	q.Id = s.asked
	s.questions[q.Id] = came
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.questions, q.Id)
	}()
	s.send(q)
	select {
	case a := <-came:
		return slices.DeleteFunc(a, func(h Held) bool { return !slices.Contains(digests, h.Digest) }), nil
	case <-s.done:
		return nil, errSessionEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hearQuestion answers what is here.
func (x *Exchange) hearQuestion(s *session, q *shoalv1.BlobQuestion) {
	if len(q.GetBlobs()) > maxQuestion || q.GetId() == 0 {
		x.books.refuse("limit")
	}
	reply := &shoalv1.BlobAnswer{Id: q.GetId()}
	for _, raw := range trimmed(q.GetBlobs(), maxQuestion) {
		d, ok := digestFrom(raw)
		if !ok {
			x.books.refuse("form")
			continue
		}
		h := x.holding(d)
		switch {
		case h.GetHave() > 0:
			reply.Holdings = append(reply.Holdings, h)
		case q.GetWatch():
			s.watch(d)
		}
	}
	if q.GetId() != 0 {
		s.send(reply)
	}
}

// holding says what is here of a blob.
func (x *Exchange) holding(d blobs.Digest) *shoalv1.BlobHolding {
	info, err := x.deps.Store.Stat(d)
	if err != nil {
		return nil
	}
	return &shoalv1.BlobHolding{Blob: d[:], Size: info.Size, Have: info.Have}
}

// hearAnswer hands an answer to who asked. One to no question is news of a blob that was
// asked for: its sender may be joined now.
func (x *Exchange) hearAnswer(s *session, a *shoalv1.BlobAnswer) {
	if len(a.GetHoldings()) > maxQuestion {
		x.books.refuse("limit")
	}
	var has answer
	for _, h := range trimmed(a.GetHoldings(), maxQuestion) {
		d, ok := digestFrom(h.GetBlob())
		if !ok || h.GetSize() < 1 || h.GetSize() > x.cfg.MaxBlob || h.GetHave() < 1 || h.GetHave() > h.GetSize() {
			x.books.refuse("form")
			continue
		}
		has = append(has, Held{Digest: d, Size: h.GetSize(), Have: h.GetHave(), Complete: h.GetHave() == h.GetSize()})
	}
	if a.GetId() == 0 {
		for _, h := range has {
			x.about(h.Digest[:], func(t *task) { t.hearNews(s.peer) })
		}
		return
	}
	s.mu.Lock()
	came := s.questions[a.GetId()]
	delete(s.questions, a.GetId())
	s.mu.Unlock()
	if came == nil {
		x.books.refuse("unasked") // or too late
		return
	}
	came <- has // has room for one, and is sent to once
}

// tellNews tells who asked for a blob in vain that there is something of it now.
func (x *Exchange) tellNews(d blobs.Digest) {
	h := x.holding(d)
	if h.GetHave() == 0 {
		return
	}
	for _, s := range x.allSessions() {
		if s.unwatch(d) {
			s.send(&shoalv1.BlobAnswer{Holdings: []*shoalv1.BlobHolding{h}})
		}
	}
}
