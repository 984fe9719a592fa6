// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds every wait of a script: a loaded machine is slow, not broken.
const patience = 60 * time.Second

// binaries is where TestMain put shoald and shoal.
var binaries string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shoald-test")
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // one script runs shoal as another user
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.Command("go", "build", "-o", dir+"/", "../shoald", "../shoal")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		return 1
	}
	binaries = dir
	return m.Run()
}

// TestScript runs the real daemon and the real command as users do: on loopback, and
// without any container engine. Beside testscript's own commands there are
//
//	daemon NAME [FLAG...]         start shoald and wait until it answers; sets $NAME to
//	                              its host and $NAME_addr, $NAME_data, $NAME_sock
//	dies NAME CODE TEXT [FLAG...] start shoald: it ends with this code, TEXT its last line
//	place NAME                    only set the variables of a daemon
//	ends NAME, crash NAME         end it by SIGTERM (it must exit 0) or by SIGKILL
//	on NAME                       the daemon that shoal asks from now on
//	exits CODE CMD...             run, and expect exactly this exit code
//	fails CODE TEXT CMD...        the same, and exactly this one line on stderr
//	until REGEXP CMD...           run again and again until stdout matches
//	listings SILENT NAME...       ask each daemon for every listing: see cmdListings
//	told NAME REGEXP              wait until a daemon's log matches
//	keep VAR CMD...               run, and keep its stdout in a variable
//	visit CODE TEXT URL [K:V...]  GET with these headers: this status, TEXT in the answer;
//	                              with ! before it the connection breaks
//
// TEXT and REGEXP may hold variables, also in quotes.
func TestScript(t *testing.T) {
	addrs := &addresses{next: 51}
	t.Cleanup(addrs.release)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE") != "",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("/tmp", "shoald") //nolint:usetesting // short: it holds sockets
			if err != nil {
				return err
			}
			if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see testMain
				return err
			}
			s := &session{t: t, dir: dir, addrs: addrs, daemons: map[string]*daemon{}}
			env.Defer(s.close)
			env.Values[world{}] = s
			env.Setenv("PATH", binaries+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("NO_COLOR", "1")
			env.Setenv("TERM", "dumb")
			env.Setenv("DIR", dir)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": cmdDaemon, "dies": cmdDies, "place": cmdPlace, "ends": cmdEnds, "crash": cmdCrash, "on": cmdOn,
			"exits": cmdExits, "fails": cmdFails, "until": cmdUntil, "listings": cmdListings, "told": cmdTold, "keep": cmdKeep, "visit": cmdVisit,
		},
	})
}

// world is the key of a script's session.
type world struct{}

// session is what one script started.
type session struct {
	t       *testing.T
	dir     string
	addrs   *addresses
	daemons map[string]*daemon
}

// addresses hands out loopback addresses that nobody uses, and keeps them: a daemon
// that is down must find its own free when it comes back, also beside other runs of
// this test.
type addresses struct {
	mu   sync.Mutex // guards the rest
	next int
	held []net.Listener // on a port beside the daemons'
}

func (a *addresses) take() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for ; a.next < 255; a.next++ {
		addr := fmt.Sprintf("127.0.0.%d", a.next)
		mine, err := net.Listen("tcp", addr+":4709")
		if err != nil {
			continue // another run has it
		}
		probe, err := net.Listen("tcp", addr+":4710")
		if err != nil {
			_ = mine.Close() // somebody else has it
			continue
		}
		a.next++
		a.held = append(a.held, mine)
		return addr, probe.Close()
	}
	return "", errors.New("no loopback address is free")
}

func (a *addresses) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.held {
		_ = l.Close() // it was only held
	}
}

// daemon is one place for a shoald, and the process if it runs.
type daemon struct {
	name, addr, data, sock, log string
	cmd                         *exec.Cmd
	done                        chan struct{} // closed when cmd has ended
}

func sessionOf(ts *testscript.TestScript) *session { return ts.Value(world{}).(*session) }

// close ends what runs and complains about what should not have happened.
func (s *session) close() {
	for _, d := range s.daemons {
		if err := d.end(syscall.SIGTERM); err != nil {
			s.t.Errorf("stop %s: %v", d.name, err)
		}
		log, _ := os.ReadFile(d.log) // a daemon that never ran has none
		if i := bytes.Index(log, []byte("panic")); i >= 0 {
			s.t.Errorf("log of %s: %s", d.name, log[i:])
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Errorf("clean up: %v", err)
	}
}

// end signals the process, if it runs, and waits for it: nil if it exits with 0.
func (d *daemon) end(how syscall.Signal) error {
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	if err := cmd.Process.Signal(how); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.done:
	case <-time.After(patience / 2):
		_ = cmd.Process.Kill() // it is gone or will be
		<-d.done
		return fmt.Errorf("did not end %s after %s", patience/2, how)
	}
	if how != syscall.SIGKILL && cmd.ProcessState.ExitCode() != 0 {
		return fmt.Errorf("ended with %s", cmd.ProcessState)
	}
	return nil
}

// place returns the named daemon and makes its variables on first use.
func (s *session) place(ts *testscript.TestScript, name string) *daemon {
	if d := s.daemons[name]; d != nil {
		return d
	}
	addr, err := s.addrs.take()
	ts.Check(err)
	base := filepath.Join(s.dir, name)
	d := &daemon{name: name, addr: addr, data: base, sock: base + ".sock", log: base + ".log"}
	s.daemons[name] = d
	ts.Setenv(name, "unix://"+d.sock)
	ts.Setenv(name+"_addr", d.addr)
	ts.Setenv(name+"_data", d.data)
	ts.Setenv(name+"_sock", d.sock)
	return d
}

func (d *daemon) start(ts *testscript.TestScript, flags []string) {
	if d.cmd != nil {
		ts.Fatalf("%s runs already", d.name)
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer func() { _ = log.Close() }() // the process has its own
	args := append([]string{
		"--config", "/dev/null", "--data", d.data, "--socket", d.sock, "--listen", d.addr, "--publish", d.addr, "--name", d.name, "--docker", "unix:///nonexistent.sock",
	}, flags...)
	cmd := exec.Command(filepath.Join(binaries, "shoald"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // not even a killed test leaves it behind
	ts.Check(cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended is in ProcessState
	}()
	d.cmd, d.done = cmd, done
}

func (d *daemon) lines() string {
	log, _ := os.ReadFile(d.log) // what was never written is empty
	return string(log)
}

func cmdPlace(ts *testscript.TestScript, _ bool, args []string) { sessionOf(ts).place(ts, args[0]) }

func cmdDaemon(ts *testscript.TestScript, _ bool, args []string) {
	s := sessionOf(ts)
	d := s.place(ts, args[0])
	d.start(ts, args[1:])
	s.await(ts, d.name+" answers", func() bool {
		select {
		case <-d.done:
			ts.Fatalf("%s ended: %s", d.name, d.lines())
		default:
		}
		c, err := net.Dial("unix", d.sock)
		if err != nil {
			return false
		}
		_ = c.Close() // it was only to see who is there
		return true
	})
}

func cmdDies(ts *testscript.TestScript, _ bool, args []string) {
	d := sessionOf(ts).place(ts, args[0])
	d.start(ts, args[3:])
	select {
	case <-d.done:
	case <-time.After(patience):
		ts.Fatalf("%s goes on: %s", d.name, d.lines())
	}
	code := d.cmd.ProcessState.ExitCode()
	d.cmd = nil
	log := strings.Split(strings.TrimSpace(d.lines()), "\n")
	if got, want := log[len(log)-1], os.Expand(args[2], ts.Getenv); got != want || strconv.Itoa(code) != args[1] {
		ts.Fatalf("%s ends with %d and %q, want %s and %q", d.name, code, got, args[1], want)
	}
}

func cmdEnds(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(sessionOf(ts).place(ts, args[0]).end(syscall.SIGTERM))
}

func cmdCrash(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(sessionOf(ts).place(ts, args[0]).end(syscall.SIGKILL))
}

func cmdOn(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("SHOAL_HOST", ts.Getenv(args[0]))
}

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := run(ts, args[1:]); got != want {
		ts.Fatalf("%s = exit %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	cmdExits(ts, neg, append([]string{args[0]}, args[2:]...))
	if got, want := ts.ReadFile("stderr"), os.Expand(args[1], ts.Getenv)+"\n"; got != want {
		ts.Fatalf("%s says %q, want %q", strings.Join(args[2:], " "), got, want)
	}
}

func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	re, err := regexp.Compile("(?m)" + os.Expand(args[0], variables(ts)))
	ts.Check(err)
	sessionOf(ts).await(ts, fmt.Sprintf("%s matches %q", strings.Join(args[1:], " "), re), func() bool {
		return run(ts, args[1:]) == 0 && re.MatchString(ts.ReadFile("stdout"))
	})
}

func cmdTold(ts *testscript.TestScript, _ bool, args []string) {
	s := sessionOf(ts)
	d := s.place(ts, args[0])
	re, err := regexp.Compile("(?m)" + os.Expand(args[1], variables(ts)))
	ts.Check(err)
	s.await(ts, fmt.Sprintf("log of %s matches %q", d.name, re), func() bool { return re.MatchString(d.lines()) })
}

func cmdKeep(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func cmdVisit(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[2], nil)
	ts.Check(err)
	for _, h := range args[3:] {
		key, value, _ := strings.Cut(h, ":")
		req.Header.Set(key, value)
		if key == "Host" {
			req.Host = value // the header of that name is not sent
		}
	}
	res, err := http.DefaultClient.Do(req)
	if neg {
		if err == nil {
			_ = res.Body.Close() // nobody reads it
			ts.Fatalf("GET %s = %d, want none", args[2], res.StatusCode)
		}
		return
	}
	ts.Check(err)
	defer func() { _ = res.Body.Close() }() // it is read
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	ts.Check(err)
	if strconv.Itoa(res.StatusCode) != args[0] || !strings.Contains(string(body), args[1]) {
		ts.Fatalf("GET %s = %d %q, want %s and %q", args[2], res.StatusCode, body, args[0], args[1])
	}
}

// variables quotes values for a regular expression, and leaves its own $ alone.
func variables(ts *testscript.TestScript) func(string) string {
	return func(name string) string {
		if v := ts.Getenv(name); v != "" {
			return regexp.QuoteMeta(v)
		}
		return "$" + name
	}
}

// run runs a command and returns its exit code.
func run(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		ts.Fatalf("run: %v", err)
	}
	return exit.ExitCode()
}

// await asks until the answer is yes; what the daemons said comes with the failure.
func (s *session) await(ts *testscript.TestScript, what string, ask func() bool) {
	end := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-end:
			for _, d := range s.daemons {
				ts.Logf("log of %s:\n%s", d.name, d.lines())
			}
			ts.Fatalf("not within %s: %s", patience, what)
		}
	}
}
