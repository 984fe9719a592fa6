// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"testing"

	"github.com/shoalnet/shoal"
)

// migrating is a service of a few revisions that runs something before its first wave.
func migrating() shoal.Service {
	spec := shoal.Spec{
		Name: "web", Image: "web:2", Mode: shoal.ModeReplicated, Replicas: 1, Restart: shoal.Restart{Condition: shoal.RestartAny},
		PreDeploy: &shoal.PreDeploy{Command: []string{"migrate"}, Attempts: 1, For: shoal.RevisionID{Seq: 2, Author: "A"}},
	}
	older := spec
	older.Image, older.PreDeploy = "web:1", &shoal.PreDeploy{Command: []string{"migrate"}, Attempts: 1, For: shoal.RevisionID{Seq: 1, Author: "A"}}
	return shoal.Service{
		Spec: spec, Revision: shoal.RevisionID{Seq: 3, Author: "A"}, Replicas: 1,
		Past: []shoal.PastRevision{{Revision: shoal.RevisionID{Seq: 1, Author: "A"}, Spec: older}},
	}
}

// TestWaitsForPre: a revision begins once what runs before it ended well, for itself or for
// an earlier revision that it runs for, too.
func TestWaitsForPre(t *testing.T) {
	one, two, three := shoal.RevisionID{Seq: 1, Author: "A"}, shoal.RevisionID{Seq: 2, Author: "A"}, shoal.RevisionID{Seq: 3, Author: "A"}
	const pre = "web-pre-deploy"
	claim := func(service string, rev shoal.RevisionID, o *shoal.JobOutcome) shoal.Claim {
		return shoal.Claim{Holder: "A", Service: service, Revision: rev, Replica: shoal.ReplicaID{byte(len(service))}, Outcome: o}
	}
	failed := &shoal.JobOutcome{Attempts: 1, Failed: true, Code: 1, Why: "exited with code 1"}
	for name, c := range map[string]struct {
		claims []shoal.Claim
		change func(*shoal.Service)
		phase  shoal.Phase
		want   string
	}{
		"nothing yet":          {want: "pre_deploy is not over: web-pre-deploy has not begun"},
		"it runs":              {claims: []shoal.Claim{claim(pre, three, nil)}, phase: shoal.PhaseRunning, want: "pre_deploy is not over: it runs"},
		"it is tried again":    {claims: []shoal.Claim{claim(pre, three, trying)}, want: "pre_deploy is not over: exited with code 4 (1 attempt) so far, and is tried again"},
		"it failed":            {claims: []shoal.Claim{claim(pre, three, failed)}, want: `pre_deploy failed: exited with code 1 (1 attempt); see "shoal logs web-pre-deploy"`},
		"it is done":           {claims: []shoal.Claim{claim(pre, three, done)}},
		"for this one, before": {claims: []shoal.Claim{claim(pre, two, done)}},
		"for another one":      {claims: []shoal.Claim{claim(pre, one, done)}, want: "pre_deploy is not over: web-pre-deploy has not begun"},
		"it has begun":         {claims: []shoal.Claim{claim("web", three, nil), claim(pre, three, failed)}},
		"it goes back":         {change: func(s *shoal.Service) { s.Undoes = two }},
		"it went back before":  {change: func(s *shoal.Service) { s.Spec.PreDeploy.For = shoal.RevisionID{} }},
		"stopped":              {change: func(s *shoal.Service) { s.Stopped = true }},
		"after others": {
			claims: []shoal.Claim{claim(pre, three, failed)},
			change: func(s *shoal.Service) {
				s.Spec.DependsOn = []shoal.Dependency{{Service: "db", Condition: shoal.ConditionStarted}}
			},
			want: "db is not there",
		},
	} {
		s := migrating()
		if c.change != nil {
			c.change(&s)
		}
		d := &shoal.Desired{Services: shoal.AddPre([]shoal.Service{s}), Claims: c.claims, Peers: []shoal.Peer{{ID: "A"}}}
		states := map[shoal.PeerID]*shoal.PeerState{"A": {}}
		for _, x := range c.claims {
			states["A"].Replicas = append(states["A"].Replicas, shoal.ReplicaStatus{ID: x.Replica, Service: x.Service, Phase: c.phase})
		}
		v := shoal.NewView("A", d, nil, states)
		web, _ := v.Service("web")
		if got := v.Waits(web); got != c.want {
			t.Errorf("%s: Waits = %q, want %q", name, got, c.want)
		}
	}
}

// TestAddPre: who has the name of such a job already keeps it, and the job cannot run.
func TestAddPre(t *testing.T) {
	web := migrating()
	own := shoal.Service{Spec: shoal.Spec{Name: "web-pre-deploy", Image: "own"}}
	d := &shoal.Desired{Services: shoal.AddPre([]shoal.Service{web, own})}
	if s, _ := d.Service("web-pre-deploy"); len(d.Services) != 2 || s.IsPre || s.Spec.Image != "own" {
		t.Errorf("AddPre: %d services, %+v", len(d.Services), s)
	}
	v := shoal.NewView("A", d, nil, nil)
	s, _ := v.Service("web")
	if got := v.Waits(s); got != "pre_deploy cannot run: another service is called web-pre-deploy" {
		t.Errorf("Waits = %q", got)
	}
	d = &shoal.Desired{Services: shoal.AddPre([]shoal.Service{{Spec: shoal.Spec{Name: "a"}}, web, {Spec: shoal.Spec{Name: "z"}}})}
	for _, name := range []string{"a", "web", "web-pre-deploy", "z"} {
		if s, ok := d.Service(name); !ok || s.IsPre != (name == "web-pre-deploy") || d.IsGone(name) {
			t.Errorf("%s: there %v", name, ok)
		}
	}
}

// TestSpecFor: of a revision's record both its own spec and that of what runs before it are
// to be had, and nothing else.
func TestSpecFor(t *testing.T) {
	spec := migrating().Spec
	if got := spec.SpecFor("web"); got != &spec {
		t.Errorf("SpecFor(web) = %+v", got)
	}
	if got := spec.SpecFor("web-pre-deploy"); got == nil || got.Name != "web-pre-deploy" || !got.Mode.IsJob() || got.Restart.Condition != shoal.RestartOnFailure {
		t.Errorf("SpecFor(web-pre-deploy) = %+v", got)
	}
	if got := spec.SpecFor("api-pre-deploy"); got != nil {
		t.Errorf("SpecFor(api-pre-deploy) = %+v", got)
	}
	spec.PreDeploy = nil
	if got := spec.SpecFor("web-pre-deploy"); got != nil {
		t.Errorf("SpecFor without pre_deploy = %+v", got)
	}
}
