// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// PreDeploy is what has to end well, once, before a revision of a service takes the place of
// the one before: a migration, say.
//
// It is run as a job with the service's name and [PreSuffix]. No record says that there is
// such a job: every peer concludes it from the service's current revision ([AddPre]). So it
// comes, changes and goes with the service, and the two sides of a split cannot come to a
// service and a job that do not belong together. All else about it is as of any job.
type PreDeploy struct {
	Image string // "": the service's, with its entrypoint
	// Digest and Platforms are about Image as those of a spec are about its own.
	Digest    string
	Platforms []string
	Command   []string          // nil: the image's
	Env       map[string]string // beside the service's, and counts more
	Attempts  int               // how often it is tried, at least 1
	Deadline  time.Duration     // for all attempts on one peer; 0: without end
	// For is the revision that it runs for: the one that brought the container, or what is
	// run, which later ones have, too. Zero: the current revision goes back to an earlier one,
	// and nothing is run. No user says it.
	For RevisionID
}

// PreSuffix ends the name of what runs before a service's first wave. No user can give a
// service such a name.
const PreSuffix = "-pre-deploy"

// DefaultPreDeploy is what a user gets who says nothing but what is to be run.
func DefaultPreDeploy() PreDeploy { return PreDeploy{Attempts: 1, Deadline: 10 * time.Minute} }

// PreName returns the name of the job that runs before a service's first wave.
func PreName(service string) string { return service + PreSuffix }

// PreFailed is how it begins what [View.Waits] says of a revision that will not begin, for
// what was run before it failed.
const PreFailed = "pre_deploy failed: "

// PreOf returns the service that a job of this name belongs to; "" if the name is not such
// a job's.
func PreOf(name string) string {
	if of, is := strings.CutSuffix(name, PreSuffix); is {
		return of
	}
	return ""
}

// SamePre reports whether two revisions ask for the same to be run before them, in front of
// the same container: one that runs already, or would. A restart makes no other one.
func (s *Spec) SamePre(o *Spec) bool {
	if s.PreDeploy == nil || o.PreDeploy == nil {
		return s.PreDeploy == o.PreDeploy
	}
	a, b := s.container(), o.container()
	a.Restarts, b.Restarts = 0, 0
	x, y := s.preContainer(), o.preContainer()
	return same(&a, &b) && same(&x, &y)
}

// preContainer is the container of what is run before, in one form.
func (s *Spec) preContainer() Spec {
	pre := s.Pre()
	return pre.container()
}

// SameAs reports whether both ask for the same, whichever revision they are for.
func (p *PreDeploy) SameAs(o *PreDeploy) bool {
	if p == nil || o == nil {
		return p == o
	}
	a, b := *p, *o
	a.For, b.For = RevisionID{}, RevisionID{}
	for _, x := range []*PreDeploy{&a, &b} { // nil and empty are one, as they are on the wire
		if len(x.Env) == 0 {
			x.Env = nil
		}
		if len(x.Platforms) == 0 {
			x.Platforms = nil
		}
	}
	return reflect.DeepEqual(a, b)
}

// Pre returns the spec of the job that is run before the service's first wave: where and
// beside what the service runs, but not in its name. The service must have a PreDeploy.
func (s *Spec) Pre() Spec {
	p := s.PreDeploy
	out := Spec{
		Name: PreName(s.Name), Project: s.Project,
		Image: s.Image, Digest: s.Digest, Platforms: s.Platforms, Entrypoint: s.Entrypoint, Command: s.Command,
		Labels: s.Labels, Limits: s.Limits, Reservations: s.Reservations, PidsLimit: s.PidsLimit, Setup: s.Setup,
		Mode: ModeReplicatedJob, Replicas: 1, Constraints: s.Constraints, Strategy: s.Strategy, Priority: s.Priority,
		OnPartition: s.OnPartition, SpreadBy: s.SpreadBy, VolumesAnywhere: s.VolumesAnywhere,
		Health: &Health{Disable: true}, Restart: Restart{Condition: RestartOnFailure},
		StopSignal: s.StopSignal, StopGrace: s.StopGrace,
		Job: &Job{Attempts: p.Attempts, Deadline: p.Deadline}, DependsOn: s.DependsOn,
	}
	if p.Image != "" {
		out.Image, out.Digest, out.Platforms, out.Entrypoint, out.Command = p.Image, p.Digest, p.Platforms, nil, nil
	}
	if p.Command != nil {
		out.Command = p.Command
	}
	out.Env = maps.Clone(s.Env)
	if out.Env == nil {
		out.Env = map[string]string{}
	}
	maps.Copy(out.Env, p.Env)
	for _, a := range s.Attachments() { // other names are the service's own
		out.Networks = append(out.Networks, Attachment{Network: a.Network})
	}
	return out
}

// SpecFor returns the spec that the revision of s has for what is called so: itself, or
// that of the job before its first wave. nil if it has none.
func (s *Spec) SpecFor(service string) *Spec {
	switch {
	case service == s.Name:
		return s
	case service == PreName(s.Name) && s.PreDeploy != nil:
		pre := s.Pre()
		return &pre
	}
	return nil
}

// pre returns the job that is run before the service's first wave. It is at the service's
// own revision, so that it grows with it; what ran for an earlier revision counts where the
// current one is still for the same.
func (s *Service) pre() Service {
	out := Service{
		Spec: s.Spec.Pre(), Revision: s.Revision, Record: s.Record, Accepted: s.Accepted, Replicas: 1,
		Wish: s.Wish, Fresh: s.Fresh, Heads: s.Heads,
		Stopped: s.Stopped || s.Spec.PreDeploy.For.IsZero(), OpSeq: s.OpSeq, IsPre: true,
	}
	if len(s.Proposed) > 0 {
		out.Proposed = s.Proposed[:1:1]
	}
	of := s.Spec.PreDeploy.For
	if of.IsZero() {
		return out
	}
	for i := range s.Past {
		if p := &s.Past[i]; p.Spec.PreDeploy != nil && p.Spec.PreDeploy.For == of && p.Revision != of {
			out.Past = append(out.Past, PastRevision{Revision: p.Revision, Spec: out.Spec, Accepted: p.Accepted})
		}
	}
	if of != s.Revision { // however long ago that was
		out.Past = append(out.Past, PastRevision{Revision: of, Spec: out.Spec})
	}
	return out
}

// AddPre adds to services, which are sorted by name and have none yet, the jobs that run
// before their first waves. A service that has that name by itself, from before there was
// pre_deploy, keeps it.
func AddPre(services []Service) []Service {
	var jobs []Service
	for i := range services {
		s := &services[i]
		if s.Spec.PreDeploy == nil || s.Spec.Mode.IsJob() {
			continue
		}
		if _, taken := find(services, PreName(s.Spec.Name), func(s *Service) string { return s.Spec.Name }); !taken {
			jobs = append(jobs, s.pre())
		}
	}
	if jobs == nil {
		return services
	}
	services = append(slices.Clip(services), jobs...)
	slices.SortFunc(services, func(a, b Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	return services
}

// IsGone reports whether the records say that there is no such service any more: it was
// removed; or it ran before the first wave of another one that was, or runs nothing now. Of
// a service that is merely not known it is false.
func (d *Desired) IsGone(service string) bool {
	was := func(name string) bool {
		return slices.ContainsFunc(d.Gone, func(g GoneBody) bool { return g.Service == name })
	}
	if _, is := d.Service(service); is {
		return false
	}
	if was(service) {
		return true
	}
	of := PreOf(service)
	_, is := d.Service(of)
	return of != "" && (is || was(of))
}

// unready says why what is to run before the first wave of a service has not ended well;
// "" if it has, or there is no such thing.
func (v *View) unready(s *Service) string {
	if s.Spec.PreDeploy == nil || s.Spec.PreDeploy.For.IsZero() {
		return ""
	}
	name := PreName(s.Spec.Name)
	job, ok := v.Service(name)
	if !ok || !job.IsPre {
		return fmt.Sprintf("pre_deploy cannot run: another service is called %s", name)
	}
	st, _ := v.Job(name)
	switch {
	case st.IsComplete():
		return ""
	case st.IsFailed():
		return fmt.Sprintf(PreFailed+"%s; see \"shoal logs %s\"", cmp.Or(st.Failure(), "it was given up"), name)
	case st.Failure() != "":
		return fmt.Sprintf("pre_deploy is not over: %s so far, and is tried again", st.Failure())
	case st.Running > 0:
		return "pre_deploy is not over: it runs"
	}
	return fmt.Sprintf("pre_deploy is not over: %s has not begun", name)
}

// checkPre checks what is to be run before the first wave.
func (s *Spec) checkPre() error {
	p := s.PreDeploy
	switch {
	case PreOf(s.Name) != "":
		return invalid("name", "%q ends in %s, which is how what runs before a service's first wave is called", s.Name, PreSuffix)
	case p == nil:
		return nil
	case s.Mode.IsJob():
		return invalid("pre_deploy", "is for services that stay; let a job wait for another one (depends_on)")
	case CheckName("name", PreName(s.Name)) != nil:
		return invalid("pre_deploy", "needs a service name of at most %d characters, for it is called NAME%s", 63-len(PreSuffix), PreSuffix)
	case p.Command != nil && len(p.Command) == 0:
		return invalid("pre_deploy.command", "is empty, and the image's cannot be taken away; name one, or leave the key out")
	case p.Image == "" && len(p.Command) == 0:
		return invalid("pre_deploy", "names nothing to run: say command, image or both")
	case p.Attempts < 1 || p.Attempts > maxAttempts:
		return invalid("pre_deploy.attempts", "must be 1-%d, got %d", maxAttempts, p.Attempts)
	case p.Deadline < 0 || p.Deadline > maxDeadline:
		return invalid("pre_deploy.deadline", "must be 0-%s, got %s", maxDeadline, p.Deadline)
	}
	if p.Image != "" {
		image := Spec{Image: p.Image, Digest: p.Digest, Platforms: p.Platforms}
		if err := image.checkImage(); err != nil {
			return within("pre_deploy", err)
		}
	}
	env := Spec{Env: p.Env}
	return within("pre_deploy", env.checkEnv())
}

// within puts what is wrong with a part of a spec below the name of the part.
func within(part string, err error) error {
	if e, ok := errors.AsType[*InvalidError](err); ok {
		return &InvalidError{Field: part + "." + e.Field, Why: e.Why}
	}
	return err
}
