// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// Console reaches into a container of this peer. Every method is ErrNotFound for a
// container that is absent, ErrRefused for one that is not ours.
type Console interface {
	// Logs calls fn for each line, oldest first, until the end, or until ctx ends
	// when opts.Follow is set.
	Logs(ctx context.Context, id string, opts LogOptions, fn func(LogLine) error) error
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

// WindowSize is that of a terminal, in characters; zero: not known.
type WindowSize struct{ Width, Height uint16 }

// Terminal is where a command reads and writes.
type Terminal struct {
	In       io.Reader // nil: nothing to read
	Out, Err io.Writer
	Resize   <-chan WindowSize // nil: it never changes
}

// PathStat says what a path in a container is.
type PathStat struct {
	Name  string // base name
	Bytes int64
	Mode  fs.FileMode
	Link  string // target of a symbolic link
}

// ReplicaUsage is what one replica uses now.
type ReplicaUsage struct {
	Replica  ReplicaID
	CPUMilli int64 // -1: not measured yet
	MemBytes int64 // without the page cache
	MemLimit int64 // 0: none
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

// Remote reaches the replicas that a peer holds, over direct streams; this peer's own
// the same way. ErrNotFound: no such member, or it holds no such replica or none with
// a container. ErrUnreachable: the peer does not answer, or the link broke on the way.
type Remote interface {
	// Logs streams the lines of the service's replicas held by peer.
	Logs(ctx context.Context, peer PeerID, q LogQuery, fn func(LogLine) error) error
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
