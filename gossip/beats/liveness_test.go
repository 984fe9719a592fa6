// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

const sec = time.Second

var testLimits = limits{
	suspect: 3, dead: 5, minInterval: sec, maxInterval: 10 * sec, maxBackBy: 2 * time.Minute, ping: sec,
}

// seen is a beat of boot 1, heard now.
func seen(seq uint64) sighting {
	return sighting{boot: shoal.Boot{Counter: 1, Nonce: 7}, seq: seq, interval: sec}
}

func with(s sighting, change func(*sighting)) sighting {
	change(&s)
	return s
}

func TestStep(t *testing.T) {
	type line struct {
		at   time.Duration
		fact fact
		want shoal.LifeState
		fx   string // "", ask, probe
	}
	failed, refused, answered := probed{took: sec}, probed{took: sec / 100}, probed{answered: true, rtt: sec / 100}
	for name, story := range map[string][]line{
		"silence without a beat says nothing": {
			{100 * sec, tick{}, shoal.LifeUnknown, ""},
		},
		"suspect after three, dead after five and a ping without answer": {
			{0, seen(1), shoal.LifeAlive, ""},
			{2999 * time.Millisecond, tick{}, shoal.LifeAlive, ""},
			{3 * sec, tick{}, shoal.LifeSuspect, "ask"},
			{3999 * time.Millisecond, tick{}, shoal.LifeSuspect, ""},
			{4 * sec, tick{}, shoal.LifeSuspect, "probe"},
			{5 * sec, failed, shoal.LifeSuspect, "probe"},
			{5500 * time.Millisecond, tick{}, shoal.LifeSuspect, ""},
			{6 * sec, failed, shoal.LifeDead, ""},
			{90 * sec, tick{}, shoal.LifeDead, ""},
			{91 * sec, seen(2), shoal.LifeAlive, ""},
		},
		"a probe may take both its pings' time": {
			{0, seen(1), shoal.LifeAlive, ""},
			{4 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{6 * sec, probed{took: 2 * sec}, shoal.LifeDead, ""},
		},
		"dead after five when its ping is refused, not before": {
			{0, seen(1), shoal.LifeAlive, ""},
			{4 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{4010 * time.Millisecond, refused, shoal.LifeSuspect, ""},
			{4990 * time.Millisecond, tick{}, shoal.LifeSuspect, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "probe"},
			{5010 * time.Millisecond, refused, shoal.LifeDead, ""},
		},
		"frozen for five seconds right before its next beat": {
			{0, seen(1), shoal.LifeAlive, ""},
			{4 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{5 * sec, failed, shoal.LifeSuspect, "probe"},
			{5950 * time.Millisecond, answered, shoal.LifeSuspect, "ask"},
			{5960 * time.Millisecond, seen(2), shoal.LifeAlive, ""},
		},
		"an answered ping keeps it suspect, and it is looked at again": {
			{0, seen(1), shoal.LifeAlive, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{5100 * time.Millisecond, answered, shoal.LifeSuspect, "ask"},
			{6 * sec, tick{}, shoal.LifeSuspect, ""},
			{6100 * time.Millisecond, tick{}, shoal.LifeSuspect, "probe"},
			{7100 * time.Millisecond, failed, shoal.LifeDead, ""},
		},
		"fresher word of others while the ping fails": {
			{0, seen(1), shoal.LifeAlive, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{5500 * time.Millisecond, with(seen(4), func(s *sighting) { s.age = sec / 2 }), shoal.LifeAlive, ""},
			{6 * sec, failed, shoal.LifeAlive, ""},
		},
		"old word of others does not save it": {
			{0, seen(1), shoal.LifeAlive, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{5500 * time.Millisecond, with(seen(2), func(s *sighting) { s.age = 5500 * time.Millisecond }), shoal.LifeSuspect, ""},
			{6 * sec, failed, shoal.LifeDead, ""},
		},
		"word that is a bit old makes the dead suspect": {
			{0, seen(1), shoal.LifeAlive, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{6 * sec, failed, shoal.LifeDead, ""},
			{7 * sec, with(seen(4), func(s *sighting) { s.age = 4 * sec }), shoal.LifeSuspect, "ask probe"},
		},
		"replayed sequence numbers and boots revive nobody": {
			{0, with(seen(9), func(s *sighting) { s.boot.Counter = 2 }), shoal.LifeAlive, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{6 * sec, failed, shoal.LifeDead, ""},
			{7 * sec, with(seen(9), func(s *sighting) { s.boot.Counter = 2 }), shoal.LifeDead, ""},
			{7 * sec, with(seen(8), func(s *sighting) { s.boot.Counter = 2 }), shoal.LifeDead, ""},
			{7 * sec, seen(1000), shoal.LifeDead, ""},
			{8 * sec, with(seen(1), func(s *sighting) { s.boot.Counter = 3 }), shoal.LifeAlive, ""},
		},
		"another nonce of the same boot revives nobody": {
			{0, seen(1), shoal.LifeAlive, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{6 * sec, failed, shoal.LifeDead, ""},
			{7 * sec, with(seen(50), func(s *sighting) { s.boot.Nonce = 8 }), shoal.LifeDead, ""},
		},
		"back by is believed, until then": {
			{0, with(seen(1), func(s *sighting) { s.backBy = 60 * sec }), shoal.LifeReturning, ""},
			{59 * sec, tick{}, shoal.LifeReturning, ""},
			{60 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{60 * sec, probed{took: sec / 100}, shoal.LifeDead, ""},
		},
		"back by ends with the return": {
			{0, with(seen(1), func(s *sighting) { s.backBy = 60 * sec }), shoal.LifeReturning, ""},
			{9 * sec, with(seen(1), func(s *sighting) { s.boot.Counter = 2 }), shoal.LifeAlive, ""},
			{12 * sec, tick{}, shoal.LifeSuspect, "ask"},
		},
		"back by is bounded": {
			{0, with(seen(1), func(s *sighting) { s.backBy = 9000 * sec }), shoal.LifeReturning, ""},
			{120 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
		},
		"a claimed interval is bounded": {
			{0, with(seen(1), func(s *sighting) { s.interval = time.Hour }), shoal.LifeAlive, ""},
			{30 * sec, tick{}, shoal.LifeSuspect, "ask"},
			{49 * sec, tick{}, shoal.LifeSuspect, "probe"},
		},
		"frozen ourselves: nothing is concluded from it": {
			{0, seen(1), shoal.LifeAlive, ""},
			{60 * sec, slept{}, shoal.LifeSuspect, "ask"},
			{60900 * time.Millisecond, tick{}, shoal.LifeSuspect, ""},
			{61 * sec, tick{}, shoal.LifeSuspect, "probe"},
		},
		"frozen while a probe ran: it runs again": {
			{0, seen(1), shoal.LifeAlive, ""},
			{5 * sec, tick{}, shoal.LifeSuspect, "ask probe"},
			{60 * sec, probed{took: 55 * sec}, shoal.LifeSuspect, "probe"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var v vital
			for i, l := range story {
				var fx effects
				v, fx = step(v, l.fact, l.at, testLimits)
				got := ""
				if fx.ask {
					got = "ask"
				}
				if fx.probe && got != "" {
					got += " "
				}
				if fx.probe {
					got += "probe"
				}
				if v.state != l.want || got != l.fx {
					t.Fatalf("line %d, %v at %v: %s %q, want %s %q", i, l.fact, l.at, v.state, got, l.want, l.fx)
				}
			}
		})
	}
}

func TestHeardBeforeOwnBootIsUnknown(t *testing.T) {
	l := testLimits
	l.start = 100 * sec
	v, _ := step(vital{}, with(seen(5), func(s *sighting) { s.age = 4 * sec }), 103*sec, l)
	if v.state != shoal.LifeUnknown {
		t.Fatalf("heard before our boot: %s, want unknown", v.state)
	}
	if v, fx := step(v, seen(5), 104*sec, l); fx.verdict != stale || v.state != shoal.LifeUnknown {
		t.Fatalf("its replay: verdict %d, %s, want stale, unknown", fx.verdict, v.state)
	}
	if v, _ := step(v, seen(6), 104*sec, l); v.state != shoal.LifeAlive {
		t.Fatalf("a newer one: %s, want alive", v.state)
	}
}

func TestVerdicts(t *testing.T) {
	v, fx := step(vital{}, seen(3), 0, testLimits)
	if fx.verdict != reborn {
		t.Fatalf("first beat: %d, want reborn", fx.verdict)
	}
	for name, c := range map[string]struct {
		s    sighting
		want verdict
	}{
		"newer":         {seen(4), fresh},
		"equal":         {seen(3), stale},
		"older":         {seen(2), stale},
		"older boot":    {with(seen(9), func(s *sighting) { s.boot.Counter = 0 }), stale},
		"newer boot":    {with(seen(1), func(s *sighting) { s.boot.Counter = 2 }), reborn},
		"another nonce": {with(seen(9), func(s *sighting) { s.boot.Nonce = 8 }), duplicate},
	} {
		if _, fx := step(v, c.s, 0, testLimits); fx.verdict != c.want {
			t.Errorf("%s: verdict %d, want %d", name, fx.verdict, c.want)
		}
	}
}

// TestStepProperties draws long lives at random. Nobody dies but by an unanswered
// probe of our own after five silent intervals; stale and duplicate headers change
// nothing; heard never moves back; and time alone changes nothing before wake.
func TestStepProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v vital
		now := time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if at := v.wake(testLimits); at > now+1 {
				if w, fx := step(v, tick{}, at-1, testLimits); w != v || fx.ask || fx.probe {
					t.Fatalf("time changed %+v to %+v before it said", v, w)
				}
			}
			now += time.Duration(rapid.Int64Range(0, int64(3*sec)).Draw(t, "dt"))
			was := v
			f := drawFact(t, v)
			var fx effects
			v, fx = step(v, f, now, testLimits)
			check(t, was, v, f, fx, now)
		}
	})
}

func drawFact(t *rapid.T, v vital) fact {
	switch rapid.IntRange(0, 9).Draw(t, "fact") {
	case 0, 1, 2:
		return tick{}
	case 3:
		return slept{}
	case 4:
		return pinged{rtt: sec / 100}
	case 5, 6:
		if v.probing {
			return probed{
				answered: rapid.Bool().Draw(t, "answered"),
				took:     time.Duration(rapid.Int64Range(0, int64(3*sec)).Draw(t, "took")),
			}
		}
		return tick{}
	}
	return sighting{
		boot: shoal.Boot{
			Counter: v.boot.Counter + uint64(rapid.IntRange(0, 20).Draw(t, "boot")/19),
			Nonce:   uint64(rapid.IntRange(0, 9).Draw(t, "nonce") / 9),
		},
		seq:      uint64(max(0, int64(v.seq)+rapid.Int64Range(-3, 3).Draw(t, "seq"))),
		age:      time.Duration(rapid.Int64Range(0, int64(8*sec)).Draw(t, "age")),
		interval: sec,
		backBy:   time.Duration(rapid.IntRange(0, 9).Draw(t, "backBy")/9) * 60 * sec,
	}
}

func check(t *rapid.T, was, v vital, f fact, fx effects, now time.Duration) {
	if v.state == shoal.LifeDead && was.state != shoal.LifeDead {
		p, ok := f.(probed)
		if !ok || p.answered || p.took > testLimits.probeLimit() || !was.probing || now-v.heard < 5*sec {
			t.Fatalf("died of %T %+v, silent for %v", f, f, now-v.heard)
		}
	}
	if v.state == shoal.LifeUnknown && was.state != shoal.LifeUnknown {
		t.Fatalf("became unknown by %+v", f)
	}
	if was.known && v.heard < was.heard {
		t.Fatalf("heard moved back from %v to %v", was.heard, v.heard)
	}
	if fx.probe && (now-v.heard < 4*sec || was.probing && v.probing && f == fact(tick{})) {
		t.Fatalf("needless probe after %v of silence", now-v.heard)
	}
	if was.state == shoal.LifeDead && v.state == shoal.LifeAlive && fx.verdict != fresh && fx.verdict != reborn {
		t.Fatalf("revived by %T with verdict %d", f, fx.verdict)
	}
	if _, ok := f.(sighting); ok && (fx.verdict == stale || fx.verdict == duplicate) {
		if v.boot != was.boot || v.seq != was.seq || v.heard != was.heard || v.backBy != was.backBy {
			t.Fatalf("verdict %d changed %+v to %+v", fx.verdict, was, v)
		}
	}
}

func TestSmooth(t *testing.T) {
	for _, c := range []struct{ old, sample, want time.Duration }{
		{0, 80, 80}, {80, 0, 80}, {80, 160, 90}, {80, 0, 80},
	} {
		if got := smooth(c.old, c.sample); got != c.want {
			t.Errorf("smooth(%d, %d) = %d, want %d", c.old, c.sample, got, c.want)
		}
	}
}

func TestInterval(t *testing.T) {
	for _, c := range []struct {
		n    int
		rtt  time.Duration
		want time.Duration
	}{
		{3, 0, sec},
		{50, time.Millisecond, sec},
		{100, 0, 2 * sec},
		{300, 0, 6 * sec},
		{5000, 0, 10 * sec},
		{3, 300 * time.Millisecond, 1200 * time.Millisecond},
		{3, 9 * sec, 10 * sec},
	} {
		if got := LAN().interval(c.n, c.rtt); got != c.want {
			t.Errorf("interval(%d, %v) = %v, want %v", c.n, c.rtt, got, c.want)
		}
	}
}
