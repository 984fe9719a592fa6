// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// NIC is one network card of a host: a TAP device whose other end the driver holds.
type NIC struct {
	Name string // as the host sees it: "eth0"; of a neighbour's, the card that reaches it
	MAC  string
	Addr netip.Prefix
}

// Disk is a file system in a file, mounted while the host runs.
type Disk struct {
	Name  string // "state", "engine"
	Image string // the file
	Dir   string // where it is mounted, an absolute path
	Bytes int64  // its size, when it is made
}

// Spec is what a host is made of.
type Spec struct {
	Name    string
	NICs    []NIC
	Gateway netip.Addr // of the default route; the zero one: there is none
	// IsRouter passes packets on from its second card to its first, under the first
	// one's address, as a home router does.
	IsRouter bool
	Names    string // what /etc/hosts says
	// Neighbours are cards that the host knows without asking for them, and forever.
	Neighbours []NIC
	Disks      []Disk
}

// Proc is a process that the host's first process starts.
type Proc struct {
	Name string   // by which it is signalled: "shoald"
	Args []string // Args[0] is an absolute path
	Env  []string
	Log  string // the file that standard output and error are appended to
}

// ProcState is what the host says of one of its processes.
type ProcState struct {
	Name     string // of those that were started the name given, of others the kernel's
	PID      int    // inside the host
	RSSBytes int64
	IsFrozen bool // stopped by a signal
}

// Ended says that a process which was started has ended.
type Ended struct {
	Name string
	How  string // "exit status 1", "signal: killed"
}

// ask is what the driver wants; exactly one field besides Seq is set.
type ask struct {
	Seq    int
	Setup  *Spec      `json:",omitempty"`
	Start  *Proc      `json:",omitempty"`
	Signal *signalAsk `json:",omitempty"`
	List   bool       `json:",omitempty"`
	Fill   *fillAsk   `json:",omitempty"`
}

type signalAsk struct {
	Name   string
	Signal syscall.Signal
}

// fillAsk takes all free room of a disk, or gives it back.
type fillAsk struct {
	Disk   string
	IsFree bool // give it back
}

// answer is the host's: to an ask with the same Seq, or, with Seq 0, that something
// ended. The answer to Setup carries the descriptors of the TAP devices.
type answer struct {
	Seq    int
	Err    string           `json:",omitempty"`
	Absent bool             `json:",omitempty"` // Err is ErrNoProcess
	Procs  []ProcState      `json:",omitempty"`
	Writes map[string]int64 `json:",omitempty"` // bytes written to each disk since boot
	Ended  *Ended           `json:",omitempty"`
}

// maxPacket bounds a message: what a socket of this kind carries in one piece, and far
// more than the names of 64 hosts need.
const maxPacket = 128 << 10

// send writes one message with descriptors.
func send(c *net.UnixConn, m any, files ...*os.File) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(data) > maxPacket {
		return fmt.Errorf("message of %d bytes, at most %d", len(data), maxPacket)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = syscall.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// receive reads one message and the descriptors that came with it.
func receive(c *net.UnixConn, m any) ([]int, error) {
	buf, oob := make([]byte, maxPacket+1), make([]byte, 1024)
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	switch {
	case err != nil:
		return nil, fmt.Errorf("receive: %w", err)
	case n == 0:
		return nil, net.ErrClosed
	case flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0:
		return nil, errors.New("receive: the message is cut")
	}
	if err := json.Unmarshal(buf[:n], m); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	var fds []int
	for i := range messages {
		got, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, fmt.Errorf("read descriptors: %w", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}
