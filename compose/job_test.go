// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func TestJobs(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		mode shoal.Mode
		n    int
		want shoal.Job
	}{
		"usual":      {"deploy: {mode: replicated-job}", shoal.ModeReplicatedJob, 1, shoal.DefaultJob()},
		"everywhere": {"deploy: {mode: global-job}", shoal.ModeGlobalJob, 1, shoal.DefaultJob()},
		"everything": {
			"{deploy: {mode: replicated-job, replicas: 5}, x-shoal: {job: {attempts: 2, parallelism: 3, deadline: 1h}}}",
			shoal.ModeReplicatedJob, 5,
			shoal.Job{Attempts: 2, Parallelism: 3, Deadline: time.Hour},
		},
		"restarts":   {"{deploy: {mode: replicated-job, restart_policy: {max_attempts: 3, condition: on-failure, delay: 5s}}}", shoal.ModeReplicatedJob, 1, shoal.Job{Attempts: 4}},
		"once":       {"{restart: 'no', deploy: {mode: replicated-job}}", shoal.ModeReplicatedJob, 1, shoal.Job{Attempts: 1}},
		"short form": {"{restart: 'on-failure:2', deploy: {mode: global-job}}", shoal.ModeGlobalJob, 1, shoal.Job{Attempts: 3}},
		"both say":   {"{restart: 'on-failure:2', deploy: {mode: global-job}, x-shoal: {job: {attempts: 3}}}", shoal.ModeGlobalJob, 1, shoal.Job{Attempts: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := fromText(t, jobFile(c.text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			s := p.Specs[0]
			if diff := cmp.Diff(&c.want, s.Job); diff != "" || s.Mode != c.mode || s.Replicas != c.n || s.Restart.Condition != shoal.RestartOnFailure {
				t.Errorf("mode %s, %d, %+v, job (-want +got):\n%s", s.Mode, s.Replicas, s.Restart, diff)
			}
			again(t, p.Specs)
		})
	}
}

func jobFile(text string) string {
	if !strings.HasPrefix(text, "{") {
		text = "{" + text + "}"
	}
	return "services:\n  load: {image: hello, " + text[1:] + "\n"
}

func TestBadJobs(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"always":         {"restart: always, deploy: {mode: replicated-job}", "services.load.restart: cannot be always in mode replicated-job: what has ended well is not run again"},
		"any":            {"deploy: {mode: global-job, restart_policy: {condition: any}}", "services.load.deploy.restart_policy.condition: cannot be any in mode global-job"},
		"window":         {"deploy: {mode: replicated-job, restart_policy: {window: 5s}}", "services.load.deploy.restart_policy.window: is for services that stay"},
		"none":           {"deploy: {mode: replicated-job}, x-shoal: {job: {attempts: 0}}", "services.load.x-shoal.job.attempts: must be 1-1000, got 0"},
		"no number":      {"deploy: {mode: replicated-job}, x-shoal: {job: {attempts: often}}", "services.load.x-shoal.job.attempts: must be a whole number, got often"},
		"two words":      {"restart: 'on-failure:5', deploy: {mode: replicated-job}, x-shoal: {job: {attempts: 2}}", "services.load.x-shoal.job.attempts: is 2, and the restart policy allows 6; keep one of them"},
		"no time":        {"deploy: {mode: replicated-job}, x-shoal: {job: {deadline: soon}}", "services.load.x-shoal.job.deadline: "},
		"at once":        {"deploy: {mode: global-job}, x-shoal: {job: {parallelism: 2}}", "services.load.x-shoal.job.parallelism: is for mode replicated-job"},
		"stays":          {"x-shoal: {job: {attempts: 2}}", "services.load.x-shoal.job: is for deploy.mode replicated-job and global-job"},
		"waves":          {"deploy: {mode: replicated-job, update_config: {parallelism: 2}}", "services.load.deploy.update_config: is for services that stay"},
		"going back":     {"deploy: {mode: replicated-job, rollback_config: {parallelism: 2}}", "services.load.deploy.rollback_config: is for services that stay"},
		"canary":         {"deploy: {mode: replicated-job}, x-shoal: {canary: 1}", "services.load.x-shoal.canary: is for services that stay"},
		"by load":        {"cpus: 1, deploy: {mode: replicated-job}, x-shoal: {autoscale: {max: 3, cpu: 50%}}", "services.load.x-shoal.autoscale: is for replicated services; mode replicated-job"},
		"unknown":        {"deploy: {mode: replicated-job}, x-shoal: {job: {backoff: 3}}", "services.load.x-shoal.job.backoff: "},
		"no mapping":     {"deploy: {mode: replicated-job}, x-shoal: {job: 3}", "services.load.x-shoal.job: must be a mapping"},
		"unknown of its": {"deploy: {mode: cron-job}", "services.load.deploy.mode: must be replicated or global or replicated-job or global-job"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := fromText(t, jobFile(c.text), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load = %v, want %q in it", err, c.want)
			}
		})
	}
}
