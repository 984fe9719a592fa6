// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// fleet is a service whose slots are held by peers that see each other late: each sees
// its own slots as they are, and the others as they were at some time.
type fleet struct {
	rules   Rules
	newest  uint64   // revision
	knows   []uint64 // by slot: the newest revision that its holder knows
	history [][]Slot // by slot: what it was, the newest last
	seen    [][]int  // by holder and slot: how much of that it has seen
}

func newFleet(n int, r Rules) *fleet {
	f := &fleet{rules: r, newest: 1}
	for range n {
		f.knows = append(f.knows, 1)
		f.history = append(f.history, []Slot{{Held: true, Revision: shoal.RevisionID{Seq: 1}, Ready: true, Healthy: true}})
		f.seen = append(f.seen, make([]int, n))
	}
	return f
}

func (f *fleet) now(slot int) Slot { return f.history[slot][len(f.history[slot])-1] }

func (f *fleet) set(slot int, s Slot) { f.history[slot] = append(f.history[slot], s) }

// view is how the holder of a slot sees all.
func (f *fleet) view(holder int) []Slot {
	out := make([]Slot, len(f.history))
	for i := range out {
		out[i] = f.history[i][f.seen[holder][i]]
		if i == holder {
			out[i] = f.now(i)
		}
		if out[i].Current = out[i].Revision.Seq >= f.knows[holder]; !out[i].Current {
			out[i].Healthy = out[i].Ready
		}
	}
	return out
}

// step lets one peer do or learn one thing.
func (f *fleet) step(t *rapid.T) {
	i := rapid.IntRange(0, len(f.history)-1).Draw(t, "slot")
	switch rapid.IntRange(0, 5).Draw(t, "what") {
	case 0, 1: // acts
		f.act(i)
	case 2: // its replica comes up
		if s := f.now(i); !s.Ready {
			s.Ready = true
			f.set(i, s)
		} else if !s.Healthy {
			s.Healthy = true
			f.set(i, s)
		}
	case 3, 4: // hears of another slot, perhaps not its newest
		o := rapid.IntRange(0, len(f.history)-1).Draw(t, "other")
		f.seen[i][o] = rapid.IntRange(f.seen[i][o], len(f.history[o])-1).Draw(t, "seen")
	case 5: // hears of a revision
		f.knows[i] = rapid.Uint64Range(f.knows[i], f.newest).Draw(t, "knows")
	}
}

func (f *fleet) act(i int) {
	if f.rules.Turns(f.view(i))[i] {
		s := f.now(i)
		s.Revision.Seq, s.Ready, s.Healthy = f.knows[i], false, false
		f.set(i, s)
	}
}

func (f *fleet) count(is func(Slot) bool) int {
	n := 0
	for i := range f.history {
		if is(f.now(i)) {
			n++
		}
	}
	return n
}

// TestFloorAndWidth: whatever holders have missed, and with three revisions under way,
// never are fewer ready than the floor, nor more on their way than the width.
func TestFloorAndWidth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "slots")
		r := Rules{Width: rapid.IntRange(1, 3).Draw(t, "width"), Failures: -1}
		r.Unavailable = rapid.IntRange(1, 4).Draw(t, "unavailable")
		f := newFleet(n, r)
		for range rapid.IntRange(1, 250).Draw(t, "steps") {
			if f.newest < 3 && rapid.IntRange(0, 20).Draw(t, "new") == 0 {
				f.newest++
				f.knows[rapid.IntRange(0, n-1).Draw(t, "accepting")] = f.newest
			}
			f.step(t)
			if ready := f.count(func(s Slot) bool { return s.Ready }); ready < n-r.Unavailable {
				t.Fatalf("%d of %d slots are ready, %d may be not", ready, n, r.Unavailable)
			}
			if moving := f.count(func(s Slot) bool { return !s.Ready }); moving > r.Width {
				t.Fatalf("%d slots are on their way, at most %d may be", moving, r.Width)
			}
		}
	})
}

// TestProgress: once everybody hears everything, the newest revision comes to all slots.
func TestProgress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "slots")
		f := newFleet(n, Rules{Width: 1, Unavailable: 1, Failures: -1, StartFirst: rapid.Bool().Draw(t, "start first")})
		f.newest = 3
		f.knows[0] = 3
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			f.step(t)
		}
		for range 4 * n {
			for i := range n {
				f.knows[i] = f.newest
				for o := range n {
					f.seen[i][o] = len(f.history[o]) - 1
				}
			}
			for i := range n {
				f.act(i)
				if s := f.now(i); !s.Healthy {
					s.Ready, s.Healthy = true, true
					f.set(i, s)
				}
			}
		}
		if done := f.count(func(s Slot) bool { return s.Revision.Seq == 3 && s.Healthy }); done != n {
			t.Fatalf("%d of %d slots are at the newest revision", done, n)
		}
	})
}

// TestOneWaveFails: where none may fail, a revision that never works takes no more slots
// than are on their way at once, whatever holders have missed.
func TestOneWaveFails(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 20).Draw(t, "slots")
		r := Rules{Width: rapid.IntRange(1, 4).Draw(t, "width")}
		r.Unavailable = r.Width
		f := newFleet(n, r)
		f.newest = 2
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "slot")
			f.knows[i] = rapid.Uint64Range(f.knows[i], 2).Draw(t, "knows")
			o := rapid.IntRange(0, n-1).Draw(t, "other")
			f.seen[i][o] = rapid.IntRange(f.seen[i][o], len(f.history[o])-1).Draw(t, "seen")
			f.act(i)
			if s := f.now(i); s.Revision.Seq == 2 && !s.Failed {
				s.Failed = true
				f.set(i, s)
			}
		}
		if lost := f.count(func(s Slot) bool { return s.Revision.Seq == 2 }); lost > r.Width {
			t.Fatalf("%d slots were lost, at most %d may be", lost, r.Width)
		}
	})
}

// TestOneRemedy: peers that see the same slots do the same about them, in any order of
// asking.
func TestOneRemedy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := parse(rapid.StringMatching("[onwfb-]{1,9}").Draw(t, "slots"))
		s := &shoal.Service{
			Spec: shoal.Spec{Rollout: shoal.Rollout{OnFailure: shoal.FailureRollback, MaxFailureRatio: rapid.IntRange(0, 1000).Draw(t, "ratio")}},
			Past: []shoal.PastRevision{{Good: true}},
		}
		r := RulesOf(s, len(slots), false)
		action, why := Remedy(s, r.StatusOf(slots), 0)
		again, same := Remedy(s, r.StatusOf(slices.Clone(slots)), 0)
		if action != again || why != same {
			t.Fatalf("%q, %q and %q, %q", action, why, again, same)
		}
		if over := r.failed(slots) > r.Failures; over != (action == shoal.FailureRollback) {
			t.Fatalf("%d failed of %d that may, remedy %q", r.failed(slots), r.Failures, action)
		}
	})
}
