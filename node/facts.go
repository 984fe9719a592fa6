// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"maps"
	"reflect"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// How often the slow facts are looked at. Nothing is written unless they changed.
const (
	factsEvery = time.Minute
	factsRetry = 2 * time.Second // while the engine does not answer or a write failed
)

// tellFacts records this peer's admission and its slow facts, and keeps the facts true.
func (s *stack) tellFacts(ctx context.Context) error {
	if err := s.store.Inject(ctx, s.peer.parts.Identity.Chain()); err != nil {
		return ignoreEnd(err)
	}
	for {
		wait := factsEvery
		if err := s.recordFacts(ctx); err != nil && ctx.Err() == nil {
			s.peer.parts.Log.Warn("slow facts are not recorded yet", logkey.Err, err)
			wait = factsRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// recordFacts writes this peer's facts if they differ from what is recorded. An
// engine that does not answer leaves what was known of the machine.
func (s *stack) recordFacts(ctx context.Context) error {
	info, engineErr := s.engines.Machine.Info(ctx)
	self := s.peer.parts.Identity.Self()
	_, err := s.store.Update(ctx, func(d *shoal.Desired, _ shoal.Stamp) ([]shoal.Body, error) {
		var old shoal.PeerFacts
		if me, ok := d.Peer(self); ok {
			old = me.Facts
		}
		now := s.facts(old)
		if engineErr == nil {
			now.Capacity, now.Engine, now.EngineAPI = info.Capacity, info.Engine, info.API
			now.Platforms = []string{info.Platform}
		}
		if sameFacts(old, now) {
			return nil, nil
		}
		return []shoal.Body{&shoal.PeerBody{Peer: self, Facts: now}}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		return err
	}
	return engineErr
}

// facts returns what this peer should say, starting from what it said before.
func (s *stack) facts(old shoal.PeerFacts) shoal.PeerFacts {
	p := s.peer
	p.mu.Lock()
	named := p.named
	p.mu.Unlock()
	configured := p.parts.Facts
	now := old
	now.Version, now.Reserved, now.PublishAddr = configured.Version, configured.Reserved, configured.PublishAddr
	now.Addrs, now.Leaving = p.links.Addrs(), s.leaving.Load()
	switch {
	case named.name != "":
		now.Name = named.name
	case configured.Name != "":
		now.Name = configured.Name
	case old.Name == "":
		now.Name = p.parts.HostName
	}
	if len(configured.Labels)+len(named.labels) > 0 {
		now.Labels = maps.Clone(configured.Labels)
		if now.Labels == nil {
			now.Labels = map[string]string{}
		}
		maps.Copy(now.Labels, named.labels)
	}
	return now
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
