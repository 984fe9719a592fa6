// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// validate judges a message of the topic and takes it in: there is no queue behind
// it that could overflow. Only news is relayed. Forged packets are charged to the
// neighbour that handed them on, so that nobody can silence a third.
func (t *Tracker) validate(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == t.deps.Host.ID() {
		return pubsub.ValidationAccept // we say it ourselves
	}
	via := shoal.PeerID(from.String())
	if !t.mayBeBad(via) {
		return pubsub.ValidationIgnore
	}
	b, err := decode(m.GetData(), maxGossip)
	if err != nil {
		t.charge(via)
		return pubsub.ValidationReject
	}
	switch t.worth(b, true) {
	case worthNothing:
		return pubsub.ValidationIgnore
	case worthForged:
		t.charge(via)
		return pubsub.ValidationReject
	case worthTaking:
	}
	if t.take(b, 0) == stale {
		return pubsub.ValidationIgnore
	}
	return pubsub.ValidationAccept
}

// receive takes a relayed packet in. An error means that the relayer is at fault.
func (t *Tracker) receive(raw []byte, age time.Duration) error {
	b, err := decode(raw, maxPacket)
	if err != nil {
		return err
	}
	switch t.worth(b, false) {
	case worthForged:
		return malformed("signature", "not by %s", b.peer.Short())
	case worthTaking:
		t.take(b, age)
	case worthNothing:
	}
	return nil
}

// worth of a packet.
type worth int

const (
	worthNothing worth = iota // not about a member, or nothing new, or too many
	worthForged
	worthTaking
)

// worth judges a decoded packet; the signature comes last because it is dear.
func (t *Tracker) worth(b *beat, isLimited bool) worth {
	key := t.key
	if b.peer != t.self {
		t.mu.Lock()
		c := t.contacts[b.peer]
		if c == nil || !c.wouldLearn(b) || (isLimited && c.good.Tokens() < 1) {
			t.mu.Unlock()
			return worthNothing
		}
		key = c.key
		t.mu.Unlock()
	} else if b.boot == t.deps.Boot || b.boot.Counter < t.deps.Boot.Counter {
		return worthNothing // our own voice, or an echo of an earlier life
	}
	if !b.authentic(t.deps.Cluster, key) {
		return worthForged
	}
	return worthTaking
}

// wouldLearn reports whether b tells c's tracker anything.
func (c *contact) wouldLearn(b *beat) bool {
	switch c.vital.judge(b.sighting) {
	case fresh, reborn, duplicate:
		return true
	case stale:
	}
	return b.boot == c.vital.boot && b.carries() && b.version > c.ledger.version
}

// take lets an authentic packet have its effect.
func (t *Tracker) take(b *beat, age time.Duration) verdict {
	now := t.deps.Clock.Mono()
	t.mu.Lock()
	defer t.unlock()
	if b.peer == t.self {
		t.meetSelf(b)
		return duplicate
	}
	c := t.contacts[b.peer]
	if c == nil {
		return stale
	}
	s := b.sighting
	s.age = min(max(age, 0), maxAge)
	fx := t.step(b.peer, c, s, now)
	switch fx.verdict {
	case duplicate:
		t.meetDouble(c, b)
		return duplicate
	case reborn:
		c.ledger, c.misses = c.ledger.reborn(), 0
	case fresh, stale:
	}
	if b.boot != c.vital.boot {
		return stale
	}
	heard := heardBeat{beat: b, heard: now - s.age}
	if fx.verdict != stale {
		c.good.Allow()
		c.ledger.last = heard
	}
	told, changed := c.ledger.add(heard)
	c.ledger = told
	if changed {
		t.touch()
	}
	if !c.ledger.gap() {
		c.misses = 0
	} else if _, ok := t.wants[b.peer]; !ok {
		t.want(b.peer, t.patience(c)) // it may just be late
	}
	return fx.verdict
}

// step lets something happen to a contact's vital and takes the effects down. The
// caller holds mu.
func (t *Tracker) step(id shoal.PeerID, c *contact, f fact, now time.Duration) effects {
	v, fx := step(c.vital, f, now, t.limits)
	c.vital = v
	if fx.probe {
		t.probes = append(t.probes, id)
		poke(t.pokeWatcher)
	}
	if fx.ask {
		t.want(id, 0)
	}
	if v.state != fx.from {
		t.touch()
		level := slog.LevelInfo
		if v.state == shoal.LifeSuspect || fx.from == shoal.LifeSuspect && v.state == shoal.LifeAlive {
			level = slog.LevelDebug
		}
		t.note(level, "peer is "+v.state.String(), slog.String(logkey.Peer, string(id)),
			slog.String(logkey.Reason, fmt.Sprintf("was %s, heard %v ago", fx.from, (now-v.heard).Round(time.Millisecond))))
	}
	return fx
}

// meetDouble keeps the voice of a second life with the same boot counter, so that
// both can be told, and says so once. The caller holds mu.
func (t *Tracker) meetDouble(c *contact, b *beat) {
	if c.ledger.rival == nil || c.ledger.rival.seq < b.seq || c.ledger.rival.boot != b.boot {
		if len(b.raw) <= maxGossip {
			c.ledger.rival = b
		}
	}
	if !c.isDouble {
		c.isDouble = true
		t.note(slog.LevelError, "two daemons run with one identity: stop one, give it a key of its own",
			slog.String(logkey.Peer, string(b.peer)), slog.Uint64("boot", b.boot.Counter))
	}
}

// meetSelf is called when somebody else speaks with our own key. The caller holds mu.
func (t *Tracker) meetSelf(b *beat) {
	if t.trouble != "" {
		return
	}
	t.trouble = fmt.Sprintf("another daemon runs with this peer's identity (its boot %d, ours %d): stop one of them and give it a key of its own",
		b.boot.Counter, t.deps.Boot.Counter)
	t.note(slog.LevelError, t.trouble, slog.String(logkey.Peer, string(t.self)))
	t.touch()
}

// patience is how long to wait before the next pull that is to close a gap: it may
// close by itself, and asking again and again closes nothing. The caller holds mu.
func (t *Tracker) patience(c *contact) time.Duration {
	base := t.cfg.Interval / 20
	if c.misses > 0 {
		base = t.cfg.Interval / 2 << min(c.misses-1, 5)
	}
	return base + t.jitter(base)
}

// mayBeBad reports whether this neighbour still has credit for bad packets.
func (t *Tracker) mayBeBad(via shoal.PeerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.contacts[via]; c != nil {
		return c.bad.Tokens() >= 1
	}
	return t.strayed.Tokens() >= 1
}

// charge takes credit from a neighbour for a bad packet.
func (t *Tracker) charge(via shoal.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.contacts[via]; c != nil {
		c.bad.Allow()
		return
	}
	t.strayed.Allow()
}
