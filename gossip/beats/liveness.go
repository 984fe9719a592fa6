// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"time"

	"github.com/shoalnet/shoal"
)

// This file holds the decisions about life and death, pure: a value and a fact
// go in, a value and what to do come out. All times are this peer's own monotonic
// clock.

// limits are the thresholds of step.
type limits struct {
	start       time.Duration // when this peer booted; what was heard before does not count as heard
	suspect     int           // missed intervals until suspect
	dead        int           // missed intervals until a probe may kill
	ping        time.Duration // how long a ping waits for an answer
	minInterval time.Duration // what a beat may say its interval is, at least
	maxInterval time.Duration // and at most: a peer cannot make itself immortal
	maxBackBy   time.Duration // how long "back by" may reserve slots
}

// vital is what this peer knows of another's being alive. The zero value is a peer
// never heard of.
type vital struct {
	state    shoal.LifeState
	known    bool // some header was accepted: boot and seq count
	boot     shoal.Boot
	seq      uint64
	heard    time.Duration // receipt of the newest header minus its age at the relayer
	interval time.Duration
	uptime   time.Duration
	backBy   time.Duration // 0: did not say so
	digest   shoal.Digest
	rtt      time.Duration // smoothed; 0: never measured
	probing  bool
	probeAt  time.Duration // no probe starts before
}

// fact is what may happen to a vital: sighting, probed, pinged, slept or tick.
type fact interface{ happens() }

type (
	// sighting is an authentic header, heard now or age ago by who relayed it.
	sighting struct {
		boot     shoal.Boot
		seq      uint64
		age      time.Duration
		interval time.Duration
		uptime   time.Duration
		backBy   time.Duration
		digest   shoal.Digest
	}
	// probed ends a probe: pings on a fresh stream and on a forced new connection,
	// and a pull from two random others.
	probed struct {
		answered bool // by the peer itself, to either ping
		rtt      time.Duration
		took     time.Duration
	}
	// pinged is the answer to a routine ping.
	pinged struct{ rtt time.Duration }
	// slept: this process was frozen, so silence meanwhile says nothing.
	slept struct{}
	// tick: time has passed.
	tick struct{}
)

func (sighting) happens() {}
func (probed) happens()   {}
func (pinged) happens()   {}
func (slept) happens()    {}
func (tick) happens()     {}

// verdict says what became of a sighting.
type verdict int

const (
	stale     verdict = iota // nothing new: an older boot, or a sequence number already seen
	fresh                    // newer than all we knew
	reborn                   // fresh, of a newer boot: what was told before is of another life
	duplicate                // the same boot counter with another nonce: a copied identity
)

// effects is what step asks the shell to do.
type effects struct {
	verdict verdict         // of a sighting
	from    shoal.LifeState // differs from the new state: a change to log and publish
	ask     bool            // pull news about it from the peer itself and a random other
	probe   bool            // ping it, ask two random others, and report probed
}

// step is the whole of liveness: suspect after a few missed intervals, dead after
// some more and a failed probe of our own, alive again by fresher news only.
func step(v vital, f fact, now time.Duration, l limits) (vital, effects) {
	fx := effects{from: v.state}
	switch f := f.(type) {
	case sighting:
		fx.verdict = v.judge(f)
		if fx.verdict == fresh || fx.verdict == reborn {
			v = v.accept(f, now, l)
		}
	case probed:
		if !v.probing {
			return v, fx
		}
		v.probing = false
		switch {
		case f.answered:
			v.rtt = smooth(v.rtt, f.rtt)
			v.probeAt = now + v.interval // it answers but is not heard: ask, and look again soon
			fx.ask = true
		case f.took > l.probeLimit(): // we were frozen while it ran
			v.probeAt = now
		case v.state != shoal.LifeSuspect:
		case now-v.heard >= v.doom(f, l):
			v.state = shoal.LifeDead
		default:
			v.probeAt = max(now, v.heard+v.doom(f, l)-l.ping)
			if f.isRefused(l) {
				v.probeAt = max(now, v.heard+v.missed(l.dead))
			}
		}
	case pinged:
		v.rtt = smooth(v.rtt, f.rtt)
	case slept:
		v.probeAt = max(v.probeAt, now+v.interval)
	}
	v, ask, probe := v.age(now, l)
	fx.ask, fx.probe = fx.ask || ask, probe
	return v, fx
}

// isRefused reports whether the other side said no, rather than nothing.
func (f probed) isRefused(l limits) bool { return f.took < l.ping/2 }

// doom is the silence after which a failed probe kills: the missed intervals when it
// was refused (nobody listens there any more), and a ping's patience on top when it
// was not answered, so that a process frozen for those intervals is still met. The
// probe itself starts a ping's patience before, and so costs no time.
func (v vital) doom(f probed, l limits) time.Duration {
	if f.isRefused(l) {
		return v.missed(l.dead)
	}
	return v.missed(l.dead) + l.ping
}

// probeAfter is the silence after which a probe starts.
func (v vital) probeAfter(l limits) time.Duration {
	return max(v.missed(l.dead)-l.ping, v.missed(l.suspect))
}

// probeLimit is how long a probe takes at most (a fresh stream, then a forced
// connection): one that took longer says nothing, we were frozen.
func (l limits) probeLimit() time.Duration { return 2*l.ping + l.ping/2 }

// judge compares a header with the newest one accepted.
func (v vital) judge(s sighting) verdict {
	switch {
	case !v.known || s.boot.Counter > v.boot.Counter:
		return reborn
	case s.boot.Counter < v.boot.Counter:
		return stale
	case s.boot.Nonce != v.boot.Nonce:
		return duplicate
	case s.seq <= v.seq:
		return stale
	}
	return fresh
}

// accept takes a fresh header over. A relayed one may be older in time than what
// we already had of an earlier life, so heard never moves back.
func (v vital) accept(s sighting, now time.Duration, l limits) vital {
	heard := now - max(s.age, 0)
	if v.known {
		heard = max(heard, v.heard)
	}
	v.known, v.boot, v.seq, v.heard = true, s.boot, s.seq, heard
	v.interval = min(max(s.interval, l.minInterval), l.maxInterval)
	v.uptime, v.digest, v.backBy = s.uptime, s.digest, 0
	if s.backBy > 0 {
		v.backBy = heard + min(s.backBy, l.maxBackBy)
	}
	return v
}

// age draws the consequences of time.
func (v vital) age(now time.Duration, l limits) (out vital, ask, probe bool) {
	silent := now - v.heard
	switch {
	case !v.known || v.heard < l.start:
		return v, false, false // not heard since our own boot: unknown
	case v.backBy > now:
		v.state = shoal.LifeReturning
		return v, false, false
	case silent < v.missed(l.suspect):
		v.state = shoal.LifeAlive
		return v, false, false
	case v.state == shoal.LifeDead && silent >= v.missed(l.dead):
		return v, false, false
	}
	ask = v.state != shoal.LifeSuspect
	v.state = shoal.LifeSuspect
	if silent >= v.probeAfter(l) && !v.probing && now >= v.probeAt {
		v.probing, probe = true, true
	}
	return v, ask, probe
}

// wake returns when time alone will change v; 0: never.
func (v vital) wake(l limits) time.Duration {
	switch v.state {
	case shoal.LifeAlive:
		return v.heard + v.missed(l.suspect)
	case shoal.LifeSuspect:
		if !v.probing {
			return max(v.heard+v.probeAfter(l), v.probeAt)
		}
	case shoal.LifeReturning:
		return v.backBy
	case shoal.LifeUnknown, shoal.LifeDead:
	}
	return 0
}

// missed returns the length of n intervals of this peer.
func (v vital) missed(n int) time.Duration { return time.Duration(n) * v.interval }

// life is v as the rest of the house sees it.
func (v vital) life() shoal.Life {
	l := shoal.Life{State: v.state, Heard: v.heard, Uptime: v.uptime, RTT: v.rtt, Digest: v.digest}
	if v.state == shoal.LifeReturning {
		l.BackBy = v.backBy
	}
	return l
}

// smooth is the round-trip filter of RFC 6298, section 2 (alpha 1/8).
func smooth(old, sample time.Duration) time.Duration {
	if sample <= 0 {
		return old
	}
	if old == 0 {
		return sample
	}
	return old + (sample-old)/8
}
