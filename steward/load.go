// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement/autoscale"
	"github.com/shoalnet/shoal/placement/rollout"
)

// scales is what is remembered of each autoscaled service, by name. As memory it is a value
// and lost with the process; then nothing is taken away before a window has passed.
type scales map[string]scale

// scale is what is remembered of one service. Times are this peer's monotonic clock.
type scale struct {
	autoscale.Memory
	due   time.Duration // when there should first have been another number; 0: this one will do
	asked time.Duration // when this peer asked for one last; 0: never

	isSilent bool   // nobody has reported a metric for long
	says     string // what was measured
}

// lookLoads decides about all autoscaled services of a view. It returns what this peer
// should ask for now, and when to look again at the latest, 0 for when the view changes. It
// is pure.
func lookLoads(v *shoal.View, m scales, rollouts memory, now, from time.Duration, cfg *Config) (scales, []shoal.ScaleTarget, time.Duration) {
	next := scales{}
	var acts []shoal.ScaleTarget
	var wake time.Duration
	heard := (*hearing)(nil)
	for i := range v.Services() {
		s := &v.Services()[i]
		if s.Spec.Autoscale == nil || s.Stopped {
			continue
		}
		if heard == nil { // it takes a pass over all replicas
			heard = hear(v)
		}
		l := lookout{v: v, s: s, now: now, from: from, wake: wake}
		old := m[s.Spec.Name]
		sc := old
		in := heard.input(v, s, now, rollouts[s.Spec.Name].status)
		var d autoscale.Decision
		sc.Memory, d = autoscale.Decide(s.Spec.Autoscale, old.Memory, in)
		l.again(d.Wake)
		sc.says, sc.isSilent = d.Why, d.Silent >= cfg.Silence
		if d.Silent > 0 && !sc.isSilent {
			l.again(now + cfg.Silence - d.Silent)
		}
		if l.scales(&sc, &d, heard.here[s.Spec.Name], cfg) {
			acts = append(acts, shoal.ScaleTarget{Service: s.Spec.Name, N: d.Want, Why: d.Why, Base: s.Scale.Base})
		}
		next[s.Spec.Name], wake = sc, l.wake
	}
	return next, acts, wake
}

// scales reports whether this peer asks for another number now: in its turn, or at once
// where a client waits here for the first replica.
func (l *lookout) scales(sc *scale, d *autoscale.Decision, isHere bool, cfg *Config) bool {
	if d.Want == l.s.Replicas {
		sc.due = 0
		return false
	}
	if sc.due == 0 {
		sc.due = l.now
	}
	rank := slices.Index(order(l.v, l.s), l.v.Self())
	if rank < 0 {
		return false
	}
	at := max(sc.due, l.from) + time.Duration(rank)*cfg.Step
	if isHere && l.s.Replicas == 0 {
		at = l.now
	}
	if sc.asked != 0 {
		at = max(at, sc.asked+cfg.Again)
	}
	if l.now < at {
		l.again(at)
		return false
	}
	sc.asked = l.now
	l.again(l.now + cfg.Again)
	return true
}

// hearing is what peers that are heard tell of loads.
type hearing struct {
	loads   map[shoal.ReplicaID]shoal.ReplicaLoad
	carried map[string]shoal.Carried // of all peers together, by service
	here    map[string]bool          // what this peer carries to
	deaf    bool                     // a peer is alive, and has not told anything yet
}

func hear(v *shoal.View) *hearing {
	h := &hearing{loads: map[shoal.ReplicaID]shoal.ReplicaLoad{}, carried: map[string]shoal.Carried{}, here: map[string]bool{}}
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if p.Removed || p.Left() || !v.Alive(p.ID) {
			continue
		}
		st := v.State(p.ID)
		if st == nil {
			h.deaf = true
			continue
		}
		for _, l := range st.Loads {
			h.loads[l.Replica] = l
		}
		for _, c := range st.Carried {
			sum := h.carried[c.Service]
			sum.Open += c.Open
			sum.Rate += c.Rate
			h.carried[c.Service] = sum
			h.here[c.Service] = h.here[c.Service] || p.ID == v.Self()
		}
	}
	return h
}

// input is what a decision about a service is made from.
func (h *hearing) input(v *shoal.View, s *shoal.Service, now time.Duration, st rollout.Status) autoscale.Input {
	a, size, came := s.Spec.Autoscale, s.Spec.Size(), h.carried[s.Spec.Name]
	in := autoscale.Input{
		Now: now, Current: s.Replicas, Said: s.Scale.Base, Manual: s.Scale.Manual,
		IsBusy: came.Open > 0 || came.Rate > 0,
	}
	switch {
	case s.Rollout.Paused:
		in.Held = "nothing changes while the rollout is paused"
	case !s.Rollout.Settled && st.State == rollout.Failing:
		in.Held = "nothing changes while the rollout is failing"
	}
	used, missing, ready := h.used(v, s)
	in.Ready = ready
	if a.CPU > 0 {
		in.Metrics = append(in.Metrics, autoscale.Metric{
			Name: "cpu", Load: float64(used.CPUMilli), Target: float64(size.CPUMilli) * float64(a.CPU) / 100, Shown: float64(a.CPU), Unit: "%",
			Used: true, Missing: missing,
		})
	}
	if a.Memory > 0 {
		in.Metrics = append(in.Metrics, autoscale.Metric{
			Name: "memory", Load: float64(used.MemBytes), Target: float64(size.MemBytes) * float64(a.Memory) / 100, Shown: float64(a.Memory), Unit: "%",
			Used: true, Missing: missing,
		})
	}
	if a.Connections > 0 {
		in.Metrics = append(in.Metrics, autoscale.Metric{
			Name: "connections", Load: float64(came.Open), Target: float64(a.Connections), Shown: float64(a.Connections), Blind: h.deaf,
		})
	}
	if a.Requests > 0 {
		in.Metrics = append(in.Metrics, autoscale.Metric{
			Name: "requests", Load: float64(came.Rate) / 1000, Target: float64(a.Requests), Shown: float64(a.Requests), Unit: "/s", Blind: h.deaf,
		})
	}
	return in
}

// used adds up what the ready replicas of the wanted slots use, and counts the slots of
// which nothing is known, and those with a ready replica. A slot that two replicas fill has
// the load of both.
func (h *hearing) used(v *shoal.View, s *shoal.Service) (sum shoal.Resources, missing, ready int) {
	known, up := map[int]bool{}, map[int]bool{}
	for _, c := range v.ClaimsOf(s.Spec.Name) {
		r, told := v.Replica(c.Replica)
		if !told || r.Phase != shoal.PhaseReady || c.Slot >= s.Replicas || !v.Alive(c.Holder) {
			continue
		}
		up[c.Slot] = true
		l, measured := h.loads[c.Replica]
		if !measured {
			continue
		}
		sum = sum.Add(shoal.Resources{CPUMilli: l.CPUMilli, MemBytes: l.MemBytes})
		known[c.Slot] = true
	}
	return sum, s.Replicas - len(known), len(up)
}
