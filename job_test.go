// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"testing"

	"github.com/shoalnet/shoal"
)

var (
	done   = &shoal.JobOutcome{Attempts: 2, Completed: true}
	broken = &shoal.JobOutcome{Attempts: 7, Failed: true, Code: 3, Why: "exited with code 3"}
	trying = &shoal.JobOutcome{Attempts: 1, Code: 4, Why: "exited with code 4"}
)

// TestJob: what is over counts for good, whoever holds it; completed before failed before
// what still runs.
func TestJob(t *testing.T) {
	one, two := shoal.RevisionID{Seq: 1, Author: "A"}, shoal.RevisionID{Seq: 2, Author: "A"}
	spec := shoal.Spec{Name: "load", Image: "load:1", Mode: shoal.ModeReplicatedJob, Replicas: 2}
	other := spec
	other.Image = "load:0"
	claim := func(holder shoal.PeerID, slot int, rev shoal.RevisionID, o *shoal.JobOutcome) shoal.Claim {
		return shoal.Claim{Holder: holder, Service: "load", Slot: slot, Revision: rev, Replica: shoal.ReplicaID{byte(slot), holder[0]}, Outcome: o}
	}
	for name, c := range map[string]struct {
		claims []shoal.Claim
		past   shoal.Spec
		mode   shoal.Mode
		want   shoal.JobStatus
	}{
		"nothing yet":       {want: shoal.JobStatus{Wanted: 2}},
		"one completed":     {claims: []shoal.Claim{claim("A", 0, two, done)}, want: shoal.JobStatus{Wanted: 2, Completed: 1}},
		"by a dead peer":    {claims: []shoal.Claim{claim("D", 0, two, done), claim("D", 1, two, done)}, want: shoal.JobStatus{Wanted: 2, Completed: 2}},
		"by two":            {claims: []shoal.Claim{claim("A", 0, two, trying), claim("D", 0, two, done)}, want: shoal.JobStatus{Wanted: 2, Completed: 1}},
		"beyond the number": {claims: []shoal.Claim{claim("A", 2, two, done)}, want: shoal.JobStatus{Wanted: 2}},
		"failed":            {claims: []shoal.Claim{claim("A", 0, two, trying), claim("A", 1, two, broken)}, want: shoal.JobStatus{Wanted: 2, Failed: 1, Why: broken.Why, Attempts: 7}},
		"another attempt":   {claims: []shoal.Claim{claim("A", 0, two, trying)}, want: shoal.JobStatus{Wanted: 2, Why: trying.Why, Attempts: 1}},
		"other container":   {past: other, claims: []shoal.Claim{claim("A", 0, one, done)}, want: shoal.JobStatus{Wanted: 2}},
		"same container":    {past: spec, claims: []shoal.Claim{claim("A", 0, one, done)}, want: shoal.JobStatus{Wanted: 2, Completed: 1}},
		"everywhere":        {mode: shoal.ModeGlobalJob, claims: []shoal.Claim{claim("A", 0, two, done)}, want: shoal.JobStatus{Wanted: 2, Completed: 1}},
		"a peer that went":  {mode: shoal.ModeGlobalJob, claims: []shoal.Claim{claim("D", 0, two, done), claim("D", 1, two, trying)}, want: shoal.JobStatus{Wanted: 3, Completed: 1}},
	} {
		svc := shoal.Service{Spec: spec, Revision: two, Replicas: 2, Past: []shoal.PastRevision{{Revision: one, Spec: c.past}}}
		if c.mode != "" {
			svc.Spec.Mode = c.mode
		}
		d := &shoal.Desired{Services: []shoal.Service{svc}, Claims: c.claims, Peers: []shoal.Peer{{ID: "A"}, {ID: "B"}, {ID: "C", Cordoned: true}, {ID: "D"}}}
		v := shoal.NewView("A", d, map[shoal.PeerID]shoal.Life{"B": {State: shoal.LifeAlive}, "C": {State: shoal.LifeAlive}, "D": {State: shoal.LifeDead}}, nil)
		got, ok := v.Job("load")
		if !ok || got != c.want {
			t.Errorf("%s: Job = %+v, %v, want %+v", name, got, ok, c.want)
		}
		if complete := c.want.Completed == c.want.Wanted; got.IsComplete() != complete {
			t.Errorf("%s: IsComplete = %v, want %v", name, got.IsComplete(), complete)
		}
	}
	if st, ok := shoal.NewView("A", &shoal.Desired{}, nil, nil).Job("load"); ok || st.IsComplete() || st.IsOver() {
		t.Errorf("Job of nothing = %+v, %v", st, ok)
	}
}
