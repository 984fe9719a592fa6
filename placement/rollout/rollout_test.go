// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"testing"

	"pgregory.net/rapid"
)

// parse reads one letter per slot: o old and ready, b old and broken, s old and
// stuck, n new and ready, u new and unready, - open.
func parse(s string) []Slot {
	out := make([]Slot, len(s))
	for i, c := range s {
		out[i] = Slot{Held: c != '-', Current: c == 'n' || c == 'u', Ready: c == 'o' || c == 'n', Broken: c == 'b', Stuck: c == 's'}
	}
	return out
}

func TestTurns(t *testing.T) {
	for _, c := range []struct {
		slots string
		limit int
		want  string
	}{
		{"oooo", 1, "x..."},
		{"uooo", 1, "...."},
		{"nooo", 1, ".x.."},
		{"nnoo", 2, "..xx"},
		{"nuoo", 2, "..x."},
		{"uuoo", 1, "...."},
		{"boob", 1, "xx.x"},
		{"uoob", 1, "...x"},
		{"-ooo", 1, ".x.."},
		{"sooo", 1, ".x.."},
		{"nnnn", 1, "...."},
		{"", 1, ""},
	} {
		got := ""
		for _, turn := range Turns(parse(c.slots), c.limit) {
			if turn {
				got += "x"
			} else {
				got += "."
			}
		}
		if got != c.want {
			t.Errorf("Turns(%q, %d) = %q, want %q", c.slots, c.limit, got, c.want)
		}
	}
}

func TestLimit(t *testing.T) {
	for _, c := range [][3]int{{0, 1, 1}, {0, 3, 1}, {0, 8, 2}, {0, 100, 25}, {3, 100, 3}, {5, 2, 5}} {
		if got := Limit(c[0], c[1]); got != c[2] {
			t.Errorf("Limit(%d, %d) = %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

// TestNeverBeyondTheLimit: what works is taken down only as far as the limit goes.
func TestNeverBeyondTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := parse(rapid.StringMatching("[obsnu-]{0,20}").Draw(t, "slots"))
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		unready, taken := 0, 0
		turns := Turns(slots, limit)
		for i, s := range slots {
			if s.Held && s.Current && !s.Ready {
				unready++
			}
			if turns[i] && !s.Broken {
				taken++
			}
			if turns[i] && (!s.Held || s.Current || s.Stuck) {
				t.Fatalf("slot %d has a turn", i)
			}
		}
		if taken > 0 && unready+taken > limit {
			t.Fatalf("%d unready and %d more taken, limit %d", unready, taken, limit)
		}
	})
}
