// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"reflect"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// downRetry is the pause between two lists of an engine that does not answer, and
// before a broken stream of events is opened again.
const downRetry = time.Second

// imagesGap is the least time between two lists of images: a build makes many events.
const imagesGap = time.Second

// listContainers lists our containers when asked and periodically, and tells the
// peer actor. The list also is the engine's pulse.
func (r *run) listContainers(ctx context.Context) {
	period := r.cfg.ListEvery
	for {
		t := time.NewTimer(period)
		select {
		case <-r.look:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
		began := r.now()
		m := &snapshot{seq: r.seq.Add(1)}
		call, cancel := context.WithTimeout(ctx, r.cfg.ListTimeout)
		m.containers, m.err = r.deps.Engine.List(call)
		cancel()
		if ctx.Err() != nil {
			return
		}
		period = r.cfg.ListEvery
		if r.board.answer(m.err == nil) {
			r.tellEngine(m.err)
		}
		r.tellPeer(m)
		gap := max(r.cfg.ListGap, 2*(r.now()-began)) // a slow engine is not asked all the time
		if m.err != nil {
			period, gap = downRetry, downRetry
		}
		if !sleep(ctx, gap) {
			return
		}
	}
}

func (r *run) tellEngine(err error) {
	if err != nil {
		r.log.Warn("runtime down", logkey.Err, err)
		r.record("peer", "", -1, "runtime down: "+oneLine(err))
		return
	}
	r.log.Info("runtime answers again")
	r.record("peer", "", -1, "runtime answers again")
	r.refreshNow()
	signal(r.measure)
}

// watchEvents has the containers or the images listed whenever the engine tells of one:
// the receiver looks at the thing, not at the event.
func (r *run) watchEvents(ctx context.Context) {
	for {
		r.refreshNow() // nobody told of what came before the stream
		err := r.deps.Engine.Events(ctx, func(e shoal.EngineEvent) {
			if e.Image != "" {
				r.refreshNow()
			} else {
				r.lookNow()
			}
		})
		if ctx.Err() != nil {
			return
		}
		r.log.Debug("event stream broke", logkey.Err, err)
		r.lookNow()
		if !sleep(ctx, downRetry) {
			return
		}
	}
}

// refreshImages lists the engine's images periodically and when asked: who asks first
// is answered soon, who asks in a row every imagesGap.
func (r *run) refreshImages(ctx context.Context) {
	for {
		began := r.now()
		r.listImages(ctx)
		t := time.NewTimer(r.cfg.Refresh)
		select {
		case <-r.refresh:
			if !sleep(ctx, max(began+imagesGap-r.now(), r.cfg.ListGap)) {
				t.Stop()
				return
			}
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

func (r *run) listImages(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, r.cfg.ListTimeout)
	defer cancel()
	images, err := r.deps.Puller.Images(call)
	if err == nil {
		r.board.setImages(images)
	} else {
		r.log.Debug("images not listed", logkey.Err, err)
	}
	r.board.setLooked()
}

// measureMachine measures what the containers use, periodically and when the engine is
// back. It takes seconds, in which images are listed all the same.
func (r *run) measureMachine(ctx context.Context) {
	for {
		r.measureOnce(ctx)
		t := time.NewTimer(r.cfg.Refresh)
		select {
		case <-r.measure:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

func (r *run) measureOnce(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, r.cfg.ListTimeout)
	defer cancel()
	if r.board.needsCapacity() {
		if info, err := r.deps.Machine.Info(call); err == nil {
			r.board.setCapacity(info.Capacity)
		}
	}
	if used, err := r.deps.Machine.Usage(call); err == nil {
		r.board.setUsed(used)
	}
}

// publish gives the beacon what the board says whenever it changes.
func (r *run) publish(ctx context.Context) {
	var last shoal.PeerState
	told := false
	for {
		st, next, ok := r.board.state()
		if ok && (!told || !reflect.DeepEqual(st, last)) {
			r.deps.Beacon.Publish(st)
			last, told = st, true
		}
		wait := r.cfg.Refresh
		if next > 0 {
			wait = max(next-r.now(), r.cfg.Coalesce)
		}
		t := time.NewTimer(wait)
		select {
		case <-r.board.dirty:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
		if !sleep(ctx, r.cfg.Coalesce) {
			return
		}
	}
}
