// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab/drive"
)

// Streams are a command's. A nil one is none.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exec runs a command inside a host, as root and in all its namespaces, and waits for its
// end. Its exit status is in the error as an [*exec.ExitError]. When ctx ends the command
// is killed, with what it started. There, docker and shoal reach the host's own.
func (l *Lab) Exec(ctx context.Context, name string, argv []string, s Streams) error {
	if len(argv) == 0 {
		return fmt.Errorf("exec on %s: no command", name)
	}
	args, env, err := l.ExecCommand(name, argv)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, s.Out, s.Err
	cmd.Env = env
	// A group of its own can be killed as one. It would not be the terminal's, though.
	if isTerminal(s.In) {
		cmd.Env = append(cmd.Env, "TERM="+os.Getenv("TERM"))
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s on %s: %w", argv[0], name, err)
	}
	return nil
}

// enterGroups takes a number, so many files, and a command: the shell writes its own number
// into the files and becomes the command. So a host freezes with all that runs on it.
const enterGroups = `n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 1; shift; n=$((n-1)); done; exec "$@"`

// ExecCommand is what to run on this machine, and with what environment, to run a command
// on a host, a shell if there is none: for who wants to become that program, with its
// terminal, its signals, its status. TERM is the caller's to add.
func (l *Lab) ExecCommand(name string, argv []string) (args, env []string, err error) {
	m, err := l.machine(name)
	if err != nil {
		return nil, nil, err
	}
	h, err := m.answering()
	if err != nil {
		return nil, nil, err
	}
	groups, err := m.group.Files()
	if err != nil {
		return nil, nil, err
	}
	if len(argv) == 0 {
		argv = []string{"/bin/sh"}
	}
	args = append([]string{"/bin/sh", "-c", enterGroups, "enter", strconv.Itoa(len(groups))}, groups...)
	args = append(args, "nsenter", "--target", strconv.Itoa(h.PID()), "--mount", "--net", "--pid", "--uts", "--ipc", "--")
	return append(args, argv...), l.execEnv(), nil
}

// ShoalCommand is the same for a question to its daemon, with the caller's environment.
func (l *Lab) ShoalCommand(name string, args []string) ([]string, error) {
	c, err := l.Client(name)
	return c.Args(args...), err
}

// DockerCommand is the same for a question to its engine.
func (l *Lab) DockerCommand(name string, args []string) ([]string, error) {
	socket, err := l.engineOf(name)
	return append([]string{l.cfg.Binaries.Docker, "-H", "unix://" + socket}, args...), err
}

func (l *Lab) execEnv() []string {
	dirs := []string{filepath.Dir(l.cfg.Binaries.Docker)}
	if !l.cfg.Bare {
		dirs = append(dirs, filepath.Dir(l.cfg.Binaries.Shoal))
	}
	return []string{
		"PATH=" + strings.Join(append(dirs, path), ":"), "HOME=/root",
		"DOCKER_HOST=unix://" + engineSocket, "SHOAL_HOST=unix://" + daemonSocket,
	}
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Shoal asks the daemon of a host with the shoal command and returns what it prints; what
// it says on standard error is in the error. It runs on this machine, so files that it
// names are this machine's.
func (l *Lab) Shoal(ctx context.Context, name string, args ...string) (string, error) {
	c, err := l.Client(name)
	if err != nil {
		return "", err
	}
	return c.Run(ctx, args...)
}

// Client asks the daemon of a host until it goes down; after its next boot there is
// another.
func (l *Lab) Client(name string) (drive.Client, error) {
	m, err := l.machine(name)
	if err != nil {
		return drive.Client{}, err
	}
	if m.isRouter || l.cfg.Bare {
		return drive.Client{}, fmt.Errorf("%s has no %s", name, daemon)
	}
	return l.client(m)
}

// Docker asks the engine of a host with the docker command, as Shoal does.
func (l *Lab) Docker(ctx context.Context, name string, args ...string) (string, error) {
	full, err := l.DockerCommand(name, args)
	if err != nil {
		return "", err
	}
	return drive.Capture(exec.CommandContext(ctx, full[0], full[1:]...))
}

// LoadImage gives an image, a file as "docker save" writes it, to the engine of a host.
// Config.Images are there from the beginning.
func (l *Lab) LoadImage(ctx context.Context, name, file string) error {
	socket, err := l.engineOf(name)
	if err != nil {
		return err
	}
	if _, err := l.byName[name].answering(); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("load image on %s: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // only read
	if err := pack.Load(ctx, "unix://"+socket, f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// engineOf is the socket of a host's engine, as this machine sees it.
func (l *Lab) engineOf(name string) (string, error) {
	m, err := l.machine(name)
	if err != nil {
		return "", err
	}
	if m.isRouter {
		return "", fmt.Errorf("%s is a router and has no engine", name)
	}
	h, err := m.running()
	if err != nil {
		return "", err
	}
	return h.Path(engineSocket), nil
}
