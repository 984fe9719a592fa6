// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"math"
	"time"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func rolloutMessage(r *shoal.Rollout) *shoalv1.Rollout {
	return &shoalv1.Rollout{
		Parallelism: int32(r.Parallelism), StartFirst: r.StartFirst,
		MaxUnavailable: shareMessage(r.MaxUnavailable), MaxSurge: shareMessage(r.MaxSurge),
		DelayNs: int64(r.Delay), MinHealthyNs: int64(r.MinHealthy), MonitorNs: int64(r.Monitor), DeadlineNs: int64(r.Deadline),
		MaxFailureRatio: int32(r.MaxFailureRatio), OnFailure: string(r.OnFailure),
		Canary: shareMessage(r.Canary.Slots), CanaryPromoteAfterNs: int64(r.Canary.PromoteAfter), CanaryWeight: int32(r.Canary.Weight),
		CanaryMaxRestarts: int32(r.Canary.MaxRestarts),
	}
}

func rolloutOf(m *shoalv1.Rollout) shoal.Rollout {
	return shoal.Rollout{
		Parallelism: int(m.GetParallelism()), StartFirst: m.GetStartFirst(),
		MaxUnavailable: shareOf(m.GetMaxUnavailable()), MaxSurge: shareOf(m.GetMaxSurge()),
		Delay: time.Duration(m.GetDelayNs()), MinHealthy: time.Duration(m.GetMinHealthyNs()),
		Monitor: time.Duration(m.GetMonitorNs()), Deadline: time.Duration(m.GetDeadlineNs()),
		MaxFailureRatio: int(m.GetMaxFailureRatio()), OnFailure: shoal.FailureAction(m.GetOnFailure()),
		Canary: shoal.Canary{
			Slots: shareOf(m.GetCanary()), PromoteAfter: time.Duration(m.GetCanaryPromoteAfterNs()), Weight: int(m.GetCanaryWeight()),
			MaxRestarts: int(m.GetCanaryMaxRestarts()),
		},
	}
}

func shareMessage(s shoal.Share) *shoalv1.Share {
	if s == (shoal.Share{}) {
		return nil
	}
	return &shoalv1.Share{N: int32(s.N), Percent: int32(s.Percent)}
}

func shareOf(m *shoalv1.Share) shoal.Share {
	return shoal.Share{N: int(m.GetN()), Percent: int(m.GetPercent())}
}

func pastMessages(past []shoal.PastRevision) []*shoalv1.PastRevision {
	var out []*shoalv1.PastRevision
	for i := range past {
		p := &past[i]
		out = append(out, &shoalv1.PastRevision{
			Revision: revisionMessage(p.Revision), Spec: specMessage(&p.Spec), Accepted: hlcMessage(p.Accepted), Good: p.Good,
			UndoneBy: revisionMessage(p.UndoneBy), Why: p.Why, Failure: failureMessage(p.Failure),
		})
	}
	return out
}

func pastOf(past []*shoalv1.PastRevision) ([]shoal.PastRevision, error) {
	var out []shoal.PastRevision
	for _, m := range past {
		spec, err := specOf(m.GetSpec())
		if err != nil {
			return nil, err
		}
		failure, err := failureOf(m.GetFailure())
		if err != nil {
			return nil, err
		}
		out = append(out, shoal.PastRevision{
			Revision: revisionOf(m.GetRevision()), Spec: spec, Accepted: hlcOf(m.GetAccepted()), Good: m.GetGood(),
			UndoneBy: revisionOf(m.GetUndoneBy()), Why: m.GetWhy(), Failure: failure,
		})
	}
	return out, nil
}

func (c *checker) past(past []shoal.PastRevision) {
	c.count("past", len(past), shoal.MaxPast)
	for i := range past {
		c.revision("past", past[i].Revision, false)
		c.spec(&past[i].Spec)
		c.revision("past", past[i].UndoneBy, true)
		c.text("past", past[i].Why, maxReason)
		if f := past[i].Failure; !f.IsZero() {
			c.between("past", int64(f.Slot), 0, maxSlot)
			c.text("past", f.Reason, maxReason)
			c.peer("past", f.Peer)
		}
	}
}

func failureMessage(f shoal.Failure) *shoalv1.Failure {
	if f.IsZero() {
		return nil
	}
	return &shoalv1.Failure{Slot: int32(f.Slot), Peer: string(f.Peer), Replica: replicaBytes(f.Replica), AfterNs: int64(f.After), Reason: f.Reason}
}

func failureOf(m *shoalv1.Failure) (shoal.Failure, error) {
	if m == nil {
		return shoal.Failure{}, nil
	}
	id, err := replicaOf(m.GetReplica())
	return shoal.Failure{
		Slot: int(m.GetSlot()), Peer: shoal.PeerID(m.GetPeer()), Replica: id, After: time.Duration(m.GetAfterNs()), Reason: m.GetReason(),
	}, err
}

func (c *checker) rollout(field string, r *shoal.Rollout) {
	c.between(field, int64(r.Parallelism), 0, maxSlots)
	for _, s := range []shoal.Share{r.MaxUnavailable, r.MaxSurge, r.Canary.Slots} {
		c.between(field, int64(s.N), 0, maxSlots)
		c.between(field, int64(s.Percent), 0, 100)
	}
	c.between(field, int64(min(r.Delay, r.MinHealthy, r.Monitor, r.Deadline, r.Canary.PromoteAfter)), 0, math.MaxInt64)
	c.between(field, int64(r.MaxFailureRatio), 0, 1000)
	c.between(field, int64(r.Canary.Weight), 0, 100)
	c.between(field, int64(r.Canary.MaxRestarts), 0, math.MaxInt32)
	c.text(field, string(r.OnFailure), maxWord)
}
