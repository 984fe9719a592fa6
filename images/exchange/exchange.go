// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
)

// maxTasks bounds the blobs that are being moved at a time; each has a file open.
const maxTasks = 1024

// Exchange moves blobs between this peer's store and other members. It is safe for
// concurrent use. Calls wait for Run to have begun, and fail with ErrStopped once it
// returned.
type Exchange struct {
	cfg   Config
	deps  Deps
	books *books
	seed  uint64

	running chan struct{}              // closed when Run begins
	stopped chan struct{}              // closed when it ends
	starts  chan func(context.Context) // what Run is to start

	up       *slots        // chunks being sent
	down     chan struct{} // chunks being received
	upRate   *rate.Limiter // nil: none
	downRate *rate.Limiter
	buffers  sync.Pool // *[swarm.ChunkBytes]byte
	pieces   sync.Pool // *[]byte of a frame

	mu       sync.Mutex // guards what follows; it is taken after a task's, never before
	tasks    map[blobs.Digest]*task
	sessions map[shoal.PeerID]*session
	dials    map[shoal.PeerID]*dial
	inbound  map[shoal.PeerID]int // data streams
}

// ErrStopped says that the exchange does not run any more.
var ErrStopped = errors.New("exchange has stopped")

// New allocates an Exchange. *shoal.InvalidError: what of cfg or deps does not do.
func New(cfg Config, deps Deps) (*Exchange, error) {
	if err := errors.Join(cfg.Validate(), deps.Validate()); err != nil {
		return nil, fmt.Errorf("make exchange: %w", err)
	}
	self := blobs.DigestOf([]byte(deps.Self))
	x := &Exchange{
		cfg: cfg, deps: deps, books: newBooks(), seed: seedFrom(self),
		running: make(chan struct{}), stopped: make(chan struct{}), starts: make(chan func(context.Context)),
		up: newSlots(cfg.UploadSlots), down: make(chan struct{}, cfg.DownloadSlots),
		upRate: limiter(cfg.UpRate), downRate: limiter(cfg.DownRate),
		buffers: sync.Pool{New: func() any { return new([swarm.ChunkBytes]byte) }},
		pieces:  sync.Pool{New: func() any { b := make([]byte, 0, frameHead+beginSize+frameHead+maxPiece); return &b }},
		tasks:   map[blobs.Digest]*task{}, sessions: map[shoal.PeerID]*session{},
		dials: map[shoal.PeerID]*dial{}, inbound: map[shoal.PeerID]int{},
	}
	return x, nil
}

// limiter returns one for bytes a second, nil for 0. It lets a piece pass at once.
func limiter(bytes int64) *rate.Limiter {
	if bytes == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), maxPiece)
}

// Run serves and fetches until ctx ends, and returns after all it started has ended. It
// is called once.
func (x *Exchange) Run(ctx context.Context) error {
	handle := x.deps.Handle
	if handle == nil {
		handle = x.deps.Host.SetStreamHandler
	}
	handle(ControlProtocol, x.handler(x.acceptControl))
	handle(DataProtocol, x.handler(x.acceptData))
	defer func() {
		for _, p := range []protocol.ID{ControlProtocol, DataProtocol} {
			x.deps.Host.RemoveStreamHandler(p)
		}
	}()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	close(x.running)
	defer close(x.stopped)
	sweep := time.NewTicker(max(x.cfg.Linger/2, time.Millisecond))
	defer sweep.Stop()
	for {
		select {
		case start := <-x.starts:
			wg.Go(func() { start(ctx) })
		case <-sweep.C:
			x.sweep()
		case <-ctx.Done():
			return nil
		}
	}
}

// spawn has Run start what it is to wait for. false: it does not run any more.
func (x *Exchange) spawn(start func(context.Context)) bool {
	select {
	case x.starts <- start:
		return true
	case <-x.stopped:
		return false
	}
}

// handler keeps strangers out and hands streams to Run.
func (x *Exchange) handler(serve func(context.Context, shoal.PeerID, network.Stream)) network.StreamHandler {
	return func(s network.Stream) {
		p := shoal.PeerID(s.Conn().RemotePeer().String())
		if !x.deps.IsMember(p) || !x.spawn(func(ctx context.Context) { serve(ctx, p, s) }) {
			_ = s.Reset() // there is nobody to tell
		}
	}
}

// Begin starts to fetch a blob and returns once the store knows it, so that its Read gives
// what arrives; the download goes on while somebody reads it, or wants it here. Errors are
// those of [Exchange.Fetch].
func (x *Exchange) Begin(ctx context.Context, b Blob) error { return x.want(ctx, b, false) }

// Fetch returns when a blob is whole and in the store. Several callers share one download;
// some time after the last has gone it stops, and what is here stays for the next.
// shoal.ErrNotFound: no peer that answered has it, or what it has brings it no further.
// shoal.ErrNoSpace: there is no room. shoal.ErrConflict: others fetch it by another List.
// blobs.ErrMismatch: List is not that of the blob. *shoal.InvalidError: Blob is none.
func (x *Exchange) Fetch(ctx context.Context, b Blob) error { return x.want(ctx, b, true) }

func (x *Exchange) want(ctx context.Context, b Blob, isWhole bool) error {
	err := x.wait(ctx, b, isWhole)
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("fetch blob %s: %w", b.Digest, err)
}

func (x *Exchange) wait(ctx context.Context, b Blob, isWhole bool) error {
	if b.Size < 0 || b.Size > x.cfg.MaxBlob {
		return &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("must be 0-%d, got %d", x.cfg.MaxBlob, b.Size)}
	}
	if b.Digest == blobs.DigestOf(nil) { // the one blob without chunks
		_, err := x.deps.Store.Begin(b.Digest, 0, nil)
		return err
	}
	select {
	case <-x.running:
	case <-ctx.Done():
		return ctx.Err()
	}
	info, err := x.deps.Store.Stat(b.Digest)
	switch {
	case err == nil && b.Size != 0 && info.Size != b.Size:
		return &shoal.InvalidError{Field: "size", Why: fmt.Sprintf("is %d, the blob here has %d", b.Size, info.Size)}
	case err == nil && info.Complete:
		return nil
	}
	w := &waiter{isWhole: isWhole, done: make(chan struct{})}
	var t *task
	err = x.with(b.Digest, true, func(found *task) error {
		t = found
		return t.take(b, w)
	})
	if err != nil {
		return err
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		t.abandon(w)
		return ctx.Err()
	case <-x.stopped:
		return ErrStopped
	}
}

// with calls fn with the task of a blob, which is locked meanwhile. If there is none it
// makes one, or does nothing and returns shoal.ErrNotFound. ErrStopped; shoal.ErrRefused:
// there are too many.
func (x *Exchange) with(d blobs.Digest, isNew bool, fn func(*task) error) error {
	for {
		t, isMade, err := x.task(d, isNew)
		if err != nil {
			return err
		}
		if isMade && !x.spawn(t.run) {
			x.forget(t)
			return ErrStopped
		}
		t.mu.Lock()
		if t.isClosed { // it is just being forgotten
			t.mu.Unlock()
			x.forget(t)
			continue
		}
		err = fn(t)
		t.mu.Unlock()
		return err
	}
}

func (x *Exchange) task(d blobs.Digest, isNew bool) (_ *task, isMade bool, _ error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := x.tasks[d]; t != nil {
		return t, false, nil
	}
	switch {
	case !isNew:
		return nil, false, shoal.ErrNotFound
	case len(x.tasks) >= maxTasks:
		return nil, false, fmt.Errorf("%w: %d blobs are being moved", shoal.ErrRefused, maxTasks)
	}
	t := newTask(x, d)
	x.tasks[d] = t
	return t, true, nil
}

func (x *Exchange) forget(t *task) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.tasks[t.digest] == t {
		delete(x.tasks, t.digest)
	}
}

// Gained says that the store got chunks of d, or the whole, by another way: who is
// interested is told. It is cheap.
func (x *Exchange) Gained(d blobs.Digest) {
	err := x.with(d, false, func(t *task) error {
		t.isStale = true
		t.poke()
		return nil
	})
	if err != nil {
		x.tellNews(d)
	}
}

// FedAt returns when a peer last brought a chunk of a blob, by the injected clock; 0: none
// did, or it was longer ago than Config.Linger and nobody wants the blob.
func (x *Exchange) FedAt(d blobs.Digest) (at time.Duration) {
	_ = x.with(d, false, func(t *task) error { // an error says that nothing is known
		at = t.fedAt
		return nil
	})
	return at
}

// Progress returns how far the fetch of a blob is. false: it is neither here nor fetched.
func (x *Exchange) Progress(d blobs.Digest) (shoal.ImageProgress, bool) {
	var p shoal.ImageProgress
	isMoving := x.with(d, false, func(t *task) error {
		p = t.progress()
		return nil
	}) == nil
	if isMoving && p.Total > 0 {
		return p, true
	}
	info, err := x.deps.Store.Stat(d)
	switch {
	case err != nil:
		return p, isMoving
	case info.Complete:
		return shoal.ImageProgress{What: "done", Done: info.Size, Total: info.Size}, true
	}
	return shoal.ImageProgress{What: "fetch", Done: info.Have, Total: info.Size}, true
}
