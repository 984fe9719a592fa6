// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// crashes is after how many restarts a replica that is not ready counts as failing.
const crashes = 3

// progress says how far a service has come; want as in service.
func (p *pane) progress(name string, want int, why func(slot int) string) *shoalv1.ServiceProgress {
	out := &shoalv1.ServiceProgress{Replicas: p.replicas(name, want, why)}
	svc, ok := p.view.Service(name)
	if !ok {
		out.Service = &shoalv1.ServiceRow{Name: name}
		out.IsSettled = !p.remains(name, nil)
		return out
	}
	out.DoesExist, out.Service = true, p.service(svc, want)
	if svc.Spec.Mode.IsJob() {
		p.jobProgress(svc, out)
		return out
	}
	done, held := 0, map[shoal.ReplicaID]bool{}
	for _, c := range p.view.ClaimsOf(name) {
		if !p.view.Alive(c.Holder) {
			continue
		}
		held[c.Replica] = true
		st, told := p.view.Replica(c.Replica)
		if told && c.Revision == svc.Revision {
			if why := p.failing(c, st); why != "" && out.Trouble == "" {
				out.Trouble, out.TroubleSlot = why, int32(c.Slot)
			}
			if st.Revision == svc.Revision && st.Phase == shoal.PhaseReady || p.view.Done(c) {
				done++
			}
		}
	}
	out.IsSettled = done == want && len(held) == want && !p.remains(name, held)
	return out
}

// remains reports whether a peer that is alive still runs a replica not in held.
func (p *pane) remains(name string, held map[shoal.ReplicaID]bool) bool {
	for _, r := range p.runs[name] {
		if !held[r.status.ID] && !ended(r.status) && p.view.Alive(r.holder) {
			return true
		}
	}
	return held == nil && slices.ContainsFunc(p.view.ClaimsOf(name), func(c shoal.Claim) bool { return p.view.Alive(c.Holder) })
}

// ended reports whether nothing of a replica runs any more.
func ended(st *shoal.ReplicaStatus) bool {
	return st.Phase == shoal.PhaseStopped || st.Phase == shoal.PhaseFailed || st.Phase == shoal.PhaseLost
}

func (p *pane) failing(c shoal.Claim, st *shoal.ReplicaStatus) string {
	var what string
	switch {
	case st.Phase == shoal.PhaseReady:
		return ""
	case st.Phase == shoal.PhaseFailed:
		what = "failed"
	case st.Health == shoal.HealthUnhealthy:
		what = "is unhealthy"
	case st.Restarts >= crashes:
		what = fmt.Sprintf("restarted %d times", st.Restarts)
	default:
		return ""
	}
	if st.Reason != "" {
		what += ": " + st.Reason
	}
	return fmt.Sprintf("%s/%d on %s %s", c.Service, c.Slot, p.name(c.Holder), what)
}
