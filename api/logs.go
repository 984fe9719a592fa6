// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Windows of the merge: a whole log waits longer for the slowest holder than a
// followed one may, where a quiet holder is normal.
const (
	wholeWindow  = 2 * time.Second
	followWindow = 200 * time.Millisecond
	silentTime   = 5 * time.Second // for a holder this peer does not hear
	againTime    = time.Second     // until a followed holder whose lines ended is asked again
)

// tail collects the lines of one service.
type tail struct {
	s     *Server
	c     *Cluster
	query shoal.LogQuery
	only  shoal.PeerID
	merge *merger
}

// StreamLogs implements the service.
func (s *Server) StreamLogs(ctx context.Context, req *connect.Request[shoalv1.StreamLogsRequest], stream *connect.ServerStream[shoalv1.StreamLogsResponse]) error {
	c, err := s.cluster()
	if err != nil {
		return err
	}
	t, err := s.tailOf(c, req.Msg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	collect, stop := context.WithCancel(ctx)
	g.Go(func() error {
		defer t.merge.close()
		if t.query.Follow {
			return t.follow(collect)
		}
		return t.once(collect)
	})
	g.Go(func() error {
		defer stop()
		return t.send(ctx, stream)
	})
	return g.Wait()
}

func (s *Server) tailOf(c *Cluster, r *shoalv1.StreamLogsRequest) (*tail, error) {
	p := newPane(c.Views.View(), s.deps.Clock.Mono())
	if r.Slot != nil && r.GetSlot() < 0 {
		return nil, &shoal.InvalidError{Field: "slot", Why: fmt.Sprintf("must not be negative, got %d", r.GetSlot())}
	}
	if r.GetFollow() && r.GetUntil() != nil {
		return nil, &shoal.InvalidError{Field: "until", Why: "and follow exclude each other"}
	}
	q := shoal.LogQuery{Service: r.GetService(), Slot: -1, LogOptions: shoal.LogOptions{Follow: r.GetFollow(), Tail: -1}}
	if r.Slot != nil {
		q.Slot = int(r.GetSlot())
	}
	if r.Tail != nil {
		q.Tail = int(r.GetTail())
	}
	if r.GetSince() != nil {
		q.Since = r.GetSince().AsTime()
	}
	if r.GetUntil() != nil {
		q.Until = r.GetUntil().AsTime()
	}
	if _, ok := p.view.Service(q.Service); !ok && len(p.view.ClaimsOf(q.Service)) == 0 {
		return nil, p.noService(q.Service)
	}
	t := &tail{s: s, c: c, query: q, merge: newMerger(wholeWindow, s.deps.Clock)}
	if q.Follow {
		t.merge.window = followWindow
	}
	if r.GetPeer() != "" {
		peer, err := p.findPeer(r.GetPeer())
		if err != nil {
			return nil, err
		}
		t.only = peer.ID
	}
	if !q.Follow && len(t.holders()) == 0 {
		what := q.Service
		if q.Slot >= 0 {
			what = fmt.Sprintf("%s/%d", q.Service, q.Slot)
		}
		return nil, &Error{Code: CodeNotFound, What: fmt.Sprintf("no replica of %s is known here", what), Why: p.synced(), Todo: "see shoal ps"}
	}
	return t, nil
}

// holders are all who claim a wanted slot, heard or not.
func (t *tail) holders() []shoal.PeerID {
	var out []shoal.PeerID
	for _, claim := range t.c.Views.View().ClaimsOf(t.query.Service) {
		if (t.query.Slot < 0 || claim.Slot == t.query.Slot) && (t.only == "" || claim.Holder == t.only) {
			out = append(out, claim.Holder)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// once asks every holder for what there is.
func (t *tail) once(ctx context.Context) error {
	var g errgroup.Group
	holders := t.holders()
	sources := make([]*source, len(holders))
	for i := range holders { // all are open before any is asked, or the first to answer would not wait for the rest
		sources[i] = t.merge.open()
	}
	for i, peer := range holders {
		src := sources[i]
		g.Go(func() error {
			_, err := t.ask(ctx, peer, t.query, src)
			src.end(peer, err)
			return nil
		})
	}
	return g.Wait()
}

// follow keeps one stream open to every holder there is and will be.
func (t *tail) follow(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	asked := map[shoal.PeerID]bool{}
	g.Go(func() error {
		return t.s.follow(ctx, t.c, func() error {
			for _, peer := range t.holders() {
				if asked[peer] {
					continue
				}
				asked[peer] = true
				src := t.merge.open()
				g.Go(func() error { return t.keep(ctx, peer, src) })
			}
			return nil
		})
	})
	return g.Wait()
}

// keep asks a holder again and again, from the last line on, as long as ctx runs. It
// says once that the holder is lost.
func (t *tail) keep(ctx context.Context, peer shoal.PeerID, src *source) error {
	q, lost := t.query, false
	for {
		last, err := t.ask(ctx, peer, q, src)
		if ctx.Err() != nil {
			src.end(peer, nil)
			return ctx.Err()
		}
		if err != nil && !lost {
			src.end(peer, err)
			src = t.merge.open()
		}
		lost = err != nil
		if !last.IsZero() {
			q.Since, q.Tail = last.Add(time.Nanosecond), -1
		}
		if err := pause(ctx, againTime); err != nil {
			src.end(peer, nil)
			return err
		}
	}
}

// ask streams one holder's lines into src and returns the time of the last one. That
// a holder has no container yet is no loss.
func (t *tail) ask(ctx context.Context, peer shoal.PeerID, q shoal.LogQuery, src *source) (time.Time, error) {
	life := t.c.Views.View().Life(peer)
	if life.State == shoal.LifeDead {
		return time.Time{}, fmt.Errorf("not heard for %s", (t.s.deps.Clock.Mono() - life.Heard).Round(time.Second))
	}
	if life.State != shoal.LifeAlive && life.State != shoal.LifeSuspect {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, silentTime)
		defer cancel()
	}
	var last time.Time
	err := t.c.Remote.Logs(ctx, peer, q, func(line shoal.LogLine) error {
		last = line.Time
		line.Peer = peer
		return src.put(ctx, line)
	})
	if errors.Is(err, shoal.ErrNotFound) {
		err = nil
	}
	return last, err
}

// send passes on what the merge yields. It alone uses the stream.
func (t *tail) send(ctx context.Context, stream *connect.ServerStream[shoalv1.StreamLogsResponse]) error {
	for {
		line, lost, err := t.merge.next(ctx)
		switch {
		case err != nil:
			return err
		case lost != nil:
			why := describe(lost.err).What
			if errors.Is(lost.err, context.DeadlineExceeded) {
				why = "no answer in time"
			}
			msg := &shoalv1.LostHolder{Peer: string(lost.peer), PeerName: t.name(lost.peer), Why: why}
			err = stream.Send(&shoalv1.StreamLogsResponse{What: &shoalv1.StreamLogsResponse_Lost{Lost: msg}})
		case line != nil:
			err = stream.Send(&shoalv1.StreamLogsResponse{What: &shoalv1.StreamLogsResponse_Line{Line: t.row(line)}})
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tail) row(l *shoal.LogLine) *shoalv1.LogRow {
	return &shoalv1.LogRow{
		Peer: string(l.Peer), PeerName: t.name(l.Peer), Service: l.Service, Slot: int32(l.Slot), Replica: l.Replica.String(),
		Time: timestamppb.New(l.Time), IsStderr: l.Stderr, Text: strings.ToValidUTF8(l.Text, "�"),
	}
}

func (t *tail) name(id shoal.PeerID) string {
	if p, ok := t.c.Views.View().Peer(id); ok {
		return p.Name()
	}
	return id.Short()
}
