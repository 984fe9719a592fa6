// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Logs calls fn for the lines of this peer's replicas of a service, stamped with
// peer, slot and replica; calls never overlap. Without Follow the lines come in the
// order of their times and it returns at their end. With Follow it also takes up
// replicas that come later, and those started again, until ctx ends, and returns
// nil then. An error of fn ends it and is returned. No replica here: no lines.
func (s *System) Logs(ctx context.Context, q shoal.LogQuery, fn func(shoal.LogLine) error) error {
	if q.Follow {
		return s.followLogs(ctx, q, fn)
	}
	statuses, _ := s.board.of(q.Service)
	g, ctx := errgroup.WithContext(ctx)
	var streams []chan shoal.LogLine
	for i := range statuses {
		st := &statuses[i]
		if !selects(q, st) {
			continue
		}
		c := make(chan shoal.LogLine, 64)
		streams = append(streams, c)
		g.Go(func() error {
			defer close(c)
			return s.stream(ctx, st, q.LogOptions, func(l shoal.LogLine) error {
				select {
				case c <- l:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
	}
	g.Go(func() error { return merge(ctx, streams, fn) })
	return g.Wait()
}

func selects(q shoal.LogQuery, st *shoal.ReplicaStatus) bool {
	return st.Container != "" && (q.Slot < 0 || q.Slot == st.Slot)
}

// stream reads one container's lines and stamps them. A container that went away
// has no more lines, which is no error.
func (s *System) stream(ctx context.Context, st *shoal.ReplicaStatus, o shoal.LogOptions, fn func(shoal.LogLine) error) error {
	err := s.deps.Console.Logs(ctx, st.Container, o, func(l shoal.LogLine) error {
		l.Peer, l.Service, l.Slot, l.Replica = s.deps.Self, st.Service, st.Slot, st.ID
		return fn(l)
	})
	if err != nil && !errors.Is(err, shoal.ErrNotFound) {
		return fmt.Errorf("logs of replica %s: %w", st.ID.Short(), err)
	}
	return nil
}

// merge hands on the lines of streams, each ordered by time, in the order of time.
func merge(ctx context.Context, streams []chan shoal.LogLine, fn func(shoal.LogLine) error) error {
	type head struct {
		line   shoal.LogLine
		stream chan shoal.LogLine
	}
	var heads []head
	next := func(c chan shoal.LogLine) error {
		select {
		case l, ok := <-c:
			if ok {
				h := head{l, c}
				i, _ := slices.BinarySearchFunc(heads, h, func(a, b head) int {
					return cmp.Or(a.line.Time.Compare(b.line.Time), -1) // equal times: first come, first served
				})
				heads = slices.Insert(heads, i, h)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, c := range streams {
		if err := next(c); err != nil {
			return err
		}
	}
	for len(heads) > 0 {
		h := heads[0]
		heads = slices.Delete(heads, 0, 1)
		if err := fn(h.line); err != nil {
			return err
		}
		if err := next(h.stream); err != nil {
			return err
		}
	}
	return nil
}

// errFollowed ends the goroutines of a follow whose context ended.
var errFollowed = errors.New("no longer followed")

// followLogs runs one goroutine per container, and starts more as replicas come.
func (s *System) followLogs(ctx context.Context, q shoal.LogQuery, fn func(shoal.LogLine) error) error {
	g, inner := errgroup.WithContext(ctx)
	lines := make(chan shoal.LogLine)
	g.Go(func() error {
		for {
			select {
			case l := <-lines:
				if err := fn(l); err != nil {
					return err
				}
			case <-inner.Done():
				return errFollowed
			}
		}
	})
	g.Go(func() error {
		following := make(map[string]bool)
		first := true
		for {
			statuses, changed := s.board.of(q.Service)
			for i := range statuses {
				st := statuses[i]
				if !selects(q, &st) || following[st.Container] {
					continue
				}
				following[st.Container] = true
				o := q.LogOptions
				if !first { // it came later: all of it is new
					o.Tail, o.Since = -1, time.Time{}
				}
				g.Go(func() error { return s.followOne(inner, st, o, lines) })
			}
			first = false
			select {
			case <-changed:
			case <-inner.Done():
				return errFollowed
			}
		}
	})
	err := g.Wait()
	if ctx.Err() != nil || errors.Is(err, errFollowed) {
		return nil
	}
	return err
}

// reopenAfter is the pause before a container's stream is opened again, so that one
// that breaks at once is not opened all the time.
const reopenAfter = 500 * time.Millisecond

// followOne follows one container through its restarts and the engine's, until its
// replica is gone.
func (s *System) followOne(ctx context.Context, st shoal.ReplicaStatus, o shoal.LogOptions, lines chan<- shoal.LogLine) error {
	var last time.Time
	for {
		err := s.stream(ctx, &st, o, func(l shoal.LogLine) error {
			if !last.IsZero() && !l.Time.After(last) {
				return nil // told before the stream ended
			}
			select {
			case lines <- l:
				last = l.Time
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if ctx.Err() == nil && err != nil {
			s.deps.Log.Debug("log stream broke", logkey.Replica, st.ID.Short(), logkey.Err, err)
		}
		if !sleep(ctx, reopenAfter) {
			return errFollowed
		}
		for up := false; !up; {
			statuses, changed := s.board.of(st.Service)
			i := slices.IndexFunc(statuses, func(o shoal.ReplicaStatus) bool { return o.Container == st.Container })
			if i < 0 {
				return nil
			}
			st = statuses[i]
			if up = st.Phase == shoal.PhaseRunning || st.Phase == shoal.PhaseReady; up {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return errFollowed
			}
		}
		if !last.IsZero() {
			o.Tail, o.Since = -1, last
		}
	}
}
