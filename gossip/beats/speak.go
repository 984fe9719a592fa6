// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	codec "github.com/shoalnet/shoal/proto"
)

// speech is what this peer has to say, and what it said.
type speech struct {
	now     *shoal.PeerState // newest published; nil: nothing yet
	sent    *shoal.PeerState // as of version; nil: nothing yet
	seq     uint64
	version uint64
	sinceAt int           // beats since the last full one
	deltas  int           // bytes of changes since the last full one
	fullLen int           // bytes of the last full one
	backBy  time.Duration // own time; 0: does not stop
	odd     string        // what Publish last left out, said once
}

// Publish implements [shoal.Beacon]. Lists are put in order and cut to the bounds of
// the wire, texts to 512 bytes; a replica, registry or refusal that others would not
// accept is left out and logged. A change of nothing but what is measured waits for the next
// beat, unless somebody came to a service for the first time.
func (t *Tracker) Publish(s shoal.PeerState) {
	odd := clean(&s)
	t.mu.Lock()
	defer t.unlock()
	if odd != nil && odd.Error() != t.speech.odd {
		t.speech.odd = odd.Error()
		t.note(slog.LevelError, "part of our state cannot be told", slog.Any(logkey.Err, odd))
	}
	old := t.speech.now
	if old != nil {
		changed := diff(old, &s).sections
		if changed == 0 {
			return
		}
		if changed&^(sectionUsage|sectionLoads) != 0 || old.Free != s.Free || wakes(old.Carried, s.Carried) {
			poke(t.pokeSpeaker)
		}
	} else {
		poke(t.pokeSpeaker)
	}
	t.speech.now = &s
	t.touch()
}

// wakes reports whether something is carried to a service to which nothing was: it may have
// no replica, and its client waits.
func wakes(old, now []shoal.Carried) bool {
	return slices.ContainsFunc(now, func(c shoal.Carried) bool {
		return !slices.ContainsFunc(old, func(o shoal.Carried) bool { return o.Service == c.Service })
	})
}

// clean makes s fit for the wire without writing to its old slices, and returns why
// it had to leave something out.
func clean(s *shoal.PeerState) (odd error) {
	s.Engine.Reason, s.Trouble = brief(s.Engine.Reason), brief(s.Trouble)
	s.Replicas = slices.Clone(s.Replicas)
	for i := range s.Replicas {
		s.Replicas[i].Reason = brief(s.Replicas[i].Reason)
	}
	s.Refusals = slices.Clone(s.Refusals)
	for i := range s.Refusals {
		s.Refusals[i].Reason = brief(s.Refusals[i].Reason)
	}
	s.Upstreams = slices.Clone(s.Upstreams)
	for i := range s.Upstreams {
		s.Upstreams[i].Waits = brief(s.Upstreams[i].Waits)
	}
	tidy(s)
	if _, odd = codec.EncodeState(*s); odd == nil {
		return nil
	}
	s.Replicas = slices.DeleteFunc(s.Replicas, func(r shoal.ReplicaStatus) bool {
		_, err := codec.EncodeState(shoal.PeerState{Replicas: []shoal.ReplicaStatus{r}})
		return err != nil
	})
	s.Refusals = slices.DeleteFunc(s.Refusals, func(r shoal.Refusal) bool {
		_, err := codec.EncodeState(shoal.PeerState{Refusals: []shoal.Refusal{r}})
		return err != nil
	})
	s.Upstreams = slices.DeleteFunc(s.Upstreams, func(u shoal.Upstream) bool {
		_, err := codec.EncodeState(shoal.PeerState{Upstreams: []shoal.Upstream{u}})
		return err != nil
	})
	s.Loads = slices.DeleteFunc(slices.Clone(s.Loads), func(l shoal.ReplicaLoad) bool {
		_, err := codec.EncodeState(shoal.PeerState{Loads: []shoal.ReplicaLoad{l}})
		return err != nil
	})
	s.Carried = slices.DeleteFunc(slices.Clone(s.Carried), func(c shoal.Carried) bool {
		_, err := codec.EncodeState(shoal.PeerState{Carried: []shoal.Carried{c}})
		return err != nil
	})
	if _, err := codec.EncodeState(*s); err != nil { // too large, or an image with an odd name
		s.Images = nil
	}
	return odd
}

// brief cuts a text to its bound and makes it valid.
func brief(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "?")
}

// speakLoop sends a beat each interval, and at once when there is something to
// tell, but never two within MinGap.
func (t *Tracker) speakLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-t.pokeSpeaker:
		}
		gap := t.speak(ctx)
		select { // whatever changes meanwhile goes out together
		case <-ctx.Done():
			return nil
		case <-time.After(t.cfg.MinGap):
		}
		timer.Reset(gap - t.cfg.MinGap)
	}
}

// speak publishes one beat and returns when the next is due at the latest: a bit
// before the interval ends, so that peers do not beat in step.
func (t *Tracker) speak(ctx context.Context) time.Duration {
	interval := t.cfg.Interval
	if b, err := t.compose(); err != nil {
		t.deps.Log.Error("no beat", slog.Any(logkey.Err, err))
	} else {
		t.publish(ctx, b)
		interval = b.interval
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(interval-t.jitter(interval/10), t.cfg.MinGap)
}

// compose makes the next beat for the topic. It carries what changed since the last
// one, or everything when that is due. When neither fits into a beat it goes
// without: who hears of the version will pull it.
func (t *Tracker) compose() (*beat, error) {
	t.mu.Lock()
	thin := t.header()
	s := &t.speech
	s.sinceAt++
	var variants []beat
	if s.now != nil {
		var c changes
		if s.sent != nil {
			c = diff(s.sent, s.now)
		}
		if s.sent == nil || c.sections != 0 {
			s.version++
		}
		thin.version = s.version
		if s.sent == nil || s.sinceAt >= t.cfg.FullEvery || s.deltas > max(s.fullLen, maxGossip/8) {
			s.sinceAt, s.deltas = 0, 0
			full := thin
			full.full, full.changes = true, whole(s.now)
			variants = append(variants, full)
		}
		if s.sent != nil && c.sections != 0 {
			delta := thin
			delta.base, delta.changes = s.version-1, c
			variants = append(variants, delta)
		}
		s.sent = s.now
	}
	t.mu.Unlock()
	b, err := t.seal(maxGossip, append(variants, thin)...)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.full {
		t.speech.fullLen = len(b.raw)
	} else if b.carries() {
		t.speech.deltas += len(b.raw)
	}
	return b, nil
}

// answer makes a beat for one who asks: everything, unless it has this version.
func (t *Tracker) answer(boot shoal.Boot, version uint64) (*beat, error) {
	t.mu.Lock()
	thin := t.header()
	thin.version = t.speech.version
	variants := []beat{thin}
	if t.speech.sent != nil && (boot != t.deps.Boot || version != thin.version) {
		full := thin
		full.full, full.changes = true, whole(t.speech.sent)
		variants = []beat{full, thin}
	}
	t.mu.Unlock()
	return t.seal(maxPacket, variants...)
}

// hello makes a beat that is only a header.
func (t *Tracker) hello() (*beat, error) {
	t.mu.Lock()
	b := t.header()
	b.version = t.speech.version
	t.mu.Unlock()
	return t.seal(maxGossip, b)
}

// header makes the next beat's header. The caller holds mu.
func (t *Tracker) header() beat {
	now := t.deps.Clock.Mono()
	t.speech.seq++
	b := beat{peer: t.self, sighting: sighting{
		boot: t.deps.Boot, seq: t.speech.seq, uptime: now - t.limits.start,
		interval: t.cfg.interval(len(t.contacts)+1, t.medianRTT()),
		digest:   t.deps.Records.Desired().Digest,
	}}
	if t.speech.backBy > now {
		b.backBy = t.speech.backBy - now
	}
	return b
}

// seal signs the first of the variants that fits into limit bytes. The last one is
// a mere header, which always does.
func (t *Tracker) seal(limit int, variants ...beat) (*beat, error) {
	var errs []error
	for _, b := range variants {
		out, err := encode(b, t.deps.Cluster, t.deps.Signer)
		switch {
		case err != nil:
			errs = append(errs, err)
		case len(out.raw) <= limit:
			return out, nil
		}
	}
	return nil, errors.Join(errs...)
}

// publish puts a beat on the topic.
func (t *Tracker) publish(ctx context.Context, b *beat) {
	topic := t.topic.Load()
	if topic == nil {
		return
	}
	if err := topic.Publish(ctx, b.raw); err != nil && ctx.Err() == nil {
		t.deps.Log.Debug("beat not published", slog.Any(logkey.Err, err))
	}
}

// SayBackBy tells everybody that this daemon stops and means to be back within d,
// its containers left running: its slots stay its own until then. It publishes and
// also tells each connected member directly, and returns when all of them took it or
// ctx ends. Every later beat of this boot says so too. Call it while Run runs, last.
func (t *Tracker) SayBackBy(ctx context.Context, d time.Duration) {
	t.mu.Lock()
	t.speech.backBy = t.deps.Clock.Mono() + d
	ids := t.others(func(id shoal.PeerID, _ *contact) bool { return t.isConnected(id) })
	t.mu.Unlock()
	b, err := t.compose()
	if err != nil {
		t.deps.Log.Error("back-by not told", slog.Any(logkey.Err, err))
		return
	}
	t.publish(ctx, b)
	ctx, cancel := context.WithTimeout(ctx, t.cfg.PullTimeout)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(32)
	for _, id := range ids {
		group.Go(func() error {
			if err := t.tell(ctx, id, b); err != nil {
				t.deps.Log.Debug("back-by not told", slog.String(logkey.Peer, string(id)), slog.Any(logkey.Err, err))
			}
			return nil
		})
	}
	_ = group.Wait() // best effort: nothing above returns an error
}

// medianRTT returns the median of the measured round trips. The caller holds mu.
func (t *Tracker) medianRTT() time.Duration {
	var all []time.Duration
	for _, c := range t.contacts {
		if c.vital.rtt > 0 {
			all = append(all, c.vital.rtt)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
