// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// bad gives every engine an image and says what it does.
func (s *sea) bad(image string, what runtime.Program) {
	for _, id := range s.ids {
		s.peers[id].engine.SetImages("hello:1", "hello:2", image)
		s.peers[id].engine.SetProgram(image, what)
	}
}

// startsOf returns how often containers that hold a service's slots were started.
func (s *sea) startsOf(service string) int {
	n := 0
	for _, id := range s.ids {
		p := s.peers[id]
		for _, c := range p.Desired().Claims {
			if c.Service == service && c.Holder == id {
				n += p.engine.Counts(c.Replica).Starts
			}
		}
	}
	return n
}

// moves counts how often a slot came to another peer.
type moves struct {
	holders map[int]shoal.PeerID
	n       int
}

func (m *moves) look(d *shoal.Desired, service string) {
	for _, c := range d.Claims {
		if c.Service != service {
			continue
		}
		if was, known := m.holders[c.Slot]; known && was != c.Holder {
			m.n++
		}
		m.holders[c.Slot] = c.Holder
	}
}

// F20, F21: a revision that dies on every peer restarts slowly everywhere at once, and is
// forgiven when it is well; another service is not touched.
func TestCrashLoopEverywhere(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		s.bad("crash:1", runtime.Program{Exits: true, ExitAfter: time.Second, ExitCode: 7})
		s.startAll()
		s.wait(15 * time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 3, s.deal(3)...)
		s.wish(shoal.Spec{Name: "crash", Image: "crash:1"}, 1, 6, s.deal(6)...)
		s.wait(15 * time.Second) // all have failed, and are braked
		before, most := s.startsOf("crash"), 0
		for range 10 {
			s.wait(time.Minute)
			n := s.startsOf("crash")
			most, before = max(most, n-before), n
		}
		if most > 12 {
			t.Errorf("up to %d starts a minute on all peers together, want 12 at most", most)
		}
		for _, id := range s.ids {
			p := s.peers[id]
			if got := fmt.Sprint(p.system.Brakes()); got != "[crash:1 of crash fails on 3 of 3 holders within 60s]" {
				t.Errorf("%s: brakes %s", id, got)
			}
			if why := p.state().Trouble; why != "" {
				t.Errorf("%s is in trouble: %s", id, why)
			}
			if p.ready("web") != 1 || p.engine.Counts(p.replica("web", int(id[5]-'1')).ID).Starts != 1 {
				t.Errorf("%s: web was touched", id)
			}
		}
		s.bad("crash:1", runtime.Program{}) // of containers that are made from now on
		for _, id := range s.ids {
			for _, r := range s.peers[id].state().Replicas {
				if r.Service == "crash" {
					s.peers[id].engine.RemoveByHand(r.ID)
				}
			}
		}
		s.until(7*time.Minute, "well again", func() bool { return s.exact("crash", 6) })
		s.wait(2 * time.Minute)
		if got := s.first().system.Brakes(); len(got) != 0 {
			t.Errorf("brakes %v of what is well", got)
		}
		s.first().engine.Exit(s.first().replica("crash", 0).ID, 1, false)
		took := s.until(5*time.Second, "restarted at the normal pace", func() bool { return s.exact("crash", 6) })
		t.Logf("restarted after %s", took)
	})
}

// F21: a slot whose replica cannot be launched anywhere does not wander.
func TestLaunchFailsEverywhere(t *testing.T) {
	for _, n := range []int{1, 3} {
		inSea(t, 3, func(s *sea) {
			s.bad("bad:1", runtime.Program{StartErr: errors.New("exec: no such file")})
			s.startAll()
			s.wait(15 * time.Second)
			s.wish(shoal.Spec{Name: "bad", Image: "bad:1"}, 1, n, s.deal(n)...)
			m := moves{holders: map[int]shoal.PeerID{}}
			for range 10 * 60 * 5 {
				s.wait(200 * time.Millisecond)
				m.look(s.first().Desired(), "bad")
			}
			if m.n > n { // one may try whether it is the machine
				t.Errorf("%d replicas moved %d times in 10 minutes, want %d at most", n, m.n, n)
			}
			t.Logf("%d replicas: %d moves, %d updates", n, m.n, s.updates())
		})
	}
}

// TestMachineInTrouble: a peer on which unrelated services die says so, keeps what it has
// and takes nothing new; when it has been well for some time it does.
func TestMachineInTrouble(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		ill := s.peers[s.ids[1]]
		s.startAll()
		s.wait(15 * time.Second)
		for _, id := range s.ids {
			s.peers[id].engine.SetImages("hello:1", "a:1", "b:1", "c:1")
		}
		for _, name := range []string{"a", "b", "c"} {
			ill.engine.SetProgram(name+":1", runtime.Program{Exits: true, ExitAfter: time.Second, ExitCode: 139})
			s.wish(shoal.Spec{Name: name, Image: name + ":1"}, 1, 3, s.deal(3)...)
		}
		took := s.until(20*time.Second, "in trouble", func() bool { return ill.state().Trouble != "" })
		t.Logf("in trouble after %s: %s", took, ill.state().Trouble)
		if !strings.HasSuffix(ill.state().Trouble, ": a, b, c") {
			t.Errorf("trouble %q", ill.state().Trouble)
		}
		s.wish(shoal.Spec{Name: "web"}, 1, 4)
		s.until(10*time.Second, "web is on the others", func() bool { return s.exact("web", 4) })
		if ill.ready("web") != 0 {
			t.Error("it took new slots")
		}
		for _, name := range []string{"a", "b", "c"} {
			ill.engine.SetProgram(name+":1", runtime.Program{})
			if r := ill.replica(name, 1); !ill.engine.RemoveByHand(r.ID) {
				t.Errorf("%s has no container of %s/1", ill.id, name)
			}
		}
		took = s.until(15*time.Minute, "well", func() bool { return ill.state().Trouble == "" })
		t.Logf("well after %s", took)
		if took < 5*time.Minute {
			t.Errorf("forgiven after %s", took)
		}
		for _, other := range []*tank{s.first(), s.peers[s.ids[2]]} {
			if other.state().Trouble != "" {
				t.Errorf("%s is in trouble: %s", other.id, other.state().Trouble)
			}
		}
	})
}
