// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into testdata instead of comparing with it")

// TestScenarios plays testdata/*.txt: stories of several peers with everything they
// decide. A block is a line of input, "----", and what follows from it, up to an
// empty line. The verbs are below, one handler each. After a change of the rules
// run `go test ./placement -run Scenarios -rewrite` and explain the diff.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(raw))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(raw), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s differs (-file +now):\n%s", file, diff)
			}
		})
	}
}

// play runs a scenario and returns it with what happened.
func play(t *testing.T, text string) string {
	var out strings.Builder
	var s *stage
	for block := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		input, _, _ := strings.Cut(block, "\n----")
		var command string
		for line := range strings.SplitSeq(input, "\n") {
			if !strings.HasPrefix(line, "#") {
				command = line
			}
		}
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		out.WriteString(input + "\n")
		if command == "" {
			continue
		}
		words := strings.Fields(command)
		if words[0] == "cluster" {
			s = newStage(words[1:])
			s.out.Reset()
		} else if verb, ok := verbs[words[0]]; ok && s != nil {
			verb(t, s, words[1:])
		} else {
			t.Fatalf("%q is no verb, or comes before the cluster", words[0])
		}
		out.WriteString("----\n" + s.out.String())
		s.out.Reset()
	}
	return out.String()
}

var verbs = map[string]func(*testing.T, *stage, []string){
	"deploy": doDeploy,
	"update": doUpdate,
	"scale":  doScale, "stop": doStop, "start": doStart,
	"rm":      doRemove,
	"kill":    doKill,
	"boot":    doBoot,
	"split":   doSplit,
	"heal":    doHeal,
	"drain":   doDrain,
	"mark":    doMark,
	"allow":   doAllow,
	"label":   doLabel,
	"images":  doImages,
	"refuse":  doRefuse,
	"end":     doEnd,
	"run":     doRun,
	"ps":      doPs,
	"explain": doExplain,
	"slots":   doSlots,
}

// where returns the peer named by "at=NAME" and the other words.
func where(t *testing.T, s *stage, words []string) (*player, []string) {
	t.Helper()
	for i, w := range words {
		if name, ok := strings.CutPrefix(w, "at="); ok {
			if a := s.player(shoal.PeerID(name)); a != nil && a.up {
				return a, slices.Delete(slices.Clone(words), i, i+1)
			}
			t.Fatalf("no peer %q is up", name)
		}
	}
	return s.players[0], words
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// accept writes a wish at a peer with the proposal for it.
func (s *stage) accept(a *player, key string, n note, spec shoal.Spec, replicas int) {
	old := a.records["service/"+spec.Name]
	n.seq = max(old.seq, a.records["scale/"+spec.Name].seq, a.records["add/"+spec.Name+"/"+string(a.id)].seq) + 1
	n.author, n.fresh = a.id, true
	if n.svc != nil {
		n.svc.Revision = shoal.RevisionID{Seq: n.seq, Author: a.id}
	}
	placed := Propose(s.view(a), []Wanted{{Spec: spec, Replicas: replicas}})[0]
	n.prop = placed.Slots[n.from:]
	a.records[key] = n
	a.dirty = true
	var names strings.Builder
	for i, id := range n.prop {
		fmt.Fprintf(&names, " %d:%s", n.from+i, id)
	}
	s.log(a, "accepts %s=%d, proposes%s", spec.Name, replicas, names.String())
	for _, u := range placed.Unplaced {
		s.log(a, "cannot place %s", u)
	}
}

// deploy SERVICE N [option=value...] [at=PEER]: mem=GIB, image=, policy=, max=,
// constraint=key=value, parallelism=, spread=LABEL, after=SERVICE:CONDITION, volume,
// mount=DIR, once, global, job, each-job, attempts=, at-once=.
func doDeploy(t *testing.T, s *stage, words []string) {
	a, words := where(t, s, words)
	spec := shoal.Spec{
		Name: words[0], Mode: shoal.ModeReplicated, Strategy: shoal.StrategySpread,
		OnPartition: shoal.PartitionAvailable, Reservations: shoal.Resources{MemBytes: gib},
	}
	n := number(t, words[1])
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "mem":
			spec.Reservations.MemBytes = int64(number(t, value)) * gib
		case "image":
			spec.Image = value
		case "policy":
			spec.OnPartition = shoal.OnPartition(value)
		case "max":
			spec.MaxPerPeer = number(t, value)
		case "parallelism":
			spec.Rollout.Parallelism = number(t, value)
		case "constraint":
			k, v, _ := strings.Cut(value, "=")
			spec.Constraints = append(spec.Constraints, shoal.Selector{Key: k, Op: shoal.OpEqual, Values: []string{v}})
		case "spread":
			spec.SpreadBy = value
		case "volume":
			spec.Setup.Mounts = append(spec.Setup.Mounts, shoal.Mount{Kind: shoal.MountVolume, Source: "data", Target: "/data"})
		case "mount":
			spec.Setup.Mounts = append(spec.Setup.Mounts, shoal.Mount{Kind: shoal.MountBind, Source: value, Target: "/data"})
		case "after":
			name, condition, _ := strings.Cut(value, ":")
			spec.DependsOn = append(spec.DependsOn, shoal.Dependency{Service: name, Condition: shoal.Condition("service_" + condition)})
		case "once":
			spec.Restart.Condition = shoal.RestartNone
		case "global":
			spec.Mode = shoal.ModeGlobal
		case "job", "each-job":
			j := shoal.DefaultJob()
			spec.Job, spec.Mode, spec.Restart.Condition = &j, shoal.ModeReplicatedJob, shoal.RestartOnFailure
			if key == "each-job" {
				spec.Mode = shoal.ModeGlobalJob
			}
		case "attempts":
			spec.Job.Attempts = number(t, value)
		case "at-once":
			spec.Job.Parallelism = number(t, value)
		default:
			t.Fatalf("deploy: %q?", w)
		}
	}
	s.accept(a, "service/"+spec.Name, note{svc: &shoal.Service{Spec: spec, Replicas: n}}, spec, n)
}

// update SERVICE image=IMAGE|priority=N [at=PEER]: a new revision, with another container
// or the same.
func doUpdate(t *testing.T, s *stage, words []string) {
	a, words := where(t, s, words)
	old, ok := s.view(a).Service(words[0])
	if !ok {
		t.Fatalf("update: no service %q at %s", words[0], a.id)
	}
	next := *old
	next.Past = append([]shoal.PastRevision{{Revision: old.Revision, Spec: old.Spec}}, old.Past...)
	if image, ok := strings.CutPrefix(words[1], "image="); ok {
		next.Spec.Image = image
	} else {
		next.Spec.Priority = number(t, strings.TrimPrefix(words[1], "priority="))
	}
	s.accept(a, "service/"+words[0], note{svc: &next}, next.Spec, next.Replicas)
}

// scale SERVICE N|+N [at=PEER]; each peer may say +N once.
func doScale(t *testing.T, s *stage, words []string) {
	a, words := where(t, s, words)
	svc, ok := s.view(a).Service(words[0])
	if !ok {
		t.Fatalf("scale: no service %q at %s", words[0], a.id)
	}
	if add, ok := strings.CutPrefix(words[1], "+"); ok {
		n := number(t, add)
		s.accept(a, "add/"+words[0]+"/"+string(a.id), note{add: n, from: svc.Replicas}, svc.Spec, svc.Replicas+n)
		return
	}
	n := number(t, words[1])
	s.accept(a, "scale/"+words[0], note{scale: &n}, svc.Spec, n)
}

// stop SERVICE [at=PEER].
func doStop(t *testing.T, s *stage, words []string) { s.operate(t, words, true) }

// start SERVICE [at=PEER].
func doStart(t *testing.T, s *stage, words []string) { s.operate(t, words, false) }

func (s *stage) operate(t *testing.T, words []string, stop bool) {
	a, words := where(t, s, words)
	seq := uint64(0)
	for _, n := range a.records {
		seq = max(seq, n.seq)
	}
	a.records["op/"+words[0]] = note{seq: seq + 1, author: a.id, fresh: true, stop: stop}
	a.dirty = true
}

// rm SERVICE [at=PEER].
func doRemove(t *testing.T, s *stage, words []string) {
	a, words := where(t, s, words)
	old := a.records["service/"+words[0]]
	a.records["service/"+words[0]] = note{seq: old.seq + 1, author: a.id, gone: true}
	a.dirty = true
}

// kill PEER...: the machines lose power.
func doKill(t *testing.T, s *stage, words []string) {
	for _, w := range words {
		a := s.player(shoal.PeerID(w))
		a.up = false
		clear(a.boxes)
	}
}

// boot PEER...: the machines come back with their records.
func doBoot(t *testing.T, s *stage, words []string) {
	for _, w := range words {
		a := s.player(shoal.PeerID(w))
		a.up, a.dirty, a.wake = true, true, 0
		a.bootAt, a.mem = s.now, NewMemory(s.now)
		for key, n := range a.records {
			n.fresh = false
			a.records[key] = n
		}
		a.forget()
	}
}

// split PEER... | PEER...: no link between the sides.
func doSplit(t *testing.T, s *stage, words []string) {
	i := slices.Index(words, "|")
	for _, x := range words[:i] {
		for _, y := range words[i+1:] {
			s.cut[link(shoal.PeerID(x), shoal.PeerID(y))] = -1
		}
	}
}

// heal: all links work again.
func doHeal(_ *testing.T, s *stage, _ []string) {
	for l := range s.cut {
		s.cut[l] = s.now
	}
}

// drain PEER.
func doDrain(_ *testing.T, s *stage, words []string) {
	s.change(words[0], func(p *shoal.Peer) { p.Cordoned, p.Draining = true, true })
}

// mark PEER cordoned|removed|leaving|nothing.
func doMark(_ *testing.T, s *stage, words []string) {
	s.change(words[0], func(p *shoal.Peer) {
		p.Cordoned, p.Draining = words[1] == "cordoned", false
		p.Removed, p.Facts.Leaving, p.Facts.Addrs = words[1] == "removed", words[1] == "leaving", []string{"here"}
	})
}

// allow PEER RULE...: what the peer's owner allows.
func doAllow(_ *testing.T, s *stage, words []string) {
	s.change(words[0], func(p *shoal.Peer) { p.Facts.AllowedPolicy = words[1:] })
}

// label PEER KEY=VALUE.
func doLabel(_ *testing.T, s *stage, words []string) {
	k, v, _ := strings.Cut(words[1], "=")
	s.change(words[0], func(p *shoal.Peer) { p.Facts.Labels[k] = v })
}

// change records something about a peer; everybody sees it at once.
func (s *stage) change(peer string, do func(p *shoal.Peer)) {
	for i := range s.peers {
		if string(s.peers[i].ID) == peer {
			do(&s.peers[i])
		}
	}
	for _, a := range s.players {
		a.dirty = true
	}
}

// images PEER REF...: what the peer's engine holds.
func doImages(_ *testing.T, s *stage, words []string) {
	a := s.player(shoal.PeerID(words[0]))
	a.images, a.dirty = append([]string{}, words[1:]...), true
	slices.Sort(a.images)
}

// refuse PEER SERVICE REASON...: the peer declines the service, and its replicas of
// it have failed; without a reason it does so no longer.
func doRefuse(_ *testing.T, s *stage, words []string) {
	a := s.player(shoal.PeerID(words[0]))
	a.refuses, a.dirty = nil, true
	if len(words) == 2 {
		return
	}
	a.refuses = []shoal.Refusal{{Service: words[1], Reason: strings.Join(words[2:], " ")}}
	for _, b := range a.boxes {
		if b.Service == words[1] {
			b.Phase = shoal.PhaseFailed
		}
	}
}

// end PEER SERVICE CODE: its replicas of the service exit, and are not started again, but
// those of a job that may be tried again, after a second.
func doEnd(t *testing.T, s *stage, words []string) {
	a := s.player(shoal.PeerID(words[0]))
	code := number(t, words[2])
	for _, b := range a.boxes {
		if b.Service != words[1] {
			continue
		}
		if s.endRun(a, b, code) {
			continue
		}
		if b.Phase, b.ExitCode = shoal.PhaseStopped, code; code != 0 {
			b.Phase = shoal.PhaseFailed
		}
	}
	a.dirty = true
}

// endRun ends a run of a job as its holder records it, and reports whether another follows.
func (s *stage) endRun(a *player, b *box, code int) bool {
	svc, ok := s.view(a).Service(b.Service)
	switch {
	case !ok || !svc.Spec.Mode.IsJob():
		return false
	case b.Phase != shoal.PhaseReady:
		return true // nothing that could end
	}
	n := a.draft(b.Service)
	again := false
	for i := range n.holds {
		if c := &n.holds[i]; c.Replica == b.ID {
			o := shoal.JobOutcome{Attempts: 1, Code: code, Completed: code == 0}
			if c.Outcome != nil {
				o.Attempts += c.Outcome.Attempts
			}
			o.Failed = code != 0 && o.Attempts >= svc.Spec.Job.Attempts
			c.Outcome, again = &o, !o.Over()
		}
	}
	a.write(b.Service, n)
	if again {
		b.Phase, b.readyAt = shoal.PhaseStarting, s.now+time.Second
	}
	return again
}

// run DURATION.
func doRun(t *testing.T, s *stage, words []string) {
	d, err := time.ParseDuration(words[0])
	if err != nil {
		t.Fatal(err)
	}
	s.run(d)
}

// ps: what runs, by service and slot.
func doPs(_ *testing.T, s *stage, _ []string) {
	var lines []string
	for _, a := range s.players {
		for _, b := range a.boxes {
			lines = append(lines, fmt.Sprintf("%s/%02d %s %s r%d", b.Service, b.Slot, a.id, b.Phase, b.Revision.Seq))
		}
	}
	slices.Sort(lines)
	up := slices.IndexFunc(s.players, func(a *player) bool { return a.up })
	v := s.view(s.players[up])
	for i := range v.Services() {
		if st, is := v.Job(v.Services()[i].Spec.Name); is {
			lines = append(lines, fmt.Sprintf("%s: %s", v.Services()[i].Spec.Name, st.Progress()))
		}
	}
	for _, l := range lines {
		fmt.Fprintln(&s.out, l)
	}
}

// explain SERVICE [at=PEER]: every peer's verdict.
func doExplain(t *testing.T, s *stage, words []string) {
	a, words := where(t, s, words)
	svc, ok := s.view(a).Service(words[0])
	if !ok {
		t.Fatalf("explain: no service %q", words[0])
	}
	for _, v := range Explain(s.view(a), &svc.Spec) {
		why := "could take one more"
		if !v.Feasible {
			why = v.Reason
		}
		fmt.Fprintf(&s.out, "%s: %s (%s)\n", v.Peer, why, v.Score)
	}
}

// slots SERVICE [at=PEER]: who holds each slot, where its data is, what it waits for.
func doSlots(t *testing.T, s *stage, words []string) {
	a, words := where(t, s, words)
	for _, x := range Slots(s.view(a), words[0]) {
		fmt.Fprintf(&s.out, "%s/%d proposed %q held by %q home %q %s\n", words[0], x.Slot, x.Proposed, x.Holders, x.Home, strings.Join(x.Waits, "; "))
	}
}
