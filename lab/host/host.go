// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// ErrNoProcess says that no such process runs in the host.
var ErrNoProcess = errors.New("it does not run")

// ErrDown says that the host does not run.
var ErrDown = errors.New("the host is down")

// answerWithin is how long the first process may take to answer; setting up takes it a
// fraction of a second, filling a disk of many GiB a few.
const answerWithin = 20 * time.Second

// Config says how a host is booted.
type Config struct {
	Init  []string // the command that calls [Init], its absolute path first
	Spec  Spec
	Group Group  // its control group; it is made
	Log   string // file for what the first process says
	Ended func(Ended)
}

// Host is a running host, seen from its driver. It is safe for concurrent use.
type Host struct {
	cfg    Config
	cmd    *exec.Cmd
	driver *net.UnixConn
	taps   []*os.File
	done   chan struct{} // closed when the first process has ended

	mu      sync.Mutex // guards the rest, and one ask is written at a time
	seq     int
	waiting map[int]chan answer
}

// Boot makes a host. Its TAP devices are the caller's to close.
func Boot(ctx context.Context, cfg Config) (*Host, error) {
	h := &Host{cfg: cfg, done: make(chan struct{}), waiting: map[int]chan answer{}}
	if err := cfg.Group.make(); err != nil {
		return nil, fmt.Errorf("boot %s: %w", cfg.Spec.Name, err)
	}
	if err := h.launch(); err != nil {
		return nil, fmt.Errorf("boot %s: %w", cfg.Spec.Name, err)
	}
	err := cfg.Group.add(h.PID())
	if err == nil {
		_, err = h.ask(ctx, ask{Setup: &cfg.Spec})
	}
	if err == nil && len(h.taps) != len(cfg.Spec.NICs) {
		err = fmt.Errorf("%d of %d cards came", len(h.taps), len(cfg.Spec.NICs))
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("boot %s: %w", cfg.Spec.Name, err), h.Kill()) // from here on no card comes
		for _, f := range h.taps {
			_ = f.Close() // nobody will use it
		}
		return nil, err
	}
	return h, nil
}

// launch starts the first process in new namespaces.
func (h *Host) launch() error {
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close() //nolint:errcheck // the first process has its own
	log, err := os.OpenFile(h.cfg.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	defer log.Close()                                     //nolint:errcheck // the first process has its own
	cmd := exec.Command(h.cfg.Init[0], h.cfg.Init[1:]...) //nolint:noctx // Kill ends it
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=2", "HOME=/root"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start its first process: %w", err), ours.Close())
	}
	h.cmd, h.driver = cmd, ours
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		h.listen()
	}()
	go func() {
		_ = cmd.Wait()       // how it ended does not matter: the host is down
		_ = h.driver.Close() // ends listen
		<-listened
		close(h.done)
	}()
	return nil
}

// socketpair returns a socket that keeps messages whole, and the file of its other end.
func socketpair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	for _, fd := range fds {
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 2*maxPacket) // less room is seen as an error of send
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "driver")
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(errors.New("the socket is of another kind"), conn.Close(), theirs.Close())
	}
	return c, theirs, nil
}

// listen hands out what the host says until its socket closes.
func (h *Host) listen() {
	for {
		var a answer
		fds, err := receive(h.driver, &a)
		if err != nil {
			break
		}
		if a.Seq == 0 {
			if a.Ended != nil && h.cfg.Ended != nil {
				h.cfg.Ended(*a.Ended)
			}
			continue
		}
		h.mu.Lock()
		for _, fd := range fds {
			_ = syscall.SetNonblock(fd, true) // or reading it takes a thread
			syscall.CloseOnExec(fd)
			h.taps = append(h.taps, os.NewFile(uintptr(fd), h.cfg.Spec.Name))
		}
		waits := h.waiting[a.Seq]
		delete(h.waiting, a.Seq)
		h.mu.Unlock()
		if waits != nil {
			waits <- a
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for seq, waits := range h.waiting {
		close(waits)
		delete(h.waiting, seq)
	}
	h.waiting = nil
}

// ask asks the host's first process.
func (h *Host) ask(ctx context.Context, a ask) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	waits := make(chan answer, 1)
	h.mu.Lock()
	if h.waiting == nil {
		h.mu.Unlock()
		return answer{}, ErrDown
	}
	h.seq++
	a.Seq = h.seq
	h.waiting[a.Seq] = waits
	err := send(h.driver, &a)
	h.mu.Unlock()
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrDown, err)
	}
	select {
	case got, ok := <-waits:
		switch {
		case !ok:
			return answer{}, ErrDown
		case got.Absent:
			return answer{}, ErrNoProcess
		case got.Err != "":
			return answer{}, errors.New(got.Err)
		}
		return got, nil
	case <-ctx.Done():
		h.mu.Lock()
		delete(h.waiting, a.Seq)
		h.mu.Unlock()
		return answer{}, fmt.Errorf("the host does not answer: %w", ctx.Err())
	}
}

// PID is the first process, as this machine counts.
func (h *Host) PID() int { return h.cmd.Process.Pid }

// TAPs are the other ends of the host's cards, in the order of its Spec.
func (h *Host) TAPs() []*os.File { return h.taps }

// Done is closed when the host is down.
func (h *Host) Done() <-chan struct{} { return h.done }

// Path is a file of the host's as this machine sees it, while the host runs.
func (h *Host) Path(inside string) string {
	return filepath.Join("/proc", strconv.Itoa(h.PID()), "root", inside)
}

// Start starts a process; it is no error of Start if it ends at once. Ended tells of its end.
func (h *Host) Start(ctx context.Context, p Proc) error {
	_, err := h.ask(ctx, ask{Start: &p})
	return err
}

// Signal sends a signal to the processes of a name. ErrNoProcess: there is none.
func (h *Host) Signal(ctx context.Context, name string, s syscall.Signal) error {
	_, err := h.ask(ctx, ask{Signal: &signalAsk{name, s}})
	return err
}

// Procs lists the host's processes, and the bytes written to its disks since it booted.
func (h *Host) Procs(ctx context.Context) ([]ProcState, map[string]int64, error) {
	got, err := h.ask(ctx, ask{List: true})
	return got.Procs, got.Writes, err
}

// Fill takes all free room of a disk, or gives it back.
func (h *Host) Fill(ctx context.Context, disk string, isFree bool) error {
	_, err := h.ask(ctx, ask{Fill: &fillAsk{disk, isFree}})
	return err
}

// Freeze stops every process of the host where it stands, or lets all go on.
func (h *Host) Freeze(isFrozen bool) error { return h.cfg.Group.freeze(isFrozen) }

// Kill is a power cut: every process of the host ends at once. It returns when they
// have. A second call is no error.
func (h *Host) Kill() error {
	if err := h.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", h.cfg.Spec.Name, err)
	}
	// What is frozen dies when it is let go on; on control groups of the second kind it would not need to.
	if err := h.cfg.Group.thaw(); err != nil {
		return fmt.Errorf("kill %s: %w", h.cfg.Spec.Name, err)
	}
	<-h.done
	return nil
}
