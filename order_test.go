// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"slices"
	"testing"

	"github.com/shoalnet/shoal"
)

func TestDependencyCycle(t *testing.T) {
	on := func(names ...string) (out []shoal.Dependency) {
		for _, n := range names {
			out = append(out, shoal.Dependency{Service: n})
		}
		return out
	}
	for name, c := range map[string]struct {
		needs map[string][]shoal.Dependency
		want  []string
	}{
		"nothing":          {},
		"a chain":          {needs: map[string][]shoal.Dependency{"a": on("b"), "b": on("c")}},
		"two ways to one":  {needs: map[string][]shoal.Dependency{"a": on("b", "c"), "b": on("d"), "c": on("d")}},
		"itself":           {needs: map[string][]shoal.Dependency{"a": on("a")}, want: []string{"a", "a"}},
		"two":              {needs: map[string][]shoal.Dependency{"b": on("a"), "a": on("b")}, want: []string{"a", "b", "a"}},
		"behind a chain":   {needs: map[string][]shoal.Dependency{"a": on("b"), "b": on("c"), "c": on("d"), "d": on("b")}, want: []string{"b", "c", "d", "b"}},
		"the lowest first": {needs: map[string][]shoal.Dependency{"x": on("y"), "y": on("x"), "b": on("c"), "c": on("b")}, want: []string{"b", "c", "b"}},
	} {
		if got := shoal.DependencyCycle(c.needs); !slices.Equal(got, c.want) {
			t.Errorf("%s: DependencyCycle = %v, want %v", name, got, c.want)
		}
	}
}

// TestWaits: a revision begins once what it depends on has come as far as it says, at the
// current revision of that, in all slots; and what has begun waits no more.
func TestWaits(t *testing.T) {
	one, two := shoal.RevisionID{Seq: 1, Author: "A"}, shoal.RevisionID{Seq: 2, Author: "A"}
	type world struct {
		web, db shoal.Service
		claims  []shoal.Claim
		phases  map[shoal.ReplicaID]shoal.ReplicaStatus
		gone    bool // there is no db
	}
	hold := func(w *world, service string, slot int, holder shoal.PeerID, rev shoal.RevisionID, phase shoal.Phase, change ...func(*shoal.ReplicaStatus)) {
		id := shoal.ReplicaID{byte(len(w.claims) + 1)}
		w.claims = append(w.claims, shoal.Claim{Holder: holder, Service: service, Slot: slot, Revision: rev, Replica: id})
		st := shoal.ReplicaStatus{ID: id, Service: service, Slot: slot, Revision: rev, Phase: phase}
		for _, fn := range change {
			fn(&st)
		}
		w.phases[id] = st
	}
	on := func(w *world, c shoal.Condition) { w.web.Spec.DependsOn[0].Condition = c }
	for name, c := range map[string]struct {
		change func(*world)
		want   string
	}{
		"nothing runs": {func(*world) {}, "db is not healthy: 0 of 2 slots are"},
		"one is ready": {func(w *world) { hold(w, "db", 0, "A", one, shoal.PhaseReady) }, "db is not healthy: 1 of 2 slots are"},
		"all are": {func(w *world) {
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
			hold(w, "db", 1, "B", one, shoal.PhaseReady)
		}, ""},
		"one twice": {func(w *world) {
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
			hold(w, "db", 0, "B", one, shoal.PhaseReady)
		}, "db is not healthy: 1 of 2 slots are"},
		"one on a dead peer": {func(w *world) {
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
			hold(w, "db", 1, "D", one, shoal.PhaseReady)
		}, "db is not healthy: 1 of 2 slots are"},
		"of an older revision": {func(w *world) {
			w.db.Revision, w.db.Past = two, []shoal.PastRevision{{Revision: one, Spec: shoal.Spec{Image: "db:0"}}}
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
			hold(w, "db", 1, "B", two, shoal.PhaseReady)
		}, "db is not healthy: 1 of 2 slots are"},
		"of one with the same container": {func(w *world) {
			w.db.Revision, w.db.Past = two, []shoal.PastRevision{{Revision: one, Spec: w.db.Spec}}
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
			hold(w, "db", 1, "B", two, shoal.PhaseReady)
		}, ""},
		"with trouble": {func(w *world) {
			hold(w, "db", 0, "A", one, shoal.PhaseFailed, func(r *shoal.ReplicaStatus) { r.Reason = "exited with code 3" })
		}, "db is not healthy: 0 of 2 slots are; slot 0: exited with code 3"},
		"started": {func(w *world) {
			on(w, shoal.ConditionStarted)
			hold(w, "db", 0, "A", one, shoal.PhaseRunning)
			hold(w, "db", 1, "B", one, shoal.PhaseReady)
		}, ""},
		"starting": {func(w *world) {
			on(w, shoal.ConditionStarted)
			hold(w, "db", 0, "A", one, shoal.PhaseRunning)
			hold(w, "db", 1, "B", one, shoal.PhaseStarting)
		}, "db is not started: 1 of 2 slots are"},
		"ended well": {func(w *world) {
			on(w, shoal.ConditionCompleted)
			w.db.Spec.Restart.Condition = shoal.RestartNone
			hold(w, "db", 0, "A", one, shoal.PhaseStopped)
			hold(w, "db", 1, "B", one, shoal.PhaseStopped)
		}, ""},
		"ended badly": {func(w *world) {
			on(w, shoal.ConditionCompleted)
			w.db.Spec.Restart.Condition = shoal.RestartNone
			hold(w, "db", 0, "A", one, shoal.PhaseStopped)
			hold(w, "db", 1, "B", one, shoal.PhaseStopped, func(r *shoal.ReplicaStatus) { r.ExitCode, r.Reason = 2, "exited with code 2" })
		}, "db is not completed: 1 of 2 slots are; slot 1: exited with code 2"},
		"runs on": {func(w *world) {
			on(w, shoal.ConditionCompleted)
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
		}, "db is not completed: 0 of 2 slots are"},
		"a job": {func(w *world) {
			on(w, shoal.ConditionCompleted)
			w.db.Spec.Mode = shoal.ModeReplicatedJob
			hold(w, "db", 0, "A", one, shoal.PhaseStopped)
			w.claims[0].Outcome = done
		}, "db is not completed: 1 of 2 slots are"},
		"a job that is done": {func(w *world) {
			on(w, shoal.ConditionCompleted)
			w.db.Spec.Mode, w.db.Replicas = shoal.ModeReplicatedJob, 1
			hold(w, "db", 0, "D", one, shoal.PhaseStopped)
			w.claims[0].Outcome = done
		}, ""},
		"a job that failed": {func(w *world) {
			on(w, shoal.ConditionCompleted)
			w.db.Spec.Mode = shoal.ModeReplicatedJob
			hold(w, "db", 0, "A", one, shoal.PhaseStopped)
			w.claims[0].Outcome = broken
		}, "db failed: exited with code 3"},
		"on every peer": {func(w *world) {
			w.db.Spec.Mode = shoal.ModeGlobal
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
		}, "db is not healthy: 1 of 2 slots are"},
		"on every peer that is there": {func(w *world) {
			w.db.Spec.Mode = shoal.ModeGlobal
			hold(w, "db", 0, "A", one, shoal.PhaseReady)
			hold(w, "db", 0, "B", one, shoal.PhaseReady)
		}, ""},
		"it is stopped":    {func(w *world) { w.db.Stopped = true }, "db is stopped"},
		"none are wanted":  {func(w *world) { w.db.Replicas = 0 }, ""},
		"it is not there":  {func(w *world) { w.gone = true }, "db is not there"},
		"it may be absent": {func(w *world) { w.gone, w.web.Spec.DependsOn[0].Optional = true, true }, ""},
		"it has begun":     {func(w *world) { hold(w, "web", 0, "D", two, shoal.PhaseStarting) }, ""},
		"the one before has": {func(w *world) {
			hold(w, "web", 0, "A", one, shoal.PhaseReady)
		}, "db is not healthy: 0 of 2 slots are"},
		"it goes back": {func(w *world) { w.web.Undoes = one }, ""},
		"stopped":      {func(w *world) { w.web.Stopped = true }, ""},
	} {
		w := &world{
			web:    shoal.Service{Spec: shoal.Spec{Name: "web", Image: "web:2", DependsOn: []shoal.Dependency{{Service: "db", Condition: shoal.ConditionHealthy}}}, Revision: two, Replicas: 1},
			db:     shoal.Service{Spec: shoal.Spec{Name: "db", Image: "db:1"}, Revision: one, Replicas: 2},
			phases: map[shoal.ReplicaID]shoal.ReplicaStatus{},
		}
		c.change(w)
		d := &shoal.Desired{Peers: []shoal.Peer{{ID: "A"}, {ID: "B"}, {ID: "D"}}, Claims: w.claims, Services: []shoal.Service{w.db, w.web}}
		if w.gone {
			d.Services = d.Services[1:]
		}
		states := map[shoal.PeerID]*shoal.PeerState{}
		for _, c := range w.claims {
			if states[c.Holder] == nil {
				states[c.Holder] = &shoal.PeerState{}
			}
			states[c.Holder].Replicas = append(states[c.Holder].Replicas, w.phases[c.Replica])
		}
		v := shoal.NewView("A", d, map[shoal.PeerID]shoal.Life{"B": {State: shoal.LifeAlive}, "D": {State: shoal.LifeDead}}, states)
		if got := v.Waits(&w.web); got != c.want {
			t.Errorf("%s: Waits = %q, want %q", name, got, c.want)
		}
	}
}
