// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/api"
)

// How long ssh may take to reach a machine, and to end when told to; and how much of
// what it says last is kept.
const (
	sshConnect = 15 * time.Second
	sshEnd     = 3 * time.Second
	maxSaid    = 4 << 10
)

// args is ssh's command line. It asks nothing: a second connection would ask again,
// and a script could not answer. Keys, agent, known hosts and settings are the user's.
func (t *sshTarget) args() []string {
	out := []string{"-T", "-o", "BatchMode=yes", "-o", fmt.Sprintf("ConnectTimeout=%d", int(sshConnect.Seconds()))}
	if t.user != "" {
		out = append(out, "-l", t.user)
	}
	if t.port != "" {
		out = append(out, "-p", t.port)
	}
	out = append(out, "--", t.host, "shoal", "dial-stdio")
	if t.socket != "" {
		out = append(out, "--socket", t.socket)
	}
	return out
}

// dial starts ssh; what is wrong shows when its connection is read.
func (t *sshTarget) dial(ctx context.Context) (net.Conn, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("connect ssh: %w", err)
	}
	for _, fd := range pair {
		syscall.CloseOnExec(fd)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ssh"), os.NewFile(uintptr(pair[1]), "ssh")
	defer func() { _, _ = ours.Close(), theirs.Close() }() // both ends are held by others then
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("connect ssh: %w", err)
	}
	c := &sshConn{Conn: conn, to: t, ended: make(chan struct{})}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the call that dials
	c.cancel = cancel
	c.cmd = exec.CommandContext(run, "ssh", t.args()...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = theirs, theirs, &c.said
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is for us; what was asked is still answered
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = sshEnd
	if err := c.cmd.Start(); err != nil {
		cancel()
		_ = conn.Close() // nobody is there
		if errors.Is(err, exec.ErrNotFound) {
			return nil, t.unreachable("there is no program ssh on this machine", "install OpenSSH's client")
		}
		return nil, t.unreachable(err.Error(), "")
	}
	go func() {
		defer close(c.ended)
		c.failed = c.cmd.Wait()
	}()
	return c, nil
}

func (t *sshTarget) unreachable(why, todo string) error {
	return &api.Error{Code: api.CodeUnreachable, What: fmt.Sprintf("cannot reach shoald over %s: %s", t.text, why), Todo: todo}
}

// sshConn is a connection whose other end is a program; Close ends it.
type sshConn struct {
	net.Conn
	to     *sshTarget
	cmd    *exec.Cmd
	said   lastWords
	cancel context.CancelFunc
	heard  atomic.Bool   // something of the daemon's came
	ended  chan struct{} // closed when the program is gone and reaped
	failed error         // of the program, once it ended
}

// Read implements net.Conn. The first bytes must be a daemon's.
func (c *sshConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	switch {
	case c.heard.Load():
	case err != nil:
		return n, c.why(err)
	case n > 3 && p[3] != settingsFrame:
		c.cancel()
		return 0, c.to.unreachable(fmt.Sprintf("something else answers: %s", firstLine(p[:n])),
			"a start-up file of that machine's shell prints; let it print nothing where nobody reads")
	default:
		c.heard.Store(n > 3)
	}
	return n, err
}

// Write implements net.Conn.
func (c *sshConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && !c.heard.Load() {
		err = c.why(err)
	}
	return n, err
}

// settingsFrame is the type of a server's first frame (RFC 9113 section 3.4), which is
// its fourth byte.
const settingsFrame = 4

// why says in ssh's words why a connection broke before the daemon answered.
func (c *sshConn) why(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err // our own doing
	}
	select {
	case <-c.ended: // it closed its end, so it is going
	case <-time.After(sshEnd):
		c.cancel()
		<-c.ended
	}
	said := c.said.line()
	exit, _ := errors.AsType[*exec.ExitError](c.failed)
	switch {
	case exit != nil && exit.ExitCode() == 127:
		return c.to.unreachable(cmp.Or(said, "command not found"), "install shoal there, where a shell that nobody logs in to finds it")
	case exit != nil && exit.ExitCode() == 255:
		hand := c.to.host
		if c.to.user != "" {
			hand = c.to.user + "@" + hand
		}
		return c.to.unreachable(cmp.Or(said, "ssh failed"), fmt.Sprintf(`try "ssh %s": it must log in without a question`, hand))
	}
	return c.to.unreachable(cmp.Or(said, "it closed the connection"), "")
}

// Close implements net.Conn: it ends the program and waits until it is reaped.
func (c *sshConn) Close() error {
	err := c.Conn.Close()
	c.cancel()
	<-c.ended
	return err
}

// lastWords keeps the end of what is written.
type lastWords struct {
	mu   sync.Mutex // guards text
	text []byte
}

// Write implements io.Writer.
func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	w.text = w.text[max(0, len(w.text)-maxSaid):]
	return len(p), nil
}

// line is the last line that says something, without what we say ourselves.
func (w *lastWords) line() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(w.text)), "\n")
	last := clean(strings.TrimSpace(lines[len(lines)-1]))
	return strings.TrimSuffix(strings.TrimPrefix(last, "error: "), ".")
}

func firstLine(p []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(p)), "\n")
	return fmt.Sprintf("%.60q", line)
}

// dialStdioCmd is the far end of ssh://.
func (a *app) dialStdioCmd() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use: "dial-stdio", Short: "Copy between this terminal and the daemon's socket", Args: a.noArgs, Hidden: true,
		Long: `Copy between stdin, stdout and the socket of this machine's daemon: the far end of a host
like ssh://HOST.`,
		Example: "  shoal dial-stdio --socket /run/shoal.sock",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.dialStdio(cmd.Context(), "unix://"+socket) },
	}
	cmd.Flags().StringVar(&socket, "socket", defaultSocket, "the socket")
	return cmd
}

// dialStdio copies until the daemon ends. The end of our input is passed on, and what
// the daemon still says is written.
func (a *app) dialStdio(ctx context.Context, host string) error {
	c, err := api.Dial(host)
	if err != nil {
		return err
	}
	conn, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() { // ends with this program at the latest: nothing ends a read of stdin before
		_, _ = io.Copy(conn, a.in) // what could not be sent shows in the answer
		if half, ok := conn.(*net.UnixConn); ok {
			_ = half.CloseWrite() // the same
		}
	}()
	_, err = io.Copy(a.out, conn)
	return errors.Join(err, conn.Close())
}
