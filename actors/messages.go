// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"slices"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors/lifecycle"
)

// quiet is embedded in every message: one that arrives after its actor's end is
// nothing to log.
type quiet struct{}

// IgnoreDeadLetterLogging implements actor.IgnoreDeadLetterLogging.
func (quiet) IgnoreDeadLetterLogging() {}

// Messages to the peer actor.
type (
	// changed: the view, the time or the mode may give another plan.
	changed struct{ quiet }
	// snapshot: what the engine holds; err: it did not say.
	snapshot struct {
		quiet
		seq        uint64 // compared with the end of operations: older than one is stale
		containers []shoal.Container
		err        error
	}
	// written: the end of an update of this peer's claims.
	written struct {
		quiet
		err     error
		version uint64 // of the folded state that holds it
	}
	// confirmed: the end of a pull of freshness.
	confirmed struct {
		quiet
		peer shoal.PeerID
		err  error
	}
	// came: what the runs of a job's replica came to.
	came struct {
		quiet
		replica shoal.ReplicaID
		outcome shoal.JobOutcome
	}
	// idle: a service actor has nothing left to look after.
	idle struct {
		quiet
		service string
		orphans int // how many orphans it had been given by then
	}
)

// Messages to service actors.
type (
	// part is what this peer holds of a service.
	part struct {
		quiet
		service  string
		spec     *shoal.Spec // nil: the service is gone
		revision shoal.RevisionID
		record   []byte
		publish  string
		holds    []hold
	}
	// hold is one slot of a part.
	hold struct {
		slot     int
		replica  shoal.ReplicaID
		revision shoal.RevisionID
		start    bool // the plan lets it start
		brake    lifecycle.Brake
		outcome  shoal.JobOutcome // as recorded
	}
	// orphan: a container of ours without a claim, to be taken down.
	orphan struct {
		quiet
		container shoal.Container
	}
	// report: how far a replica is.
	report struct {
		quiet
		replica shoal.ReplicaID
		phase   shoal.Phase
		ended   bool
		image   bool // its container can be created, or has been
		made    bool // it has a container
		outcome shoal.JobOutcome
	}
)

// Messages to replica actors.
type (
	// assign: its place in the plan.
	assign struct {
		quiet
		entry entry
	}
	// halt: stop and go.
	halt struct{ quiet }
	// sight: what the engine holds for it, nil: nothing.
	sight struct {
		quiet
		seq       uint64
		container *shoal.Container
	}
	// result: the end of the operation in flight.
	result struct {
		quiet
		token uint64
		seq   uint64
		event lifecycle.Event
	}
	// progress: how far the pull in flight is.
	progress struct {
		quiet
		token uint64
		at    shoal.ImageProgress
	}
	// tick: time passed.
	tick struct{ quiet }
)

// Messages to every actor.
type (
	// ping: the watchdog asks for an answer.
	ping struct{ quiet }
	// respawn: a child's back-off is over.
	respawn struct {
		quiet
		key string
	}
	// stuck: a child does not answer.
	stuck struct {
		quiet
		cell *cell
	}
)

func (p *part) equal(o *part) bool {
	return o != nil && p.revision == o.revision && p.publish == o.publish && (p.spec == nil) == (o.spec == nil) &&
		slices.Equal(p.holds, o.holds)
}
