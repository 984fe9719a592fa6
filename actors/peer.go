// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/placement/brake"
)

// The back-off before a plan that has no effect is written again.
const (
	repeatDelay = time.Second
	repeatCap   = time.Minute
)

// peerActor is the root: it alone decides and writes claims.
type peerActor struct {
	r        *run
	services *brood
	parts    map[string]*part // what each service actor was given last
	orphans  map[string]int   // how many orphans each was given

	memory  placement.Memory
	listed  bool // the engine was asked at least once, with or without an answer
	decided bool // a plan was carried out without anything left to write
	trouble string
	brakes  brake.Verdicts

	updating bool   // one update at a time
	version  uint64 // of the folded state that holds our last update
	pulling  map[shoal.PeerID]bool
	recent   []dated                              // releases of the last seconds
	minted   map[shoal.ReplicaID]bool             // made here and not handed out yet: they have no container
	seen     map[shoal.ReplicaID]time.Duration    // orphans, since when
	came     map[shoal.ReplicaID]shoal.JobOutcome // what the runs of jobs' replicas came to, as far as it was new

	wrote placement.Plan                       // the plan written last
	told  map[shoal.ReplicaID]shoal.JobOutcome // with these news
	times int                                  // it came again so often
	again time.Duration                        // it is not written again before

	last    *snapshot
	next    time.Duration // no decision before: deciding takes a tenth of the time at most
	wake    *time.Timer
	leftAll bool
}

func newPeer(r *run) *peerActor {
	p := &peerActor{
		r: r, parts: make(map[string]*part), memory: placement.NewMemory(r.now()),
		orphans: make(map[string]int),
		pulling: make(map[shoal.PeerID]bool),
		minted:  make(map[shoal.ReplicaID]bool),
		seen:    make(map[shoal.ReplicaID]time.Duration),
		came:    make(map[shoal.ReplicaID]shoal.JobOutcome),
	}
	p.services = r.newBrood("service", func(name string, _ *cell) func(actor.Context) {
		p.orphans[name] = 0
		return newService(r, name, p.parts[name]).receive
	})
	return p
}

func (p *peerActor) receive(ctx actor.Context) {
	if p.services.handle(ctx) || p.services.closing && !isStopping(ctx) {
		return
	}
	switch m := ctx.Message().(type) {
	case *changed:
		p.r.poked.Store(false)
		p.decide(ctx)
	case *snapshot:
		first := !p.listed
		p.listed = true
		if m.err == nil {
			p.last = m
			for name := range p.services.kids {
				p.services.send(ctx, name, m)
			}
			p.sweep(ctx)
		}
		if first {
			p.decide(ctx)
		}
		p.checkLeft()
	case *written:
		p.written(ctx, m)
	case *confirmed:
		p.confirmed(ctx, m)
	case *came:
		p.came[m.replica] = m.outcome
		p.decide(ctx)
	case *idle:
		if part := p.parts[m.service]; (part == nil || len(part.holds) == 0) && m.orphans == p.orphans[m.service] {
			delete(p.parts, m.service)
			delete(p.orphans, m.service)
			p.services.drop(ctx, m.service)
			p.checkLeft()
		}
	case *actor.Stopping:
		if p.wake != nil {
			p.wake.Stop()
		}
	}
}

// decide takes one view and carries out its plan.
func (p *peerActor) decide(ctx actor.Context) {
	now := p.r.now()
	if !p.listed || p.updating {
		return // the list, or the end of the update, comes back here
	}
	v := p.view()
	if v == nil {
		return
	}
	if p.r.leaving.Load() {
		p.leave(ctx, v)
		return
	}
	if now < p.next {
		p.wakeAt(ctx, p.next)
		return
	}
	plan, memory := p.r.deps.Decide(v, p.memory, p.r.deps.Self, now, p.r.cfg.Placement)
	p.memory = memory
	said := plan.Reasons
	p.r.said.Store(&said)
	p.next = now + 10*(p.r.now()-now)
	p.r.board.know(v)
	own := v.ClaimsBy(p.r.deps.Self)
	news := p.news(own)
	p.r.board.expect(own)
	held := parts(v, p.r.deps.Self, plan.Start)
	slow(held, plan.Brakes)
	p.handOut(ctx, held)
	p.brake(plan.Brakes)
	if why := p.r.deps.Trouble(); why != p.trouble {
		p.trouble = why
		if why != "" {
			p.r.log.Error("stopped claiming", logkey.Reason, why)
		}
	}
	if v.State(p.r.deps.Self) == nil {
		plan.Claims = nil // not before it is known what this peer has, and whether its engine answers
	}
	wake := plan.Wake
	changes := len(plan.Claims) > 0 || len(plan.Releases) > 0 || len(news) > 0
	switch {
	case !changes || p.trouble != "":
	case p.repeats(&plan, news, now):
		wake = p.again
	default:
		p.write(ctx, v, &plan, news)
	}
	p.decided = !changes && p.trouble == ""
	p.pull(ctx, plan.Pulls)
	if wake > 0 {
		p.wakeAt(ctx, wake)
	}
}

// repeats reports whether a plan has just been written and came again all the same:
// our records do not count (our pen has ended, or a bug). It is then written again
// only after a back-off, or the store would fill with records.
func (p *peerActor) repeats(plan *placement.Plan, news map[shoal.ReplicaID]shoal.JobOutcome, now time.Duration) bool {
	if !slices.Equal(plan.Claims, p.wrote.Claims) || !slices.Equal(plan.Releases, p.wrote.Releases) || !maps.Equal(news, p.told) {
		p.wrote, p.told, p.times, p.again = placement.Plan{Claims: plan.Claims, Releases: plan.Releases}, news, 0, 0
		return false
	}
	if now < p.again {
		return true
	}
	p.again = now + min(repeatDelay<<min(p.times, 16), repeatCap)
	p.times++
	if p.times == 1 {
		return true
	}
	p.r.log.Warn("claims have no effect; written again", "count", p.times)
	return false
}

// news returns what the runs of jobs' replicas came to and is not recorded yet, and forgets
// the rest: what is recorded, and of replicas that are not claimed any more.
func (p *peerActor) news(own []shoal.Claim) map[shoal.ReplicaID]shoal.JobOutcome {
	news := newsOf(own, p.came)
	maps.DeleteFunc(p.came, func(id shoal.ReplicaID, _ shoal.JobOutcome) bool {
		_, is := news[id]
		return !is
	})
	return news
}

// view returns the newest view that holds our own last update; nil: not there yet.
func (p *peerActor) view() *shoal.View {
	v := p.r.deps.Views.View()
	if v == nil {
		return nil
	}
	if d := p.r.deps.Store.Desired(); d.Version > v.Desired().Version {
		v = v.With(d)
	}
	if v.Desired().Version < p.version {
		return nil
	}
	return v
}

// wakeAt asks for a decision at a time of the monotonic clock.
func (p *peerActor) wakeAt(ctx actor.Context, at time.Duration) {
	if p.wake != nil {
		p.wake.Stop()
	}
	p.wake = p.r.after(max(at-p.r.now(), p.r.cfg.Coalesce), ctx.Self(), &changed{})
}

// handOut gives every service actor its part, if it changed.
func (p *peerActor) handOut(ctx actor.Context, parts map[string]*part) {
	for name, old := range p.parts {
		if parts[name] == nil && len(old.holds) > 0 {
			gone := &part{service: name, publish: old.publish}
			p.parts[name] = gone
			p.services.send(ctx, name, gone)
		}
	}
	for name, now := range parts {
		if now.equal(p.parts[name]) {
			continue
		}
		p.parts[name] = now
		for _, h := range now.holds {
			if p.minted[h.replica] {
				p.r.board.fresh(h.replica)
				delete(p.minted, h.replica)
			}
		}
		if p.services.ensure(ctx, name) {
			p.retell(ctx, name)
			continue
		}
		p.services.send(ctx, name, now)
	}
}

// retell gives a new service actor what the engine held last.
func (p *peerActor) retell(ctx actor.Context, name string) {
	if p.last != nil {
		p.services.send(ctx, name, p.last)
	}
}

// write puts all claims and releases of a plan into one block, with what runs came to.
func (p *peerActor) write(ctx actor.Context, v *shoal.View, plan *placement.Plan, news map[shoal.ReplicaID]shoal.JobOutcome) {
	now := p.r.now()
	p.recent = slices.DeleteFunc(p.recent, func(d dated) bool { return now-d.at > releaseMemory })
	own := v.ClaimsBy(p.r.deps.Self)
	bodies := drafts(p.r.deps.Self, own, homesOf(v, p.r.deps.Self), plan, news, p.recent, p.mint)
	for _, l := range letGo(plan) {
		l.at = now
		p.recent = append(p.recent, l)
	}
	p.tell(plan)
	p.update(ctx, own, bodies)
}

// mint makes a replica's identity.
func (p *peerActor) mint() shoal.ReplicaID {
	var id shoal.ReplicaID
	if _, err := io.ReadFull(p.r.deps.Rand, id[:]); err != nil {
		panic(fmt.Sprintf("no random numbers: %v", err))
	}
	p.minted[id] = true
	return id
}

func (p *peerActor) update(ctx actor.Context, own []shoal.Claim, bodies []*shoal.ClaimBody) {
	p.updating = true
	r, self := p.r, ctx.Self()
	r.work(func(ctx context.Context) {
		_, err := r.deps.Store.Update(ctx, func(d *shoal.Desired, _ shoal.Stamp) ([]shoal.Body, error) {
			if !sameClaims(d, r.deps.Self, own) {
				return nil, errStale
			}
			out := make([]shoal.Body, len(bodies))
			for i, b := range bodies {
				out[i] = b
			}
			return out, nil
		}, shoal.UpdateOptions{})
		m := &written{err: err}
		if err == nil {
			m.version = r.deps.Store.Desired().Version
		}
		r.send(self, m)
	})
}

func (p *peerActor) written(ctx actor.Context, m *written) {
	p.updating = false
	if m.err == nil {
		p.version = m.version
		p.next = 0
		p.decide(ctx)
		return
	}
	clear(p.minted)
	p.wrote, p.told = placement.Plan{}, nil
	if errors.Is(m.err, errStale) {
		p.decide(ctx)
		return
	}
	p.r.log.Warn("claims not written; trying again", logkey.Err, m.err)
	p.wakeAt(ctx, p.r.now()+time.Second)
}

// tell says what the plan changes, with its reasons.
func (p *peerActor) tell(plan *placement.Plan) {
	why := func(service string, slot int) string {
		for _, r := range plan.Reasons {
			if r.Service == service && r.Slot == slot && (r.Peer == "" || r.Peer == p.r.deps.Self) {
				return r.Text
			}
		}
		return ""
	}
	for _, c := range plan.Claims {
		p.say("claim", "claimed", c.Service, c.Slot, why(c.Service, c.Slot))
	}
	for _, d := range plan.Releases {
		p.say("claim", "released", d.Service, d.Slot, why(d.Service, d.Slot))
	}
}

func (p *peerActor) say(kind, what, service string, slot int, why string) {
	p.r.board.log("slot "+what, logkey.Service, service, logkey.Slot, slot, logkey.Reason, why)
	if why != "" {
		what += ": " + why
	}
	p.r.record(kind, service, slot, what)
}

// pull proves freshness, off this actor.
func (p *peerActor) pull(ctx actor.Context, peers []shoal.PeerID) {
	r, self := p.r, ctx.Self()
	for _, id := range peers {
		if p.pulling[id] {
			continue
		}
		p.pulling[id] = true
		r.work(func(ctx context.Context) {
			c, cancel := context.WithTimeout(ctx, r.cfg.Confirm)
			defer cancel()
			err := r.deps.Beacon.Confirm(c, id)
			if err != nil {
				r.log.Debug("no proof of freshness", logkey.Peer, id, logkey.Err, err)
				sleep(ctx, r.cfg.ConfirmAfter)
			}
			r.send(self, &confirmed{peer: id, err: err})
		})
	}
}

func (p *peerActor) confirmed(ctx actor.Context, m *confirmed) {
	delete(p.pulling, m.peer)
	if m.err == nil {
		p.memory = p.memory.Pulled(m.peer, p.r.now())
	}
	p.decide(ctx)
}
