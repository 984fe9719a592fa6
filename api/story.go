// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// story remembers the newest events. All methods are safe for concurrent use.
type story struct {
	most int

	mu      sync.Mutex // guards what follows
	events  []shoal.Event
	first   uint64 // sequence number of events[0]
	changed chan struct{}
}

func newStory(most int) *story {
	return &story{most: most, changed: make(chan struct{})}
}

func (t *story) add(events ...shoal.Event) {
	if len(events) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, events...)
	if over := len(t.events) - t.most; over > 0 {
		t.events = append([]shoal.Event(nil), t.events[over:]...)
		t.first += uint64(over)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// after returns the remembered events from seq on, the seq to ask for next, and a
// channel that is closed when there are more.
func (t *story) after(seq uint64) ([]shoal.Event, uint64, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seq = max(seq, t.first)
	next := t.first + uint64(len(t.events))
	return append([]shoal.Event(nil), t.events[seq-t.first:]...), next, t.changed
}

// record tells the story: what differs between each view and the one before.
func (s *Server) record(ctx context.Context) error {
	for ctx.Err() == nil {
		c, ok := s.deps.Cluster()
		if !ok || c == nil {
			s.awaitMember(ctx)
			continue
		}
		prev, thought := c.Views.View(), &opinions{}
		// errLeft and the end of ctx both mean: look again who we are.
		_ = s.follow(ctx, c, func() error {
			next := c.Views.View()
			at := s.deps.Clock.Wall()
			s.story.add(difference(prev, next, at)...)
			if next != nil {
				s.story.add(thought.next(next, c.reports(next), c.thinks(), at)...)
			}
			prev = next
			return nil
		})
	}
	return nil
}

func (s *Server) awaitMember(ctx context.Context) {
	tick := time.NewTimer(time.Second)
	defer tick.Stop()
	select {
	case <-s.poke:
	case <-tick.C:
	case <-ctx.Done():
	}
}

// StreamEvents implements the service.
func (s *Server) StreamEvents(ctx context.Context, req *connect.Request[shoalv1.StreamEventsRequest], stream *connect.ServerStream[shoalv1.StreamEventsResponse]) error {
	c, err := s.cluster()
	if err != nil {
		return err
	}
	r := req.Msg
	if r.Tail != nil && r.GetTail() < 0 {
		return &shoal.InvalidError{Field: "tail", Why: "must not be negative"}
	}
	events, next, more := s.story.after(0)
	if r.GetSince() != nil {
		for len(events) > 0 && events[0].Time.Before(r.GetSince().AsTime()) {
			events = events[1:]
		}
	}
	if r.Tail != nil && len(events) > int(r.GetTail()) {
		events = events[len(events)-int(r.GetTail()):]
	}
	for {
		names := newPane(c.Views.View(), 0)
		for _, e := range events {
			if err := stream.Send(&shoalv1.StreamEventsResponse{Event: eventRow(names, e)}); err != nil {
				return err
			}
		}
		if !r.GetFollow() {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
		events, next, more = s.story.after(next)
	}
}

func eventRow(p *pane, e shoal.Event) *shoalv1.EventRow {
	return &shoalv1.EventRow{
		Time: timestamppb.New(e.Time), Peer: string(e.Peer), PeerName: p.name(e.Peer),
		Kind: e.Kind, Service: e.Service, Slot: int32(e.Slot), Text: e.Text,
	}
}
