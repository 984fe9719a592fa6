// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of asking what replicas that failed had said. It is all in the holder's memory.
const (
	wordsFrame = 512 << 10
	wordsTime  = 5 * time.Second
	maxWords   = 64
)

// LastWords implements shoal.Remote. Whoever may read the logs of a replica may ask: any
// member.
func (l *Links) LastWords(ctx context.Context, id shoal.PeerID, service string) ([]shoal.LastWords, error) {
	ctx, cancel := context.WithTimeout(ctx, wordsTime)
	defer cancel()
	what := fmt.Sprintf("last words on peer %s", id.Short())
	if id == l.id.Self() {
		inside := l.insider()
		if inside == nil {
			return nil, fmt.Errorf("%s: %w", what, shoal.ErrEngineDown)
		}
		return inside.LastWords(ctx, service)
	}
	var reply shoalv1.WordsReply
	if err := l.question(ctx, id, what, ProtocolWords, &shoalv1.WordsRequest{Service: service}, &reply, wordsFrame); err != nil {
		return nil, err
	}
	if err := errorFrom(what, reply.GetError()); err != nil {
		return nil, err
	}
	return wordsFrom(what, service, &reply)
}

// wordsFrom reads a reply; it refuses what no peer says, and makes the rest harmless.
func wordsFrom(what, service string, reply *shoalv1.WordsReply) ([]shoal.LastWords, error) {
	if n := len(reply.GetWords()); n > maxWords {
		return nil, fmt.Errorf("%s: it tells of %d replicas, at most %d are read", what, n, maxWords)
	}
	var out []shoal.LastWords
	for _, m := range reply.GetWords() {
		w := shoal.LastWords{
			Service: service, Slot: int(m.GetSlot()), Time: fromNano(m.GetUnixNano()), Reason: m.GetReason(), Check: m.GetCheck(), Missing: m.GetMissing(),
			Revision: shoal.RevisionID{Seq: m.GetRevisionSeq(), Author: shoal.PeerID(m.GetRevisionAuthor())},
		}
		if len(m.GetReplica()) != len(w.Replica) || m.GetService() != service {
			return nil, fmt.Errorf("%s: it tells of no replica, or of one of another service", what)
		}
		copy(w.Replica[:], m.GetReplica())
		for _, line := range m.GetLines() {
			w.Lines = append(w.Lines, string(line))
		}
		w.Bound()
		out = append(out, w)
	}
	return out, nil
}

// serveWords tells another member what this peer's replicas had said.
func (l *Links) serveWords(ctx context.Context, s network.Stream) {
	ctx, cancel := context.WithTimeout(ctx, wordsTime)
	defer cancel()
	var ask shoalv1.WordsRequest
	err := s.SetDeadline(time.Now().Add(wordsTime))
	if err == nil {
		err = frame.Read(s, &ask, wordsFrame)
	}
	if err == nil {
		err = frame.Write(s, l.wordsOf(ctx, ask.GetService()), wordsFrame)
	}
	if err != nil {
		l.log.Debug("last words not told", logkey.Err, err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func (l *Links) wordsOf(ctx context.Context, service string) *shoalv1.WordsReply {
	inside := l.insider()
	if inside == nil {
		return &shoalv1.WordsReply{Error: streamError(shoal.ErrEngineDown)}
	}
	all, err := inside.LastWords(ctx, service)
	reply := &shoalv1.WordsReply{Error: streamError(err)}
	for _, w := range all[:min(len(all), maxWords)] {
		m := &shoalv1.LastWords{
			Service: w.Service, Slot: int32(w.Slot), Replica: w.Replica[:], RevisionSeq: w.Revision.Seq, RevisionAuthor: string(w.Revision.Author),
			UnixNano: nano(w.Time), Reason: w.Reason, Check: w.Check, Missing: w.Missing,
		}
		for _, line := range w.Lines {
			m.Lines = append(m.Lines, []byte(line))
		}
		reply.Words = append(reply.Words, m)
	}
	return reply
}
