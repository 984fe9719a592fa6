// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"slices"

	"github.com/shoalnet/shoal/actors/lifecycle"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/placement/brake"
)

// slow has the replicas of braked revisions restart slowly.
func slow(parts map[string]*part, verdicts brake.Verdicts) {
	for name, p := range parts {
		for i := range p.holds {
			if v, braked := verdicts.Of(name, p.holds[i].revision); braked {
				first, most := v.Pace()
				p.holds[i].brake = lifecycle.Brake{Delay: first, Cap: most}
			}
		}
	}
}

// brake takes what the last decision found to be at fault: it says what is new, and tells
// the others if it is this peer.
func (p *peerActor) brake(verdicts brake.Verdicts) {
	self := p.r.deps.Self
	trouble := ""
	if v, bad := verdicts.At(self); bad {
		trouble = v.String()
	}
	p.r.board.setTrouble(trouble)
	for _, v := range verdicts {
		if !blames(p.brakes, &v) {
			p.r.board.log("at fault", logkey.Service, v.Service, logkey.Peer, v.Peer, logkey.Reason, v.String())
			p.r.record(kindOf(&v), v.Service, -1, v.String())
		}
	}
	for _, v := range p.brakes {
		if !blames(verdicts, &v) {
			p.r.board.log("no longer at fault", logkey.Service, v.Service, logkey.Peer, v.Peer)
			p.r.record(kindOf(&v), v.Service, -1, "no longer: "+v.String())
		}
	}
	p.brakes = verdicts
	p.r.brakes.Store(&verdicts)
}

// blames reports whether the same is at fault, whatever the numbers.
func blames(l brake.Verdicts, v *brake.Verdict) bool {
	return slices.ContainsFunc(l, func(o brake.Verdict) bool {
		return o.Cause == v.Cause && o.Service == v.Service && o.Revision == v.Revision && o.Peer == v.Peer
	})
}

func kindOf(v *brake.Verdict) string {
	if v.Cause == brake.Application {
		return "service"
	}
	return "peer"
}

// Brakes returns what this peer's last decision found to be at fault where replicas
// fail; none if it has not decided since Run.
func (s *System) Brakes() brake.Verdicts {
	if l := s.brakes.Load(); l != nil {
		return *l
	}
	return nil
}

// setTrouble takes why this peer takes no new slots; "": it does.
func (b *board) setTrouble(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trouble != why {
		b.trouble = why
		b.touch()
	}
}

// brake returns the event of a new pace of a replica's restarts.
func (a *replicaActor) brake() lifecycle.Event {
	return lifecycle.Event{Kind: lifecycle.EventBrake, Brake: a.entry.brake}
}
