// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// audit is a second, naive account of one Table: what it was told, and whom it may pick.
type audit struct {
	snapshot Snapshot
	known    map[int]*account
}

// account is one replica, listed or with connections open.
type account struct {
	listed         bool
	open, refusals int
	until          time.Duration
	trial          bool
}

// backend returns what the snapshot says of a replica.
func (a *audit) backend(i int) (Backend, bool) {
	at := slices.IndexFunc(a.snapshot.Backends, func(b Backend) bool { return number(b.Replica) == i })
	if at < 0 {
		return Backend{}, false
	}
	return a.snapshot.Backends[at], true
}

func (a *audit) eligible(i int) bool {
	b, ok := a.backend(i)
	return ok && b.Ready && b.Alive && !b.Releasing
}

func (a *audit) able(i int, now time.Duration) bool {
	k := a.known[i]
	return a.eligible(i) && (k.refusals == 0 || k.until <= now && !k.trial)
}

// distance is 0 here, 1 in the zone, 2 elsewhere, as far as that is asked for.
func (a *audit) distance(i int) int {
	b, _ := a.backend(i)
	d := 2
	if b.Zone == a.snapshot.Zone {
		d = 1
	}
	if b.Holder == a.snapshot.Self {
		d = 0
	}
	switch a.snapshot.Prefer {
	case shoal.PreferLocal:
		return d
	case shoal.PreferZone:
		return max(d, 1)
	default:
		return 0
	}
}

func (a *audit) update(s Snapshot) {
	was := map[int]bool{}
	for i := range a.known {
		was[i] = a.eligible(i)
	}
	a.snapshot = s
	for i, k := range a.known {
		_, k.listed = a.backend(i)
	}
	for _, b := range s.Backends {
		i := number(b.Replica)
		k := a.known[i]
		if k == nil {
			k = &account{}
			a.known[i] = k
		}
		k.listed = true
		if a.eligible(i) && !was[i] {
			k.refusals, k.until, k.trial = 0, 0, false
		}
	}
	a.sweep()
}

func (a *audit) sweep() {
	maps.DeleteFunc(a.known, func(_ int, k *account) bool { return !k.listed && k.open == 0 })
}

func (a *audit) closed(i int) {
	k := a.known[i]
	k.open = max(0, k.open-1)
	k.trial = false
}

func (a *audit) refused(i int, now time.Duration) {
	k := a.known[i]
	if k.refusals == 0 || now >= k.until {
		k.refusals++
		wait := time.Second
		for range k.refusals - 1 {
			wait = min(2*wait, 30*time.Second)
		}
		k.until = now + wait
	}
	a.closed(i)
}

// picked holds a pick against what is allowed, and notes it.
func (a *audit) picked(t *rapid.T, b Backend, ok bool, tried []shoal.ReplicaID, now time.Duration) {
	var able, rest []int
	for i := range a.known {
		if !a.eligible(i) || slices.Contains(tried, replica(i)) {
			continue
		}
		rest = append(rest, i)
		if a.able(i, now) {
			able = append(able, i)
		}
	}
	at := number(b.Replica)
	switch {
	case !ok && len(rest) > 0:
		t.Fatalf("picks nobody, but %v are left", rest)
	case !ok:
		return
	case !slices.Contains(rest, at):
		t.Fatalf("picks %d, which is not eligible or was tried: %+v", at, b)
	case len(able) > 0 && !slices.Contains(able, at):
		t.Fatalf("picks %d, which is left out, of %v", at, able)
	case len(able) > 0:
		for _, i := range able {
			if a.distance(i) < a.distance(at) {
				t.Fatalf("picks %d, but %d is nearer (%s)", at, i, a.snapshot.Prefer)
			}
		}
	default:
		for _, i := range rest {
			if a.known[i].until < a.known[at].until {
				t.Fatalf("all are left out; picks %d until %v, but %d is until %v", at, a.known[at].until, i, a.known[i].until)
			}
		}
	}
	k := a.known[at]
	k.open++
	k.trial = k.trial || k.refusals > 0 && now >= k.until
}

// check holds the table's rows against the account.
func (a *audit) check(t *rapid.T, tab *Table, now time.Duration) {
	rows := tab.Rows(now)
	if len(rows) != len(a.known) {
		t.Fatalf("%d rows, want %d", len(rows), len(a.known))
	}
	refusing := 0
	for _, r := range rows {
		k := a.known[number(r.Replica)]
		if k == nil {
			t.Fatalf("a row for %d", number(r.Replica))
		}
		if k.refusals > 0 {
			refusing++
		}
		if r.Open != k.open || r.Refusals != k.refusals || r.Usable != a.able(number(r.Replica), now) || r.Usable != (r.Why == "") {
			t.Fatalf("row %+v, want %+v, usable %v", r, *k, a.able(number(r.Replica), now))
		}
	}
	if tab.refusing != refusing {
		t.Fatalf("refusing = %d, want %d", tab.refusing, refusing)
	}
}

func drawSnapshot(t *rapid.T) Snapshot {
	all := rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 0, 8, rapid.ID).Draw(t, "replicas")
	s := Snapshot{
		Policy: rapid.SampledFrom(policies).Draw(t, "policy"), Prefer: rapid.SampledFrom(prefers).Draw(t, "prefer"),
		Self: "self", Zone: "a",
	}
	likely := func(what string) bool { return rapid.IntRange(0, 5).Draw(t, what) > 0 }
	for _, i := range all {
		s.Backends = append(s.Backends, Backend{
			Replica: replica(i), Slot: rapid.IntRange(0, 9).Draw(t, "slot"),
			Holder: rapid.SampledFrom([]shoal.PeerID{"self", "p", "q"}).Draw(t, "holder"),
			Zone:   rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "zone"),
			Ready:  likely("ready"), Alive: likely("alive"), Releasing: !likely("stays"),
			Weight: rapid.IntRange(-1, 2000).Draw(t, "weight"),
		})
	}
	return s
}

// TestPickProperty: whatever happens in whatever order, nobody who is not eligible or was
// tried is picked; nobody who is left out, while somebody is not; nobody far, while
// somebody is near; the one whose wait ends first, while all are left out; and somebody
// always, until all were tried.
func TestPickProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		tab, twin := New(seed), New(seed)
		a := &audit{known: map[int]*account{}}
		var now time.Duration
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now += time.Duration(rapid.SampledFrom([]int{0, 1, 500, 1000, 8000}).Draw(t, "ms")) * time.Millisecond
			at := rapid.IntRange(0, 7).Draw(t, "at")
			id, k := replica(at), a.known[at]
			both := func(f func(*Table)) { f(tab); f(twin) }
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what == 0:
				s := drawSnapshot(t)
				a.update(s)
				both(func(t *Table) { t.Update(s) })
			case what < 6:
				var tried []shoal.ReplicaID
				for _, i := range rapid.SliceOfN(rapid.IntRange(0, 7), 0, 5).Draw(t, "tried") {
					tried = append(tried, replica(i))
				}
				who := client(rapid.IntRange(0, 99).Draw(t, "client"))
				b, ok := tab.Pick(who, tried, now)
				if b2, ok2 := twin.Pick(who, tried, now); b2 != b || ok2 != ok {
					t.Fatalf("equal tables pick %+v and %+v", b, b2)
				}
				a.picked(t, b, ok, tried, now)
			case k == nil: // the others need somebody
				continue
			case what == 6:
				both(func(t *Table) { t.Connected(id, time.Duration(at)*time.Millisecond, now) })
				k.refusals, k.until, k.trial = 0, 0, false
			case what == 7:
				both(func(t *Table) { t.Closed(id) })
				a.closed(at)
			default:
				both(func(t *Table) { t.Refused(id, now) })
				a.refused(at, now)
			}
			a.sweep()
			a.check(t, tab, now)
		}
	})
}
