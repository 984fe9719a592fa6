// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/blocks"
)

const (
	// syncWorkers is how many peers we pull from at a time on our own account; several,
	// as some may hang.
	syncWorkers = 4
	// maxWants bounds the peers waiting to be synced with.
	maxWants = 1024
	// turnWait is how long one pull waits for another.
	turnWait = time.Second
	// judgeWorkers verify the blocks of one batch.
	judgeWorkers = 4
	// maxRounds bounds how often a cut answer is asked to go on.
	maxRounds = 10000
)

// Errors of SyncWith.
var (
	errSyncRefused    = errors.New("peer refused to sync: other cluster, not a member of its, or busy")
	errSyncIncomplete = errors.New("peer sent blocks that were refused, or not all of them")
	errMuted          = errors.New("peer is muted: it keeps sending blocks that are refused")
)

// SyncWith pulls from a peer what it has and we lack, on one stream; nil means that
// everything it had when asked is on disk and in Desired here. Equal stores exchange
// a few hundred bytes. What we have and it lacks it will pull itself. Safe to call at
// any time and for several peers at once.
func (s *Store) SyncWith(ctx context.Context, p shoal.PeerID) error {
	if s.deps.Host == nil {
		return errors.New("sync: this store is alone")
	}
	id, err := peer.Decode(string(p))
	if err != nil {
		return fmt.Errorf("sync with %s: %w", p, err)
	}
	select {
	case <-s.opened:
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	if !s.readers.enter() {
		return errStopped
	}
	defer s.readers.leave()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SyncTimeout)
	defer s.cancelWhenStopping(ctx, cancel)()
	defer s.takeTurn(ctx)()
	for range maxRounds {
		more, err := s.pull(ctx, id)
		if err != nil {
			return fmt.Errorf("sync with %s: %w", p.Short(), err)
		}
		if !more {
			s.count.syncs.Add(1)
			s.fillOnce.Do(func() { close(s.filled) })
			return nil
		}
	}
	return fmt.Errorf("sync with %s: no end after %d answers", p.Short(), maxRounds)
}

// cancelWhenStopping lets a call end when Run does; the function it returns must be
// called at the end of the call.
func (s *Store) cancelWhenStopping(ctx context.Context, cancel context.CancelFunc) func() {
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	})
	return func() {
		cancel()
		watch.Wait()
	}
}

// takeTurn waits until no other pull runs, as both would mostly fetch the same
// blocks; not for long, as the other's peer may hang. The function it returns ends
// our turn.
func (s *Store) takeTurn(ctx context.Context) func() {
	late := time.NewTimer(turnWait)
	defer late.Stop()
	select {
	case s.pulling <- struct{}{}:
		return func() { <-s.pulling }
	case <-late.C:
	case <-ctx.Done():
	}
	return func() {}
}

// pull is one stream. more: the answer was cut at its limit.
func (s *Store) pull(ctx context.Context, id peer.ID) (more bool, err error) {
	conn, err := s.dial(ctx, id, SyncProtocol)
	if err != nil {
		return false, err
	}
	defer conn.end(&err)
	own := s.committed()
	req := blocks.Request{Cluster: s.cfg.Cluster, Epoch: epoch, Heads: told(own.heads)}
	var reply blocks.Reply
	if err := conn.ask(&req, &reply); err != nil {
		return false, err
	}
	theirs, err := conn.cids(reply.Heads)
	if err != nil {
		return false, err
	}
	if reply.State == blocks.StateSamples {
		lacks, err := s.lacks(ctx, theirs)
		if err != nil || !lacks && len(theirs) < blocks.MaxHeads {
			return false, err // we are ahead: nothing to pull
		}
		samples, err := s.rows.samples(ctx, own.height)
		if err != nil {
			return false, err
		}
		req.Samples = bytesOf(samples)
		if err := conn.ask(&req, &reply); err != nil {
			return false, err
		}
		if theirs, err = conn.cids(reply.Heads); err != nil {
			return false, err
		}
	}
	switch reply.State {
	case blocks.StateEqual:
		s.count.syncEqual.Add(1)
		return false, nil
	case blocks.StateFollows:
	case blocks.StateRefused, blocks.StateSamples:
		return false, errSyncRefused
	}
	if more, err = s.receive(ctx, conn); more || err != nil {
		return more, err
	}
	lacks, err := s.lacks(ctx, theirs)
	if err == nil && lacks {
		err = errSyncIncomplete
	}
	return false, err
}

// receive reads batches to the end, each judged and merged before the next is read.
// What a peer wrote faster than it may waits a little, batch by batch, unless this store was never in
// step with anybody and has all of history to fetch. What others took of it, and may
// have built on, comes as fast as they send.
func (s *Store) receive(ctx context.Context, conn *conn) (more bool, err error) {
	inStep := s.isFilled()
	for {
		var batch blocks.Batch
		if err := conn.read(&batch, maxFrame); err != nil {
			return false, err
		}
		good := s.judgeAll(ctx, conn.peer, batch.Blocks, offered(batch.Chains))
		if inStep {
			if err := s.rest(ctx, s.conduct.wrote(s.deps.Clock.Mono(), conn.peer, ownOf(conn.peer, good))); err != nil {
				return false, err
			}
		}
		if len(good) > 0 {
			if err := s.merge(ctx, &arrival{blocks: good, from: conn.peer, done: make(chan error, 1)}); err != nil {
				return false, err
			}
		}
		switch {
		case s.isMuted(conn.peer):
			return false, errMuted
		case batch.End:
			return batch.More && len(good) > 0, nil // a cut answer without news would never end
		case len(batch.Blocks) == 0:
			no := refuse(reasonForm, "empty batch that is not the last")
			s.refuse(conn.peer, no)
			return false, no
		}
	}
}

// isFilled reports whether a sync ended well once.
func (s *Store) isFilled() bool {
	select {
	case <-s.filled:
		return true
	default:
		return false
	}
}

// rest waits.
func (s *Store) rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// judgeAll judges a batch's blocks side by side and returns the good ones in order.
// A bad one is left out; so will be, for want of a parent, what builds on it.
func (s *Store) judgeAll(ctx context.Context, from shoal.PeerID, in []blocks.Block, came offers) []*block {
	out := make([]*block, len(in))
	var g errgroup.Group
	g.SetLimit(judgeWorkers)
	for i := range in {
		g.Go(func() error {
			if s.knows(ctx, in[i].CID) {
				return nil
			}
			b, no := s.chains.judge(in[i], came)
			if no != nil {
				s.refuse(from, no)
				return nil
			}
			out[i] = b
			return nil
		})
	}
	_ = g.Wait() // no error is returned above
	return slices.DeleteFunc(out, func(b *block) bool { return b == nil })
}

// knows reports whether a block of this name is on disk here, so that it need not be
// judged again.
func (s *Store) knows(ctx context.Context, raw []byte) bool {
	c, err := readCID(raw)
	if err != nil {
		return false
	}
	here, err := s.rows.has(ctx, c)
	return here && err == nil
}

// merge hands blocks to the writer and waits until they are on disk.
func (s *Store) merge(ctx context.Context, a *arrival) error {
	select {
	case s.arrivals <- a:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopped:
		return errStopped
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopped:
		return errStopped
	}
}

// lacks reports whether any of these blocks is not on disk here.
func (s *Store) lacks(ctx context.Context, cids []cid.Cid) (bool, error) {
	for _, c := range cids {
		here, err := s.rows.has(ctx, c)
		if !here || err != nil {
			return true, err
		}
	}
	return false, nil
}

// wants is the set of peers to sync with, in the order they were asked for.
type wants struct {
	mu   sync.Mutex
	list []shoal.PeerID // guarded by mu
	wake chan struct{}  // holds one token while list may be non-empty
}

func newWants() *wants { return &wants{wake: make(chan struct{}, 1)} }

func (w *wants) add(p shoal.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) < maxWants && !slices.Contains(w.list, p) {
		w.list = append(w.list, p)
	}
	w.signal()
}

func (w *wants) next() (shoal.PeerID, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) == 0 {
		return "", false
	}
	p := w.list[0]
	if w.list = w.list[1:]; len(w.list) > 0 {
		w.signal() // for the other workers
	}
	return p, true
}

func (w *wants) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wantSync asks for a sync with a peer, soon.
func (s *Store) wantSync(p shoal.PeerID) {
	if p != s.self {
		s.wants.add(p)
	}
}

// runSync pulls from peers that appeared, that pushed a block whose parents we lack,
// or that turned out to be ahead of us; and from a random connected one now and then,
// so that stores converge even if every push is lost.
func (s *Store) runSync(ctx context.Context) error {
	var g errgroup.Group
	for range syncWorkers {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-s.wants.wake:
				}
				if p, ok := s.wants.next(); ok {
					s.trySync(ctx, p)
				}
			}
		})
	}
	g.Go(func() error {
		for {
			pause := s.cfg.SyncInterval/2 + time.Duration(rand.Int64N(int64(s.cfg.SyncInterval)))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			if near := s.connected(); len(near) > 0 {
				s.wantSync(near[rand.IntN(len(near))])
			}
		}
	})
	return g.Wait()
}

func (s *Store) trySync(ctx context.Context, p shoal.PeerID) {
	if !s.allowed(p) || !s.isConnected(p) || s.isMuted(p) {
		return
	}
	err := s.rest(ctx, s.conduct.pulled(s.deps.Clock.Mono(), p))
	if err == nil {
		err = s.SyncWith(ctx, p)
	}
	if err != nil && ctx.Err() == nil {
		s.deps.Log.Debug("records not synced", logkey.Peer, string(p), logkey.Err, err)
	}
}

// connected returns the members we are connected to.
func (s *Store) connected() []shoal.PeerID {
	var out []shoal.PeerID
	for _, id := range s.deps.Host.Network().Peers() {
		if p := idOf(id); s.allowed(p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (s *Store) isConnected(p shoal.PeerID) bool {
	id, err := peer.Decode(string(p))
	return err == nil && s.deps.Host.Network().Connectedness(id) == network.Connected
}

// told returns the names of heads, as many as a message holds. A store with more never
// passes for equal, and sends again what it did not name.
func told(heads []cid.Cid) [][]byte { return bytesOf(heads[:min(len(heads), blocks.MaxHeads)]) }

func bytesOf(cids []cid.Cid) [][]byte {
	out := make([][]byte, len(cids))
	for i, c := range cids {
		out[i] = c.Bytes()
	}
	return out
}

func cidsOf(raw [][]byte) ([]cid.Cid, error) {
	out := make([]cid.Cid, len(raw))
	for i, r := range raw {
		c, err := readCID(r)
		if err != nil {
			return nil, err
		}
		out[i] = c
	}
	return out, nil
}
