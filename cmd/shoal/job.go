// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// jobFlags say that what is run ends by itself.
type jobFlags struct {
	is                    bool
	attempts, parallelism int
	deadline              duration
	schedule              scheduleFlags
}

func (j *jobFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&j.is, "job", false, "it ends by itself: run each replica until it has ended well, and wait for that")
	j.addTerms(f, "with --job")
}

// jobTerms are the flags that say how a job runs, and when.
var jobTerms = append([]string{"attempts", "parallelism", "deadline"}, scheduleTerms...)

// addTerms adds them; of is said before what each does.
func (j *jobFlags) addTerms(f *pflag.FlagSet, of string) {
	f.IntVar(&j.attempts, "attempts", shoal.DefaultJob().Attempts, of+": how often a replica is tried before it is given up")
	f.IntVar(&j.parallelism, "parallelism", 0, of+": so many at once (default: all)")
	f.Var(&j.deadline, "deadline", of+": how long all attempts of a replica may take, like 1h (default: without end)")
	j.schedule.add(f, of)
}

// edit changes the terms that the flags name, of what must be a job.
func (j *jobFlags) edit(f *pflag.FlagSet, spec *shoal.Spec) error {
	given := slices.DeleteFunc(slices.Clone(jobTerms), func(name string) bool { return !f.Changed(name) })
	if len(given) == 0 {
		return nil
	}
	switch {
	case spec.Job != nil:
	case given[0] == "parallelism":
		return usage("--parallelism: %s is no job; --update-parallelism says how many of its replicas change at once", spec.Name)
	default:
		return usage("--%s: %s is no job", given[0], spec.Name)
	}
	job := *spec.Job
	for _, name := range given {
		switch name {
		case "attempts":
			job.Attempts = j.attempts
		case "parallelism":
			job.Parallelism = j.parallelism
		case "deadline":
			job.Deadline = time.Duration(j.deadline)
		}
	}
	spec.Job = &job
	var err error
	if spec.Schedule, err = j.schedule.edit(f, spec.Schedule); spec.Schedule == nil {
		spec.Run = 0
	}
	return err
}

// apply makes a job of a spec. What --restart says of failures is its attempts.
func (j *jobFlags) apply(f *pflag.FlagSet, spec *shoal.Spec) error {
	if !j.is {
		for _, name := range jobTerms {
			if f.Changed(name) {
				return usage("--%s: goes with --job", name)
			}
		}
		return nil
	}
	job := shoal.Job{Attempts: j.attempts, Parallelism: j.parallelism, Deadline: time.Duration(j.deadline)}
	switch r := spec.Restart; {
	case !f.Changed("restart"):
	case r.Condition == shoal.RestartAny:
		return usage("--restart: what has ended well is not run again with --job; say no or on-failure[:N]")
	case f.Changed("attempts"):
		return usage("--restart: says how often --attempts does, too; keep one of them")
	case r.Condition == shoal.RestartNone:
		job.Attempts = 1
	case r.MaxAttempts > 0:
		job.Attempts = 1 + r.MaxAttempts
	}
	if spec.Mode = shoal.ModeReplicatedJob; spec.Replicas == 0 {
		spec.Mode = shoal.ModeGlobalJob
	}
	spec.Job, spec.Restart, spec.Rollout = &job, shoal.Restart{Condition: shoal.RestartOnFailure}, shoal.Rollout{}
	var err error
	spec.Schedule, err = j.schedule.edit(f, nil)
	return err
}

// jobProgress is "3/5 completed", with how many are given up, and when it runs next.
func jobProgress(s api.Service) string {
	j := *s.Job
	j.Running = 0
	return slotsText(&j, s.Replicas) + nextRun(&j)
}

// slotsText is the same with how many run, and not when.
func slotsText(j *api.Job, wanted int) string {
	if j.IsAsleep() {
		return "scheduled"
	}
	return shoal.JobStatus{Wanted: wanted, Completed: j.Completed, Failed: j.Failed, Running: j.Running}.Progress()
}

// failureText says how a job's first failed slot failed, or the last attempt of another.
func failureText(j *api.Job) string {
	if j == nil {
		return ""
	}
	return shoal.JobStatus{Why: j.Why, Attempts: j.Attempts}.Failure()
}

// jobLine says how far a job is: "load 1/3 completed, 2 running; exited with code 1 (2 attempts)".
func jobLine(p api.Progress) string {
	text := p.Service.Name + " " + slotsText(p.Service.Job, p.Service.Replicas)
	if p.Service.Job.IsAsleep() {
		text += nextRun(p.Service.Job)
	}
	if why := failureText(p.Service.Job); why != "" {
		text += "; " + why
	}
	return text
}

// jobFailed says that a job cannot complete any more; nil if it can.
func jobFailed(p api.Progress) *ending {
	j := p.Service.Job
	if j == nil || j.Failed == 0 || p.Service.Stopped {
		return nil
	}
	return &ending{"failed", "the job " + p.Service.Name + " has failed", "shoal logs " + p.Service.Name} // with the slot's trouble
}

// jobRolloutLine is how far a job is at its current revision.
func jobRolloutLine(head string, r api.Rollout) string {
	parts := []string{head}
	if r.State != stateStopped {
		parts[0] += ", " + slotsText(r.Job, r.Slots)
		if why := failureText(r.Job); why != "" {
			parts = append(parts, why)
		}
	}
	return strings.Join(parts, "; ")
}

// howMany is how many replicas are ready, or slots of a job completed.
func howMany(s api.Service) string {
	if s.Job != nil && !s.Stopped {
		return slotsText(s.Job, s.Replicas) + nextRun(s.Job)
	}
	return fmt.Sprintf("%d of %d ready", s.Ready, s.Replicas)
}

// jobJSON is how a job runs.
type jobJSON struct {
	Attempts    int     `json:"attempts"`
	Parallelism int     `json:"parallelism"` // 0: all at once
	Deadline    float64 `json:"deadline_seconds"`
}

func jobJSONOf(j *shoal.Job) *jobJSON {
	if j == nil {
		return nil
	}
	return &jobJSON{j.Attempts, j.Parallelism, j.Deadline.Seconds()}
}

func (j *jobJSON) text() string {
	if j == nil {
		return ""
	}
	parts := []string{count(j.Attempts, "attempt")}
	if j.Parallelism > 0 {
		parts = append(parts, fmt.Sprintf("%d at once", j.Parallelism))
	}
	if j.Deadline > 0 {
		parts = append(parts, "within "+seconds(j.Deadline))
	}
	return strings.Join(parts, ", ")
}

// unlessJob leaves out what a job does not have.
func unlessJob(j *jobJSON, text string) string {
	if j != nil {
		return ""
	}
	return text
}
