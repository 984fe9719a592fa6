// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

const sec = time.Second

// TestWaitGrows: 1 s doubling to 30 s, and anew after a connection was accepted.
func TestWaitGrows(t *testing.T) {
	tab := table(1, shoal.LBP2C, backends(1))
	now := time.Duration(0)
	refuse := func(want ...time.Duration) {
		t.Helper()
		for i, w := range want {
			pick(t, tab, client(0), now)
			tab.Refused(replica(0), now)
			if ok, why := tab.Usable(replica(0), now+w-1); ok {
				t.Errorf("refusal %d: usable before %v, %s", i+1, w, why)
			}
			if ok, why := tab.Usable(replica(0), now+w); !ok {
				t.Errorf("refusal %d: after %v still %s", i+1, w, why)
			}
			now += w
		}
	}
	refuse(1*sec, 2*sec, 4*sec, 8*sec, 16*sec, 30*sec, 30*sec, 30*sec)
	tab.Connected(replica(0), time.Millisecond, now)
	refuse(1*sec, 2*sec)
	tab.FirstByte(replica(0), time.Millisecond, now)
	refuse(1 * sec)
	for range 100 {
		refuse(wait(row(t, tab, 0, now).Refusals + 1))
	}
}

// TestBurst: connections that were under way at once and are all refused are one piece
// of news.
func TestBurst(t *testing.T) {
	tab := table(1, shoal.LBRoundRobin, backends(2))
	for range 100 {
		pick(t, tab, client(0), 0)
	}
	for range 50 {
		tab.Refused(replica(0), sec/2)
	}
	r := row(t, tab, 0, sec)
	if r.Refusals != 1 || r.Open != 0 || r.Why != "left out for 1s more after a refused connection" {
		t.Errorf("after 50 refusals at once: %+v", r)
	}
	if r := row(t, tab, 1, sec); r.Open != 50 || !r.Usable {
		t.Errorf("the other one: %+v", r)
	}
}

// TestTrial: when the wait is over one connection goes ahead, and the others follow it.
func TestTrial(t *testing.T) {
	tab := table(1, shoal.LBRoundRobin, backends(2))
	tab.Refused(replica(0), 0)
	count := func(now time.Duration) (n int) {
		t.Helper()
		for range 10 {
			if pick(t, tab, client(0), now) == 0 {
				n++
			}
		}
		return n
	}
	if n := count(sec - 1); n != 0 {
		t.Errorf("before the wait is over it got %d", n)
	}
	if n := count(sec); n != 1 {
		t.Errorf("after the wait it got %d before it answered, want 1", n)
	}
	if _, why := tab.Usable(replica(0), sec); why != "one connection tries it after a refused connection" {
		t.Errorf("meanwhile: %s", why)
	}
	tab.Refused(replica(0), 4*sec)
	if r := row(t, tab, 0, 4*sec); r.Refusals != 2 || r.Why != "left out for 2s more after 2 refused connections" {
		t.Errorf("after the trial: %+v", r)
	}
	if n := count(6 * sec); n != 1 {
		t.Errorf("after the second wait it got %d, want 1", n)
	}
	tab.Closed(replica(0)) // the client went away: nothing is known
	if n := count(6 * sec); n != 1 {
		t.Errorf("after a trial that was given up it got %d, want 1 more", n)
	}
	tab.Connected(replica(0), sec, 7*sec)
	if n := count(7 * sec); n < 5 {
		t.Errorf("after it answered it got %d of 10", n)
	}
}

// TestFailOpen: while all are left out the one whose wait ends first is tried.
func TestFailOpen(t *testing.T) {
	for _, p := range policies {
		tab := table(1, p, backends(3))
		for i, times := range []int{3, 1, 2} {
			now := time.Duration(0)
			for range times {
				tab.Refused(replica(i), now)
				now += 30 * sec
			}
		}
		// Left out until 64, 1 and 32 s; at 0 nobody is usable.
		var tried []shoal.ReplicaID
		for _, want := range []int{1, 2, 0} {
			b, ok := tab.Pick(client(0), tried, 0)
			if !ok || number(b.Replica) != want {
				t.Fatalf("%s: Pick = %d, %v, want %d", p, number(b.Replica), ok, want)
			}
			tab.Refused(b.Replica, 0)
			tried = append(tried, b.Replica)
		}
		if b, ok := tab.Pick(client(0), tried, 0); ok {
			t.Errorf("%s: Pick = %d after all were tried", p, number(b.Replica))
		}
	}
}

// TestFailOpenTurns: among those whose waits end together connections go round.
func TestFailOpenTurns(t *testing.T) {
	tab := table(1, shoal.LBP2C, backends(3))
	for i := range 3 {
		tab.Refused(replica(i), 0)
	}
	if got := counts(t, tab, 30, 3, true); !slices.Equal(got, []int{10, 10, 10}) {
		t.Errorf("picked %v, want 10 each", got)
	}
}

// TestRetriesEnd: with n replicas that refuse, the n-th try is the last.
func TestRetriesEnd(t *testing.T) {
	for _, p := range policies {
		tab := table(1, p, backends(20))
		var tried []shoal.ReplicaID
		for {
			b, ok := tab.Pick(client(0), tried, 0)
			if !ok {
				break
			}
			if slices.Contains(tried, b.Replica) || len(tried) == 20 {
				t.Fatalf("%s: %d is tried again after %d", p, number(b.Replica), len(tried))
			}
			tab.Refused(b.Replica, 0)
			tried = append(tried, b.Replica)
		}
		if len(tried) != 20 {
			t.Errorf("%s: %d were tried, want all 20", p, len(tried))
		}
		for _, r := range tab.Rows(0) {
			if r.Open != 0 || r.Refusals != 1 {
				t.Errorf("%s: afterwards %+v", p, r)
			}
		}
	}
}

func TestUsable(t *testing.T) {
	all := backends(10)
	all[1].Ready = false
	all[2].Ready, all[2].Why = false, "starting"
	all[3].Alive, all[3].Heard, all[3].Ready = false, 8*sec, false
	all[4].Alive, all[4].Heard = false, -1
	all[5].Releasing = true
	tab := table(1, shoal.LBP2C, all)
	for i, now := range []time.Duration{0, 1 * sec, 3 * sec} {
		if tab.Refused(replica(6), now+13*sec); i == 0 {
			tab.Refused(replica(7), now+19*sec+sec/2)
		}
	}
	for i, want := range []string{
		"", "not ready", "not ready: starting", "holder not heard for 12s", "holder not heard since this peer's start", "releasing",
		"left out for 1s more after 3 refused connections", "left out for 1s more after a refused connection", "", "",
	} {
		now := 20 * sec
		if i == 6 {
			now = 19*sec + sec/4 // until 20 s
		}
		ok, why := tab.Usable(replica(i), now)
		if why != want || ok != (want == "") {
			t.Errorf("Usable(%d) = %v, %q, want %q", i, ok, why, want)
		}
	}
	if ok, why := tab.Usable(replica(6), 16*sec); ok || why != "left out for 4s more after 3 refused connections" {
		t.Errorf("Usable(6) = %v, %q", ok, why)
	}
	if ok, why := tab.Usable(replica(99), 0); ok || why != "not a replica of this service" {
		t.Errorf("Usable of a stranger = %v, %q", ok, why)
	}
}

// TestUpdateKeeps: what is known of a replica outlives snapshots that name it, and one
// that is gone is counted until its connections are closed.
func TestUpdateKeeps(t *testing.T) {
	all := backends(3)
	tab := table(1, shoal.LBRoundRobin, all)
	tab.Opened(replica(0))
	tab.Opened(replica(1))
	tab.Opened(replica(1))
	tab.Connected(replica(1), 5*time.Millisecond, sec)
	tab.FirstByte(replica(1), 7*time.Millisecond, sec)
	tab.Refused(replica(2), sec)
	tab.Update(Snapshot{Policy: shoal.LBRandom, Backends: all[1:]})
	if got := tab.Rows(sec); len(got) != 3 || got[0].Open != 1 || got[0].Usable || got[0].Why != "not a replica of this service" {
		t.Errorf("one that is gone with an open connection: %+v", got)
	}
	if r := row(t, tab, 1, sec); r.Open != 2 || r.Connect != 5*time.Millisecond || r.FirstByte != 7*time.Millisecond {
		t.Errorf("one that stayed: %+v", r)
	}
	if r := row(t, tab, 2, sec); r.Refusals != 1 || r.Usable {
		t.Errorf("one that is left out: %+v", r)
	}
	tab.Closed(replica(0))
	tab.Closed(replica(0)) // once too often
	if got := tab.Rows(sec); len(got) != 2 || len(tab.entries) != 2 {
		t.Errorf("after its last connection it is still there: %+v", got)
	}
	tab.Update(Snapshot{Backends: append(backends(1), backends(1)...)})
	if r := row(t, tab, 0, sec); r.Open != 0 || len(tab.eligible) != 1 {
		t.Errorf("named twice: %+v, %d eligible", r, len(tab.eligible))
	}
}

// TestReadyForgives: when its holder says that a replica is ready again, what it refused
// before no longer counts; while it was ready all along, it does.
func TestReadyForgives(t *testing.T) {
	all := backends(2)
	tab := table(1, shoal.LBP2C, all)
	tab.Refused(replica(0), 0)
	tab.Update(Snapshot{Backends: all})
	if ok, _ := tab.Usable(replica(0), 0); ok {
		t.Error("an equal snapshot forgave a refusal")
	}
	all[0].Ready = false
	tab.Update(Snapshot{Backends: all})
	all[0].Ready = true
	tab.Update(Snapshot{Backends: all})
	if ok, why := tab.Usable(replica(0), 0); !ok || tab.refusing != 0 {
		t.Errorf("ready again, but %s", why)
	}
}

// TestStrangers: events of a replica that is not there change nothing.
func TestStrangers(t *testing.T) {
	tab := New(1)
	if _, ok := tab.Pick(client(0), nil, 0); ok {
		t.Error("an empty table picks somebody")
	}
	tab.Opened(replica(0))
	tab.Connected(replica(0), 0, 0)
	tab.FirstByte(replica(0), 0, 0)
	tab.Refused(replica(0), 0)
	tab.Closed(replica(0))
	if got := tab.Rows(0); len(got) != 0 {
		t.Errorf("Rows = %+v, want none", got)
	}
}
