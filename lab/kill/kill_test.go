// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build failpoint && linux

// Package kill_test kills a real daemon again and again, with a build that can also
// kill itself at every step of a write: make kill-loop, make soak.
package kill_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

var (
	kills  = flag.Int("kills", 50, "how often the daemon is killed")
	budget = flag.Duration("budget", 0, "end early after this time, if a third of the kills is done; 0: never")
	seed   = flag.Uint64("seed", 0, "of the moments; 0: a new one")
	ready  = flag.String("shoald", "", "a `FILE` built with the tag failpoint; none: it is built")
)

const (
	patience = 60 * time.Second
	writers  = 3
	pace     = 20 * time.Millisecond // between the writes of one writer
	// After so many kills the next ones meet a new cluster, or a long run would measure
	// how long a thousand services take to list.
	perCluster = 100
	image      = "hello@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// steps names the failpoints: gossip's own, which no other package can see. A name that
// gossip does not know ends the daemon with an error, and this test with it.
var steps = []string{
	"block", "order", "element", "processed", "head", "batch", "commit", "sync", "publish", "answer",
	"mark", "open", "close", "unmark",
}

// daemon is one place for a shoald.
type daemon struct {
	t                 testing.TB
	binary, dir, addr string
	cmd               *exec.Cmd
	done              chan struct{} // closed when cmd has ended
}

func (d *daemon) sock() string { return d.dir + ".sock" }

// build returns a shoald that can kill itself.
func build(t testing.TB) string {
	t.Helper()
	if *ready != "" {
		return *ready
	}
	out := filepath.Join(t.TempDir(), "shoald")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoint", "-o", out, "github.com/shoalnet/shoal/cmd/shoald")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, said)
	}
	return out
}

// freeAddr returns a loopback address on which the daemons' port is free.
func freeAddr(t testing.TB, from int) string {
	t.Helper()
	for n := from; n < 255; n++ {
		addr := fmt.Sprintf("127.0.1.%d", n)
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr+":4710")
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no loopback address is free")
	return ""
}

// start runs the daemon; failpoint "" is none.
func (d *daemon) start(failpoint string) {
	d.t.Helper()
	log, err := os.OpenFile(d.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	d.cmd = exec.Command(d.binary, "--config", "/dev/null", "--data", d.dir, "--socket", d.sock(),
		"--listen", d.addr, "--publish", d.addr, "--docker", "unix:///nonexistent.sock")
	d.cmd.Env = append(os.Environ(), "SHOAL_FAILPOINT="+failpoint)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), d.cmd
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended is in ProcessState
	}()
	d.done = done
}

// kill makes sure that the process has ended.
func (d *daemon) kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill() // it may be gone
	<-d.done
	if st, ok := d.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !st.Signaled() || st.Signal() != syscall.SIGKILL {
		d.t.Errorf("daemon ended with %v, not by being killed: %s", d.cmd.ProcessState, d.tail())
	}
	d.cmd = nil
}

func (d *daemon) tail() string {
	f, err := os.Open(d.dir + ".log")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }() // only read
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// client waits until the daemon answers; nil if it ended before.
func (d *daemon) client() *api.Client {
	d.t.Helper()
	c, err := api.Dial("unix://" + d.sock())
	if err != nil {
		d.t.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := c.Status(d.t.Context()); err == nil {
			return c
		}
		select {
		case <-d.done:
			c.Close()
			return nil
		default:
		}
	}
	d.t.Fatalf("daemon does not answer: %s", d.tail())
	return nil
}

func spec(name string) shoal.Spec {
	return shoal.Spec{
		Name: name, Image: image, Mode: shoal.ModeReplicated, Replicas: 1,
		Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
}

// loop is a daemon under writes, and what it acknowledged.
type loop struct {
	*daemon
	rng *rand.Rand

	mu    sync.Mutex // guards the rest
	acked []string
	next  int
	worst time.Duration
	busy  time.Duration // in which it was written to
}

// write deploys services under new names until the daemon is gone.
func (l *loop) write(ctx context.Context, c *api.Client) {
	for {
		l.mu.Lock()
		l.next++
		name := fmt.Sprintf("web-%d", l.next)
		l.mu.Unlock()
		began := time.Now()
		_, err := c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{spec(name)}, AllowUnplaced: true}, api.WishOptions{})
		if err != nil {
			said, ok := errors.AsType[*api.Error](err)
			if !ok || !slices.Contains([]string{api.CodeUnreachable, api.CodeCanceled, api.CodeInternal}, said.Code) {
				l.t.Errorf("deploy = %v", err) // it was not killed: it refused
			}
			return
		}
		l.mu.Lock()
		l.acked = append(l.acked, name)
		l.worst = max(l.worst, time.Since(began))
		l.mu.Unlock()
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return
		}
	}
}

// missing returns what was acknowledged and is not there.
func (l *loop) missing(c *api.Client) []string {
	l.t.Helper()
	list, err := c.Services(l.t.Context())
	if err != nil {
		l.t.Fatalf("list services: %v: %s", err, l.tail())
	}
	here := map[string]bool{}
	for _, s := range list.Items {
		here[s.Name] = true
	}
	var out []string
	for _, name := range l.acked {
		if !here[name] {
			out = append(out, name)
		}
	}
	return out
}

// round starts the daemon, checks it, writes, and kills it: at the failpoint, or at a
// random moment if that is "". It reports whether the failpoint did it.
func (l *loop) round(failpoint string) (reached bool, lost []string) {
	l.t.Helper()
	l.start(failpoint)
	defer l.kill()
	c := l.client()
	if c == nil {
		return true, nil // it died while it started
	}
	defer c.Close()
	lost = l.missing(c)
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	began := time.Now()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() { l.write(ctx, c) })
	}
	wait := 100*time.Millisecond + time.Duration(l.rng.Int64N(int64(400*time.Millisecond)))
	if failpoint != "" && failpoint != "forget" {
		wait = time.Second // the failpoint is to be first
	}
	select {
	case <-l.done:
		reached = true
	case <-time.After(wait):
		if strings.Contains(failpoint, "close") || strings.Contains(failpoint, "unmark") {
			_ = l.cmd.Process.Signal(syscall.SIGTERM) // it dies on its way out
			select {
			case <-l.done:
				reached = true
			case <-time.After(patience):
			}
		}
	}
	_ = l.cmd.Process.Kill() // the writers meet it
	all.Wait()
	l.busy += time.Since(began)
	return reached, lost
}

// newLoop makes a cluster of one.
func newLoop(t testing.TB, binary string, rng *rand.Rand) *loop {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kill") //nolint:usetesting // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	l := &loop{rng: rng, daemon: &daemon{t: t, binary: binary, dir: filepath.Join(dir, "a"), addr: freeAddr(t, 1)}}
	t.Cleanup(func() {
		l.kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	l.start("")
	c := l.client()
	if c == nil {
		t.Fatalf("daemon ended: %s", l.tail())
	}
	defer c.Close()
	if _, err := c.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	l.kill()
	return l
}

// agree starts the daemon a last time and has another peer pull all it has: it gets
// to the same digest, so nothing is missing below what is shown.
func (l *loop) agree() {
	l.t.Helper()
	l.start("")
	c := l.client()
	if c == nil {
		l.t.Fatalf("daemon ended: %s", l.tail())
	}
	defer c.Close()
	token, err := c.CreateToken(l.t.Context(), shoal.TokenOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	other := &daemon{t: l.t, binary: l.binary, dir: l.dir + "b", addr: freeAddr(l.t, 100)}
	other.start("")
	defer other.kill()
	oc := other.client()
	if oc == nil {
		l.t.Fatalf("other daemon ended: %s", other.tail())
	}
	defer oc.Close()
	if _, err := oc.Join(l.t.Context(), token, shoal.JoinOptions{}); err != nil {
		l.t.Fatalf("join: %v", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		a, err := c.Status(l.t.Context())
		b, err2 := oc.Status(l.t.Context())
		if err == nil && err2 == nil && a.Store != nil && b.Store != nil && a.Store.Digest == b.Store.Digest && b.Store.Records >= int64(len(l.acked)) {
			break
		}
		if time.Now().After(end) {
			l.t.Fatalf("digests differ: %+v and %+v, %v, %v", a.Store, b.Store, err, err2)
		}
	}
	if lost := l.missing(oc); len(lost) > 0 {
		l.t.Errorf("the other peer misses %d writes: %v", len(lost), lost)
	}
	if aside, _ := filepath.Glob(filepath.Join(l.dir, "store.broken-*")); len(aside) > 0 {
		l.t.Errorf("stores were set aside: %v", aside)
	}
	l.kill()
}

func newRand(t testing.TB) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d", s)
	return rand.New(rand.NewPCG(s, s)) //nolint:gosec // moments, not secrets
}

// pointOf returns the n-th failpoint, before and after each step in turn, at one of its
// first hits. What a daemon does once in its life has one hit.
func pointOf(n int, rng *rand.Rand) string {
	step := steps[n/2%len(steps)]
	point := []string{"before ", "after "}[n%2] + step
	if slices.Contains([]string{"mark", "open", "close", "unmark"}, step) {
		return point
	}
	return fmt.Sprintf("%s:%d", point, 1+rng.IntN(20))
}

// Whenever a daemon is killed, what it acknowledged is there when it comes back, and
// the store is whole: another peer gets to the same digest.
func TestKillLoop(t *testing.T) {
	binary, rng := build(t), newRand(t)
	began, done, lost, writes, atPoints := time.Now(), 0, 0, 0, 0
	var worst, busy time.Duration
	enough := func() bool {
		return done >= *kills || *budget > 0 && time.Since(began) > *budget && done >= *kills/3
	}
	for !enough() {
		l := newLoop(t, binary, rng)
		for n := 0; n < perCluster && !enough(); n++ {
			failpoint := "" // one in three at a random moment
			if done%3 != 0 {
				failpoint = pointOf(done*2/3, rng)
			}
			reached, missing := l.round(failpoint)
			if done++; reached {
				atPoints++
			}
			if len(missing) > 0 {
				lost += len(missing)
				t.Errorf("kill %d: %d of %d acknowledged writes lost: %v", done, len(missing), len(l.acked), missing)
			}
		}
		l.agree()
		writes, worst, busy = writes+len(l.acked), max(worst, l.worst), busy+l.busy
	}
	if writes < done {
		t.Errorf("%d kills of a daemon that acknowledged %d writes show little", done, writes)
	}
	t.Logf("%d kills, %d of them at a failpoint; %d writes acknowledged, %.0f/s while it was up, slowest %s; %d lost; %s",
		done, atPoints, writes, float64(writes)/busy.Seconds(), worst.Round(time.Millisecond), lost, time.Since(began).Round(time.Second))
}

// The loop sees what it is for: a store that acknowledges before it writes loses
// writes to it.
func TestKillLoopSeesALiar(t *testing.T) {
	l := newLoop(t, build(t), newRand(t))
	lost := 0
	for range 3 {
		_, missing := l.round("forget")
		lost += len(missing)
	}
	if lost == 0 {
		t.Errorf("a store that acknowledged %d writes before it wrote them lost none", len(l.acked))
	}
	t.Logf("%d of %d lost", lost, len(l.acked))
}
