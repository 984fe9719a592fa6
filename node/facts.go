// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// How often the slow facts are looked at. Nothing is written unless they changed.
const (
	factsEvery = time.Minute
	factsRetry = 2 * time.Second // while the engine does not answer or a write failed
)

// tellFacts records this peer's admission and its slow facts, and keeps the facts
// true. What cannot be written now (a full disk) is tried again.
func (s *stack) tellFacts(ctx context.Context) {
	admitted := false
	said := "" // every trouble is told once
	for {
		wait, trouble := factsEvery, ""
		_, ruled := s.rules() // asked for before the facts, which then hold what it tells of
		told := s.peer.links.Addrs()
		var machine, err error
		if s.tracker.Trouble() == "" { // two daemons with one identity would correct each other for ever
			if !admitted {
				err = s.store.Inject(ctx, s.peer.parts.Identity.Chain())
				admitted = err == nil
			}
			if admitted {
				machine, err = s.recordFacts(ctx)
			}
		}
		if err = cmp.Or(err, machine); err != nil {
			wait, trouble = factsRetry, err.Error()
		}
		if trouble != said && trouble != "" && ctx.Err() == nil {
			s.peer.parts.Log.Warn("slow facts are not complete yet", logkey.Err, err)
		}
		said = trouble
		if !s.awaitFacts(ctx, wait, told, ruled) {
			return
		}
	}
}

// awaitFacts returns when the facts are to be looked at: after wait, when the owner's
// rules or this peer's addresses (told before) changed; false when ctx ended.
func (s *stack) awaitFacts(ctx context.Context, wait time.Duration, told []string, ruled <-chan struct{}) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		changed := s.peer.links.Changed() // asked for before the addresses
		if !slices.Equal(told, s.peer.links.Addrs()) {
			return true
		}
		select {
		case <-timer.C:
			return true
		case <-ruled:
			return true
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// recordFacts writes this peer's facts if they differ from what is recorded; err says
// that this failed. An engine that does not answer, which machine says, leaves what
// was known of the machine.
func (s *stack) recordFacts(ctx context.Context) (machine, err error) {
	info, machine := s.engines.Machine.Info(ctx)
	self := s.peer.parts.Identity.Self()
	_, err = s.store.Update(ctx, func(d *shoal.Desired, _ shoal.Stamp) ([]shoal.Body, error) {
		var old shoal.PeerFacts
		if me, ok := d.Peer(self); ok {
			old = me.Own
		}
		now := s.facts(old)
		if machine == nil {
			now.Capacity, now.Engine, now.EngineAPI = info.Capacity, info.Engine, info.API
			now.Platforms = []string{info.Platform}
		}
		if sameFacts(old, now) {
			return nil, nil
		}
		return []shoal.Body{&shoal.PeerBody{Peer: self, Facts: now}}, nil
	}, shoal.UpdateOptions{})
	return machine, err
}

// facts returns what this peer should say, starting from what it said before.
func (s *stack) facts(old shoal.PeerFacts) shoal.PeerFacts {
	p := s.peer
	name, labels := p.parts.Identity.Named()
	configured := p.parts.Facts
	now := old
	now.Version, now.Reserved, now.PublishAddr = configured.Version, configured.Reserved, configured.PublishAddr
	now.AllowedPolicy, _ = s.rules()
	now.Addrs, now.Leaving = p.links.Addrs(), s.leaving.Load()
	if s.left.Load() {
		now.Addrs = nil // it cannot be dialled any more
	}
	switch {
	case name != "":
		now.Name = name
	case configured.Name != "":
		now.Name = configured.Name
	case old.Name == "":
		now.Name = p.parts.HostName
	}
	now.Labels = map[string]string{}
	maps.Copy(now.Labels, configured.Labels)
	maps.Copy(now.Labels, labels)
	return now
}

// rules returns what the owner allows, and what is closed when that changes; nil if it
// never does.
func (s *stack) rules() ([]string, <-chan struct{}) {
	if s.peer.parts.Rules == nil {
		return nil, nil
	}
	return s.peer.parts.Rules()
}

// sameFacts compares; nil and empty are one, as they are on the wire.
func sameFacts(a, b shoal.PeerFacts) bool {
	for _, f := range []*shoal.PeerFacts{&a, &b} {
		if len(f.Labels) == 0 {
			f.Labels = nil
		}
		if len(f.Addrs) == 0 {
			f.Addrs = nil
		}
		if len(f.Platforms) == 0 {
			f.Platforms = nil
		}
		if len(f.AllowedPolicy) == 0 {
			f.AllowedPolicy = nil
		}
	}
	return reflect.DeepEqual(a, b)
}
