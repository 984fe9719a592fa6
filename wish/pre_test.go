// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

// migrating is a service that runs something before its first wave.
func migrating(image string, fn ...func(*shoal.Spec)) shoal.Spec {
	s := spec("web", 2)
	s.Image = image
	s.PreDeploy = &shoal.PreDeploy{Command: []string{"migrate"}, Attempts: 1}
	for _, f := range fn {
		f(&s)
	}
	return s
}

func (p *place) service(t *testing.T, name string) *shoal.Service {
	t.Helper()
	s, ok := p.store.Desired().Service(name)
	if !ok {
		t.Fatalf("no service %s", name)
	}
	return s
}

// TestPreDeploy: what is run before belongs to a revision with another container or other
// words, and comes and goes with its service.
func TestPreDeploy(t *testing.T) {
	p := cluster(t, 1)[0]
	due := func(what string, want uint64) {
		t.Helper()
		s, job := p.service(t, "web"), p.service(t, "web-pre-deploy")
		if got := s.Spec.PreDeploy.For; got.Seq != want || job.Revision != s.Revision || !job.IsPre || job.Stopped != (want == 0) {
			t.Errorf("%s: runs for %v of %v, job at %v stopped %v, want for %d", what, got, s.Revision, job.Revision, job.Stopped, want)
		}
		if want != 0 && !job.Runs(s.Spec.PreDeploy.For) {
			t.Errorf("%s: what ran for %v does not count", what, s.Spec.PreDeploy.For)
		}
	}
	said := migrating("app:1")
	said.PreDeploy.For = shoal.RevisionID{Seq: 7, Author: "x"} // that is not for users to say
	p.must(t, deploy(said))
	due("created", 1)
	if got := p.must(t, deploy(migrating("app:1"))); got.Kind != shoal.ChangeNone {
		t.Errorf("the same again: %+v", got)
	}
	p.must(t, deploy(migrating("app:1", func(s *shoal.Spec) { s.Labels = map[string]string{"a": "b"} })))
	due("labels", 1)
	p.must(t, shoal.Wish{Operate: &shoal.OperateWish{Services: []string{"web"}, Op: shoal.OpRestart}})
	due("restart", 1)
	p.must(t, shoal.Wish{Scale: &shoal.ScaleWish{Targets: []shoal.ScaleTarget{{Service: "web", N: 3}}}})
	due("scale", 1)
	got := p.must(t, deploy(migrating("app:2")))
	due("another container", 4)
	if slices.Contains(got.Details, "pre deploy changed") {
		t.Errorf("details %q: nobody changed it", got.Details)
	}
	p.must(t, deploy(migrating("app:2", func(s *shoal.Spec) { s.PreDeploy.Attempts = 3 })))
	due("attempts", 4)
	got = p.must(t, deploy(migrating("app:2", func(s *shoal.Spec) { s.PreDeploy.Command = []string{"migrate", "--safe"} })))
	due("another command", 6)
	if !slices.Contains(got.Details, "pre deploy changed") {
		t.Errorf("details %q, want that it changed", got.Details)
	}
	got = p.must(t, shoal.Wish{Operate: &shoal.OperateWish{Services: []string{"web-pre-deploy"}, Op: shoal.OpRestart}})
	due("restart of itself", 7)
	if got.Service != "web" || !slices.Contains(got.Details, "run pre_deploy again") {
		t.Errorf("restart of itself: %+v", got)
	}
	p.must(t, shoal.Wish{Rollout: &shoal.RolloutWish{Service: "web", Change: shoal.RolloutBack, To: "4"}})
	due("rollback", 0)
	p.must(t, deploy(migrating("app:2", func(s *shoal.Spec) { s.Labels = map[string]string{"c": "d"} })))
	due("labels of what went back", 0)
	p.must(t, deploy(migrating("app:3")))
	due("a container after that", 10)
	p.must(t, deploy(migrating("app:3", func(s *shoal.Spec) { s.PreDeploy = nil })))
	if _, ok := p.store.Desired().Service("web-pre-deploy"); ok || !p.store.Desired().IsGone("web-pre-deploy") {
		t.Errorf("without pre_deploy: there %v, gone %v", ok, p.store.Desired().IsGone("web-pre-deploy"))
	}
	p.must(t, deploy(migrating("app:3")))
	due("with it again", 12)
	p.must(t, shoal.Wish{Remove: &shoal.RemoveWish{Services: []string{"web"}}})
	if d := p.store.Desired(); len(d.Services) != 0 || !d.IsGone("web-pre-deploy") || d.IsGone("other-pre-deploy") {
		t.Errorf("removed: %d services, gone %v", len(d.Services), d.IsGone("web-pre-deploy"))
	}
}

// TestPreDeploySpec: the job runs where and beside what the service does, not in its name.
func TestPreDeploySpec(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(migrating("app:1", func(s *shoal.Spec) {
		s.Env = map[string]string{"A": "1", "B": "2"}
		s.Ports = []shoal.Port{{Container: 80, Published: 80, Protocol: "tcp"}}
		s.Networks = []shoal.Attachment{{Network: "back", Aliases: []string{"www"}}}
		s.Entrypoint = []string{"/app"}
		s.PreDeploy.Env = map[string]string{"B": "3"}
	})))
	job := p.service(t, "web-pre-deploy").Spec
	if err := job.Validate(); err == nil || !strings.Contains(err.Error(), "name ") {
		t.Errorf("Validate: %v, want that its name is no user's", err)
	}
	job.Name = "job"
	if err := job.Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
	if job.Env["A"] != "1" || job.Env["B"] != "3" || len(job.Ports) != 0 || len(job.Networks) != 1 || len(job.Networks[0].Aliases) != 0 ||
		job.Image != "app:1" || !slices.Equal(job.Entrypoint, []string{"/app"}) || !slices.Equal(job.Command, []string{"migrate"}) || job.Replicas != 1 {
		t.Errorf("job %+v", job)
	}
	p.must(t, deploy(migrating("app:1", func(s *shoal.Spec) {
		s.Entrypoint, s.Command = []string{"/app"}, []string{"serve"}
		s.PreDeploy = &shoal.PreDeploy{Image: "tool:1", Attempts: 2}
	})))
	if job := p.service(t, "web-pre-deploy").Spec; job.Image != "tool:1" || job.Entrypoint != nil || job.Command != nil || job.Job.Attempts != 2 {
		t.Errorf("job of another image %+v", job)
	}
}

func TestPreDeployRefusals(t *testing.T) {
	p := cluster(t, 1)[0]
	p.must(t, deploy(migrating("app:1")))
	for name, c := range map[string]struct {
		wish shoal.Wish
		kind error
		want string
	}{
		"its name":    {deploy(spec("x-pre-deploy", 1)), nil, `name "x-pre-deploy" ends in -pre-deploy`},
		"remove":      {shoal.Wish{Remove: &shoal.RemoveWish{Services: []string{"web-pre-deploy"}}}, shoal.ErrRefused, `service "web-pre-deploy" is what web runs before its first wave (x-shoal.pre_deploy): refused; change web;`},
		"stop":        {shoal.Wish{Operate: &shoal.OperateWish{Services: []string{"web-pre-deploy"}, Op: shoal.OpStop}}, shoal.ErrRefused, "is what web runs"},
		"scale":       {shoal.Wish{Scale: &shoal.ScaleWish{Targets: []shoal.ScaleTarget{{Service: "web-pre-deploy", N: 2}}}}, shoal.ErrRefused, "is what web runs"},
		"rollback":    {shoal.Wish{Rollout: &shoal.RolloutWish{Service: "web-pre-deploy", Change: shoal.RolloutBack}}, shoal.ErrRefused, "is what web runs"},
		"waiting":     {deploy(after("y", "web-pre-deploy", shoal.ConditionCompleted)), shoal.ErrRefused, "there is no such service"},
		"nothing":     {deploy(migrating("app:1", func(s *shoal.Spec) { s.PreDeploy.Command = nil })), nil, "pre_deploy names nothing to run"},
		"attempts":    {deploy(migrating("app:1", func(s *shoal.Spec) { s.PreDeploy.Attempts = 0 })), nil, "pre_deploy.attempts must be 1-1000, got 0"},
		"image":       {deploy(migrating("app:1", func(s *shoal.Spec) { s.PreDeploy.Image = "A B" })), nil, "pre_deploy.image "},
		"environment": {deploy(migrating("app:1", func(s *shoal.Spec) { s.PreDeploy.Env = map[string]string{"1": ""} })), nil, "pre_deploy.environment has the name"},
		"of a job": {deploy(migrating("app:1", func(s *shoal.Spec) {
			s.Mode, s.Job, s.Restart = shoal.ModeReplicatedJob, &shoal.Job{Attempts: 1}, shoal.Restart{Condition: shoal.RestartOnFailure}
		})), nil, "pre_deploy is for services that stay"},
		"a long name": {deploy(migrating("app:1", func(s *shoal.Spec) { s.Name = strings.Repeat("n", 53) })), nil, "pre_deploy needs a service name of at most 52 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			before := p.store.Desired().Digest
			_, err := p.Submit(context.Background(), c.wish, shoal.UpdateOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("Submit: %v, want %q (%v)", err, c.want, c.kind)
			}
			if p.store.Desired().Digest != before {
				t.Error("a refused wish changed the state")
			}
		})
	}
	prune := deploy(migrating("app:1"))
	prune.Deploy.Prune = p.service(t, "web").Spec.Project
	if out, err := p.Submit(t.Context(), prune, shoal.UpdateOptions{}); err != nil || len(out.Changes) != 1 {
		t.Errorf("prune: %+v, %v; want that it takes nothing", out.Changes, err)
	}
}

// TestPreDeployResolves: the image of what runs before is looked up as the service's is, and
// another digest of it is another thing to be run. What was read and sent back stays.
func TestPreDeployResolves(t *testing.T) {
	p := cluster(t, 1)[0]
	p.push(t, "tool:1", digest("a"), "linux/amd64")
	tooled := func() shoal.Spec {
		return migrating("app:1", func(s *shoal.Spec) { s.PreDeploy.Image = "tool:1" })
	}
	p.must(t, deploy(tooled()))
	s := p.service(t, "web")
	if job := p.service(t, "web-pre-deploy").Spec; job.Digest != digest("a") || !slices.Equal(job.Platforms, []string{"linux/amd64"}) {
		t.Errorf("job of %s for %v", job.Digest, job.Platforms)
	}
	read := s.Spec
	p.push(t, "tool:1", digest("b"), "linux/amd64")
	read.Labels = map[string]string{"a": "b"}
	p.must(t, deploy(read))
	if pre := p.service(t, "web").Spec.PreDeploy; pre.Digest != digest("a") || pre.For.Seq != 1 {
		t.Errorf("what was read and sent back: %+v", pre)
	}
	p.must(t, deploy(tooled()))
	if pre := p.service(t, "web").Spec.PreDeploy; pre.Digest != digest("b") || pre.For.Seq != 3 {
		t.Errorf("the file again: %+v", pre)
	}
}
