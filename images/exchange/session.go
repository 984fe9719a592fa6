// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"bufio"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of one session.
const (
	dialTime    = 10 * time.Second
	writeTime   = 30 * time.Second // without which nothing was taken, the peer is given up
	maxQueued   = 16 << 20         // bytes of messages that wait to be written
	maxWatched  = 1024             // blobs that a peer wants to hear of
	messageRate = 5000             // messages a second that are read; one of 4 KiB more counts twice
	maxMerged   = 1024             // chunks in one have
)

// session is the control stream between this peer and another.
type session struct {
	x      *Exchange
	peer   shoal.PeerID
	stream network.Stream
	isOurs bool          // we opened it
	wake   chan struct{} // something is queued
	done   chan struct{} // closed when it ends
	data   *dataPool

	mu        sync.Mutex // guards what follows
	queue     []*shoalv1.BlobMessage
	queued    int // weight of that
	isHeard   bool
	isEnded   bool
	used      time.Duration          // when something other than a greeting last moved
	blobs     map[blobs.Digest]bool  // that it joined, or we did with it
	watched   map[blobs.Digest]bool  // that it wants to hear of
	questions map[uint64]chan answer // that were asked
	asked     uint64                 // number of the last one
}

// dial is a session that is being opened.
type dial struct {
	done chan struct{}
	s    *session
	err  error
}

func newSession(x *Exchange, p shoal.PeerID, stream network.Stream, isOurs bool) *session {
	s := &session{
		x: x, peer: p, stream: stream, isOurs: isOurs, wake: make(chan struct{}, 1), done: make(chan struct{}),
		blobs: map[blobs.Digest]bool{}, watched: map[blobs.Digest]bool{}, questions: map[uint64]chan answer{},
		used: x.deps.Clock.Mono(),
	}
	s.data = newDataPool(x, p)
	s.send(&shoalv1.BlobGreeting{})
	return s
}

// session returns the session with a peer, and opens one if there is none.
// shoal.ErrUnreachable: that did not work in time.
func (x *Exchange) session(ctx context.Context, p shoal.PeerID) (*session, error) {
	x.mu.Lock()
	if s := x.sessions[p]; s != nil {
		x.mu.Unlock()
		return s, nil
	}
	d := x.dials[p]
	isNew := d == nil
	if isNew {
		d = &dial{done: make(chan struct{})}
		x.dials[p] = d
	}
	x.mu.Unlock()
	if isNew && !x.spawn(func(ctx context.Context) { x.dial(ctx, p, d) }) {
		x.dialled(p, d, nil, ErrStopped)
	}
	select {
	case <-d.done:
		return d.s, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial opens a session and serves it until it ends.
func (x *Exchange) dial(ctx context.Context, p shoal.PeerID, d *dial) {
	stream, err := x.open(ctx, p)
	if err != nil {
		x.dialled(p, d, nil, err)
		return
	}
	s := newSession(x, p, stream, true)
	if other := x.adopt(s); other != nil {
		_ = stream.Reset() // the peer opened one meanwhile
		x.dialled(p, d, other, nil)
		return
	}
	x.dialled(p, d, s, nil)
	s.run(ctx)
}

func (x *Exchange) open(ctx context.Context, p shoal.PeerID) (network.Stream, error) {
	id, err := peer.Decode(string(p))
	if err != nil {
		return nil, fmt.Errorf("peer %q: %w", p, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	stream, err := x.deps.Host.NewStream(ctx, id, ControlProtocol)
	if err != nil {
		return nil, fmt.Errorf("%w: open stream to %s: %w", shoal.ErrUnreachable, p.Short(), err)
	}
	return stream, nil
}

func (x *Exchange) dialled(p shoal.PeerID, d *dial, s *session, err error) {
	x.mu.Lock()
	delete(x.dials, p)
	x.mu.Unlock()
	d.s, d.err = s, err
	close(d.done)
}

// acceptControl serves a session that a peer opened.
func (x *Exchange) acceptControl(ctx context.Context, p shoal.PeerID, stream network.Stream) {
	s := newSession(x, p, stream, false)
	if x.adopt(s) != nil {
		_ = stream.Reset() // both opened one, and ours is kept
		return
	}
	s.run(ctx)
}

// adopt makes s the session with its peer, unless another stays. When both sides open one
// at once, that of the smaller ID stays. One that brought something was known to the peer,
// so a new one means that the peer lost it.
func (x *Exchange) adopt(s *session) (stays *session) {
	x.mu.Lock()
	old := x.sessions[s.peer]
	if old != nil && old.isOurs != s.isOurs && !old.hasHeard() && (x.deps.Self < s.peer) == old.isOurs {
		x.mu.Unlock()
		return old
	}
	x.sessions[s.peer] = s
	x.mu.Unlock()
	if old != nil {
		old.end()
	}
	return nil
}

func (s *session) hasHeard() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isHeard
}

// run reads and writes until the session ends.
func (s *session) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, s.end)
	defer stop()
	var writer sync.WaitGroup
	writer.Go(s.write)
	err := s.read(ctx)
	s.end()
	writer.Wait()
	x := s.x
	x.deps.Log.Debug("blob stream ended", logkey.Peer, s.peer, logkey.Err, err)
	x.mu.Lock()
	if x.sessions[s.peer] == s {
		delete(x.sessions, s.peer)
	}
	isReplaced := x.sessions[s.peer] != nil
	tasks := x.allTasks()
	x.mu.Unlock()
	for _, t := range tasks {
		t.lost(s, isReplaced)
	}
}

// allTasks returns the tasks of now. The caller holds mu.
func (x *Exchange) allTasks() []*task {
	out := make([]*task, 0, len(x.tasks))
	for _, t := range x.tasks {
		out = append(out, t)
	}
	return out
}

// end ends a session; who reads or writes finds out.
func (s *session) end() {
	s.mu.Lock()
	isFirst := !s.isEnded
	s.isEnded = true
	s.queue, s.queued = nil, 0
	s.mu.Unlock()
	if !isFirst {
		return
	}
	close(s.done)
	s.data.end()
	if s.stream != nil {
		_ = s.stream.Reset() // whatever it says, it is over
	}
}

func (s *session) read(ctx context.Context) error {
	limit := rate.NewLimiter(messageRate, 4*messageRate)
	r := bufio.NewReaderSize(s.stream, 64<<10)
	for {
		var m shoalv1.BlobMessage
		if err := frame.Read(r, &m, maxMessage); err != nil {
			return err
		}
		if err := limit.WaitN(ctx, 1+weight(&m)/4096); err != nil {
			return err
		}
		s.mu.Lock()
		s.isHeard = true
		if m.GetGreeting() == nil {
			s.used = s.x.deps.Clock.Mono()
		}
		s.mu.Unlock()
		s.x.hear(s, &m)
	}
}

// send queues a message; it does not block. A peer that takes none of many is given up.
func (s *session) send(what any) {
	m := message(what)
	s.mu.Lock()
	if s.isEnded {
		s.mu.Unlock()
		return
	}
	if have := m.GetHave(); have != nil && s.merge(have) {
		s.mu.Unlock()
		return
	}
	s.queue = append(s.queue, m)
	s.queued += weight(m)
	isFull := s.queued > maxQueued
	if m.GetGreeting() == nil {
		s.used = s.x.deps.Clock.Mono()
	}
	s.mu.Unlock()
	if isFull {
		s.x.deps.Log.Debug("blob stream given up: the peer takes nothing", logkey.Peer, s.peer)
		s.end()
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// merge puts further chunks into a have that waits. The caller holds mu.
func (s *session) merge(have *shoalv1.BlobHave) bool {
	if len(s.queue) == 0 {
		return false
	}
	last := s.queue[len(s.queue)-1].GetHave()
	if last == nil || string(last.Blob) != string(have.Blob) || len(last.Chunks) >= maxMerged {
		return false
	}
	last.Chunks = append(last.Chunks, have.Chunks...)
	s.queued += 4 * len(have.Chunks)
	return true
}

func (s *session) write() {
	w := bufio.NewWriterSize(s.stream, 64<<10)
	for {
		select {
		case <-s.wake:
		case <-s.done:
			return
		}
		s.mu.Lock()
		queue := s.queue
		s.queue, s.queued = nil, 0
		s.mu.Unlock()
		err := s.stream.SetWriteDeadline(time.Now().Add(writeTime))
		for _, m := range queue {
			if err == nil {
				err = frame.Write(w, m, maxMessage)
			}
		}
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			s.end()
			return
		}
	}
}

// join notes that a blob is spoken of on this session. false: of too many already.
func (s *session) join(d blobs.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.blobs[d] && len(s.blobs) >= s.x.cfg.PeerBlobs {
		return false
	}
	s.blobs[d] = true
	return true
}

func (s *session) part(d blobs.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
}

// watch remembers that the peer wants to hear of a blob that is not here.
func (s *session) watch(d blobs.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watched) < maxWatched {
		s.watched[d] = true
	}
}

// unwatch reports whether the peer wanted to hear of a blob, once.
func (s *session) unwatch(d blobs.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	isWatched := s.watched[d]
	delete(s.watched, d)
	return isWatched
}

// isIdle reports whether nothing moves on the session, nor will.
func (s *session) isIdle(now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.blobs) == 0 && len(s.questions) == 0 && now-s.used >= s.x.cfg.Linger
}

// sweep ends the sessions that are idle.
func (x *Exchange) sweep() {
	now := x.deps.Clock.Mono()
	for _, s := range x.allSessions() {
		if s.isIdle(now) {
			s.end()
		}
	}
}

func (x *Exchange) allSessions() []*session {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]*session, 0, len(x.sessions))
	for _, s := range x.sessions {
		out = append(out, s)
	}
	return out
}
