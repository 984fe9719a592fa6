// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package brake

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// scene is who holds what, and how it is. Of each service there is a mark for each peer
// p0, p1, ...: "o" it is ready there, "x" it has failed twice and waits, "y" once, "f" it has ended for
// good and badly, "r" it has failed and is ready, "-" it is not held there. "!" is x on a peer that is not heard.
type scene struct {
	services []row
	engines  []string // by peer
	trouble  []bool   // by peer: it says so
	failures int
}

type row struct {
	name    string // "shop/web": web of the project shop
	marks   string
	shaken  bool // its revision has not settled
	stopped bool
	rev     uint64 // 0: 1
}

func peer(i int) shoal.PeerID { return shoal.PeerID(fmt.Sprintf("p%d", i)) }

func (s *scene) view() *shoal.View {
	d := &shoal.Desired{}
	lives, states := map[shoal.PeerID]shoal.Life{}, map[shoal.PeerID]*shoal.PeerState{}
	n := 0
	for _, r := range s.services {
		n = max(n, len(r.marks))
	}
	for i := range n {
		p := shoal.Peer{ID: peer(i), Facts: shoal.PeerFacts{Name: string(peer(i))}}
		if i < len(s.engines) {
			p.Facts.Engine = s.engines[i]
		}
		d.Peers = append(d.Peers, p)
		lives[p.ID] = shoal.Life{State: shoal.LifeAlive}
		states[p.ID] = &shoal.PeerState{}
		if i < len(s.trouble) && s.trouble[i] {
			states[p.ID].Trouble = "is ill"
		}
	}
	for _, r := range s.services {
		s.add(d, lives, states, r)
	}
	slices.SortFunc(d.Services, func(a, b shoal.Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	slices.SortFunc(d.Claims, func(a, b shoal.Claim) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot))
	})
	return shoal.NewView("p0", d, lives, states)
}

func (s *scene) add(d *shoal.Desired, lives map[shoal.PeerID]shoal.Life, states map[shoal.PeerID]*shoal.PeerState, r row) {
	project, name, related := strings.Cut(r.name, "/")
	if !related {
		project, name = "", r.name
	}
	rev := shoal.RevisionID{Seq: max(r.rev, 1), Author: "p0"}
	d.Services = append(d.Services, shoal.Service{
		Spec:     shoal.Spec{Name: name, Project: project, Image: name + ":1"},
		Revision: rev, Replicas: len(r.marks), Rollout: shoal.RolloutState{Settled: !r.shaken}, Stopped: r.stopped,
	})
	for i, mark := range r.marks {
		if mark == '-' {
			continue
		}
		id := shoal.ReplicaID{byte(i + 1), byte(rev.Seq)}
		copy(id[2:], name)
		st := shoal.ReplicaStatus{ID: id, Service: name, Slot: i, Revision: rev, Phase: shoal.PhaseReady}
		switch mark {
		case 'x', '!':
			st.Phase, st.Failures = shoal.PhasePending, 2+s.failures
		case 'y':
			st.Phase, st.Failures = shoal.PhasePending, 1+s.failures
		case 'r':
			st.Failures = 2 + s.failures
		case 'f':
			st.Phase, st.Failures = shoal.PhaseFailed, 1+s.failures
		}
		if mark == '!' {
			lives[peer(i)] = shoal.Life{State: shoal.LifeDead}
		}
		d.Claims = append(d.Claims, shoal.Claim{Service: name, Slot: i, Holder: peer(i), Replica: id, Revision: rev})
		states[peer(i)].Replicas = append(states[peer(i)].Replicas, st)
	}
}

// brief writes verdicts in short, one word for each.
func brief(l Verdicts) string {
	var out []string
	for _, v := range l {
		switch v.Cause {
		case Application:
			out = append(out, fmt.Sprintf("%s@%d:%d/%d", v.Service, v.Revision.Seq, v.Failing, v.Of))
		case Machine:
			out = append(out, fmt.Sprintf("%s(%s)", v.Peer, strings.Join(v.Services, ",")))
		case Engine:
			out = append(out, fmt.Sprintf("%s[%s:%d/%d]", v.Peer, v.Engine, v.Failing, v.Of))
		case Cluster:
			out = append(out, fmt.Sprintf("all:%d/%d", v.Failing, v.Of))
		}
	}
	return strings.Join(out, " ")
}

func TestClassifier(t *testing.T) {
	for name, c := range map[string]struct {
		scene scene
		want  string
	}{
		"nothing fails":                  {scene{services: []row{{name: "web", marks: "oooo"}}}, ""},
		"one holder of four":             {scene{services: []row{{name: "web", marks: "xooo"}}}, ""},
		"two holders of five":            {scene{services: []row{{name: "web", marks: "xxooo"}}}, ""},
		"two holders of four":            {scene{services: []row{{name: "web", marks: "xxoo"}}}, "web@1:2/4"},
		"all three":                      {scene{services: []row{{name: "web", marks: "xxx", rev: 7}}}, "web@7:3/3"},
		"the only holder":                {scene{services: []row{{name: "web", marks: "x-"}}}, ""},
		"one of two":                     {scene{services: []row{{name: "web", marks: "xo"}}}, ""},
		"both, one has ended for good":   {scene{services: []row{{name: "web", marks: "fx"}}}, "web@1:2/2"},
		"two, one of which is not heard": {scene{services: []row{{name: "web", marks: "x!o"}}}, ""},
		"it is stopped":                  {scene{services: []row{{name: "web", marks: "xxx", stopped: true}}}, ""},
		"one fails, another does not":    {scene{services: []row{{name: "web", marks: "xxx"}, {name: "db", marks: "ooo"}}}, "web@1:3/3"},
		"a machine, its services run only there": {
			scene{services: []row{{name: "a", marks: "x--"}, {name: "b", marks: "x--"}, {name: "c", marks: "x--"}, {name: "d", marks: "-o-"}, {name: "e", marks: "--o"}, {name: "f", marks: "--o"}}},
			"p0(a,b,c)",
		},
		"a machine, its services do well elsewhere": {
			scene{services: []row{{name: "a", marks: "xoo"}, {name: "b", marks: "xoo"}, {name: "c", marks: "xoo"}}}, "p0(a,b,c)",
		},
		"a machine, one of its services fails everywhere": {
			scene{services: []row{{name: "a", marks: "xoo"}, {name: "b", marks: "xoo"}, {name: "c", marks: "xxx"}}}, "c@1:3/3",
		},
		"a machine beside a bad application": {
			scene{services: []row{{name: "a", marks: "xoo"}, {name: "b", marks: "xoo"}, {name: "c", marks: "xoo"}, {name: "d", marks: "xxx"}}}, "d@1:3/3 p0(a,b,c)",
		},
		"its engine was restarted": {
			scene{services: []row{{name: "a", marks: "yoo"}, {name: "b", marks: "yoo"}, {name: "c", marks: "yoo"}}}, "",
		},
		"only two services on a machine": {
			scene{services: []row{{name: "a", marks: "xoo"}, {name: "b", marks: "xoo"}}}, "",
		},
		"three services of one project": {
			scene{services: []row{{name: "shop/a", marks: "xoo"}, {name: "shop/b", marks: "xoo"}, {name: "shop/c", marks: "xoo"}}}, "",
		},
		"three services of three projects": {
			scene{services: []row{{name: "x/a", marks: "xoo"}, {name: "y/b", marks: "xoo"}, {name: "z/c", marks: "xoo"}}}, "p0(a,b,c)",
		},
		"three of the seven on a machine": {
			scene{services: []row{
				{name: "a", marks: "xoo"},
				{name: "b", marks: "xoo"},
				{name: "c", marks: "xoo"},
				{name: "d", marks: "ooo"},
				{name: "e", marks: "ooo"},
				{name: "f", marks: "ooo"},
				{name: "g", marks: "ooo"},
			}}, "",
		},
		"one of two machines": {
			scene{services: []row{{name: "a", marks: "x-"}, {name: "b", marks: "x-"}, {name: "c", marks: "x-"}}}, "",
		},
		"two of four machines": {
			scene{services: []row{
				{name: "a", marks: "x---"},
				{name: "b", marks: "x---"},
				{name: "c", marks: "x---"},
				{name: "d", marks: "-x--"},
				{name: "e", marks: "-x--"},
				{name: "f", marks: "-x--"},
				{name: "g", marks: "--oo"},
			}}, "",
		},
		"two of five machines": {
			scene{services: []row{
				{name: "a", marks: "x----", shaken: true},
				{name: "b", marks: "x----"},
				{name: "c", marks: "x----"},
				{name: "d", marks: "-x---"},
				{name: "e", marks: "-x---"},
				{name: "f", marks: "-x---"},
				{name: "g", marks: "--ooo"},
				{name: "h", marks: "--ooo"},
				{name: "i", marks: "--ooo"},
				{name: "j", marks: "--ooo"},
			}}, "p0(a,b,c) p1(d,e,f)",
		},
		"a machine where others say that they are in trouble": {
			scene{services: []row{{name: "a", marks: "xooo"}, {name: "b", marks: "xooo"}, {name: "c", marks: "xooo"}}, trouble: []bool{false, true}}, "",
		},
		"an engine": {
			scene{
				services: []row{{name: "a", marks: "xxooo"}, {name: "b", marks: "xxooo"}, {name: "c", marks: "xxooo"}},
				engines:  []string{"d 29", "d 29", "d 20", "d 20", "d 20"},
			}, "p0[d 29:2/2] p1[d 29:2/2]",
		},
		"an engine, on half of the machines": {
			scene{
				services: []row{{name: "a", marks: "xxoo"}, {name: "b", marks: "xxoo"}, {name: "c", marks: "xxoo"}},
				engines:  []string{"d 29", "d 29", "d 20", "d 20"},
			}, "a@1:2/4 b@1:2/4 c@1:2/4",
		},
		"an engine that is not the only one": {
			scene{
				services: []row{{name: "a", marks: "xxxoo"}, {name: "b", marks: "xxooo"}, {name: "c", marks: "xxooo"}},
				engines:  []string{"d 29", "d 29", "d 20", "d 20", "d 20"},
			}, "a@1:3/5",
		},
		"the cluster": {
			scene{services: []row{{name: "a", marks: "xxx"}, {name: "b", marks: "xx-"}, {name: "c", marks: "--o"}}}, "a@1:3/3 b@1:2/2 all:3/3",
		},
		"what is shared, by services of one replica": {
			scene{services: []row{{name: "a", marks: "x--"}, {name: "b", marks: "-x-"}, {name: "c", marks: "--x"}}}, "all:3/3",
		},
		"new revisions that fail say nothing of the cluster": {
			scene{services: []row{{name: "a", marks: "xxx", shaken: true}, {name: "b", marks: "xxx", shaken: true}, {name: "c", marks: "--o"}}}, "a@1:3/3 b@1:3/3",
		},
		"a whole project says nothing of the cluster": {
			scene{services: []row{{name: "shop/a", marks: "xxx"}, {name: "shop/b", marks: "xxx"}}}, "a@1:3/3 b@1:3/3",
		},
		"half of the services": {
			scene{services: []row{{name: "a", marks: "xxx"}, {name: "b", marks: "xxx"}, {name: "c", marks: "ooo"}, {name: "d", marks: "ooo"}}}, "a@1:3/3 b@1:3/3",
		},
	} {
		got, m, wake := Look(c.scene.view(), Memory{}, time.Hour)
		if brief(got) != c.want {
			t.Errorf("%s: %q, want %q", name, brief(got), c.want)
		}
		if again, _, _ := Look(c.scene.view(), m, time.Hour); brief(again) != c.want {
			t.Errorf("%s: looked at again: %q, want %q", name, brief(again), c.want)
		}
		if wake != 0 && wake <= time.Hour {
			t.Errorf("%s: wake at %v, want later than now", name, wake)
		}
	}
}

// film is a scene over time.
type film struct {
	scene
	now    time.Duration
	memory Memory
}

func (f *film) pass(d time.Duration) string {
	var got Verdicts
	for end := f.now + d; ; {
		var wake time.Duration
		got, f.memory, wake = Look(f.view(), f.memory, f.now)
		if wake == 0 || wake > end {
			f.now = end
			return brief(got)
		}
		f.now = wake
	}
}

func (f *film) want(t *testing.T, what string, d time.Duration, want string) {
	t.Helper()
	if got := f.pass(d); got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestForgives: what waits to be started again still fails, however long it waits; what
// has been ready for the window does not.
func TestForgives(t *testing.T) {
	f := film{scene: scene{services: []row{{name: "web", marks: "xxo"}}}, now: time.Hour}
	f.want(t, "waits for an hour", time.Hour, "web@1:2/3")
	f.services[0].marks = "rro"
	f.want(t, "ready for less than the window", Window-time.Second, "web@1:2/3")
	f.want(t, "ready for the window", 2*time.Second, "")
	f.failures = 1
	f.services[0].marks = "xoo"
	f.want(t, "one fails again", time.Second, "")
	f.services[0].marks = "xxo"
	f.want(t, "both fail again", time.Second, "web@1:2/3")
	f.services[0].rev = 2
	f.services[0].marks = "ooo"
	f.want(t, "a new revision", time.Second, "")
	if len(f.memory.spells)+len(f.memory.former) != 0 {
		t.Errorf("memory %+v of what is no more", f.memory)
	}

	f = film{scene: scene{services: []row{{name: "job", marks: "ff"}}}, now: time.Hour}
	f.want(t, "ended badly", Window/2, "job@1:2/2")
	f.want(t, "ended badly long ago", Window, "")
}

// TestWanders: a slot that failed on one peer and goes to the next is braked there.
func TestWanders(t *testing.T) {
	f := film{scene: scene{services: []row{{name: "web", marks: "x---"}}}, now: time.Hour}
	f.want(t, "on the first", time.Minute, "")
	f.services[0].marks = "-o--"
	f.want(t, "on the second, where it is well", time.Second, "")
	f.services[0].marks = "-x--"
	f.want(t, "on the second, where it fails, too", time.Second, "web@1:2/2")
	f.want(t, "later", Recall, "")

	f = film{scene: scene{services: []row{{name: "web", marks: "x---"}}}, now: time.Hour}
	f.want(t, "on the first", time.Minute, "")
	f.services[0].rev = 2
	f.services[0].marks = "-x--"
	f.want(t, "another revision on the second", time.Second, "")
}

// TestBootsAmongTheWell: a peer that has just begun knows of old failures, not when.
func TestBootsAmongTheWell(t *testing.T) {
	s := scene{services: []row{{name: "web", marks: "ooo"}}}
	v := s.view()
	for i := range 3 {
		v.State(peer(i)).Replicas[0].Failures = 4
	}
	got, m, _ := Look(v, Memory{}, time.Hour)
	if len(got) != 0 {
		t.Errorf("verdicts %v of what is well", got)
	}
	for i := range 2 {
		v.State(peer(i)).Replicas[0].Failures = 5
	}
	if got, _, _ = Look(v, m, time.Hour); brief(got) != "web@1:2/3" {
		t.Errorf("two failed and are back: %q", brief(got))
	}
}

// TestMachineIsQuiet: a machine takes new slots when it has been without fault for some
// time.
func TestMachineIsQuiet(t *testing.T) {
	bad := []row{{name: "a", marks: "xoo"}, {name: "b", marks: "xoo"}, {name: "c", marks: "xoo"}}
	f := film{scene: scene{services: bad}, now: time.Hour}
	f.want(t, "ill", time.Minute, "p0(a,b,c)")
	f.services = []row{{name: "a", marks: "roo"}, {name: "b", marks: "roo"}, {name: "c", marks: "roo"}}
	f.want(t, "well for less than it takes", Window+Quiet-time.Second, "p0(a,b,c)")
	f.want(t, "well for long enough", 2*time.Second, "")
	if len(f.memory.blamed) != 0 {
		t.Errorf("memory %+v of what is well", f.memory)
	}
}

func TestWords(t *testing.T) {
	for want, v := range map[string]Verdict{
		"web:1 of web fails on 3 of 4 holders within 60s":                                  {Cause: Application, Service: "web", Image: "web:1", Failing: 3, Of: 4},
		"revision 7 of web fails on 3 of 4 holders within 60s":                             {Cause: Application, Service: "web", Revision: shoal.RevisionID{Seq: 7}, Failing: 3, Of: 4},
		"3 services fail on it and hardly elsewhere: a, b, c":                              {Cause: Machine, Services: []string{"a", "b", "c"}},
		"7 services fail on it and hardly elsewhere: a, b, c, d, e and 2 more":             {Cause: Machine, Services: []string{"a", "b", "c", "d", "e", "f", "g"}},
		"3 services fail on 2 of 2 peers with docker 29 and nowhere else: a, b, c":         {Cause: Engine, Engine: "docker 29", Failing: 2, Of: 2, Services: []string{"a", "b", "c"}},
		"4 of 5 services that were fine fail, on 2 of 3 peers: it must be what they share": {Cause: Cluster, Failing: 2, Of: 3, Shares: 4, All: 5},
	} {
		if got := v.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPace(t *testing.T) {
	for replicas, want := range map[int]time.Duration{0: 10 * time.Second, 2: 10 * time.Second, 12: time.Minute, 500: 5 * time.Minute} {
		if first, most := (Verdict{Replicas: replicas}).Pace(); first != want || most != 5*time.Minute {
			t.Errorf("%d replicas: %v, %v, want %v", replicas, first, most, want)
		}
	}
}
