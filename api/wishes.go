// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of one wish, and how long an accepted one may take to show in the view.
const (
	maxSpecs = 1000
	maxAcks  = 1000
	showTime = time.Second
	longest  = 24 * time.Hour // any duration a request states
)

// wishing is one wish on its way.
type wishing struct {
	wish shoal.Wish
	plan bool
	acks int32
	wait float64 // seconds for the acks
}

// grant plans or submits a wish, and answers an accepted one when this peer's own
// view shows it, so that the next command reads what this one wrote.
func (s *Server) grant(ctx context.Context, c *Cluster, w wishing) (*shoalv1.WishOutcome, *shoalv1.Freshness, error) {
	if w.acks < 0 || w.acks > maxAcks {
		return nil, nil, &shoal.InvalidError{Field: "acks", Why: fmt.Sprintf("must be 0–%d, got %d", maxAcks, w.acks)}
	}
	wait, err := seconds("ack_timeout_seconds", w.wait)
	if err != nil {
		return nil, nil, err
	}
	var out shoal.Outcome
	if w.plan {
		out, err = c.Wishes.Plan(ctx, w.wish)
	} else {
		out, err = c.Wishes.Submit(ctx, w.wish, shoal.UpdateOptions{Acks: int(w.acks), Timeout: wait})
	}
	if err != nil && !errors.Is(err, shoal.ErrTooFewAcks) { // too few: it is written, and the answer says how few
		return nil, nil, err
	}
	if !w.plan {
		awaitShown(ctx, c.Views, func(v *shoal.View) bool {
			return shows(v, out) && (w.wish.Peer == nil || showsPeer(v, w.wish.Peer)) && (w.wish.Rollout == nil || showsRollout(v, w.wish.Rollout))
		})
	}
	m := s.moment(ctx, c)
	msg := outcomeMessage(m.pane, out)
	msg.IsAccepted = !w.plan
	msg.AcksWanted = w.acks
	return msg, s.freshness(m), nil
}

// awaitShown returns when the view shows what was written, or something newer.
func awaitShown(ctx context.Context, views shoal.Views, shown func(*shoal.View) bool) {
	ctx, cancel := context.WithTimeout(ctx, showTime)
	defer cancel()
	for {
		changed := views.Changed()
		if shown(views.View()) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func shows(v *shoal.View, out shoal.Outcome) bool {
	for i := range out.Changes {
		ch := &out.Changes[i]
		if ch.Peer != "" {
			continue
		}
		svc, ok := v.Service(ch.Service)
		switch {
		case ch.Kind == shoal.ChangeRemove:
			if ok && svc.Revision.Compare(ch.Revision) <= 0 {
				return false
			}
		case ch.Kind == shoal.ChangeNone && ch.Revision.IsZero(): // it was not there to begin with
		case !ok || svc.Revision.Compare(ch.Revision) < 0:
			return false
		case svc.Stopped != ch.Stopped:
			return false
		case !svc.Spec.Mode.IsGlobal() && svc.Replicas != ch.Replicas:
			return false // a concurrent scale makes this wait in vain, for showTime
		}
	}
	return true
}

// Deploy implements the service.
func (s *Server) Deploy(ctx context.Context, req *connect.Request[shoalv1.DeployRequest]) (*connect.Response[shoalv1.DeployResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	r := req.Msg
	wish := &shoal.DeployWish{
		ResetScale: r.GetResetScale(), Create: r.GetCreate(), AllowUnplaced: r.GetAllowUnplaced(),
		KeepScale: r.GetKeepScale(), Prune: r.GetPruneProject(), Keep: r.GetKeep(),
	}
	if len(r.GetSpecs()) > maxSpecs {
		return nil, &shoal.InvalidError{Field: "specs", Why: fmt.Sprintf("must be at most %d, got %d", maxSpecs, len(r.GetSpecs()))}
	}
	for _, m := range r.GetSpecs() {
		spec, err := proto.SpecOf(m)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", m.GetName(), err)
		}
		wish.Specs = append(wish.Specs, spec)
	}
	if wish.IfRevision, err = expected(c.Views.View(), r.GetIfRevision()); err != nil {
		return nil, err
	}
	if wish.Remove, err = pinned(r.GetRemove()); err != nil {
		return nil, err
	}
	out, fresh, err := s.grant(ctx, c, wishing{shoal.Wish{Deploy: wish}, r.GetPlanOnly(), r.GetAcks(), r.GetAckTimeoutSeconds()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.DeployResponse{Outcome: out, Freshness: fresh}), nil
}

// expected reads the revisions a deploy builds on. One that is stale already is
// refused here, with the current one; one that becomes stale meanwhile by Wishes.
func expected(v *shoal.View, in map[string]string) (map[string]shoal.RevisionID, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]shoal.RevisionID, len(in))
	for name, text := range in {
		want, err := shoal.ParseRevisionID(text)
		if err != nil {
			return nil, err
		}
		svc, ok := v.Service(name)
		if !ok {
			return nil, &Error{Code: CodeConflict, What: fmt.Sprintf("service %q is not at revision %s", name, want), Why: "it does not exist"}
		}
		if svc.Revision != want {
			return nil, &Error{
				Code: CodeConflict, What: fmt.Sprintf("service %q is not at revision %s", name, want),
				Why: fmt.Sprintf("its current revision is %s", svc.Revision), Todo: "look at it and deploy again",
			}
		}
		out[name] = want
	}
	return out, nil
}

// pinned reads the revisions at which services are to be removed. One that is stale is
// refused by Wishes.
func pinned(in map[string]string) (map[string]shoal.RevisionID, error) {
	if len(in) > maxSpecs {
		return nil, &shoal.InvalidError{Field: "remove", Why: fmt.Sprintf("must be at most %d, got %d", maxSpecs, len(in))}
	}
	out := make(map[string]shoal.RevisionID, len(in))
	for name, text := range in {
		seen, err := shoal.ParseRevisionID(text)
		if err != nil {
			return nil, err
		}
		out[name] = seen
	}
	return out, nil
}

// Scale implements the service.
func (s *Server) Scale(ctx context.Context, req *connect.Request[shoalv1.ScaleRequest]) (*connect.Response[shoalv1.ScaleResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	r := req.Msg
	p := newPane(c.Views.View(), s.deps.Clock.Mono())
	wish := &shoal.ScaleWish{}
	for _, t := range r.GetTargets() {
		n := int(t.GetN())
		if !t.GetIsRelative() {
			if err := shoal.CheckReplicas(n); err != nil {
				return nil, err
			}
		}
		if _, ok := p.view.Service(t.GetService()); !ok {
			return nil, p.noService(t.GetService())
		}
		wish.Targets = append(wish.Targets, shoal.ScaleTarget{Service: t.GetService(), Relative: t.GetIsRelative(), N: n})
	}
	out, fresh, err := s.grant(ctx, c, wishing{shoal.Wish{Scale: wish}, r.GetPlanOnly(), r.GetAcks(), r.GetAckTimeoutSeconds()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.ScaleResponse{Outcome: out, Freshness: fresh}), nil
}

// Remove implements the service.
func (s *Server) Remove(ctx context.Context, req *connect.Request[shoalv1.RemoveRequest]) (*connect.Response[shoalv1.RemoveResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	r := req.Msg
	p := newPane(c.Views.View(), s.deps.Clock.Mono())
	for _, name := range r.GetServices() {
		if _, ok := p.view.Service(name); !ok && !r.GetIgnoreNotFound() {
			return nil, p.noService(name)
		}
	}
	wish := shoal.Wish{Remove: &shoal.RemoveWish{Services: r.GetServices(), IgnoreNotFound: r.GetIgnoreNotFound()}}
	out, fresh, err := s.grant(ctx, c, wishing{wish, r.GetPlanOnly(), r.GetAcks(), r.GetAckTimeoutSeconds()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.RemoveResponse{Outcome: out, Freshness: fresh}), nil
}

// Operate implements the service.
func (s *Server) Operate(ctx context.Context, req *connect.Request[shoalv1.OperateRequest]) (*connect.Response[shoalv1.OperateResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	r := req.Msg
	p := newPane(c.Views.View(), s.deps.Clock.Mono())
	for _, name := range r.GetServices() {
		if _, ok := p.view.Service(name); !ok {
			return nil, p.noService(name)
		}
	}
	wish := shoal.Wish{Operate: &shoal.OperateWish{Services: r.GetServices(), Op: shoal.Operation(r.GetOperation())}}
	out, fresh, err := s.grant(ctx, c, wishing{wish, r.GetPlanOnly(), r.GetAcks(), r.GetAckTimeoutSeconds()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.OperateResponse{Outcome: out, Freshness: fresh}), nil
}

func outcomeMessage(p *pane, out shoal.Outcome) *shoalv1.WishOutcome {
	msg := &shoalv1.WishOutcome{Acks: int32(out.Acks)}
	for i := range out.Changes {
		ch := &out.Changes[i]
		m := &shoalv1.PlanChange{
			Kind: string(ch.Kind), Service: ch.Service, Revision: revision(ch.Revision),
			Details: ch.Details, Unplaced: ch.Unplaced, Replicas: int32(ch.Replicas), Notes: ch.Notes, IsStopped: ch.Stopped,
			Peer: string(ch.Peer), PeerName: p.name(ch.Peer),
		}
		for _, id := range ch.Slots {
			m.Places = append(m.Places, &shoalv1.Place{Peer: string(id), Name: p.name(id)})
		}
		msg.Changes = append(msg.Changes, m)
	}
	return msg
}

// seconds turns what a request states into a duration.
func seconds(field string, s float64) (time.Duration, error) {
	if math.IsNaN(s) || s < 0 || s > longest.Seconds() {
		return 0, &shoal.InvalidError{Field: field, Why: fmt.Sprintf("must be 0–%.0f, got %v", longest.Seconds(), s)}
	}
	return time.Duration(s * float64(time.Second)), nil
}
