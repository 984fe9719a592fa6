// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// untold marks an orphan of a service that nobody has a word about: its grace has
// not begun.
const untold time.Duration = -1

// sweep finds containers of ours that no claim and no replica actor knows, and has
// them taken down once they have been so for the grace; while leaving at once.
// It waits for a decision: only then this peer's claims are what they should be.
func (p *peerActor) sweep(ctx actor.Context) {
	leaving := p.r.leaving.Load()
	if p.last == nil || !leaving && (!p.decided || p.trouble != "") {
		return
	}
	v := p.view()
	if v == nil {
		return
	}
	if _, member := v.Peer(p.r.deps.Self); !member && !leaving {
		return // a store that does not know us knows nothing of our claims
	}
	now := p.r.now()
	claimed := make(map[shoal.ReplicaID]bool)
	for _, c := range v.ClaimsBy(p.r.deps.Self) {
		claimed[c.Replica] = true
	}
	p.r.board.prune(claimed)
	p.forgetWords(v)
	present := make(map[shoal.ReplicaID]bool, len(p.last.containers))
	for _, c := range p.last.containers {
		if claimed[c.Replica] && !leaving || p.r.board.has(c.Replica) {
			continue
		}
		present[c.Replica] = true
		since, known := p.seen[c.Replica]
		stray := !leaving && !knows(v.Desired(), c.Service)
		switch {
		case stray && !known:
			p.r.log.Warn("container of a service nobody has a word about: left alone",
				logkey.Service, c.Service, logkey.Replica, c.Replica.Short())
			p.seen[c.Replica] = untold
		case !stray && (!known || since == untold): // the first word may come before our claim
			since = now
			p.seen[c.Replica] = now
		}
		switch {
		case leaving || p.precedes(v, &c):
		case stray || now-since < p.r.cfg.OrphanGrace:
			continue
		default:
			p.r.log.Info("container without a claim: taken down", logkey.Service, c.Service, logkey.Replica, c.Replica.Short())
		}
		delete(present, c.Replica)
		p.services.ensure(ctx, c.Service)
		p.orphans[c.Service]++
		p.services.send(ctx, c.Service, &orphan{container: c})
	}
	for id := range p.seen {
		if !present[id] {
			delete(p.seen, id)
		}
	}
}

// precedes reports whether a container without a claim was replaced by a claim of this
// peer that has no container yet: it fills the slot until the new image is there.
func (p *peerActor) precedes(v *shoal.View, old *shoal.Container) bool {
	for _, c := range v.ClaimsBy(p.r.deps.Self) {
		if c.Service == old.Service && c.Revision.Compare(old.Revision) > 0 &&
			!slices.ContainsFunc(p.last.containers, func(o shoal.Container) bool { return o.Replica == c.Replica }) {
			return true
		}
	}
	return false
}

// leave releases all claims, has all replicas stopped, and says when nothing is left.
func (p *peerActor) leave(ctx actor.Context, v *shoal.View) {
	own := v.ClaimsBy(p.r.deps.Self)
	if bodies := releaseAll(p.r.deps.Self, own, p.news(own)); len(bodies) > 0 {
		p.update(ctx, own, bodies)
		return
	}
	p.handOut(ctx, nil)
	p.leftAll = true
	p.sweep(ctx)
	p.r.lookNow()
}

// checkLeft ends Leave once the engine lists none of our containers.
func (p *peerActor) checkLeft() {
	if !p.r.leaving.Load() || !p.leftAll || len(p.services.kids) > 0 || p.last == nil {
		return
	}
	if len(p.last.containers) > 0 {
		p.r.lookNow()
		return
	}
	select {
	case <-p.r.left:
	default:
		close(p.r.left)
	}
}
