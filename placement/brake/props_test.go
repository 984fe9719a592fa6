// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package brake

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawScene draws a cluster of n peers.
func drawScene(t *rapid.T, n int) scene {
	var s scene
	for i := range rapid.IntRange(1, 7).Draw(t, "services") {
		r := row{name: fmt.Sprintf("s%d", i), shaken: rapid.Bool().Draw(t, "shaken"), rev: rapid.Uint64Range(1, 2).Draw(t, "revision")}
		if rapid.IntRange(0, 3).Draw(t, "related") == 0 {
			r.name = "shop/" + r.name
		}
		for range n {
			r.marks += rapid.SampledFrom([]string{"o", "o", "x", "y", "r", "f", "-", "-"}).Draw(t, "mark")
		}
		s.services = append(s.services, r)
	}
	for range n {
		s.engines = append(s.engines, rapid.SampledFrom([]string{"d 20", "d 29"}).Draw(t, "engine"))
		s.trouble = append(s.trouble, rapid.IntRange(0, 9).Draw(t, "trouble") == 0)
	}
	s.failures = rapid.IntRange(0, 2).Draw(t, "failures")
	return s
}

// drawFilm draws some looks, and returns the memory after them.
func drawFilm(t *rapid.T, n int) (Memory, time.Duration) {
	m, now := Memory{}, time.Hour
	for range rapid.IntRange(0, 6).Draw(t, "looks") {
		s := drawScene(t, n)
		_, m, _ = Look(s.view(), m, now)
		now += time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second
	}
	return m, now
}

// TestDeterministic: the same view and memory give the same verdicts and memory, and what
// a look was given stays as it was. The memory is bounded.
func TestDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "peers")
		m, now := drawFilm(t, n)
		s := drawScene(t, n)
		a, ma, wa := Look(s.view(), m, now)
		b, mb, wb := Look(s.view(), m, now)
		if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(ma, mb) || wa != wb {
			t.Fatalf("%v, wake %v; and %v, wake %v", a, wa, b, wb)
		}
		claims := 0
		for _, r := range s.services {
			for _, mark := range r.marks {
				if mark != '-' {
					claims++
				}
			}
		}
		if len(ma.spells) > claims || len(ma.former) > n*len(s.services) || 2*len(ma.blamed) >= n+1 {
			t.Fatalf("memory of %d, %d, %d for %d claims of %d services on %d peers", len(ma.spells), len(ma.former), len(ma.blamed), claims, len(s.services), n)
		}
	})
}

// TestHealthyReplicaHelps: one more healthy replica never makes an application or the
// cluster be at fault, nor the machine that it is on.
func TestHealthyReplicaHelps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "peers")
		m, now := drawFilm(t, n)
		s := drawScene(t, n)
		before, _, _ := Look(s.view(), m, now)
		i, at := rapid.IntRange(0, len(s.services)-1).Draw(t, "service"), rapid.IntRange(0, n-1).Draw(t, "peer")
		r := &s.services[i]
		if r.marks[at] != '-' {
			t.Skip("it has one")
		}
		r.marks = r.marks[:at] + "o" + r.marks[at+1:]
		after, _, _ := Look(s.view(), m, now)
		for _, v := range after {
			switch v.Cause {
			case Application:
				if _, was := before.Of(v.Service, v.Revision); !was {
					t.Fatalf("a healthy replica of %s at p%d: %q, before %q", r.name, at, brief(after), brief(before))
				}
			case Cluster:
				if _, was := before.Shared(); !was {
					t.Fatalf("a healthy replica of %s at p%d: %q, before %q", r.name, at, brief(after), brief(before))
				}
			case Machine, Engine: // what does well elsewhere may tell of a machine where it fails
			}
		}
	})
}

// TestOneAloneBrakesNothing: what fails on one peer only brakes no service, is nobody
// else's fault, and not the cluster's.
func TestOneAloneBrakesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "peers")
		s := drawScene(t, n)
		ill := rapid.IntRange(0, n-1).Draw(t, "ill")
		for i := range s.services {
			marks := []byte(s.services[i].marks)
			for j := range marks {
				if j != ill && marks[j] != '-' {
					marks[j] = 'o'
				}
			}
			s.services[i].marks = string(marks)
		}
		got, _, _ := Look(s.view(), Memory{}, time.Hour)
		for _, v := range got {
			if v.Cause != Machine || v.Peer != peer(ill) {
				t.Fatalf("only p%d is ill: %q", ill, brief(got))
			}
		}
	})
}

// TestNeverHalfOfThem: less than half of the peers that are heard are ever at fault.
func TestNeverHalfOfThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "peers")
		m, now := drawFilm(t, n)
		s := drawScene(t, n)
		got, _, _ := Look(s.view(), m, now)
		ill := 0
		for i := range n {
			if _, bad := got.At(peer(i)); bad || s.trouble[i] && len(got) > 0 && hasMachine(got) {
				ill++
			}
		}
		if ill > 0 && 2*ill >= n {
			t.Fatalf("%d of %d peers: %q", ill, n, brief(got))
		}
	})
}

func hasMachine(l Verdicts) bool {
	_, is := l.find(func(v Verdict) bool { return v.Cause == Machine || v.Cause == Engine })
	return is
}
