// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// maxRevision is more bytes than the name of any revision has.
const maxRevision = 128

// steering are the changes that users may ask of a rollout; peers settle one by themselves.
var steering = []shoal.RolloutChange{shoal.RolloutPause, shoal.RolloutResume, shoal.RolloutPromote, shoal.RolloutBack}

// SteerRollout implements the service.
func (s *Server) SteerRollout(ctx context.Context, req *connect.Request[shoalv1.SteerRolloutRequest]) (*connect.Response[shoalv1.SteerRolloutResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	r := req.Msg
	wish := &shoal.RolloutWish{Service: r.GetService(), Change: shoal.RolloutChange(r.GetChange()), To: r.GetTo()}
	switch {
	case !slices.Contains(steering, wish.Change):
		return nil, &shoal.InvalidError{Field: "change", Why: fmt.Sprintf("must be pause, resume, promote or rollback, got %q", r.GetChange())}
	case len(wish.To) > maxRevision:
		return nil, &shoal.InvalidError{Field: "to", Why: "must be the number of a revision, or its whole ID"}
	case wish.To != "" && wish.Change != shoal.RolloutBack:
		return nil, &shoal.InvalidError{Field: "to", Why: "goes with rollback"}
	}
	if r.GetOf() != "" {
		if wish.Of, err = shoal.ParseRevisionID(r.GetOf()); err != nil {
			return nil, err
		}
	}
	p := newPane(c.Views.View(), s.deps.Clock.Mono())
	if _, ok := p.view.Service(wish.Service); !ok {
		return nil, p.noService(wish.Service)
	}
	out, fresh, err := s.grant(ctx, c, wishing{shoal.Wish{Rollout: wish}, r.GetPlanOnly(), r.GetAcks(), r.GetAckTimeoutSeconds()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.SteerRolloutResponse{Outcome: out, Freshness: fresh}), nil
}

// showsRollout reports whether the view shows what was asked of a rollout, or something
// newer. Going back is a revision, which shows as one.
func showsRollout(v *shoal.View, w *shoal.RolloutWish) bool {
	svc, ok := v.Service(w.Service)
	if !ok || !w.Of.IsZero() && svc.Revision != w.Of {
		return true
	}
	switch w.Change {
	case shoal.RolloutPause, shoal.RolloutResume:
		return svc.Rollout.Paused == (w.Change == shoal.RolloutPause)
	case shoal.RolloutPromote:
		return svc.Rollout.Promoted
	case shoal.RolloutBack, shoal.RolloutSettle:
	}
	return true
}

// GetRollout implements the service.
func (s *Server) GetRollout(ctx context.Context, req *connect.Request[shoalv1.GetRolloutRequest]) (*connect.Response[shoalv1.GetRolloutResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	svc, ok := m.view.Service(req.Msg.GetService())
	if !ok {
		return nil, m.noService(req.Msg.GetService())
	}
	status := m.rollout(svc)
	if status == nil {
		return nil, &Error{Code: CodeRefused, What: "this daemon does not follow rollouts"}
	}
	history := m.history(svc)
	failures := []*shoalv1.ReplicaFailure{status.GetFailure()}
	for _, r := range history {
		failures = append(failures, r.GetFailure())
	}
	s.hear(ctx, c, m, svc.Spec.Name, failures...)
	return connect.NewResponse(&shoalv1.GetRolloutResponse{Rollout: status, History: history, Freshness: s.freshness(m)}), nil
}

// rollout says how far a service has come; nil if nobody knows.
func (m *moment) rollout(svc *shoal.Service) *shoalv1.RolloutStatus {
	if m.rollouts == nil {
		return nil
	}
	r, err := m.rollouts.Rollout(svc.Spec.Name)
	if err != nil || r.Revision != svc.Revision { // it went, or changed, since this view
		return nil
	}
	out := &shoalv1.RolloutStatus{
		Service: r.Service, Revision: revision(r.Revision), Image: svc.Spec.Image, State: r.State,
		Slots: int32(r.Slots), Current: int32(r.Current), Healthy: int32(r.Healthy), Failed: int32(r.Failed), Waits: r.Waits,
		SinceSeconds: r.Since.Seconds(), Actor: m.place(r.Actor), ActsAfterSeconds: r.ActsAfter.Seconds(), FirstFailure: r.FirstFailure,
		IsSettled: svc.Rollout.Settled, IsPromoted: svc.Rollout.Promoted, IsPaused: svc.Rollout.Paused, Why: svc.Rollout.Why,
		Undoes: revision(svc.Undoes), UndoWhy: svc.Why, Restores: revision(restores(svc)), Accepted: stamp(svc.Accepted.WallMilli),
		PromoteAfterSeconds: svc.Revise().Canary.PromoteAfter.Seconds(),
	}
	if out.Failure = m.failure(svc, r.Failure, r.FirstFailure); out.Failure == nil {
		out.Failure = m.undoneFailure(svc)
	}
	if svc.Spec.Mode.IsJob() {
		out.Job = m.job(svc)
	}
	for _, slot := range r.Next {
		out.Next = append(out.Next, int32(slot))
	}
	return out
}

// restores returns the earlier revision that the current one makes current again: the
// newest that asks for the same; zero if it goes back from none, or that is forgotten.
func restores(svc *shoal.Service) shoal.RevisionID {
	if svc.Undoes.IsZero() {
		return shoal.RevisionID{}
	}
	for i := range svc.Past {
		if p := &svc.Past[i]; p.Revision != svc.Undoes && reflect.DeepEqual(p.Spec, svc.Spec) {
			return p.Revision
		}
	}
	return shoal.RevisionID{}
}

// history lists the revisions of a service that are remembered, the newest first.
func (m *moment) history(svc *shoal.Service) []*shoalv1.RevisionRow {
	row := func(id shoal.RevisionID, spec *shoal.Spec, accepted shoal.HLC, state string) *shoalv1.RevisionRow {
		return &shoalv1.RevisionRow{
			Revision: revision(id), Accepted: stamp(accepted.WallMilli), By: m.place(id.Author), Image: spec.Image, Digest: spec.Digest, State: state,
		}
	}
	now := row(svc.Revision, &svc.Spec, svc.Accepted, "current")
	if !svc.Undoes.IsZero() {
		now.Why = fmt.Sprintf("goes back from %d", svc.Undoes.Seq)
		if to := restores(svc); !to.IsZero() {
			now.Why += fmt.Sprintf(" to %d", to.Seq)
		}
	}
	if svc.Rollout.Paused {
		now.Why = cmp.Or(svc.Rollout.Why, "paused by a user")
	}
	out := []*shoalv1.RevisionRow{now}
	for i := range svc.Past {
		p := &svc.Past[i]
		r := row(p.Revision, &p.Spec, p.Accepted, choose(p.Good, "good", "replaced"))
		if !p.UndoneBy.IsZero() {
			r.State, r.UndoneBy, r.Why = "undone", revision(p.UndoneBy), cmp.Or(p.Why, "a user went back")
			r.Failure = m.pastFailure(svc.Spec.Name, p)
		}
		out = append(out, r)
	}
	return out
}

// Rollout says how far a service has come to its current revision.
type Rollout struct {
	Service      string    `json:"service"`
	Revision     string    `json:"revision"`
	Image        string    `json:"image"`
	State        string    `json:"state"`
	Slots        int       `json:"slots"`
	Current      int       `json:"current"` // at the current revision
	Healthy      int       `json:"healthy"`
	Failed       int       `json:"failed"`
	Next         []int     `json:"next"` // slots that may change now
	Waits        string    `json:"waits,omitempty"`
	Since        float64   `json:"since_seconds"` // since a slot became healthy
	Actor        Place     `json:"actor,omitzero"`
	ActsAfter    float64   `json:"acts_after_seconds,omitempty"`
	FirstFailure string    `json:"first_failure,omitempty"`
	Settled      bool      `json:"settled"`
	Promoted     bool      `json:"promoted"`
	PromoteAfter float64   `json:"promote_after_seconds,omitempty"` // 0: a user promotes a canary
	Paused       bool      `json:"paused"`
	Why          string    `json:"why,omitempty"`      // it is paused; "": a user said so
	Undoes       string    `json:"undoes,omitempty"`   // the revision that this one goes back from
	UndoWhy      string    `json:"undo_why,omitempty"` // "": a user said so
	Restores     string    `json:"restores,omitempty"` // the earlier revision that is current again
	Accepted     time.Time `json:"accepted,omitzero"`
	// What failed first: at this revision, else at the one that it goes back from. What the
	// replica had said is in it only where one rollout was asked for.
	Failure *Failure `json:"failure,omitempty"`
	Job     *Job     `json:"job,omitempty"`
}

// Revision is one that is or was current.
type Revision struct {
	Revision string    `json:"revision"`
	Accepted time.Time `json:"accepted,omitzero"`
	By       Place     `json:"by"`
	Image    string    `json:"image"`
	Digest   string    `json:"digest,omitempty"`
	State    string    `json:"state"` // current, good, undone, replaced
	UndoneBy string    `json:"undone_by,omitempty"`
	Why      string    `json:"why,omitempty"`
	Failure  *Failure  `json:"failure,omitempty"` // that it was undone for
}

// SteerRollout asks for a change of a rollout.
func (c *Client) SteerRollout(ctx context.Context, w shoal.RolloutWish, opts WishOptions) (Outcome, error) {
	req := &shoalv1.SteerRolloutRequest{
		Service: w.Service, Change: string(w.Change), To: w.To, PlanOnly: opts.PlanOnly,
		Acks: int32(opts.Acks), AckTimeoutSeconds: opts.AckTimeout.Seconds(),
	}
	if !w.Of.IsZero() {
		req.Of = w.Of.String()
	}
	r, err := call(ctx, c, c.rpc.SteerRollout, req)
	return outcomeOf(r.GetOutcome(), r.GetFreshness()), err
}

// Rollout says how far a service has come, and which revisions it had, the newest first.
func (c *Client) Rollout(ctx context.Context, service string) (Rollout, Listing[Revision], error) {
	r, err := call(ctx, c, c.rpc.GetRollout, &shoalv1.GetRolloutRequest{Service: service})
	return rolloutOf(r.GetRollout()), Listing[Revision]{all(r.GetHistory(), revisionRowOf), freshnessOf(r.GetFreshness())}, err
}

func rolloutOf(m *shoalv1.RolloutStatus) Rollout {
	return Rollout{
		Service: m.GetService(), Revision: revisionOf(m.GetRevision()), Image: m.GetImage(), State: m.GetState(),
		Slots: int(m.GetSlots()), Current: int(m.GetCurrent()), Healthy: int(m.GetHealthy()), Failed: int(m.GetFailed()),
		Next: all(m.GetNext(), func(n int32) int { return int(n) }), Waits: m.GetWaits(), Since: m.GetSinceSeconds(),
		Actor: placeOf(m.GetActor()), ActsAfter: m.GetActsAfterSeconds(), FirstFailure: m.GetFirstFailure(),
		Settled: m.GetIsSettled(), Promoted: m.GetIsPromoted(), PromoteAfter: m.GetPromoteAfterSeconds(), Paused: m.GetIsPaused(), Why: m.GetWhy(),
		Undoes: revisionOf(m.GetUndoes()), UndoWhy: m.GetUndoWhy(), Restores: revisionOf(m.GetRestores()), Accepted: timeOf(m.GetAccepted()),
		Failure: failureOf(m.GetFailure()),
		Job:     jobOf(m.GetJob()),
	}
}

// knownRollout returns nil where nothing is known.
func knownRollout(m *shoalv1.RolloutStatus) *Rollout {
	if m == nil {
		return nil
	}
	return new(rolloutOf(m))
}

func revisionRowOf(m *shoalv1.RevisionRow) Revision {
	return Revision{
		Revision: revisionOf(m.GetRevision()), Accepted: timeOf(m.GetAccepted()), By: placeOf(m.GetBy()), Image: m.GetImage(), Digest: m.GetDigest(),
		State: m.GetState(), UndoneBy: revisionOf(m.GetUndoneBy()), Why: m.GetWhy(), Failure: failureOf(m.GetFailure()),
	}
}
