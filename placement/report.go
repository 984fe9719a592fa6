// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// stopped is the state of a rollout whose service is stopped: it has no slots.
const stopped = "stopped"

// Report says how far a service has come to its current revision. What only time tells is
// left to the caller: readyFor as in [Rollout], and Since. ErrNotFound if there is no such
// service.
func Report(v *shoal.View, service string, readyFor func(shoal.ReplicaID) time.Duration) (shoal.RolloutReport, error) {
	svc, ok := v.Service(service)
	if !ok {
		return shoal.RolloutReport{}, fmt.Errorf("service %q: %w", service, shoal.ErrNotFound)
	}
	out := shoal.RolloutReport{Service: service, Revision: svc.Revision, State: stopped}
	if svc.Stopped {
		return out, nil
	}
	if svc.Spec.Mode.IsJob() {
		return jobReport(v, out), nil
	}
	slots, rules := Rollout(v, service, readyFor)
	st := rules.StatusOf(slots)
	out.State, out.Waits, out.Next = string(st.State), st.Waits, st.Next
	out.Slots, out.Current, out.Healthy, out.Failed = st.Slots, st.Current, st.Healthy, st.Failed
	if len(out.Next) > 0 && !svc.Spec.Mode.IsGlobal() { // each holder changes its own
		out.Actor = holderOf(v, service, out.Next[0])
	}
	if f := FirstFailure(v, svc); st.Failed > 0 && !f.IsZero() {
		out.Failure, out.FirstFailure = f, f.Text(svc, v.Name)
	}
	return out, nil
}

// holderOf returns who holds a slot, "" if nobody does.
func holderOf(v *shoal.View, service string, slot int) shoal.PeerID {
	var claims []shoal.Claim
	for _, c := range v.ClaimsOf(service) {
		if c.Slot == slot {
			claims = append(claims, c)
		}
	}
	if len(claims) == 0 {
		return ""
	}
	return Winner(v, claims).Holder
}

// FirstFailure returns the first slot that failed at the current revision and is still
// there; zero if none did. One whose holder refuses the revision, which fails a slot that
// nobody can take, is named if none failed otherwise. After is not known from a view.
func FirstFailure(v *shoal.View, svc *shoal.Service) shoal.Failure {
	var refused shoal.Failure
	for _, c := range v.ClaimsOf(svc.Spec.Name) {
		r, told := v.Replica(c.Replica)
		if !told || c.Revision != svc.Revision || r.Revision != svc.Revision {
			continue
		}
		f := shoal.Failure{Slot: c.Slot, Peer: c.Holder, Replica: c.Replica, After: -1, Reason: whyFailed(r)}
		if r.Failures > 0 || r.Phase == shoal.PhaseFailed {
			return f
		}
		if why := refusal(v.State(c.Holder), c.Service, c.Revision); why != "" && refused.IsZero() {
			f.Reason, refused = why, f
		}
	}
	return refused
}

// maxWhy is how many bytes of a holder's reason go into a sentence.
const maxWhy = 300

// whyFailed is a replica's reason without what it does next.
func whyFailed(r *shoal.ReplicaStatus) string {
	why, _, _ := strings.Cut(r.Reason, "; starts again after ")
	if why == "" {
		why = r.Phase.String() + " now"
	}
	return strings.ToValidUTF8(why[:min(len(why), maxWhy)], "")
}
