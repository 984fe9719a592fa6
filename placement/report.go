// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
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
	slots, rules := Rollout(v, service, readyFor)
	st := rules.StatusOf(slots)
	out.State, out.Waits, out.Next = string(st.State), st.Waits, st.Next
	out.Slots, out.Current, out.Healthy, out.Failed = st.Slots, st.Current, st.Healthy, st.Failed
	if len(out.Next) > 0 && svc.Spec.Mode != shoal.ModeGlobal { // each holder changes its own
		out.Actor = holderOf(v, service, out.Next[0])
	}
	out.FirstFailure = failure(v, svc)
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

// failure tells of the first slot that failed at the current revision and is still there.
func failure(v *shoal.View, svc *shoal.Service) string {
	for _, c := range v.ClaimsOf(svc.Spec.Name) {
		r, told := v.Replica(c.Replica)
		if !told || c.Revision != svc.Revision || r.Revision != svc.Revision || r.Failures == 0 && r.Phase != shoal.PhaseFailed {
			continue
		}
		name := c.Holder.Short()
		if p, ok := v.Peer(c.Holder); ok {
			name = p.Name()
		}
		why := r.Reason
		if why == "" {
			why = r.Phase.String() + " now"
		}
		return fmt.Sprintf("%s/%d on %s: %s", svc.Spec.Name, c.Slot, name, why)
	}
	return ""
}
