// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// initFD is the descriptor of the socket to the driver.
const initFD = 3

// Init is the first process of a host. It returns when the driver's end of the socket
// closes; the process must end then, and takes the host with it.
func Init() error {
	if os.Getpid() != 1 {
		return errors.New("this runs as the first process of a lab's host only; see shoal-lab up --help")
	}
	file := os.NewFile(initFD, "driver")
	if file == nil {
		return errors.New("no socket to the driver")
	}
	conn, err := net.FileConn(file)
	_ = file.Close() // conn has its own
	if err != nil {
		return fmt.Errorf("socket to the driver: %w", err)
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("the socket to the driver is of another kind")
	}
	in := &inside{driver: c, procs: map[int]string{}}
	for {
		var a ask
		if _, err := receive(c, &a); err != nil {
			return nil //nolint:nilerr // the driver is gone, however it went
		}
		if err := in.serve(&a); err != nil {
			return err
		}
	}
}

// inside is a host seen from its first process.
type inside struct {
	driver *net.UnixConn
	disks  []mounted

	mu    sync.Mutex     // guards procs, and keeps the reaper away while one is added
	procs map[int]string // what was started, by pid
}

// serve does what the driver asks and answers. An error means that it cannot be told.
func (in *inside) serve(a *ask) error {
	reply := answer{Seq: a.Seq}
	var taps []*os.File
	var err error
	switch {
	case a.Setup != nil:
		if taps, err = in.setup(a.Setup); err == nil {
			in.reap()
		}
	case a.Start != nil:
		err = in.start(a.Start)
	case a.Signal != nil:
		err = in.signal(a.Signal)
	case a.List:
		reply.Procs, err = in.list()
		reply.Writes = in.writes()
	case a.Fill != nil:
		err = in.fill(a.Fill)
	default:
		err = errors.New("an empty message")
	}
	if err != nil {
		reply.Err, reply.Absent = err.Error(), errors.Is(err, ErrNoProcess)
	}
	err = send(in.driver, &reply, taps...)
	for _, f := range taps {
		_ = f.Close() // the driver has its own now
	}
	return err
}

// start starts a process and remembers its name.
func (in *inside) start(p *Proc) error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer null.Close() //nolint:errcheck // read only
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, name := range in.procs {
		if name == p.Name {
			return fmt.Errorf("%s runs already", p.Name)
		}
	}
	pid, err := syscall.ForkExec(p.Args[0], p.Args, &syscall.ProcAttr{
		Dir: "/", Env: p.Env, Files: []uintptr{null.Fd(), log.Fd(), log.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Args[0], err)
	}
	in.procs[pid] = p.Name
	return nil
}

// reap waits for every process of the host that ends, as a first process must, and
// tells the driver of those that were started.
func (in *inside) reap() {
	child := make(chan os.Signal, 1)
	signal.Notify(child, syscall.SIGCHLD)
	go func() { // it ends with the process
		for range child {
			for in.reapOne() {
			}
		}
	}()
}

func (in *inside) reapOne() bool {
	var status syscall.WaitStatus
	in.mu.Lock()
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	name := in.procs[pid]
	delete(in.procs, pid)
	in.mu.Unlock()
	if err != nil || pid <= 0 {
		return errors.Is(err, syscall.EINTR)
	}
	if name != "" {
		how := "exit status " + strconv.Itoa(status.ExitStatus())
		if status.Signaled() {
			how = "signal: " + status.Signal().String()
		}
		_ = send(in.driver, &answer{Ended: &Ended{Name: name, How: how}}) // if the driver is gone, so are we
	}
	return true
}

// signal sends a signal to a process that was started, or to all with a kernel's name.
func (in *inside) signal(s *signalAsk) error {
	procs, err := in.list()
	if err != nil {
		return err
	}
	found := false
	for _, p := range procs {
		if p.Name != s.Name {
			continue
		}
		found = true
		if err := syscall.Kill(p.PID, s.Signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %s: %w", s.Name, err)
		}
	}
	if !found {
		return ErrNoProcess
	}
	return nil
}

// list reads the processes of the host from /proc.
func (in *inside) list() ([]ProcState, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	in.mu.Lock()
	started := make(map[int]string, len(in.procs))
	maps.Copy(started, in.procs)
	in.mu.Unlock()
	var procs []ProcState
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		p, err := procState(pid)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH):
			continue // it has just ended
		case err != nil:
			return nil, err
		}
		if name := started[pid]; name != "" {
			p.Name = name
		}
		procs = append(procs, p)
	}
	slices.SortFunc(procs, func(a, b ProcState) int { return a.PID - b.PID })
	return procs, nil
}

// procState reads /proc/PID/stat (proc(5)): the name is the second field, in
// parentheses, the state the third, resident pages the 24th.
func procState(pid int) (ProcState, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ProcState{}, err
	}
	open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if open < 0 || end < open {
		return ProcState{}, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	fields := strings.Fields(string(text[end+1:]))
	const state, rss = 0, 21 // behind the name, which is the second
	if len(fields) <= rss {
		return ProcState{}, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	pages, err := strconv.ParseInt(fields[rss], 10, 64)
	if err != nil {
		return ProcState{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return ProcState{
		PID: pid, Name: string(text[open+1 : end]), RSSBytes: pages * int64(os.Getpagesize()), IsFrozen: fields[state] == "T",
	}, nil
}
