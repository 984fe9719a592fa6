// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors/lifecycle"
	"github.com/shoalnet/shoal/internal/logkey"
)

// replicaActor is the shell of one replica's life.
type replicaActor struct {
	r       *run
	cell    *cell
	service string
	entry   entry
	state   lifecycle.State
	seen    shoal.Container // as listed last; zero if there is none

	token  uint64 // of the operation in flight
	moved  string // how far a pull in flight is, "" as long as nobody said
	since  uint64 // sights older than this are stale
	cancel context.CancelFunc
	read   <-chan struct{} // closed once its container, which failed, was read; nil: none is being read
	timer  *time.Timer
}

func newReplica(r *run, c *cell, service string, e entry) *replicaActor {
	rules := lifecycle.Rules{Condition: shoal.RestartAny, Grace: lifecycle.DefaultGrace}
	if e.spec != nil {
		rules = lifecycle.RulesOf(e.spec)
	}
	restarts := r.board.restarts(e.id)
	seed := binary.BigEndian.Uint64(e.id[:8])
	return &replicaActor{
		r: r, cell: c, service: service, entry: e,
		state: lifecycle.New(rules, seed, e.fresh, restarts, e.outcome),
	}
}

func (a *replicaActor) receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.begin(ctx)
	case *assign:
		a.assign(ctx, m)
	case *halt:
		a.step(ctx, lifecycle.Event{Kind: lifecycle.EventHalt})
	case *sight:
		a.sight(ctx, m)
	case *result:
		if m.token == a.token {
			a.since, a.cancel = m.seq, nil
			a.step(ctx, m.event)
		}
	case *progress:
		if m.token == a.token && a.state.Op == lifecycle.EffectPull {
			a.moved = pullText(a.entry.spec, m.at)
			a.publish()
		}
	case *tick:
		a.step(ctx, lifecycle.Event{Kind: lifecycle.EventTick})
	case *actor.Stopping:
		if a.timer != nil {
			a.timer.Stop()
		}
		if a.cancel != nil {
			a.cancel()
		}
	}
}

// begin starts from nothing, or from what a former incarnation left: an operation
// of its may still be under way, so sights that began before it ended do not count.
func (a *replicaActor) begin(ctx actor.Context) {
	a.since = a.r.seq.Load()
	a.publish()
	if a.entry.halted {
		a.step(ctx, lifecycle.Event{Kind: lifecycle.EventHalt})
		return
	}
	a.step(ctx, a.brake())
	a.allow(ctx, a.entry.start)
	if !a.state.Known || !a.state.Allowed {
		a.step(ctx, lifecycle.Event{Kind: lifecycle.EventTick})
	}
}

// assign takes a new place in the plan.
func (a *replicaActor) assign(ctx actor.Context, m *assign) {
	learned, record, revision := a.entry.spec, a.entry.record, a.entry.revision
	a.entry = m.entry
	switch {
	case a.entry.spec == nil:
		a.entry.spec, a.entry.record = learned, record
	case learned == nil, revision != a.entry.revision: // of the same container, but perhaps not of the same rules
		a.state.Rules = lifecycle.RulesOf(a.entry.spec)
	}
	if revision != a.entry.revision {
		a.state.Broke = 0
	}
	if a.state.Brake != a.entry.brake {
		a.step(ctx, a.brake())
	}
	a.allow(ctx, m.entry.start)
	if learned == nil && a.entry.spec != nil {
		a.step(ctx, lifecycle.Event{Kind: lifecycle.EventTick}) // it knows its image now
	}
	a.publish()
}

func (a *replicaActor) allow(ctx actor.Context, start bool) {
	kind := lifecycle.EventHold
	if start {
		kind = lifecycle.EventAllow
	}
	if start != a.state.Allowed {
		a.step(ctx, lifecycle.Event{Kind: kind})
	}
}

// sight takes what the engine holds, unless the list began before our last
// operation ended, or one is under way: then it may be older than what we know.
func (a *replicaActor) sight(ctx actor.Context, m *sight) {
	if a.state.Op != 0 || a.r.board.busy(a.entry.id) {
		return // its end looks again
	}
	if m.seq <= a.since {
		if !a.state.Known {
			a.r.lookNow()
		}
		return
	}
	a.seen = shoal.Container{}
	if m.container != nil {
		a.seen = *m.container
		a.learn(m.container)
	}
	a.step(ctx, lifecycle.Event{Kind: lifecycle.EventSeen, Container: m.container})
	a.publish()
}

// learn reads the spec of a revision that is no longer current from the label; that of an
// earlier one, if the replica went on with the same container.
func (a *replicaActor) learn(c *shoal.Container) {
	if a.entry.spec != nil || a.r.deps.SpecOf == nil || len(c.Record) == 0 {
		return
	}
	spec, err := a.r.deps.SpecOf(c.Record)
	if err != nil {
		a.r.log.Debug("record in label not readable", logkey.Service, a.service, logkey.Replica, a.entry.id.Short(), logkey.Err, err)
		return
	}
	if spec = spec.SpecFor(a.service); spec == nil {
		return
	}
	a.entry.spec, a.entry.record = spec, c.Record
	a.state.Rules = lifecycle.RulesOf(spec)
}

// step makes one step and carries out what it asks for.
func (a *replicaActor) step(ctx actor.Context, e lifecycle.Event) {
	e.Now, e.Wall = a.r.now(), a.r.deps.Clock.Wall().Unix()
	before := a.state
	var effects []lifecycle.Effect
	a.state, effects = lifecycle.Step(before, e)
	if a.state.Pulled && !before.Pulled {
		a.r.board.hasImage(a.service, a.entry.revision)
	}
	if a.state.Phase != before.Phase || a.state.Attempt != before.Attempt {
		a.tell(before.Phase)
	}
	if a.state.Container == "" {
		a.seen = shoal.Container{}
	}
	if a.state != before {
		a.publish()
	}
	a.listen(&before)
	for _, f := range effects {
		a.perform(ctx, f)
	}
	if m := reportOf(a.entry.id, &a.state); *m != *reportOf(a.entry.id, &before) {
		ctx.Send(ctx.Parent(), m)
	}
}

func reportOf(id shoal.ReplicaID, s *lifecycle.State) *report {
	return &report{replica: id, phase: s.Phase, ended: s.Ended, image: s.HasImage(), made: s.Container != "", outcome: s.Outcome}
}

func (a *replicaActor) perform(ctx actor.Context, f lifecycle.Effect) {
	switch f.Kind {
	case lifecycle.EffectPull, lifecycle.EffectCreate, lifecycle.EffectStart, lifecycle.EffectStop, lifecycle.EffectRemove:
		a.operate(ctx, f)
	case lifecycle.EffectCancel:
		if a.cancel != nil {
			a.cancel()
		}
	case lifecycle.EffectLook:
		a.r.lookNow()
	case lifecycle.EffectWake:
		if a.timer != nil {
			a.timer.Stop()
		}
		a.timer = a.r.after(max(f.At-a.r.now(), 0), ctx.Self(), &tick{})
	case lifecycle.EffectRefuse:
		a.r.board.refuse(a.service, a.entry.revision, f.Why, f.Image)
		a.r.refreshNow()
	case lifecycle.EffectEnd: // reported by step
	}
}

// tell says that the phase changed.
func (a *replicaActor) tell(from shoal.Phase) {
	to, why := a.state.Phase, a.state.Reason
	a.r.board.log("replica "+to.String(), logkey.Service, a.service, logkey.Slot, a.entry.slot,
		logkey.Replica, a.entry.id.Short(), logkey.Phase, from.String()+" -> "+to.String(), logkey.Reason, why)
	text := to.String()
	if why != "" {
		text += ": " + why
	}
	a.r.record("replica", a.service, a.entry.slot, text)
}

// pullText says how far a pull is: "pulling app:v1: 120.0/269.0 MB, 4s left".
func pullText(spec *shoal.Spec, at shoal.ImageProgress) string {
	verb := "pulling "
	if at.What == "load" {
		verb = "loading "
	}
	return verb + spec.Image + ": " + at.String()
}

// publish puts the status on the board.
func (a *replicaActor) publish() {
	st := shoal.ReplicaStatus{
		ID: a.entry.id, Service: a.service, Slot: a.entry.slot, Revision: a.entry.revision,
		Phase: a.state.Phase, Health: a.state.Health, Restarts: a.state.Restarts, Failures: a.state.Broke, ExitCode: a.state.ExitCode,
		Reason: a.state.Reason, Container: a.state.Container,
		Addr: a.seen.Addr, Ports: a.seen.Ports, Image: a.seen.Image,
	}
	if a.moved != "" && a.state.Op == lifecycle.EffectPull {
		st.Reason = a.moved
	}
	if !a.seen.Started.IsZero() {
		st.StartedAt = a.seen.Started.Unix()
	}
	size := shoal.Resources{}
	if a.entry.spec != nil && !a.state.Outcome.Over() { // what has ended takes no room
		size = a.entry.spec.Size()
	}
	a.r.board.set(a.cell, st, size, a.state.Known)
}
