// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// scene is a view in the making.
type scene struct {
	desired shoal.Desired
	lives   map[shoal.PeerID]shoal.Life
	states  map[shoal.PeerID]*shoal.PeerState
}

func newScene(edit ...func(*scene)) *shoal.View {
	s := &scene{lives: map[shoal.PeerID]shoal.Life{}, states: map[shoal.PeerID]*shoal.PeerState{}}
	for _, name := range []string{"kyoto", "osaka", "tokyo"} {
		id := shoal.PeerID(name)
		s.desired.Peers = append(s.desired.Peers, shoal.Peer{ID: id, Role: shoal.RoleOperator, Facts: shoal.PeerFacts{Name: name}})
		s.lives[id] = shoal.Life{State: shoal.LifeAlive}
		s.states[id] = &shoal.PeerState{}
	}
	s.desired.Services = []shoal.Service{{Spec: shoal.Spec{Name: "web", Image: "hello:1", Mode: shoal.ModeReplicated}, Revision: rev(1), Replicas: 2}}
	s.desired.Claims = []shoal.Claim{{Holder: "osaka", Service: "web", Slot: 0, Replica: shoal.ReplicaID{1}, Revision: rev(1)}}
	s.states["osaka"].Replicas = []shoal.ReplicaStatus{{ID: shoal.ReplicaID{1}, Service: "web", Revision: rev(1), Phase: shoal.PhaseReady}}
	for _, e := range edit {
		e(s)
	}
	return shoal.NewView("tokyo", &s.desired, s.lives, s.states)
}

func rev(seq uint64) shoal.RevisionID { return shoal.RevisionID{Seq: seq, Author: "tokyo"} }

func TestDifference(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*scene)
		want []string
	}{
		"nothing":      {func(*scene) {}, nil},
		"peer joined":  {func(s *scene) { s.desired.Peers = append(s.desired.Peers, shoal.Peer{ID: "x", Role: shoal.RolePeer}) }, []string{"peer x joined as peer"}},
		"peer removed": {func(s *scene) { s.desired.Peers[1].Removed = true }, []string{"peer osaka was removed"}},
		"peer drained": {func(s *scene) { s.desired.Peers[1].Draining = true }, []string{"peer osaka draining"}},
		"peer renamed": {func(s *scene) { s.desired.Peers[1].Facts.Name = "kyoto" }, []string{"peer osaka renamed osaka -> kyoto"}},
		"peer dead":    {func(s *scene) { s.lives["osaka"] = shoal.Life{State: shoal.LifeDead} }, []string{"peer osaka alive -> dead"}},
		"engine down":  {func(s *scene) { s.states["osaka"].Engine = shoal.EngineStatus{Down: true, Reason: "no answer for 12s"} }, []string{"peer osaka engine down: no answer for 12s"}},
		"in trouble":   {func(s *scene) { s.states["osaka"].Trouble = "3 services fail on it" }, []string{"peer osaka takes no new slots: 3 services fail on it"}},
		"created":      {func(s *scene) { s.add("db", shoal.ModeReplicated) }, []string{"service db/-1 created through tokyo: db:1, replicas 3"}},
		"created, all": {func(s *scene) { s.add("db", shoal.ModeGlobal) }, []string{"service db/-1 created through tokyo: db:1, one on every peer"}},
		"scaled":       {func(s *scene) { s.desired.Services[0].Replicas = 5 }, []string{"service web/-1 scaled 2 -> 5"}},
		"updated": {func(s *scene) { s.desired.Services[0].Revision = rev(2); s.desired.Services[0].Spec.Image = "hello:2" }, []string{
			"rollout web/-1 rollout of revision 2 began through tokyo",
			"service web/-1 updated through tokyo: revision 2, image hello:1 -> hello:2",
		}},
		"went back": {func(s *scene) {
			w := &s.desired.Services[0]
			w.Revision, w.Undoes, w.Why, w.Spec.Image = rev(2), rev(1), "2 of 2 slots failed", "hello:0"
		}, []string{"rollout web/-1 went back from revision 1 through tokyo, image hello:1 -> hello:0: 2 of 2 slots failed", "rollout web/-1 rollout of revision 2 began through tokyo"}},
		"went back, asked for": {func(s *scene) {
			s.desired.Services[0].Revision, s.desired.Services[0].Undoes = rev(2), rev(1)
		}, []string{"rollout web/-1 went back from revision 1 through tokyo: a user asked for it", "rollout web/-1 rollout of revision 2 began through tokyo"}},
		"paused": {func(s *scene) {
			s.desired.Services[0].Rollout = shoal.RolloutState{Paused: true, Why: "no slot became healthy"}
		}, []string{
			"rollout web/-1 rollout of revision 1 paused: no slot became healthy",
		}},
		"promoted": {func(s *scene) { s.desired.Services[0].Rollout.Promoted = true }, []string{"rollout web/-1 canary of revision 1 promoted"}},
		"settled": {func(s *scene) { s.desired.Services[0].Rollout.Settled = true }, []string{
			"rollout web/-1 rollout of revision 1 is over: all slots run it and are healthy",
		}},
		"image moved": {func(s *scene) {
			s.desired.Services[0].Revision = rev(2)
			s.desired.Services[0].Spec.Digest = "sha256:b"
		}, []string{
			"rollout web/-1 rollout of revision 2 began through tokyo",
			"service web/-1 updated through tokyo: revision 2, image hello:1 (by name -> sha256:b)",
		}},
		"a wave": {func(s *scene) {
			s.desired.Services[0].Revision, s.desired.Claims[0].Revision = rev(2), rev(2)
		}, []string{
			"rollout web/-1 rollout of revision 2 began through tokyo", "service web/-1 updated through tokyo: revision 2",
			"rollout web/-1 slot 0 changes to revision 2",
		}},
		"removed": {func(s *scene) { s.desired.Services = nil }, []string{"service web/-1 removed"}},
		"conflict": {func(s *scene) {
			s.desired.Conflicts = []shoal.Conflict{{Service: "web", Loser: rev(1), Winner: rev(2), Rule: "higher seq"}}
		}, []string{"service web/-1 conflict: revision 1@tokyo superseded by 2@tokyo: higher seq"}},
		"image conflict": {func(s *scene) {
			s.desired.Conflicts = []shoal.Conflict{{Image: "app:v1", Rule: "app:v1 stands for nothing"}}
		}, []string{"image  conflict: app:v1 stands for nothing"}},
		"moved":   {func(s *scene) { s.desired.Claims[0].Holder = "kyoto" }, []string{"claim web/0 claimed by kyoto", "claim web/0 released by osaka"}},
		"yielded": {func(s *scene) { s.yield() }, []string{"claim web/0 released by osaka to kyoto"}},
		"phase": {func(s *scene) {
			s.states["osaka"].Replicas[0].Phase = shoal.PhaseFailed
			s.states["osaka"].Replicas[0].Reason = "exit 1"
		}, []string{"replica web/0 ready -> failed: exit 1"}},
		"restart":   {func(s *scene) { s.states["osaka"].Replicas[0].Restarts = 1 }, []string{"replica web/0 restart 1"}},
		"unhealthy": {func(s *scene) { s.states["osaka"].Replicas[0].Health = shoal.HealthUnhealthy }, []string{"replica web/0 unhealthy"}},
		"new replica": {func(s *scene) {
			s.states["kyoto"].Replicas = []shoal.ReplicaStatus{{ID: shoal.ReplicaID{2}, Service: "web", Slot: 1, Phase: shoal.PhasePulling}}
		}, []string{"replica web/1 pulling on kyoto"}},
		"a stale phase": {func(s *scene) { s.states["osaka"].Used = shoal.Resources{CPUMilli: 9} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			at := time.Unix(1000, 0)
			var got []string
			for _, e := range difference(newScene(), newScene(c.edit), at) {
				where := string(e.Peer)
				if e.Service != "" {
					where = fmt.Sprintf("%s/%d", e.Service, e.Slot)
				}
				got = append(got, fmt.Sprintf("%s %s %s", e.Kind, where, e.Text))
				if e.Time != at {
					t.Errorf("event has time %s, want %s", e.Time, at)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("difference (-want +got):\n%s", diff)
			}
		})
	}
}

func (s *scene) add(name string, mode shoal.Mode) {
	svc := shoal.Service{Spec: shoal.Spec{Name: name, Image: name + ":1", Mode: mode}, Revision: rev(1), Replicas: 3}
	s.desired.Services = append([]shoal.Service{svc}, s.desired.Services...)
}

func (s *scene) yield() {
	s.desired.Claims = nil
	s.desired.Releases = []shoal.Release{{Holder: "osaka", Service: "web", YieldTo: "kyoto"}}
}

// A run of a job is told as that, not as another revision of it.
func TestDifferenceOfRuns(t *testing.T) {
	at := func(run int64, seq uint64) *shoal.View {
		return newScene(func(s *scene) {
			web := &s.desired.Services[0]
			web.Revision, web.Spec.Run, web.Spec.Schedule = rev(seq), run, &shoal.Schedule{Cron: "0 3 * * *"}
		})
	}
	got := difference(at(0, 1), at(10800, 2), time.Time{})
	if len(got) != 1 || got[0].Text != "run of 03:00 on 1 Jan 1970 began through tokyo" {
		t.Errorf("difference(no run, one) = %v, want that it began", got)
	}
}

// A revision that does not begin because of what runs before it says so once; that job is
// not told to be updated where it goes on.
func TestDifferenceOfPreDeploy(t *testing.T) {
	at := func(seq uint64, o *shoal.JobOutcome) *shoal.View {
		return newScene(func(s *scene) {
			web := &s.desired.Services[0]
			web.Past = []shoal.PastRevision{{Revision: rev(1), Spec: shoal.Spec{Name: "web", Image: "hello:0"}}}
			web.Revision, web.Spec.PreDeploy = rev(seq), &shoal.PreDeploy{Command: []string{"migrate"}, Attempts: 1, For: rev(2)}
			s.desired.Services = shoal.AddPre(s.desired.Services)
			s.desired.Claims = append(s.desired.Claims, shoal.Claim{Holder: "kyoto", Service: "web-pre-deploy", Replica: shoal.ReplicaID{2}, Revision: rev(2), Outcome: o})
		})
	}
	failed := &shoal.JobOutcome{Attempts: 1, Failed: true, Code: 1, Why: "exited with code 1"}
	texts := func(a, b *shoal.View) (out []string) {
		for _, e := range difference(a, b, time.Time{}) {
			out = append(out, e.Service+" "+e.Text)
		}
		return out
	}
	want := []string{`web revision 2 does not begin: pre_deploy failed: exited with code 1 (1 attempt); see "shoal logs web-pre-deploy"`}
	if diff := cmp.Diff(want, texts(at(2, nil), at(2, failed))); diff != "" {
		t.Errorf("it failed (-want +got):\n%s", diff)
	}
	if got := texts(at(2, failed), at(3, failed)); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "web-pre-deploy updated") }) {
		t.Errorf("it goes on: %q", got)
	}
}

// A rollout that was paused and goes on.
func TestDifferenceOfResumed(t *testing.T) {
	paused := newScene(func(s *scene) { s.desired.Services[0].Rollout.Paused = true })
	got := difference(paused, newScene(), time.Time{})
	if len(got) != 1 || got[0].Text != "rollout of revision 1 goes on" {
		t.Errorf("difference(paused, not) = %v, want that it goes on", got)
	}
}

func TestDifferenceOfNothing(t *testing.T) {
	v := newScene()
	if got := difference(nil, v, time.Time{}); got != nil {
		t.Errorf("difference(nil, v) = %v, want none: what was there is no event", got)
	}
	if got := difference(v, v, time.Time{}); got != nil {
		t.Errorf("difference(v, v) = %v, want none", got)
	}
}

func TestProgress(t *testing.T) {
	why := func(int) string { return "no room" }
	full := func(s *scene) {
		s.desired.Claims = append(s.desired.Claims, shoal.Claim{Holder: "kyoto", Service: "web", Slot: 1, Replica: shoal.ReplicaID{2}, Revision: rev(1)})
		s.states["kyoto"].Replicas = []shoal.ReplicaStatus{{ID: shoal.ReplicaID{2}, Service: "web", Slot: 1, Revision: rev(1), Phase: shoal.PhaseReady}}
	}
	leftover := func(s *scene) {
		s.states["tokyo"].Replicas = []shoal.ReplicaStatus{{ID: shoal.ReplicaID{3}, Service: "web", Phase: shoal.PhaseStopping}}
	}
	for name, c := range map[string]struct {
		edit    []func(*scene)
		settled bool
		trouble string
		states  string
	}{
		"a slot is open":   {nil, false, "", "ready unplaced"},
		"all ready":        {[]func(*scene){full}, true, "", "ready ready"},
		"old one stopping": {[]func(*scene){full, leftover}, false, "", "ready ready"},
		"old one stopped":  {[]func(*scene){full, leftover, func(s *scene) { s.states["tokyo"].Replicas[0].Phase = shoal.PhaseStopped }}, true, "", "ready ready"},
		"older revision":   {[]func(*scene){full, func(s *scene) { s.desired.Services[0].Revision = rev(2) }}, false, "", "ready ready"},
		"holder silent":    {[]func(*scene){full, func(s *scene) { s.lives["kyoto"] = shoal.Life{State: shoal.LifeDead} }}, false, "", "ready silent"},
		"failed":           {[]func(*scene){full, func(s *scene) { s.states["kyoto"].Replicas[0].Phase = shoal.PhaseFailed }}, false, "web/1 on kyoto failed", "ready failed"},
		"crash loop":       {[]func(*scene){full, func(s *scene) { st := &s.states["kyoto"].Replicas[0]; st.Phase, st.Restarts = shoal.PhaseStarting, 3 }}, false, "web/1 on kyoto restarted 3 times", "ready starting"},
		"one too many":     {[]func(*scene){full, func(s *scene) { s.desired.Services[0].Replicas = 1 }}, false, "", "ready ready"},
		"a job that ended": {[]func(*scene){full, func(s *scene) {
			s.desired.Services[0].Spec.Restart.Condition = shoal.RestartNone
			s.states["kyoto"].Replicas[0].Phase = shoal.PhaseStopped
		}}, true, "", "ready stopped"},
		"gone, some remain": {[]func(*scene){full, func(s *scene) { s.desired.Services = nil }}, false, "", "ready ready"},
		"gone":              {[]func(*scene){func(s *scene) { s.desired.Services, s.desired.Claims = nil, nil; s.states["osaka"].Replicas = nil }}, true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := newScene(c.edit...)
			want := 0
			if svc, ok := v.Service("web"); ok {
				want = svc.Replicas
			}
			got := newPane(v, 0).progress("web", want, why)
			var states []string
			for _, r := range got.GetReplicas() {
				states = append(states, r.GetState())
			}
			if got.GetIsSettled() != c.settled || got.GetTrouble() != c.trouble || strings.Join(states, " ") != c.states {
				t.Errorf("progress = settled %v, trouble %q, states %q, want %v, %q, %q", got.GetIsSettled(), got.GetTrouble(), states, c.settled, c.trouble, c.states)
			}
		})
	}
}

// Sources in order come out in order, whatever the interleaving and the pauses, as
// long as no pause is longer than the window; and nothing is lost.
func TestMergeKeepsOrder(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		lines := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 20), 0, 8), 1, 5).Draw(r, "gaps")
		pauses := rapid.SliceOfN(rapid.IntRange(0, 40), 64, 64).Draw(r, "pauses")
		synctest.Test(t, func(t *testing.T) {
			m := newMerger(500*time.Millisecond, shoal.NewSystemClock())
			total := 0
			for i, gaps := range lines {
				src := m.open()
				total += len(gaps)
				go func() {
					at := time.Unix(0, 0)
					for n, gap := range gaps {
						time.Sleep(time.Duration(pauses[(i*8+n)%64]) * time.Millisecond)
						at = at.Add(time.Duration(gap) * time.Second)
						if err := src.put(t.Context(), shoal.LogLine{Time: at, Slot: i}); err != nil {
							t.Error(err)
						}
					}
					src.end("", nil)
				}()
			}
			m.close()
			var last time.Time
			for range total {
				line, lost, err := m.next(t.Context())
				if err != nil || lost != nil || line == nil || line.Time.Before(last) {
					t.Fatalf("next() = %v, %v, %v after %s, want a later line", line, lost, err, last)
				}
				last = line.Time
			}
			if line, lost, err := m.next(t.Context()); line != nil || lost != nil || err != nil {
				t.Errorf("next() at the end = %v, %v, %v, want nothing", line, lost, err)
			}
		})
	})
}

// A quiet source delays the others by the window only, and a fast one is made to
// wait when nobody takes.
func TestMergeWindowAndRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMerger(200*time.Millisecond, shoal.NewSystemClock())
		quiet, loud := m.open(), m.open()
		start := time.Now()
		if err := loud.put(t.Context(), shoal.LogLine{Text: "a"}); err != nil {
			t.Fatal(err)
		}
		if line, _, err := m.next(t.Context()); err != nil || line.Text != "a" || time.Since(start) != 200*time.Millisecond {
			t.Errorf("next() = %v, %v after %s, want a after the window", line, err, time.Since(start))
		}
		for range mergeDepth {
			if err := loud.put(t.Context(), shoal.LogLine{}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := loud.put(ctx, shoal.LogLine{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("put() into a full source = %v, want it to wait", err)
		}
		quiet.end("osaka", errors.New("no route"))
		if _, lost, err := m.next(t.Context()); err != nil || lost == nil || lost.peer != "osaka" {
			t.Errorf("next() = %v, %v, want the loss of osaka at once", lost, err)
		}
	})
}

func TestStoryForgetsTheOldest(t *testing.T) {
	s := newStory(3)
	for i := range 5 {
		s.add(shoal.Event{Slot: i})
	}
	events, next, _ := s.after(0)
	if len(events) != 3 || events[0].Slot != 2 || next != 5 {
		t.Errorf("after(0) = %v, %d, want the newest three, then 5", events, next)
	}
	if events, _, _ := s.after(4); len(events) != 1 {
		t.Errorf("after(4) = %v, want one", events)
	}
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Error
	}{
		{fmt.Errorf("accept wish: service %q belongs to a: %w", "web", shoal.ErrConflict), Error{Code: CodeConflict, What: `service "web" belongs to a`}},
		{&shoal.AdviceError{Err: fmt.Errorf("join: %w", shoal.ErrRefused), Advice: "ask"}, Error{Code: CodeRefused, What: "join", Todo: "ask"}},
		{fmt.Errorf("x: %w", &shoal.InvalidError{Field: "image", Why: "is missing"}), Error{Code: CodeInvalid, What: "x: image is missing"}},
		{errors.New("two\nlines\x1b[31m"), Error{Code: CodeInternal, What: "two lines [31m"}},
		{fmt.Errorf("pull: %w", context.DeadlineExceeded), Error{Code: CodeTimeout, What: "pull"}},
	} {
		if got := describe(c.err); *got != c.want {
			t.Errorf("describe(%v) = %+v, want %+v", c.err, *got, c.want)
		}
	}
	for _, k := range kinds {
		if _, ok := statuses[k.code]; !ok {
			t.Errorf("code %s has no status", k.code)
		}
	}
}

// Tests run as root too, who may everything: the cause is made up.
func TestUnreachable(t *testing.T) {
	denied := fmt.Errorf("dial: %w", syscall.EACCES)
	if got := unreachable("/run/shoal.sock", denied); got == nil || got.Error() != `permission denied on /run/shoal.sock: add user to group "shoal"` {
		t.Errorf("unreachable(EACCES) = %v", got)
	}
	if got := unreachable("/run/shoal.sock", errors.New("x")); got != nil {
		t.Errorf("unreachable(x) = %v, want nil", got)
	}
}

func FuzzStrictJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[{"b":null}]}`, `{"a":1,"a":2}`, `[[[`, `{"a":"\ud800"}`, "{\n\"targets\":[{}]}", strings.Repeat("[", 100)} {
		f.Add(s)
	}
	g := newGuard("/", nil)
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"Deploy", "Scale"} {
			err := judge([]byte(text), g.methods[name].Input())
			if err == nil {
				continue
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != CodeInvalid || e.What == "" || strings.ContainsFunc(e.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("judge(%q) = %#v, want one line with a code", text, err)
			}
		}
		if checkJSON([]byte(text), 3) == nil && strings.Count(text, "{") > 0 && slices.Max([]byte(text)) < 0x80 {
			if d := depthOf(text); d > 3 {
				t.Errorf("checkJSON(%q) lets depth %d pass", text, d)
			}
		}
	})
}

// depthOf is the naive count, right for JSON that was accepted.
func depthOf(text string) int {
	depth, deepest, quoted, escaped := 0, 0, false, false
	for _, b := range []byte(text) {
		switch {
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"':
			quoted = !quoted
		case !quoted && (b == '{' || b == '['):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (b == '}' || b == ']'):
			depth--
		}
	}
	return deepest
}

func TestPlainAddrs(t *testing.T) {
	in := []string{"/ip4/192.0.2.1/tcp/4710", "/ip4/192.0.2.1/udp/4710/quic-v1", "/ip6/2001:db8::1/tcp/4710", "/dns/a/tcp/1", "odd"}
	want := []string{"192.0.2.1:4710", "[2001:db8::1]:4710", "a:1", "odd"}
	if got := plainAddrs(in); !slices.Equal(got, want) {
		t.Errorf("plainAddrs(%q) = %q, want %q", in, got, want)
	}
}

func TestOpinions(t *testing.T) {
	v, at := newScene(), time.Unix(1000, 0)
	o := &opinions{}
	failed := shoal.RolloutReport{
		Service: "web", Revision: rev(2), FirstFailure: "first failure 4s after revision 2 by the operator at tokyo: web/1 at osaka: exited with code 1",
		Failure: shoal.Failure{Slot: 1, Peer: "osaka", Replica: shoal.ReplicaID{7}},
	}
	held := failed
	held.Held = "hello:2 of web fails on 2 of 2 holders within 60s"
	app := shoal.Fault{Cause: "application", Service: "web", Text: held.Held}
	machine := shoal.Fault{Cause: "machine", Peer: "kyoto", Text: "3 services fail on it and hardly elsewhere: a, b, c"}
	worse := app
	worse.Text = "hello:2 of web fails on 3 of 3 holders within 60s"
	for _, c := range []struct {
		name    string
		reports []shoal.RolloutReport
		faults  []shoal.Fault
		want    []string
	}{
		{"nothing", nil, nil, nil},
		{"a rollout", []shoal.RolloutReport{{Service: "web", Revision: rev(2)}}, nil, nil},
		{"it failed", []shoal.RolloutReport{failed}, nil, []string{"rollout web/1 osaka " + failed.FirstFailure}},
		{"still", []shoal.RolloutReport{failed}, nil, nil},
		{"it is held", []shoal.RolloutReport{held}, []shoal.Fault{app}, []string{
			"rollout web/-1  rollout of revision 2 held: " + held.Held, "fault web/-1  application at fault: " + held.Held,
		}},
		{"it is worse", []shoal.RolloutReport{held}, []shoal.Fault{worse, machine}, []string{"fault /-1 kyoto machine at fault: " + machine.Text}},
		{"it is over", []shoal.RolloutReport{failed}, nil, []string{
			"rollout web/-1  rollout no longer held", "fault web/-1  application no longer at fault", "fault /-1 kyoto machine no longer at fault",
		}},
	} {
		var got []string
		for _, e := range o.next(v, c.reports, c.faults, at) {
			got = append(got, fmt.Sprintf("%s %s/%d %s %s", e.Kind, e.Service, e.Slot, e.Peer, e.Text))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
