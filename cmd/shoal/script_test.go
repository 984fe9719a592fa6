// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api/apitest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"shoal": main})
}

// TestScript runs sessions of the real command against a server in front of a cluster
// in memory. Beside testscript's own commands there are
//
//	cluster NAME...              serve a cluster at $SOCKET; none: a daemon that is no member
//	exits CODE shoal ARG...      run, and expect exactly this exit code
//	fails CODE TEXT shoal ARG... the same, and exactly this one line on stderr
//	silence NAME AGO             a peer was last heard so long ago
//	blank NAME                   a peer is heard, but its records have not arrived
//	differ NAME, wake NAME       a peer holds other records; is alive and holds the same
//	phase SVC/SLOT PHASE REASON  what a holder says
//	after DELAY phase ...        the same, so long after the next wish
//	undo SVC WHY, halt SVC WHY   a service goes back, a rollout pauses, by itself; also behind after
//	settle SVC                   its revision is good
//	dispute SVC                  a concurrent wish lost
//	trouble TEXT, confirm N      what is wrong with the peer; how many peers confirm
//	known SVC                    wait until a service is there
//	block, arrived, release      hold the next wish, wait for it, let it go
//	blockmove                    the same of the next move of an image
//	engine IMAGE BYTES...        the engine of the asked peer gets an image with such layers
//	rival NAME                   a name stands for another image too, whose digest is $RIVAL
//	hold PEER NAME PERCENT       a peer has so much of each blob of an image
//	imageless                    the daemon serves no images
//	registry [ADDR [USER PASS]]  how its registry is spoken to
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE") != "",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=20") // a second by default, of every command
			env.Setenv("NO_COLOR", "")
			env.Setenv("TERM", "dumb")
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/config")
			bin, _, _ := strings.Cut(env.Getenv("PATH"), string(os.PathListSeparator)) // of the command alone
			env.Setenv("BIN", bin)
			env.Values[world{}] = &session{t: t, values: env}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cluster": cmdCluster, "exits": cmdExits, "fails": cmdFails, "silence": cmdSilence, "blank": cmdBlank, "differ": cmdDiffer, "wake": cmdWake, "phase": cmdPhase, "after": cmdAfter, "undo": cmdUndo, "halt": cmdHalt, "settle": cmdSettle,
			"dispute": cmdDispute, "trouble": cmdTrouble, "confirm": cmdConfirm, "block": cmdBlock, "arrived": cmdArrived, "release": cmdRelease, "known": cmdKnown,
			"blockmove": cmdBlockMove, "engine": cmdEngine, "rival": cmdRival, "hold": cmdHold, "imageless": cmdImageless, "registry": cmdRegistry,
		},
	})
}

// world is the key of a script's session.
type world struct{}

type session struct {
	t       *testing.T
	values  *testscript.Env
	cluster *apitest.Cluster
	arrived <-chan struct{}
	release func()
}

func sessionOf(ts *testscript.TestScript) *session { return ts.Value(world{}).(*session) }

func cmdCluster(ts *testscript.TestScript, _ bool, args []string) {
	s := sessionOf(ts)
	s.cluster = apitest.New(args...)
	dir, err := os.MkdirTemp("", "shoal")
	ts.Check(err)
	stop := apitest.Start(s.t, s.cluster.Deps(), dir+"/s.sock")
	ts.Defer(func() {
		stop()
		_ = os.RemoveAll(dir)
	})
	ts.Setenv("SOCKET", dir+"/s.sock")
	ts.Setenv("SHOAL_HOST", "unix://"+dir+"/s.sock")
}

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("run: %v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s = exit %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	cmdExits(ts, neg, append([]string{args[0]}, args[2:]...))
	if got := ts.ReadFile("stderr"); got != args[1]+"\n" {
		ts.Fatalf("%s says %q, want %q", strings.Join(args[2:], " "), got, args[1]+"\n")
	}
}

func cmdDiffer(ts *testscript.TestScript, _ bool, args []string) {
	sessionOf(ts).cluster.Differ(args[0])
}

func cmdWake(ts *testscript.TestScript, _ bool, args []string) {
	sessionOf(ts).cluster.Wake(args[0])
}

func cmdSilence(ts *testscript.TestScript, _ bool, args []string) {
	ago, err := time.ParseDuration(args[1])
	ts.Check(err)
	sessionOf(ts).cluster.Silence(args[0], ago)
}

func cmdBlank(ts *testscript.TestScript, _ bool, args []string) {
	sessionOf(ts).cluster.Blank(args[0])
}

func cmdPhase(ts *testscript.TestScript, _ bool, args []string) {
	service, slot, err := parseTarget(args[0])
	ts.Check(err)
	sessionOf(ts).cluster.Set(service, slot, phaseOf(ts, args[1]), strings.Join(args[2:], " "))
}

func phaseOf(ts *testscript.TestScript, name string) shoal.Phase {
	for p := shoal.PhaseUnknown; p <= shoal.PhaseLost; p++ {
		if p.String() == name {
			return p
		}
	}
	ts.Fatalf("no phase %q", name)
	return 0
}

func cmdAfter(ts *testscript.TestScript, _ bool, args []string) {
	delay, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := sessionOf(ts)
	if args[1] != "phase" {
		act := unasked(s, args[1:])
		s.cluster.OnWish(func() { time.AfterFunc(delay, act) })
		return
	}
	phase := phaseOf(ts, args[3])
	service, slot, err := parseTarget(args[2])
	ts.Check(err)
	s.cluster.OnWish(func() {
		time.AfterFunc(delay, func() { s.cluster.Set(service, slot, phase, "") })
	})
}

// unasked is "undo SVC WHY" or "halt SVC WHY".
func unasked(s *session, words []string) func() {
	act, why := s.cluster.Undo, strings.Join(words[2:], " ")
	if words[0] == "halt" {
		act = s.cluster.Halt
	}
	return func() { act(words[1], why) }
}

func cmdUndo(ts *testscript.TestScript, _ bool, args []string) {
	unasked(sessionOf(ts), append([]string{"undo"}, args...))()
}

func cmdHalt(ts *testscript.TestScript, _ bool, args []string) {
	unasked(sessionOf(ts), append([]string{"halt"}, args...))()
}

func cmdSettle(ts *testscript.TestScript, _ bool, args []string) {
	sessionOf(ts).cluster.Settle(args[0])
}

func cmdDispute(ts *testscript.TestScript, _ bool, args []string) {
	self := apitest.PeerID("tokyo")
	sessionOf(ts).cluster.Dispute(shoal.Conflict{
		Service: args[0], Loser: shoal.RevisionID{Seq: 1, Author: self}, Winner: shoal.RevisionID{Seq: 2, Author: self}, Rule: "the higher sequence is in force",
	})
}

func cmdTrouble(ts *testscript.TestScript, _ bool, args []string) {
	sessionOf(ts).cluster.Trouble(strings.Join(args, " "))
}

func cmdConfirm(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	sessionOf(ts).cluster.Confirm(n)
}

func cmdBlock(ts *testscript.TestScript, _ bool, _ []string) {
	s := sessionOf(ts)
	s.arrived, s.release = s.cluster.Block()
	ts.Defer(s.release)
}

func cmdBlockMove(ts *testscript.TestScript, _ bool, _ []string) {
	s := sessionOf(ts)
	s.arrived, s.release = s.cluster.BlockMove()
	ts.Defer(s.release)
}

func cmdEngine(ts *testscript.TestScript, _ bool, args []string) {
	var layers []int
	for _, text := range args[1:] {
		n, err := strconv.Atoi(text)
		ts.Check(err)
		layers = append(layers, n)
	}
	sessionOf(ts).cluster.Engine(args[0], layers...)
}

func cmdRival(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("RIVAL", sessionOf(ts).cluster.Rival(args[0]))
}

func cmdHold(ts *testscript.TestScript, _ bool, args []string) {
	percent, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	sessionOf(ts).cluster.Hold(args[0], args[1], percent)
}

func cmdImageless(ts *testscript.TestScript, _ bool, _ []string) {
	sessionOf(ts).cluster.Imageless()
}

func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	args = append(args, "", "", "")
	sessionOf(ts).cluster.Registry(shoal.RegistryLogin{Address: args[0], User: args[1], Password: args[2]})
}

func cmdArrived(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-sessionOf(ts).arrived:
	case <-time.After(20 * time.Second):
		ts.Fatalf("no wish arrived")
	}
}

func cmdRelease(ts *testscript.TestScript, _ bool, _ []string) { sessionOf(ts).release() }

func cmdKnown(ts *testscript.TestScript, _ bool, args []string) {
	c := sessionOf(ts).cluster
	late := time.After(20 * time.Second)
	for {
		changed := c.Changed()
		if _, ok := c.View().Service(args[0]); ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			ts.Fatalf("no service %s", args[0])
		}
	}
}
