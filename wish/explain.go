// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// Explain implements shoal.Wishes.
func (k *Desk) Explain(_ context.Context, service string) (shoal.Explanation, error) {
	v := k.views.View().With(k.store.Desired())
	s, ok := v.Service(service)
	if !ok {
		return shoal.Explanation{}, noService(v.Desired(), service)
	}
	out := shoal.Explanation{Service: service, Slots: placement.Slots(v, service), Never: placement.Hopeless(v, &s.Spec)}
	for _, x := range placement.Explain(v, &s.Spec) {
		out.Lines = append(out.Lines, shoal.ExplainLine{Slot: -1, Peer: x.Peer, Feasible: x.Feasible, Score: x.Score, Reason: x.Reason})
	}
	for _, c := range v.ClaimsOf(service) {
		line := shoal.ExplainLine{Slot: c.Slot, Peer: c.Holder, Feasible: true, Reason: "holds it"}
		if r, ok := v.Replica(c.Replica); ok {
			line.Reason = "holds it, " + r.Phase.String()
			if r.Reason != "" {
				line.Reason += ": " + r.Reason
			}
		}
		out.Lines = append(out.Lines, line)
	}
	reasons, decides := k.said(service)
	for i := range out.Slots {
		addWaits(&out.Slots[i], reasons, decides)
	}
	return out, nil
}

// addWaits adds what this peer's last decision said about a slot. What it said about
// the whole service is about the slots that nobody holds.
func addWaits(x *shoal.ExplainSlot, reasons []placement.Reason, decides bool) {
	for _, r := range reasons {
		if r.Slot != x.Slot && (r.Slot >= 0 || len(x.Holders) > 0) || slices.Contains(x.Waits, r.Text) {
			continue
		}
		x.Waits = append(x.Waits, r.Text)
	}
	if !decides && len(x.Holders) == 0 {
		x.Waits = append(x.Waits, "this peer does not decide yet: its engine has not answered since it started")
	}
}

// hopeful refuses a deploy of what no peer could ever run. What cannot run only now
// (no room, a cordon, an image that is missing) is accepted.
func (k *Desk) hopeful(d *shoal.Desired, w shoal.Wish, steps []*step) error {
	for _, s := range steps {
		if why, advice := k.hopeless(d, w, s); why != "" {
			return &shoal.AdviceError{Err: fmt.Errorf("service %q: %s: %w", s.change.Service, why, shoal.ErrRefused), Advice: advice}
		}
	}
	return nil
}

// hopeless says why no peer could ever run what a step deploys, as the cluster is
// recorded, and what to do about it; "" if one could, or the wish allows it.
func (k *Desk) hopeless(d *shoal.Desired, w shoal.Wish, s *step) (why, advice string) {
	none := s.rev == nil || s.change.Replicas == 0 && s.spec.Mode == shoal.ModeReplicated
	if w.Deploy == nil || w.Deploy.AllowUnplaced || none {
		return "", ""
	}
	v := k.views.View().With(d)
	if why = placement.Hopeless(v, s.spec); why == "" {
		return "", ""
	}
	anywhere := *s.spec
	anywhere.Constraints = nil
	foreign := *s.spec
	foreign.Platforms = nil
	tame := *s.spec
	tame.Setup = shoal.Setup{}
	switch {
	case placement.Hopeless(v, &anywhere) == "":
		advice = "label a peer (shoal peer label)"
	case placement.Hopeless(v, &foreign) == "":
		advice = "push an image that is for them too"
	case placement.Hopeless(v, &tame) == "":
		advice = "allow it in the policy.yaml of a machine"
	default:
		advice = "ask for less"
	}
	return why, advice + " or use --allow-unplaced"
}
