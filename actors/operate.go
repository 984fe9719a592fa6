// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors/lifecycle"
)

// errNoSpec: the replica's revision is no longer current, and no container of it
// tells its spec.
var errNoSpec = errors.New("its revision is no longer known here")

// operation is one call on the engine, off the actor.
type operation struct {
	gate    *gate         // of the launches allowed at a time; nil: no limit
	key     string        // whom its place is shared with
	timeout time.Duration // of a pull: since something moved last
	// pull: giving it up also ends the call, not only the wait for its turn. moved notes
	// that something moved.
	pull func(ctx context.Context, moved func()) (id string, err error)
	call func(context.Context) (id string, err error)
}

// operate begins an operation; its end comes back as a result.
func (a *replicaActor) operate(ctx actor.Context, f lifecycle.Effect) {
	a.token++
	a.moved = ""
	op := a.operation(ctx, f)
	token, self, r, id, c := a.token, ctx.Self(), a.r, a.entry.id, a.cell
	giveUp := make(chan struct{})
	closed := false
	a.cancel = func() {
		if !closed {
			closed = true
			close(giveUp)
		}
	}
	r.board.begin(id)
	r.work(a.afterRead(func(ctx context.Context) {
		e := op.do(ctx, giveUp, c)
		r.board.end(id)
		r.send(self, &result{token: token, seq: r.seq.Add(1), event: e})
		if c.over() {
			r.lookNow() // the next incarnation waits for the end of this
		}
	}))
}

// do waits for its turn, makes the call, and sorts its end.
func (op *operation) do(ctx context.Context, giveUp <-chan struct{}, c *cell) (end lifecycle.Event) {
	defer func() {
		if e := recover(); e != nil { // a bug below us: this replica's trouble, not the daemon's
			end = lifecycle.Event{Kind: lifecycle.EventFail, Why: fmt.Sprintf("panic: %v", e)}
		}
	}()
	canceled := lifecycle.Event{Kind: lifecycle.EventFail, Fault: lifecycle.FaultCanceled, Why: "given up"}
	if op.gate != nil {
		if !op.gate.enter(ctx, giveUp, op.key) {
			return canceled
		}
		defer op.gate.leave(op.key)
	}
	select {
	case <-giveUp:
		return canceled
	default:
	}
	if c.over() {
		return canceled
	}
	var id string
	var err error
	if op.pull != nil {
		id, err = op.move(ctx, giveUp)
	} else {
		call, cancel := context.WithTimeout(ctx, op.timeout)
		defer cancel()
		id, err = op.call(call)
	}
	if err == nil {
		return lifecycle.Event{Kind: lifecycle.EventDone, ID: id}
	}
	return lifecycle.Event{Kind: lifecycle.EventFail, Fault: op.sort(err), Why: oneLine(err)}
}

// errStill: a pull did not end by itself when nothing moved any more.
var errStill = errors.New("nothing moved")

// move makes a pull, which takes as long as it takes while something moves.
func (op *operation) move(ctx context.Context, giveUp <-chan struct{}) (string, error) {
	call, end := context.WithCancelCause(ctx)
	still := time.AfterFunc(op.timeout, func() { end(errStill) })
	done := make(chan struct{})
	defer func() {
		still.Stop()
		end(nil)
		<-done
	}()
	go func() {
		defer close(done)
		select {
		case <-giveUp:
			end(nil)
		case <-call.Done():
		}
	}()
	id, err := op.pull(call, func() { still.Reset(op.timeout) })
	if err != nil && errors.Is(context.Cause(call), errStill) {
		return "", fmt.Errorf("%w for %s", errStill, op.timeout)
	}
	return id, err
}

// sort says what kind of failure an error is.
func (op *operation) sort(err error) lifecycle.Fault {
	var invalid *shoal.InvalidError
	switch {
	case errors.Is(err, shoal.ErrEngineDown):
		return lifecycle.FaultDown
	case errors.Is(err, context.DeadlineExceeded) && op.pull == nil:
		return lifecycle.FaultDown // an engine that does not answer in time is down
	case errors.Is(err, shoal.ErrNotFound):
		return lifecycle.FaultMissing
	case errors.Is(err, shoal.ErrRefused), errors.As(err, &invalid):
		return lifecycle.FaultRefused
	case errors.Is(err, context.Canceled):
		return lifecycle.FaultCanceled
	}
	return lifecycle.FaultOther
}

// pull returns how to make the replica's image available. A name that the engine holds
// is taken for what it stands for there; whether it holds a digest is the puller's to say.
func (a *replicaActor) pull(ctx actor.Context) *operation {
	image, r := a.state.Rules.Image, a.r
	if image == "" || !strings.Contains(image, "@") && r.board.holdsImage(image) { // create says it if the list is old
		return &operation{timeout: r.cfg.CallTimeout, call: func(context.Context) (string, error) { return "", nil }}
	}
	self, token := ctx.Self(), a.token
	return &operation{gate: r.pulls, key: image, timeout: r.cfg.PullTimeout, pull: func(ctx context.Context, moved func()) (string, error) {
		told := atomic.Int64{} // when, plus one: nobody was at 0
		return r.deps.Puller.Ensure(ctx, image, func(at shoal.ImageProgress) {
			moved()
			now := int64(r.now()) + 1
			if last := told.Load(); (last == 0 || now-last >= int64(progressEvery)) && told.CompareAndSwap(last, now) {
				r.send(self, &progress{token: token, at: at})
			}
		})
	}}
}

// progressEvery is how often others hear how far a pull is: each time is a beat.
const progressEvery = time.Second

// operation returns how to carry out an effect.
func (a *replicaActor) operation(ctx actor.Context, f lifecycle.Effect) *operation {
	d, cfg := &a.r.deps, &a.r.cfg
	switch f.Kind {
	case lifecycle.EffectPull:
		return a.pull(ctx)
	case lifecycle.EffectCreate:
		if a.entry.spec == nil {
			return &operation{timeout: cfg.CallTimeout, call: func(context.Context) (string, error) { return "", errNoSpec }}
		}
		spec := shoal.ContainerSpec{
			Cluster: d.Cluster, Peer: d.Self, Replica: a.entry.id, Slot: a.entry.slot, Revision: a.entry.revision,
			Spec: a.entry.spec, Record: a.entry.record, Image: a.state.Image, Publish: a.entry.publish,
		}
		return &operation{gate: a.r.creates, timeout: cfg.CallTimeout, call: func(ctx context.Context) (string, error) {
			if d.Attacher != nil {
				var err error
				if spec.Networks, spec.DNS, err = d.Attacher.Attach(ctx, spec.Spec); err != nil {
					return "", err
				}
			}
			return d.Engine.Create(ctx, spec)
		}}
	case lifecycle.EffectStart:
		return &operation{gate: a.r.creates, timeout: cfg.CallTimeout, call: func(ctx context.Context) (string, error) {
			return "", d.Engine.Start(ctx, f.ID)
		}}
	case lifecycle.EffectStop:
		drain := a.drain()
		return &operation{timeout: drain + f.Grace + cfg.CallTimeout, call: func(ctx context.Context) (string, error) {
			if !sleep(ctx, drain) {
				return "", ctx.Err()
			}
			return "", d.Engine.Stop(ctx, f.ID, f.Signal, f.Grace)
		}}
	case lifecycle.EffectRemove:
		return &operation{timeout: cfg.CallTimeout, call: func(ctx context.Context) (string, error) {
			return "", d.Engine.Remove(ctx, f.ID)
		}}
	case lifecycle.EffectCancel, lifecycle.EffectLook, lifecycle.EffectWake, lifecycle.EffectRefuse, lifecycle.EffectEnd:
	}
	panic(fmt.Sprintf("effect %d is no operation", f.Kind))
}

// wrapping is what an engine's layers put around the cause, which comes last.
var wrapping = strings.NewReplacer(
	"Error response from daemon: ", "", "failed to create task for container: ", "", "failed to create shim task: ", "",
	"OCI runtime create failed: ", "", "runc create failed: ", "",
)

// oneLine is an error's text for a status: one line, at most 200 bytes, and the cause in it.
func oneLine(err error) string {
	text, _, _ := strings.Cut(wrapping.Replace(err.Error()), "\n")
	return strings.ToValidUTF8(text[:min(len(text), 200)], "")
}

// drainTime passes between the word that a replica stops and its signal. Its holder sends
// it nothing more at once, but a connection that it was just given must still be accepted:
// programs close their listener as soon as they are told to stop, and the kernel resets
// what waits there.
const drainTime = 300 * time.Millisecond

// drain is how long the replica is let be before it is stopped: only connections to ports
// that answer on every peer, and by name, are steered away from it. By name they may come
// to any service; who had none lately will hardly get one now.
func (a *replicaActor) drain() time.Duration {
	switch {
	case a.entry.spec != nil && slices.ContainsFunc(a.entry.spec.Ports, shoal.Port.IsIngress):
	case a.r.deps.Carried != nil && a.r.deps.Carried(a.entry.id):
	default:
		return 0
	}
	return drainTime
}
