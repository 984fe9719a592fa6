// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Console reaches into a container of this peer. Every method is ErrNotFound for a
// container that is absent, ErrRefused for one that is not ours.
type Console interface {
	// Logs calls fn for each line, oldest first, until the end, or until ctx ends
	// when opts.Follow is set.
	Logs(ctx context.Context, id string, opts LogOptions, fn func(LogLine) error) error
	// Exec runs a command in a running container and returns its exit code once all
	// it said is written: 126 or 127 if it cannot be started, 128 and more if a signal
	// ended it. ErrConflict: the container does not run. *PolicyError: privileged, and
	// the machine's owner does not allow that. When ctx ends its input and output end,
	// but engines cannot end the command itself.
	Exec(ctx context.Context, id string, opts ExecOptions, t Terminal) (exitCode int, err error)
	// CopyFrom sends what is at a path, which must be absolute, of a container that need
	// not run: stat is called once, then w gets a tar archive whose entries begin with
	// the path's last element. An error of stat or w ends it and is returned as it is.
	// ErrNotFound: nothing is there. ErrRefused: w took nothing for long.
	CopyFrom(ctx context.Context, id, path string, stat func(PathStat) error, w io.Writer) error
	// CopyTo unpacks a tar archive into a directory. ErrNotFound: it is not there.
	// *InvalidError: it is no directory, or the archive is none. ErrRefused: nothing can
	// be written there, or nothing of the archive came for long. What was unpacked before
	// an error stays. The archive is closed at the end; that must end a Read under way.
	CopyTo(ctx context.Context, id, dir string, archive io.ReadCloser) error
	// Check returns what the last health check of a container said, "" if it said nothing
	// or there was none.
	Check(ctx context.Context, id string) (string, error)
	// Measure measures a running container over about a second. ErrConflict: it does not
	// run. Usage.Replica is not filled in.
	Measure(ctx context.Context, id string) (Usage, error)
}

// LogOptions select log lines.
type LogOptions struct {
	Follow bool
	Tail   int       // last n lines; negative: all
	Since  time.Time // zero: from the beginning
	Until  time.Time // zero: to the end
}

// LogLine is one line of a replica's output.
type LogLine struct {
	Peer    PeerID
	Service string
	Slot    int
	Replica ReplicaID
	Time    time.Time
	Stderr  bool
	Text    string // without the newline
}

// ExecOptions say what to run in a container.
type ExecOptions struct {
	Command    []string // at least one word
	Env        map[string]string
	User       string // "": the container's
	WorkDir    string // "": the container's
	TTY        bool   // a terminal; there is no separate standard error then
	Stdin      bool   // read Terminal.In
	Privileged bool   // refused unless the machine's owner allows it
	Size       WindowSize
}

// Bounds of ExecOptions, which travel in one message.
const (
	maxExecBytes = 32 << 10 // of all words together
	maxExecWords = 1024
)

// Check returns an *InvalidError about what no engine could run.
func (o *ExecOptions) Check() error {
	size := len(o.User) + len(o.WorkDir)
	for _, w := range o.Command {
		size += len(w)
	}
	for k, v := range o.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			return &InvalidError{Field: "env", Why: fmt.Sprintf("has no name like %q", k)}
		}
		size += len(k) + len(v)
	}
	switch {
	case len(o.Command) == 0 || o.Command[0] == "":
		return &InvalidError{Field: "command", Why: "must have at least one word"}
	case len(o.Command)+len(o.Env) > maxExecWords:
		return &InvalidError{Field: "command", Why: fmt.Sprintf("and env have more than %d words", maxExecWords)}
	case size > maxExecBytes:
		return &InvalidError{Field: "command", Why: fmt.Sprintf("and env have %d bytes, at most %d are allowed", size, maxExecBytes)}
	}
	return nil
}

// WindowSize is that of a terminal, in characters; zero: not known.
type WindowSize struct{ Width, Height uint16 }

// Terminal is where a command reads and writes. Who runs the command closes In when
// it has ended; that must end a Read under way.
type Terminal struct {
	In       io.ReadCloser // nil: nothing to read
	Out, Err io.Writer
	Resize   <-chan WindowSize // nil: it never changes
}

// maxPathBytes bounds a path in a container: Linux's PATH_MAX.
const maxPathBytes = 4096

// CheckPath returns an *InvalidError about what is no path in a container.
func CheckPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return &InvalidError{Field: "path", Why: fmt.Sprintf("must begin with /, got %q", path)}
	case len(path) > maxPathBytes:
		return &InvalidError{Field: "path", Why: fmt.Sprintf("has %d bytes, at most %d are allowed", len(path), maxPathBytes)}
	case strings.Contains(path, "\x00"):
		return &InvalidError{Field: "path", Why: "must not contain NUL"}
	}
	return nil
}

// PathStat says what a path in a container is.
type PathStat struct {
	Name  string // base name
	Bytes int64
	Mode  fs.FileMode
	Link  string // target of a symbolic link
}

// Usage is what one replica uses now.
type Usage struct {
	Replica  ReplicaID
	CPUMilli int64 // thousandths of a core
	MemBytes int64 // without the page cache that can be dropped
	// CPUTime is what the container has used of processors since it started; 0: the engine
	// does not say. It is not told to other peers.
	CPUTime time.Duration
}

// LogQuery selects whose lines, and which.
type LogQuery struct {
	Service string
	Slot    int // -1: all
	LogOptions
}

// Target names a replica by what users type: SERVICE/SLOT.
type Target struct {
	Service string
	Slot    int
}

// String returns SERVICE/SLOT.
func (t Target) String() string { return fmt.Sprintf("%s/%d", t.Service, t.Slot) }

// Remote reaches the replicas that a peer holds, over direct streams; this peer's own
// the same way. ErrNotFound: no such member, or it holds no such replica or none with
// a container. ErrUnreachable: the peer does not answer, or the link broke on the way.
type Remote interface {
	// Logs streams the lines of the service's replicas held by peer.
	Logs(ctx context.Context, peer PeerID, q LogQuery, fn func(LogLine) error) error
	// Exec is Console's for a replica. ErrRefused: the holder takes commands from
	// operators only, or runs too many already.
	Exec(ctx context.Context, peer PeerID, at Target, opts ExecOptions, t Terminal) (exitCode int, err error)
	// CopyFrom and CopyTo are Console's for a replica, ErrRefused as for Exec.
	CopyFrom(ctx context.Context, peer PeerID, at Target, path string, stat func(PathStat) error, w io.Writer) error
	CopyTo(ctx context.Context, peer PeerID, at Target, dir string, archive io.ReadCloser) error
	// LastWords returns what replicas of the service that failed on peer had said, as it
	// keeps that; the oldest first.
	LastWords(ctx context.Context, peer PeerID, service string) ([]LastWords, error)
	// Usage measures the replicas of peer that run, over about a second; those that
	// end meanwhile are not among them. ErrRefused: too many ask at once.
	Usage(ctx context.Context, peer PeerID) ([]Usage, error)
}

// CheckState is how a check of the doctor ended.
type CheckState string

// The states of a check.
const (
	CheckOK   CheckState = "ok"
	CheckWarn CheckState = "warn" // it works, but not well
	CheckFail CheckState = "fail"
	CheckSkip CheckState = "skip" // it could not be made, and Detail says why
)

// Check is one thing the doctor looked at.
type Check struct {
	Peer   PeerID // whose machine it is about
	Area   string // "engine", "disk", "clock", "reach", ...
	Name   string // "API version", "dial 192.0.2.11 by tcp"
	State  CheckState
	Detail string // what was found, with figures
	Remedy string // what to do; "" if it is ok
}

// Doctor looks for what keeps a machine from working well. It works at all times,
// before a machine is a member too. Checks come as they end, from one goroutine.
type Doctor interface {
	// Machine checks this machine: engine, disk, clock, ports, limits.
	Machine(ctx context.Context, fn func(Check) error) error
	// Peer checks every way to a member, and what that member finds on its own
	// machine. ErrNotFound: no such member.
	Peer(ctx context.Context, peer PeerID, fn func(Check) error) error
	// Token checks every way to the peers that a token names, and that it works.
	Token(ctx context.Context, token string, fn func(Check) error) error
}
