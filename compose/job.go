// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"strconv"

	"github.com/shoalnet/shoal"
)

// job reads x-shoal.job over what is usual, and what a restart policy means where replicas
// run to their end: how often they are tried again.
func (c *converter) job() {
	const field = "x-shoal.job"
	j := shoal.DefaultJob()
	m, said := c.mapping(field, c.extensions()["job"])
	if !c.out.Mode.IsJob() {
		if said {
			c.bad(field, "is for deploy.mode replicated-job and global-job")
		}
		return
	}
	again := c.tries()
	if again >= 0 {
		j.Attempts = 1 + again
	}
	for _, n := range []struct {
		name string
		to   *int
	}{{"attempts", &j.Attempts}, {"parallelism", &j.Parallelism}} {
		c.judged(field+"."+n.name, m[n.name], isNumber, func(text string) { *n.to, _ = strconv.Atoi(text) })
	}
	c.span(field+".deadline", m["deadline"], &j.Deadline)
	if _, both := m["attempts"]; both && again >= 0 && j.Attempts != 1+again {
		c.bad(field+".attempts", "is %d, and the restart policy allows %d; keep one of them", j.Attempts, 1+again)
	}
	c.waveless()
	c.out.Rollout, c.out.Rollback = shoal.Rollout{}, nil
	c.out.Job = &j
}

// tries reads how often the restart policy tries a run again, -1 if it does not say, and
// leaves of it what a job has.
func (c *converter) tries() int {
	r := &c.out.Restart
	again, said := -1, c.service.Restart
	field := "restart"
	if d := c.service.Deploy; d != nil && d.RestartPolicy != nil && d.RestartPolicy.Condition != "" {
		field, said = "deploy.restart_policy.condition", d.RestartPolicy.Condition
	}
	switch {
	case r.Condition == shoal.RestartNone:
		again = 0
	case r.Condition == shoal.RestartAny && said != "":
		c.bad(field, "cannot be %s in mode %s: what has ended well is not run again", said, c.out.Mode)
	case r.MaxAttempts > 0:
		again = r.MaxAttempts
	}
	if r.Window != 0 {
		c.bad("deploy.restart_policy.window", "is for services that stay: every attempt of a job counts")
	}
	*r = shoal.Restart{Condition: shoal.RestartOnFailure, Delay: r.Delay}
	return again
}

// waveless refuses what is only said of services that stay.
func (c *converter) waveless() {
	const why = "is for services that stay: all slots of a job run its new revision"
	if d := c.service.Deploy; d != nil {
		if d.UpdateConfig != nil {
			c.bad("deploy.update_config", why)
		}
		if d.RollbackConfig != nil {
			c.bad("deploy.rollback_config", why)
		}
	}
	for _, key := range []string{"rollout", "canary"} {
		if _, said := c.extensions()[key]; said {
			c.bad("x-shoal."+key, why)
		}
	}
}

// jobOf renders how a job runs; nil if it is none. What is usual is not said.
func jobOf(j *shoal.Job) map[string]any {
	if j == nil {
		return nil
	}
	m := map[string]any{}
	if j.Attempts != shoal.DefaultJob().Attempts {
		m["attempts"] = j.Attempts
	}
	put(m, "parallelism", j.Parallelism)
	put(m, "deadline", period(j.Deadline))
	return m
}
