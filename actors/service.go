// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors/lifecycle"
)

// serviceActor keeps one replica actor per slot this peer holds of a service, and
// for each replica that is still being stopped. It decides only the order of an old
// and a new replica of one slot.
type serviceActor struct {
	r        *run
	name     string
	part     *part
	replicas *brood
	entries  map[shoal.ReplicaID]*entry
	last     *snapshot
	orphans  int // given to this incarnation
}

// entry is what a service actor knows of one replica.
type entry struct {
	id       shoal.ReplicaID
	slot     int // -1: of an orphan, unknown
	revision shoal.RevisionID
	spec     *shoal.Spec // nil: of a revision that is not current here
	record   []byte
	publish  string
	start    bool // it may start
	brake    lifecycle.Brake
	halted   bool
	fresh    bool // minted here just now: no container of it can exist
	phase    shoal.Phase
	image    bool             // its image is in the engine
	made     bool             // it has a container
	outcome  shoal.JobOutcome // as recorded when it was made
}

func newService(r *run, name string, p *part) *serviceActor {
	s := &serviceActor{r: r, name: name, part: p, entries: make(map[shoal.ReplicaID]*entry)}
	if p == nil {
		s.part = &part{service: name}
	}
	s.replicas = r.newBrood("replica", func(key string, c *cell) func(actor.Context) {
		id, err := shoal.ParseReplicaID(key)
		if err != nil {
			panic(err)
		}
		e := s.entries[id]
		a := newReplica(r, c, s.name, *e)
		e.fresh = false // its next incarnation must look first
		return a.receive
	})
	return s
}

func (s *serviceActor) receive(ctx actor.Context) {
	if s.replicas.handle(ctx) || s.replicas.closing {
		return
	}
	switch m := ctx.Message().(type) {
	case *actor.Started:
		s.reconcile(ctx)
	case *part:
		s.part = m
		s.reconcile(ctx)
	case *snapshot:
		s.distribute(ctx, m)
	case *orphan:
		s.adoptOrphan(ctx, &m.container)
	case *report:
		s.report(ctx, m)
	}
}

// reconcile makes the replica actors match the part.
func (s *serviceActor) reconcile(ctx actor.Context) {
	held := make(map[shoal.ReplicaID]bool, len(s.part.holds))
	for _, h := range s.part.holds {
		held[h.replica] = true
		if s.entries[h.replica] == nil {
			e := &entry{id: h.replica, slot: h.slot, revision: h.revision, fresh: s.r.board.takeFresh(h.replica), outcome: h.outcome}
			s.teach(e)
			s.entries[h.replica] = e
		}
	}
	for id, e := range s.entries {
		if !held[id] && !e.halted && !s.covers(e) {
			e.halted = true
			s.replicas.send(ctx, id.String(), &halt{})
		}
	}
	for _, h := range s.part.holds {
		e := s.entries[h.replica]
		before := *e
		if e.revision != h.revision { // it goes on as it is
			e.revision, e.spec, e.record = h.revision, nil, nil
		}
		s.teach(e)
		e.start, e.slot, e.publish, e.brake = h.start && !s.occupied(e), h.slot, s.part.publish, h.brake
		key := e.id.String()
		switch {
		case s.replicas.ensure(ctx, key):
			s.show(ctx, e.id)
		case e.start != before.start || e.slot != before.slot || e.publish != before.publish || e.spec != before.spec || e.revision != before.revision || e.brake != before.brake:
			s.replicas.send(ctx, key, &assign{entry: *e})
		}
	}
	if len(s.entries) == 0 && len(s.part.holds) == 0 {
		ctx.Send(ctx.Parent(), &idle{service: s.name, orphans: s.orphans})
	}
}

// teach tells an entry the spec of its revision, if that is the current one.
func (s *serviceActor) teach(e *entry) {
	if e.spec == nil && s.part.spec != nil && e.revision == s.part.revision {
		e.spec, e.record = s.part.spec, s.part.record
	}
}

// covers reports whether an old replica keeps its slot until the new one can take over:
// until its image is in the engine, for what runs is not stopped for what may not be had;
// and until it is ready, where the rollout starts first and no fixed port of the host is
// in the way. One that is on its way itself does not where another is ready; nor does that
// of a job, whose work is done anew.
func (s *serviceActor) covers(old *entry) bool {
	if !old.made && old.phase != shoal.PhaseUnknown || s.isJob() {
		return false // there is nothing to keep
	}
	for id, o := range s.entries {
		if id != old.id && o.slot == old.slot && !s.holds(id) && !o.halted && o.phase == shoal.PhaseReady && old.phase != shoal.PhaseReady {
			return false
		}
	}
	for _, h := range s.part.holds {
		if h.slot != old.slot || h.replica == old.id {
			continue
		}
		fresh := s.entries[h.replica]
		if fresh == nil || fresh.spec == nil {
			return false
		}
		return !fresh.image || startsFirst(s.part.spec) && fresh.phase != shoal.PhaseReady
	}
	return false
}

// occupied reports whether another replica still has the slot of e, so that e has
// to wait for its end.
func (s *serviceActor) occupied(e *entry) bool {
	if startsFirst(s.part.spec) {
		return false
	}
	for id, o := range s.entries {
		if id != e.id && o.slot == e.slot && !s.holds(id) {
			return true
		}
	}
	return false
}

// isJob reports whether replicas of the service run to their end.
func (s *serviceActor) isJob() bool { return s.part.spec != nil && s.part.spec.Mode.IsJob() }

// holds reports whether a replica has a claim.
func (s *serviceActor) holds(id shoal.ReplicaID) bool {
	return slices.ContainsFunc(s.part.holds, func(h hold) bool { return h.replica == id })
}

func startsFirst(spec *shoal.Spec) bool {
	if spec == nil || !spec.Rollout.StartFirst {
		return false
	}
	return !slices.ContainsFunc(spec.Ports, shoal.Port.IsHost)
}

// report takes a replica's new phase.
func (s *serviceActor) report(ctx actor.Context, m *report) {
	e := s.entries[m.replica]
	if e == nil {
		return
	}
	e.phase, e.image, e.made = m.phase, m.image, m.made
	if e.outcome != m.outcome {
		e.outcome = m.outcome
		ctx.Send(ctx.Parent(), &came{replica: m.replica, outcome: m.outcome})
	}
	if m.ended {
		delete(s.entries, m.replica)
		s.replicas.drop(ctx, m.replica.String())
		s.r.board.remove(m.replica)
	}
	s.reconcile(ctx)
}

// distribute shows every replica actor its container.
func (s *serviceActor) distribute(ctx actor.Context, m *snapshot) {
	s.last = m
	for id := range s.entries {
		s.show(ctx, id)
	}
}

func (s *serviceActor) show(ctx actor.Context, id shoal.ReplicaID) {
	if s.last == nil {
		return
	}
	m := &sight{seq: s.last.seq}
	for i := range s.last.containers {
		if s.last.containers[i].Replica == id {
			m.container = &s.last.containers[i]
			break
		}
	}
	s.replicas.send(ctx, id.String(), m)
}

// adoptOrphan makes a replica actor for a container without a claim: to let it fill a
// slot whose new replica waits for its image, as it did before this daemon started, or
// else to stop and remove it in order.
func (s *serviceActor) adoptOrphan(ctx actor.Context, c *shoal.Container) {
	s.orphans++
	if s.entries[c.Replica] != nil {
		return
	}
	e := &entry{id: c.Replica, slot: -1, revision: c.Revision, halted: true}
	for _, h := range s.part.holds {
		fresh := s.entries[h.replica]
		if fresh == nil || fresh.image || fresh.spec == nil || s.isJob() || h.revision.Compare(c.Revision) <= 0 || s.occupied(fresh) {
			continue
		}
		e.slot, e.halted, e.start, e.publish = h.slot, false, true, s.part.publish
		break
	}
	s.entries[c.Replica] = e
	s.replicas.ensure(ctx, c.Replica.String())
	s.show(ctx, c.Replica)
	s.reconcile(ctx)
}
