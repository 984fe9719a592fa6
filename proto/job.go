// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"math"
	"time"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func jobMessage(j *shoal.Job) *shoalv1.Job {
	if j == nil {
		return nil
	}
	return &shoalv1.Job{Attempts: int32(j.Attempts), Parallelism: int32(j.Parallelism), DeadlineNs: int64(j.Deadline)}
}

func jobOf(m *shoalv1.Job) *shoal.Job {
	if m == nil {
		return nil
	}
	return &shoal.Job{
		Attempts: int(m.GetAttempts()), Parallelism: int(m.GetParallelism()), Deadline: time.Duration(m.GetDeadlineNs()),
	}
}

// job bounds what is computed with; what makes sense, [shoal.Spec.Validate] says.
func (c *checker) job(j *shoal.Job) {
	if j == nil {
		return
	}
	c.between("job", int64(j.Attempts), 0, maxSlot)
	c.between("job", int64(j.Parallelism), 0, maxSlots)
	c.between("job", int64(j.Deadline), 0, math.MaxInt64)
}

func outcomeMessage(o *shoal.JobOutcome) *shoalv1.Outcome {
	if o == nil {
		return nil
	}
	return &shoalv1.Outcome{
		Attempts: uint32(o.Attempts), Completed: o.Completed, Failed: o.Failed, Code: int32(o.Code), Why: o.Why, At: o.At,
	}
}

func outcomeOf(m *shoalv1.Outcome) *shoal.JobOutcome {
	if m == nil {
		return nil
	}
	return &shoal.JobOutcome{
		Attempts: int(m.GetAttempts()), Completed: m.GetCompleted(), Failed: m.GetFailed(),
		Code: int(m.GetCode()), Why: m.GetWhy(), At: m.GetAt(),
	}
}

func (c *checker) outcome(o *shoal.JobOutcome) {
	if o == nil {
		return
	}
	c.between("outcome", int64(o.Attempts), 0, math.MaxInt32)
	c.between("outcome", int64(o.Code), math.MinInt32, math.MaxInt32)
	c.text("outcome", o.Why, maxReason)
}
