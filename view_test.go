// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"testing"

	"github.com/shoalnet/shoal"
)

func TestViewDone(t *testing.T) {
	first, second := shoal.RevisionID{Seq: 1, Author: "a"}, shoal.RevisionID{Seq: 2, Author: "a"}
	for name, tt := range map[string]struct {
		restart shoal.RestartCondition
		is      shoal.ReplicaStatus
		claimed shoal.RevisionID
		want    bool
	}{
		"ended":           {shoal.RestartNone, shoal.ReplicaStatus{Phase: shoal.PhaseStopped, Revision: second}, second, true},
		"ended well":      {shoal.RestartOnFailure, shoal.ReplicaStatus{Phase: shoal.PhaseStopped, Revision: second}, second, true},
		"starts again":    {shoal.RestartAny, shoal.ReplicaStatus{Phase: shoal.PhaseStopped, Revision: second}, second, false},
		"ended badly":     {shoal.RestartNone, shoal.ReplicaStatus{Phase: shoal.PhaseStopped, ExitCode: 1, Revision: second}, second, false},
		"failed":          {shoal.RestartNone, shoal.ReplicaStatus{Phase: shoal.PhaseFailed, Revision: second}, second, false},
		"runs":            {shoal.RestartNone, shoal.ReplicaStatus{Phase: shoal.PhaseReady, Revision: second}, second, false},
		"an older one":    {shoal.RestartNone, shoal.ReplicaStatus{Phase: shoal.PhaseStopped, Revision: first}, first, false},
		"not changed yet": {shoal.RestartNone, shoal.ReplicaStatus{Phase: shoal.PhaseStopped, Revision: first}, second, false},
	} {
		c := shoal.Claim{Holder: "a", Service: "job", Replica: shoal.ReplicaID{1}, Revision: tt.claimed}
		tt.is.ID = c.Replica
		d := &shoal.Desired{Claims: []shoal.Claim{c}, Services: []shoal.Service{{
			Spec: shoal.Spec{Name: "job", Restart: shoal.Restart{Condition: tt.restart}}, Revision: second,
		}}}
		v := shoal.NewView("a", d, nil, map[shoal.PeerID]*shoal.PeerState{"a": {Replicas: []shoal.ReplicaStatus{tt.is}}})
		if got := v.Done(c); got != tt.want {
			t.Errorf("%s: Done = %v, want %v", name, got, tt.want)
		}
		c.Replica = shoal.ReplicaID{2}
		if v.Done(c) {
			t.Errorf("%s: a replica that nobody tells of is done", name)
		}
		if c.Service = "nosuch"; v.Done(c) {
			t.Errorf("%s: a claim of no service is done", name)
		}
	}
}
