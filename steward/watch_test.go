// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement/brake"
	"github.com/shoalnet/shoal/placement/rollout"
)

// world is three operators and a service web with three slots at revision 2, one on each;
// revision 1 was good.
type world struct {
	self    shoal.PeerID
	service shoal.Service
	phases  [3]shoal.Phase
	fails   [3]int
	old     [3]bool // still at revision 1
	dead    map[shoal.PeerID]bool
	loads   [3]int64 // thousandths of a core; 0: not told
	carried map[shoal.PeerID]shoal.Carried
	now     time.Duration
	from    time.Duration
	memory  memory
	brake   brake.Memory
	others  []shoal.Service // on all peers, failing
}

var (
	peers = []shoal.PeerID{"a", "b", "c"}
	cfg   = Config{Step: 2 * time.Second, Again: 10 * time.Second}
)

func rev(seq uint64) shoal.RevisionID { return shoal.RevisionID{Seq: seq, Author: "a"} }

func newWorld() *world {
	w := &world{self: "a", phases: [3]shoal.Phase{shoal.PhaseReady, shoal.PhaseReady, shoal.PhaseReady}, dead: map[shoal.PeerID]bool{}, now: time.Hour}
	w.service = shoal.Service{
		Spec:     shoal.Spec{Name: "web", Mode: shoal.ModeReplicated, Image: "hello:2", Digest: "sha256:2", Rollout: shoal.DefaultRollout()},
		Revision: rev(2), Replicas: 3, Past: []shoal.PastRevision{{Revision: rev(1), Spec: shoal.Spec{Name: "web", Image: "hello:1"}, Good: true}},
	}
	return w
}

func (w *world) view() *shoal.View {
	d := &shoal.Desired{Services: []shoal.Service{w.service}}
	lives, states := map[shoal.PeerID]shoal.Life{}, map[shoal.PeerID]*shoal.PeerState{}
	for i, id := range peers {
		d.Peers = append(d.Peers, shoal.Peer{ID: id, Role: shoal.RoleOperator, Facts: shoal.PeerFacts{Name: "peer-" + string(id)}})
		of := w.service.Revision
		if w.old[i] {
			of = rev(1)
		}
		d.Claims = append(d.Claims, shoal.Claim{Service: "web", Slot: i, Holder: id, Replica: shoal.ReplicaID{byte(i + 1)}, Revision: of})
		lives[id] = shoal.Life{State: shoal.LifeAlive}
		if w.dead[id] {
			lives[id] = shoal.Life{State: shoal.LifeDead}
		}
		st := shoal.ReplicaStatus{ID: shoal.ReplicaID{byte(i + 1)}, Service: "web", Slot: i, Revision: of, Phase: w.phases[i], Failures: w.fails[i]}
		if st.Phase != shoal.PhaseReady {
			st.Reason = "exited with code 1"
		}
		states[id] = &shoal.PeerState{Replicas: []shoal.ReplicaStatus{st}}
		if w.loads[i] > 0 {
			states[id].Loads = []shoal.ReplicaLoad{{Replica: st.ID, CPUMilli: w.loads[i], MemBytes: w.loads[i] << 10}}
		}
		if c, ok := w.carried[id]; ok {
			states[id].Carried = []shoal.Carried{c}
		}
		for j, s := range w.others {
			st := shoal.ReplicaStatus{ID: shoal.ReplicaID{byte(i + 1), byte(j + 1)}, Service: s.Spec.Name, Slot: i, Revision: s.Revision, Phase: shoal.PhasePending, Failures: 1}
			states[id].Replicas = append(states[id].Replicas, st)
			d.Claims = append(d.Claims, shoal.Claim{Service: s.Spec.Name, Slot: i, Holder: id, Replica: st.ID, Revision: s.Revision})
		}
	}
	d.Services = append(d.Services, w.others...)
	slices.SortStableFunc(d.Services, func(a, b shoal.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	slices.SortStableFunc(d.Claims, func(a, b shoal.Claim) int { return strings.Compare(a.Service, b.Service) })
	return shoal.NewView(w.self, d, lives, states)
}

// pass lets time pass, waking when asked to, and returns what was asked for, and when.
func (w *world) pass(d time.Duration) []string {
	var out []string
	for end := w.now + d; ; {
		verdicts, seen, _ := brake.Look(w.view(), w.brake, w.now)
		next, acts, wake := look(w.view(), w.memory, verdicts, w.now, w.from, &cfg)
		w.memory, w.brake = next, seen
		for _, a := range acts {
			out = append(out, fmt.Sprintf("%s at %s: %s", a.Change, w.now-time.Hour, a.Why))
		}
		if wake == 0 || wake > end {
			w.now = end
			return out
		}
		w.now = wake
	}
}

// first makes the peer that acts first on the current revision oneself.
func (w *world) first() { w.self = order(w.view(), &w.service)[0] }

func is(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %q, want %q", what, got, want)
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
}

func TestSettles(t *testing.T) {
	w := newWorld()
	w.first()
	is(t, "healthy for ten seconds", w.pass(15*time.Second), "settle at 10s")
	w.service.Rollout.Settled = true
	is(t, "settled", w.pass(time.Hour))
	if len(w.memory) != 0 {
		t.Errorf("memory %v of what has settled", w.memory)
	}

	w = newWorld()
	w.first()
	w.service.Spec.Rollout.Monitor = time.Minute
	is(t, "watched for a minute", w.pass(65*time.Second), "settle at 1m0s")

	w = newWorld()
	w.first()
	w.old[2] = true
	is(t, "one has not changed", w.pass(5*time.Minute))

	w = newWorld()
	w.first()
	w.service.Stopped = true
	is(t, "stopped", w.pass(time.Hour))
}

func TestGoesBack(t *testing.T) {
	w := newWorld()
	w.first()
	w.old = [3]bool{false, true, true}
	is(t, "nothing failed", w.pass(4*time.Second))
	w.phases[0], w.fails[0] = shoal.PhasePending, 1
	is(t, "one failed", w.pass(5*time.Second),
		"rollback at 4s: 1 of 3 slots failed; first failure 4s after revision 2 by the operator at peer-a: web/0 at peer-a: exited with code 1")
	is(t, "it had no effect", w.pass(10*time.Second), "rollback at 14s: 1 of 3 slots failed; first failure 4s")

	w.service.Revision, w.service.Undoes = rev(3), rev(2)
	w.fails = [3]int{}
	w.phases[0] = shoal.PhaseReady
	w.old = [3]bool{true, true, true}
	w.first()
	is(t, "on its way back", w.pass(time.Minute))
	w.old, w.fails[1] = [3]bool{false, false, true}, 2
	is(t, "going back fails, too", w.pass(time.Second), "pause at 1m19s: 1 of 3 slots failed; first failure 1m0s after revision 3")
}

func TestDeadline(t *testing.T) {
	w := newWorld()
	w.first()
	w.old = [3]bool{false, true, true}
	w.phases[0] = shoal.PhaseRunning
	is(t, "never ready", w.pass(10*time.Minute), "rollback at 10m0s: no slot became healthy in 10m0s, until slot 0 is healthy")

	w = newWorld()
	w.first()
	w.old = [3]bool{false, true, true}
	is(t, "begins", w.pass(9*time.Minute))
	w.old[1] = false
	is(t, "progress", w.pass(9*time.Minute))
}

// TestInTurn: if the first is not there, or does nothing, the next acts later.
func TestInTurn(t *testing.T) {
	w := newWorld()
	turns := order(w.view(), &w.service)
	for i, want := range []string{"at 0s", "at 2s", "at 4s"} {
		w := newWorld()
		w.self, w.fails[0] = turns[i], 1
		is(t, string(w.self), w.pass(5*time.Second), want)
	}
	w.dead[turns[0]] = true
	w.self, w.fails[0] = turns[1], 1
	is(t, "the second where the first is not heard", w.pass(time.Second), "at 0s")
}

// TestGrace: a peer that has just begun asks for nothing.
func TestGrace(t *testing.T) {
	w := newWorld()
	w.first()
	w.from, w.fails[0] = w.now+10*time.Second, 1
	is(t, "just begun", w.pass(9*time.Second))
	is(t, "later", w.pass(9*time.Second), "rollback at 10s")
}

// TestSharedOutageUndoesNothing: while most that was fine fails everywhere, a rollout that
// fails with it is left as it is.
func TestSharedOutageUndoesNothing(t *testing.T) {
	w := newWorld()
	w.first()
	w.old = [3]bool{false, true, true}
	for _, name := range []string{"api", "db"} {
		w.others = append(w.others, shoal.Service{Spec: shoal.Spec{Name: name}, Revision: rev(1), Replicas: 3, Rollout: shoal.RolloutState{Settled: true}})
	}
	w.phases[0], w.fails[0] = shoal.PhasePending, 1
	is(t, "the database of all is away", w.pass(5*time.Minute))
	const why = "1 of 3 slots failed; nothing is done about it while 2 of 2 services that were fine fail, on 3 of 3 peers"
	if got, err := report(w.view(), "web", w.memory["web"], w.now, cfg.Step); err != nil || !strings.HasPrefix(got.Waits, why) || got.Actor != "" {
		t.Errorf("report %+v, %v, want %q", got, err, why)
	}
	w.others = nil
	is(t, "it is back", w.pass(time.Second), "rollback at 5m0s: 1 of 3 slots failed")
}

// TestBrakedButWithinItsLimit: that a revision fails on most of its holders changes
// nothing about how many of its slots may fail.
func TestBrakedButWithinItsLimit(t *testing.T) {
	w := newWorld()
	w.first()
	w.service.Spec.Rollout.MaxFailureRatio = 700
	w.old = [3]bool{false, false, true}
	w.phases[0], w.fails[0] = shoal.PhasePending, 1
	w.phases[1], w.fails[1] = shoal.PhasePending, 1
	is(t, "two fail, and may", w.pass(5*time.Minute))
	got, err := report(w.view(), "web", w.memory["web"], w.now, cfg.Step)
	if err != nil || got.Waits != "hello:2 of web fails on 2 of 2 holders within 60s" || len(got.Next) != 0 || got.Actor != "" {
		t.Errorf("report %+v, %v", got, err)
	}
	is(t, "the deadline passes", w.pass(5*time.Minute+5*time.Second), "rollback at 10m0s: no slot became healthy in 10m0s, hello:2 of web fails on 2 of 2 holders")
}

// TestDeadlineWhileWaiting: the deadline of a rollout begins when what the revision depends
// on is there.
func TestDeadlineWhileWaiting(t *testing.T) {
	w := newWorld()
	w.first()
	w.old = [3]bool{true, true, true}
	w.service.Spec.DependsOn = []shoal.Dependency{{Service: "db", Condition: shoal.ConditionHealthy}}
	is(t, "db is not there", w.pass(time.Hour))
	if st := w.memory["web"].status; st.State != rollout.Waiting || st.Waits != "db is not there" {
		t.Errorf("status %+v, want that it waits for db", st)
	}
	w.service.Spec.DependsOn = nil
	is(t, "its own time begins", w.pass(9*time.Minute))
	if acts := w.pass(2 * time.Minute); len(acts) == 0 || !strings.HasPrefix(acts[0], "rollback at 1h10m0s: no slot became healthy in 10m0s") {
		t.Errorf("asked for %q, want a rollback ten minutes after it could begin", acts)
	}
}
